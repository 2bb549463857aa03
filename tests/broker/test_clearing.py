"""Money: exact until the end, rounded once, conserved always."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trustcompute.broker import log
from trustcompute.broker.clearing import Account, Clearing, Period, apportion, closing_entries, rate
from trustcompute.broker.grant import Limit, PricePlan, Share
from trustcompute.broker.job import Fault
from trustcompute.errors import AuditError, ParameterError
from trustcompute.protocol.operation import Usage

PERIOD = Period(0, 100)
BANK, BUREAU = "payer", "bureau"

accounts = st.builds(
    Account,
    st.sampled_from(["p1", "p2"]),
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from(["CNY", "EUR"]),
)
owed_amounts = st.dictionaries(
    accounts, st.fractions(min_value=-1, max_value=1000, max_denominator=60), min_size=1, max_size=10
)


@pytest.mark.property
@given(owed_amounts, st.randoms())
@settings(max_examples=150, deadline=None)
def test_rounding_keeps_whole_units_of_every_payer_and_ignores_the_order(owed: Any, random: Any) -> None:
    amounts = apportion(PERIOD, owed)
    assert amounts.keys() == owed.keys()
    groups: dict[tuple[str, str], list[Account]] = defaultdict(list)
    for account, exact in owed.items():
        groups[account.payer, account.currency].append(account)
        assert (
            amounts[account] in (math.floor(exact), math.ceil(exact)) if exact > 0 else amounts[account] == 0
        )
    for members in groups.values():
        positive = sum(owed[account] for account in members if owed[account] > 0)
        assert sum(amounts[account] for account in members) == math.floor(positive)
    shuffled = list(owed.items())
    random.shuffle(shuffled)
    assert apportion(PERIOD, dict(shuffled)) == amounts


def test_the_largest_remainders_get_the_units() -> None:
    owed = {
        Account("p", name, "CNY"): Fraction(tenths, 10)
        for name, tenths in zip("abc", [16, 19, 15], strict=True)
    }
    amounts = apportion(PERIOD, owed)
    assert [amounts[Account("p", name, "CNY")] for name in "abc"] == [2, 2, 1]


def test_ties_go_by_lot_not_by_who_is_listed_first() -> None:
    winners = set()
    for start in range(40):
        owed = {Account("p", name, "CNY"): Fraction(1, 3) for name in "abc"}
        amounts = apportion(Period(start, 100), owed)
        winners |= {account.payee for account, amount in amounts.items() if amount}
    assert winners == {"a", "b", "c"}


def entry(index: int, kind: str, time: int, **fields: Any) -> log.Entry:
    body = log.encode(kind, time, fields)
    return log.decode(index, body)


def grant_entry(index: int, *, per_call: str, shares: dict[str, str], name: str = "g") -> log.Entry:
    price = PricePlan(kind="per_use", currency="CNY", per_call=per_call)
    split = [Share(party=party, share=share) for party, share in shares.items()]
    return entry(
        index,
        "grant.issued",
        0,
        grant=name,
        price=price.to_document(),
        split=[share.to_document() for share in split],
    )


def use_entry(index: int, time: int, *, payer: str = BANK, grant: str = "g", **fields: Any) -> log.Entry:
    terms = {"grant": grant, "payer": payer, "operation": "op", "usage": {"calls": 1}} | fields
    return entry(index, terms.pop("kind", "job.posted"), time, **terms)


def test_rounding_once_does_not_cheat_whoever_is_listed_last() -> None:
    """Three equal shares of small events: rounding each event gave the first 46 %, rounding once a third."""
    events = 3000
    record = Clearing.of([grant_entry(0, per_call="1", shares={"a": "1/3", "b": "1/3", "c": "1/3"})])
    for index in range(1, events + 1):
        record.feed(use_entry(index, 10, usage={"calls": 1 + index % 5}))
    amounts = {line.account.payee: line.amount for line in record.statement(PERIOD).lines}
    total = sum(1 + index % 5 for index in range(1, events + 1))
    assert amounts == dict.fromkeys("abc", total // 3)


@pytest.mark.property
@given(
    st.lists(
        st.tuples(
            st.integers(0, 299), st.sampled_from(["p1", "p2"]), st.sampled_from(["g", "h"]), st.integers(1, 9)
        ),
        max_size=40,
    )
)
@example(
    [
        (0, "p1", "g", 1),
        (0, "p1", "h", 8),
        (0, "p2", "h", 1),
        (100, "p1", "h", 3),
        (200, "p1", "g", 5),
        (200, "p1", "h", 4),
    ]
)
@settings(max_examples=60, deadline=None)
def test_money_is_conserved_over_periods_and_residuals_carry(events: list[tuple[int, str, str, int]]) -> None:
    events.sort()
    record = Clearing.of(
        [
            grant_entry(0, per_call="1/7", shares={"a": "1/3", "b": "2/3"}),
            grant_entry(1, name="h", per_call="0.35", shares={"a": "1/2", "c": "1/2"}),
        ]
    )
    paid: dict[Account, int] = defaultdict(int)
    rated: dict[Account, Fraction] = defaultdict(Fraction)
    index = 2
    for start in (0, 100, 200):
        for time, payer, name, calls in (each for each in events if start <= each[0] < start + 100):
            record.feed(use_entry(index, time, payer=payer, grant=name, usage={"calls": calls}))
            index += 1
        statement = record.statement(Period(start, start + 100))
        parts, closing = closing_entries(statement)
        for part in parts:
            record.feed(entry(index, "period.lines", start + 100, **part))
            index += 1
        record.feed(entry(index, "period.closed", start + 100, **closing))
        index += 1
        assert record.statement(statement.period).hash == statement.hash
        net = statement.positions()
        assert sum(net.values()) == 0  # double entry
        for line in statement.lines:
            paid[line.account] += line.amount
            rated[line.account] += line.rated
            assert line.amount >= (0 if line.rated + line.carried >= 0 else -1)  # a unit too much comes back
            assert -1 < line.residual < 1
    last = {line.account: line.residual for line in statement.lines}
    for account, exact in rated.items():
        assert exact == paid[account] + last.get(account, 0)


def test_rating_is_exact() -> None:
    plan = PricePlan(kind="per_use", currency="CNY", per_call="0.1", per_row="1/3")
    assert rate(plan, Usage(calls=3, rows=10, bytes=99)) == Fraction(3, 10) + Fraction(10, 3)
    assert rate(PricePlan(kind="free"), Usage(calls=3, rows=10)) == 0


def test_only_the_peers_own_fault_is_billed() -> None:
    record = Clearing.of([grant_entry(0, per_call="5", shares={"a": "1"})])
    for index, fault in enumerate(Fault, start=1):
        record.feed(use_entry(index, 10, kind="job.forfeited", fault=fault.value))
    record.feed(entry(9, "job.voided", 10, grant="g"))
    (line,) = record.statement(PERIOD).lines
    assert line.amount == 5 and [use.index for use in record.uses] == [1]


def test_statements_sum_use_by_payer_grant_and_operation(world: Any) -> None:
    broker = world.broker()
    paid = broker.issue(world.claims(limits={}))
    free = broker.issue(world.claims(limits={}, price=PricePlan(kind="free"), split=()))
    for _ in range(2):
        world.posted(broker, paid)
    world.posted(broker, free, rows=50)
    start = world.clock.time // 86400 * 86400
    statement = broker.statement(start, start + 86400)
    assert not statement.closed
    by_currency = {row.currency: (row.jobs, row.calls, row.rows, row.rated) for row in statement.rows}
    assert by_currency == {"CNY": (2, 2, 200, Fraction(800, 3)), "": (1, 1, 50, Fraction())}
    # 2·(100 + 100/3) fen = 266 2/3: two thirds to the bureau, one third to the fund
    amounts = {line.account.payee: (line.rated, line.amount) for line in statement.lines}
    assert amounts == {
        world.bureau.thumbprint: (Fraction(1600, 9), 177),
        "public-fund": (Fraction(800, 9), 89),
    }
    assert statement.totals() == {"CNY": 266}
    assert statement.positions()[world.bank.thumbprint, "CNY"] == -266
    document = statement.to_document()
    assert document["lines"][0]["currency"] == "CNY" and {row["jobs"] for row in document["rows"]} == {1, 2}


def test_closing_a_period_is_final_recorded_and_audited(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    start = world.clock.time // 86400 * 86400
    world.posted(broker, grant)
    with pytest.raises(ParameterError, match="when it is over"):
        broker.close_period(start, start + 86400)
    world.clock.time += 86400
    first = broker.close_period(start, start + 86400)
    assert first.closed and first.totals() == {"CNY": 133}
    assert broker.close_period(start, start + 86400) == first == broker.statement(start, start + 86400)
    assert [entry.type for entry in broker.entries()].count("period.closed") == 1
    for wrong in ((start, start + 86400 * 2), (start + 1, start + 3), (0, start + 1)):
        with pytest.raises(ParameterError, match="closed until"):
            broker.close_period(*wrong)
    world.posted(broker, grant)
    world.clock.time += 86400
    with pytest.raises(ParameterError, match="never be billed"):
        broker.statement(start + 86400 * 2, start + 86400 * 3)
    second = broker.close_period(start + 86400, start + 86400 * 2)
    # 133 1/3 carried and due again: 266 2/3 in all, of which 133 have been paid
    assert sum(line.carried for line in second.lines) == Fraction(1, 3)
    assert second.totals() == {"CNY": 133} and sum(line.residual for line in second.lines) == Fraction(2, 3)
    report = broker.audit()
    assert report.periods == (first.period, second.period)


def test_the_first_period_may_not_skip_uses_either(world: Any) -> None:
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims()))
    with pytest.raises(ParameterError, match="never be billed"):
        broker.statement(world.clock.time + 1, world.clock.time + 2)


def test_statements_come_from_the_log_alone(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"rows": Limit(total=10**6)}))
    for rows in (1, 10, 100):
        world.posted(broker, grant, rows=rows)
    start = world.clock.time // 86400 * 86400
    alone = Clearing.of(broker.entries()).statement(Period(start, start + 86400))
    assert alone == broker.statement(start, start + 86400)


def test_a_closing_that_does_not_follow_is_found() -> None:
    entries = [grant_entry(0, per_call="5", shares={"a": "1"}), use_entry(1, 10)]
    statement = Clearing.of(entries).statement(PERIOD)
    parts, closing = closing_entries(statement)
    good = [entry(2, "period.lines", 100, **parts[0]), entry(3, "period.closed", 100, **closing)]
    assert len(Clearing.of(entries + good).closings) == 1
    missing_use = [entries[0], *good]
    with pytest.raises(AuditError, match="entry 3 closes a period"):
        Clearing.of(missing_use)
    forged = entry(3, "period.closed", 100, **closing | {"statement": "00" * 32})
    with pytest.raises(AuditError, match="entry 3"):
        Clearing.of([*entries, good[0], forged])


def test_many_lines_are_cut_into_entries_of_bounded_size() -> None:
    shares = {f"party-{i:04}" + "x" * 100: "1/50" for i in range(50)}
    entries = [grant_entry(0, per_call="7/11", shares=shares)]
    entries += [use_entry(i, 10, payer=f"payer-{i}" + "y" * 100) for i in range(1, 31)]
    statement = Clearing.of(entries).statement(PERIOD)
    parts, closing = closing_entries(statement)
    assert len(parts) > 5 and closing["lines"] == 1500
    bodies = [entry(31 + i, "period.lines", 100, **part) for i, part in enumerate(parts)]
    assert max(len(body.body) for body in bodies) <= log.MAX_ENTRY
    Clearing.of([*entries, *bodies, entry(99, "period.closed", 100, **closing)])


@pytest.mark.parametrize(("start", "end"), [(5, 5), (5, 4), (-1, 4)])
def test_a_period_ends_after_it_starts(start: int, end: int) -> None:
    with pytest.raises(ParameterError, match="ends after it starts"):
        Period(start, end)
