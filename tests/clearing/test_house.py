"""The clearing house on a real book: disputes, settlements, adjustments, pools, revenue, payments; and refusals."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from trustcompute.broker.clearing import Account, Period, claims
from trustcompute.broker.grant import PricePlan, Share, hash_of
from trustcompute.errors import Conflict, GrantError, ParameterError, TrustcomputeError
from trustcompute.primitives.signing import SigningKey

DAY = 86_400


@pytest.fixture
def market(world: Any) -> Any:
    """Two charged jobs of 100 and 200 fen, shared by the bureau, a fund and a pool."""
    broker = world.broker()
    split = [
        Share(party=world.bureau.thumbprint, share="1/2"),
        Share(party="public:fund", share="1/4"),
        Share(party="pool:holders", share="1/4"),
    ]
    price = PricePlan(kind="per_use", currency="CNY", per_row="1")
    grant = broker.issue(world.claims(limits={}, price=price, split=split))
    start = world.clock.time // DAY * DAY
    entries = [world.posted(broker, grant, rows=rows).entry for rows in (100, 200)]
    return world, broker, broker.clearing, start, entries


def disputed(world: Any, entries: list[int], key: SigningKey | None = None, **changes: Any) -> str:
    terms = {"audience": "bureau.example", "entries": entries, "reason": "not ours", "now": world.clock.time}
    return claims.dispute(**terms | {"key": key or world.bank.key} | changes)


def weigh(house: Any, start: int, **weights: str) -> int:
    exact = {party: Fraction(weight) for party, weight in (weights or {"h1": "1/3", "h2": "2/3"}).items()}
    index: int = house.weigh("pool:holders", start, start + DAY, exact, method="shapley", evidence="ab" * 32)
    return index


def test_a_disputed_use_is_held_back_and_billed_when_it_is_settled(market: Any) -> None:
    world, broker, house, start, entries = market
    token = disputed(world, [entries[1]])
    name = house.dispute(token)
    assert house.dispute(token) == name
    weigh(house, start)
    world.clock.time += DAY
    first = house.close(start, start + DAY)
    assert first.totals() == {"CNY": 100}
    assert sum(posting.amount for posting in first.held) == 200 and {p.index for p in first.held} == {
        entries[1]
    }
    assert house.settle(name, owed="1/2", reason="half of it was ours") == []
    weigh(house, start + DAY)
    world.clock.time += DAY
    second = house.close(start + DAY, start + 2 * DAY)
    assert second.totals() == {"CNY": 100}  # half of 200
    assert broker.audit().periods == (first.period, second.period)
    with pytest.raises(Conflict, match="was settled"):
        house.settle(name, owed="0", reason="again")
    with pytest.raises(ParameterError, match="disputed already"):
        house.dispute(disputed(world, [entries[1]], reason="once more"))


def test_a_dispute_of_a_closed_period_freezes_lines_and_is_settled_by_adjustments(market: Any) -> None:
    world, broker, house, start, entries = market
    weigh(house, start)
    world.clock.time += DAY
    first = house.close(start, start + DAY)
    assert {line.account.payee: line.amount for line in first.lines} == {
        world.bureau.thumbprint: 150,
        "public:fund": 75,
        "h1": 25,
        "h2": 50,
    }
    name = house.dispute(disputed(world, [entries[0]]))
    with pytest.raises(ParameterError, match="paid, or frozen"):
        house.net(start, start + DAY)
    back = house.settle(name, owed="0", reason="the data were wrong")
    assert {posting.account.payer: posting.amount for posting in back} == {
        world.bureau.thumbprint: 50,
        "public:fund": 25,
        "h1": Fraction(25, 3),
        "h2": Fraction(50, 3),
    }
    paid = house.net(start, start + DAY)
    assert sum(payment.amount for payment in paid.payments) == 300
    with pytest.raises(ParameterError, match="paid, or frozen"):
        house.net(start, start + DAY)
    world.clock.time += DAY
    second = house.close(start + DAY, start + 2 * DAY)
    assert house.statement(start, start + DAY) == first  # nothing closed is changed
    assert second.totals() == {"CNY": 100} and len(second.adjustments) == 4
    assert {line.account.payee for line in second.lines} == {world.bank.thumbprint}
    assert len(broker.audit().periods) == 2
    types = [entry.type for entry in broker.entries()]
    assert types.count("adjustment.posted") == 4 and types.count("netting.run") == 1


def test_only_who_pays_or_shares_may_dispute(market: Any) -> None:
    world, broker, house, _, entries = market
    stranger = SigningKey.generate()
    with pytest.raises(GrantError, match="neither pays nor shares"):
        house.dispute(disputed(world, entries, stranger))
    with pytest.raises(GrantError, match="addressed to"):
        house.dispute(disputed(world, entries, audience="other.example"))
    token = disputed(world, entries)
    altered = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    with pytest.raises(GrantError):
        house.dispute(altered)
    with pytest.raises(ParameterError, match="bills nothing"):
        house.dispute(disputed(world, [0]))
    with pytest.raises(ParameterError, match="named once"):
        disputed(world, [entries[0], entries[0]])
    assert "dispute.opened" not in {entry.type for entry in broker.entries()}
    assert house.dispute(disputed(world, entries, world.bureau.key))


def test_adjustments_are_exact_and_refused_where_they_make_no_sense(market: Any) -> None:
    _, broker, house, start, entries = market
    terms = {"payer": "h1", "payee": "h2", "currency": "CNY", "amount": "10.5", "reason": "typing error"}
    before = len(broker.entries())
    for change, reason in [
        ({"currency": "XYZ"}, "no currency"),
        ({"amount": "-1"}, "from 0 to"),
        ({"amount": "0"}, "positive"),
        ({"amount": "a lot"}, "write a decimal"),
        ({"amount": "1/7000000000001"}, "denominator"),
        ({"payee": "h1"}, "themselves"),
        ({"refers": 10**6}, "none with index"),
        ({"reason": ""}, "1 to 200"),
        ({"payer": "x" * 129}, "at most 128"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            house.adjust(**terms | change)
    assert len(broker.entries()) == before
    house.adjust(**terms, refers=entries[0])
    (posting,) = house.statement(start, start + DAY).adjustments
    assert (posting.account, posting.amount) == (Account("h1", "h2", "CNY"), Fraction(21, 2))


def test_a_pool_needs_weights_before_its_period_is_closed(market: Any) -> None:
    world, broker, house, start, _ = market
    open_ = house.statement(start, start + DAY)
    assert {line.account.payee: line.amount for line in open_.lines}["pool:holders"] == 75
    world.clock.time += DAY
    with pytest.raises(ParameterError, match="no weights for this period"):
        house.close(start, start + DAY)
    for weights, reason in [
        ({"h1": "1/3", "h2": "1/3"}, "sum to exactly 1"),
        ({"h1": "4/3", "h2": "-1/3"}, "positive"),
        ({"pool:x": "1"}, "not by another pool"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            weigh(house, start, **weights)
    weigh(house, start)
    with pytest.raises(ParameterError, match="weights do not change"):
        weigh(house, start)
    house.close(start, start + DAY)
    with pytest.raises(ParameterError, match="closed until"):
        house.weigh("pool:other", start, start + DAY, {"a": Fraction(1)}, method="equal")
    with pytest.raises(ParameterError, match="is named pool:NAME"):
        house.weigh("other", start + DAY, start + 2 * DAY, {"a": Fraction(1)}, method="equal")
    assert broker.audit()


def test_revenue_is_declared_by_the_grantee_once(world: Any) -> None:
    broker = world.broker()
    price = PricePlan(kind="revenue_share", currency="EUR", rate="1/10")
    grant = hash_of(broker.issue(world.claims(price=price)))
    now = world.clock.time
    terms = {
        "audience": "bureau.example",
        "grant": grant,
        "start": now - 100,
        "end": now,
        "amount": 5000,
        "now": now,
    }
    broker.clearing.declare(claims.revenue(**terms, key=world.bank.key))
    start = now // DAY * DAY
    assert broker.statement(start, start + DAY).totals() == {"EUR": 500}
    for changes, reason in [
        ({"key": world.bank.key, "start": now - 1}, "declared before"),
        ({"key": world.bureau.key, "start": now - 300, "end": now - 200}, "nobody else"),
        ({"key": world.bank.key, "grant": "ab" * 32}, "no such grant"),
    ]:
        with pytest.raises(GrantError, match=reason):
            broker.clearing.declare(claims.revenue(**terms | changes))
    with pytest.raises(ParameterError, match="that is over"):
        claims.revenue(**terms | {"end": now + 1}, key=world.bank.key)
    assert broker.audit()


def test_periods_do_not_overlap_and_payments_need_a_closed_one(market: Any) -> None:
    world, _, house, start, _ = market
    with pytest.raises(ParameterError, match="close it first"):
        house.net(start, start + DAY)
    weigh(house, start)
    world.clock.time += DAY
    house.close(start, start + DAY)
    for wrong in ((start, start + 2 * DAY), (start + 1, start + 3)):
        with pytest.raises(TrustcomputeError, match="closed until"):
            house.close(*wrong)
    assert house.record().closing(Period(start, start + DAY)) is not None
