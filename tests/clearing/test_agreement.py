"""Quote, appraisal, agreement, acceptance: pinned to each other, and grants to what was agreed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest

from tests.clearing.conftest import Ledger
from trustcompute.broker.clearing import Clearing, Period, agreement
from trustcompute.broker.clearing.index import decimal, price_index, table
from trustcompute.broker.grant import PricePlan, Share
from trustcompute.errors import AuditError, GrantError, ParameterError
from trustcompute.primitives.signing import SigningKey

QUOTED = PricePlan(kind="per_use", currency="CNY", per_row="1/2")
SETTLED = PricePlan(kind="per_use", currency="CNY", per_row="1/3")


@dataclass
class Deal:
    """The documents of one negotiation; keyword arguments override terms."""

    world: Any
    valuer: SigningKey

    @property
    def split(self) -> tuple[Share, ...]:
        return (
            Share(party=self.world.bureau.thumbprint, share="3/4"),
            Share(party="public:fund", share="1/4"),
        )

    def quote(self, **changes: Any) -> str:
        terms: dict[str, Any] = {
            "audience": "bureau.example",
            "asset": "companies",
            "subject": self.world.bank.thumbprint,
            "price": QUOTED,
            "split": self.split,
            "key": self.world.bureau.key,
            "now": self.world.clock.time,
        }
        return agreement.quote(**terms | changes)

    def appraise(self, chain: str) -> str:
        now = self.world.clock.time
        return agreement.appraise(
            chain, low="0.2", high="0.6", unit="row", method="market", key=self.valuer, now=now
        )

    def agree(self, chain: str, **changes: Any) -> str:
        return agreement.agree(
            chain, **{"key": self.world.bureau.key, "now": self.world.clock.time} | changes
        )

    def accept(self, chain: str, key: SigningKey | None = None) -> str:
        return agreement.accept(chain, key=key or self.world.bank.key, now=self.world.clock.time)

    def made(self, **changes: Any) -> str:
        return self.accept(self.agree(self.appraise(self.quote(**changes)), price=SETTLED))

    def verify(self, chain: str) -> agreement.VerifiedAgreement:
        return agreement.verify(chain, provider=self.world.bureau.key.public, audience="bureau.example")


@pytest.fixture
def deal(world: Any) -> Deal:
    return Deal(world, SigningKey.generate())


def test_a_grant_is_issued_on_the_agreed_plan_or_not_at_all(deal: Deal) -> None:
    world = deal.world
    broker = world.broker()
    chain = deal.made()
    name = broker.clearing.agree(chain)
    assert broker.clearing.agree(chain) == name and broker.clearing.agreement(name) == chain
    before = len(broker.entries())
    for changes in ({}, {"price": QUOTED, "split": deal.split}, {"price": SETTLED, "split": deal.split[:1]}):
        with pytest.raises((GrantError, ParameterError), match=r"another plan|sum to exactly 1"):
            broker.issue(world.claims(**changes))
    assert len(broker.entries()) == before
    broker.issue(world.claims(price=SETTLED, split=deal.split[::-1]))
    broker.issue(world.claims(subject_key=deal.valuer.thumbprint))  # others are not bound
    world.clock.time += 366 * 86_400
    broker.issue(world.claims())  # it has ended
    assert broker.audit().entries["agreement.entered"] == 1


def test_a_later_agreement_takes_the_place_of_an_earlier_one(deal: Deal) -> None:
    broker = deal.world.broker()
    first = deal.made()
    broker.clearing.agree(first)
    deal.world.clock.time += 1
    broker.clearing.agree(deal.accept(deal.agree(deal.quote())))
    with pytest.raises(ParameterError, match="later agreement"):
        broker.clearing.agree(first)
    with pytest.raises(GrantError, match="another plan"):
        broker.issue(deal.world.claims(price=SETTLED, split=deal.split))
    broker.issue(deal.world.claims(price=QUOTED, split=deal.split))


def test_every_altered_document_is_refused(deal: Deal) -> None:
    chain = deal.made()
    assert deal.verify(chain).appraisals[0].method == "market"
    parts = chain.split("~")
    for place in range(len(parts)):
        body = parts[place]
        middle = body.index(".") + 20
        altered = body[:middle] + ("A" if body[middle] != "A" else "B") + body[middle + 1 :]
        with pytest.raises(GrantError):
            deal.verify("~".join([*parts[:place], altered, *parts[place + 1 :]]))
    for order in itertools.permutations(range(len(parts))):
        if list(order) != sorted(order):
            with pytest.raises(GrantError):
                deal.verify("~".join(parts[place] for place in order))
    for place in range(len(parts)):
        with pytest.raises(GrantError):
            deal.verify("~".join(parts[:place] + parts[place + 1 :]))


def test_documents_of_others_are_refused(deal: Deal) -> None:
    world = deal.world
    quoted = deal.appraise(deal.quote())
    agreed = deal.agree(quoted)
    with pytest.raises(GrantError, match="another consumer"):
        deal.accept(agreed, deal.valuer)
    with pytest.raises(GrantError, match="somebody else"):
        deal.agree(quoted, key=deal.valuer)
    with pytest.raises(GrantError, match="expired"):
        deal.agree(quoted, now=world.clock.time + 31 * 86_400)
    accepted = deal.accept(agreed)
    other = deal.accept(deal.agree(deal.appraise(deal.quote(asset="others"))))
    with pytest.raises(GrantError, match="another agreement was accepted"):
        deal.verify("~".join([*accepted.split("~")[:-1], other.split("~")[-1]]))
    with pytest.raises(GrantError, match="same quote"):
        deal.verify("~".join([other.split("~")[0], *accepted.split("~")[1:]]))
    with pytest.raises(GrantError, match="another provider"):
        agreement.verify(accepted, provider=deal.valuer.public, audience="bureau.example")
    with pytest.raises(GrantError, match="this node is"):
        agreement.verify(accepted, provider=world.bureau.key.public, audience="else.example")
    for changes, reason in [
        ({"split": deal.split[:1]}, "sum to exactly 1"),
        ({"days": 0}, "must end after"),
        ({"asset": ""}, "asset"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            deal.quote(**changes)
    with pytest.raises(ParameterError, match="from low to high"):
        agreement.appraise(deal.quote(), low="2", high="1", unit="row", method="cost", key=deal.valuer, now=1)
    with pytest.raises(ParameterError, match="no such agreement"):
        world.broker().clearing.agreement("ab" * 32)


def test_a_log_with_a_grant_on_another_plan_is_refused() -> None:
    book = Ledger()
    terms = {"agreement": "aa" * 32, "plan": "bb" * 32, "subject": "grantee", "asset": "d"}
    book.record("agreement.entered", terms | {"iat": 0, "exp": 10})
    book.now = 10
    book.grant("late", QUOTED, {"x": "1"}, asset="d")  # ended: anything goes
    book.record("agreement.entered", terms | {"iat": 10, "exp": 20})
    book.grant("g", QUOTED, {"x": "1"}, asset="d")
    with pytest.raises(AuditError, match="on another plan"):
        book.clearing()


def test_the_index_is_what_a_unit_came_to() -> None:
    book = Ledger()
    book.grant("cheap", PricePlan(kind="per_use", currency="EUR", per_row="1/2"), {"x": "1"})
    book.grant("dear", PricePlan(kind="per_use", currency="EUR", per_row="1"), {"x": "1"})
    for time, grant, payer in [(0, "cheap", "p"), (1, "cheap", "q"), (10, "cheap", "p"), (11, "dear", "q")]:
        book.now = time
        book.use(grant, payer=payer, usage={"calls": 1, "rows": 4})
    periods = [Period(0, 10), Period(10, 20), Period(20, 30)]
    points = price_index(Clearing.of(book.entries()), periods)
    assert [(point.units, point.unit_value, point.level) for point in points] == [
        (8, Fraction(1, 2), 100),
        (8, Fraction(3, 4), 150),
    ]
    assert table(points).column("index_decimal").to_pylist() == ["100.0000", "150.0000"]
    assert decimal(Fraction(2, 3), 2) == "0.67"
    assert price_index(Clearing.of(book.entries()), periods, min_payers=3) == []
