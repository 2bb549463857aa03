"""Any order of uses, disputes, settlements, adjustments, closings and payments: money is conserved exactly."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.clearing.conftest import Ledger
from trustcompute.broker.clearing import Account, Period
from trustcompute.broker.clearing.claims import DisputeClaim, RevenueClaim
from trustcompute.broker.clearing.commands import (
    Adjust,
    ClosePeriod,
    DeclareRevenue,
    Net,
    OpenDispute,
    SettleDispute,
    WeighPool,
)
from trustcompute.broker.grant import PricePlan, Share, Step, Tier
from trustcompute.errors import TrustcomputeError

KEY = "A" * 43
PLANS: dict[str, tuple[PricePlan, tuple[Share, ...]]] = {
    "use": (
        PricePlan(kind="per_use", currency="EUR", per_call="1/7"),
        (
            Share(party="a", share="1/3"),
            Share(party="b", share="1/3"),
            Share(party="public:fund", share="1/3"),
        ),
    ),
    "tiered": (
        PricePlan(
            kind="tiered",
            currency="EUR",
            unit="calls",
            window="grant",
            tiers=(Tier(upto=5, rate="7/3"), Tier(rate="0.35")),
        ),
        (
            Share(party="a", share="1/2", above=(Step(amount=10, share="1"),)),
            Share(party="p1", share="1/2", above=(Step(amount=10, share="0"),)),
        ),
    ),
    "pool": (
        PricePlan(kind="per_use", currency="CNY", per_call="0.9"),
        (Share(party="pool:x", share="3/5"), Share(party="b", share="2/5")),
    ),
    "revenue": (
        PricePlan(kind="revenue_share", currency="CNY", rate="1/9"),
        (Share(party="a", share="1/4"), Share(party="b", share="3/4")),
    ),
}
WEIGHTS = {"a": Fraction(1, 7), "c": Fraction(6, 7)}
Pair = tuple[str, str, str]


class Money(RuleBasedStateMachine):
    """Beside the ledger a model: what every pair of parties owes each other in the end, by independent arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.start = 0
        self.paid: dict[Pair, int] = defaultdict(int)  # by closed statements
        self.uses: dict[int, dict[Account, Fraction]] = {}
        self.adjusted: dict[Pair, Fraction] = defaultdict(Fraction)
        self.stands: dict[int, Fraction] = {}
        self.open: dict[str, list[int]] = {}
        self.cost: dict[str, Fraction] = defaultdict(Fraction)
        self.calls = 0
        self.settled: dict[Period, int] = defaultdict(int)
        for name, (price, split) in PLANS.items():
            self.ledger.grant(name, price, split)

    # The model's own arithmetic

    def _price(self, grant: str, calls: int) -> Fraction:
        if grant == "tiered":
            costs = [
                Fraction(7, 3) if n < 5 else Fraction(35, 100) for n in range(self.calls, self.calls + calls)
            ]
            self.calls += calls
            return sum(costs, Fraction())
        return calls * {"use": Fraction(1, 7), "pool": Fraction(9, 10)}[grant]

    def _shares(self, grant: str, payer: str, amount: Fraction) -> dict[Account, Fraction]:
        if grant == "tiered":
            low = min(max(10 - self.cost[grant], Fraction()), amount)
            self.cost[grant] += amount
            shares = {"a": amount - low / 2, "p1": low / 2}
        elif grant == "pool":
            shares = {"b": amount * Fraction(2, 5)}
            for party, weight in WEIGHTS.items():
                shares[party] = amount * Fraction(3, 5) * weight
        elif grant == "revenue":
            shares = {"a": amount / 4, "b": amount * 3 / 4}
        else:
            shares = dict.fromkeys(("a", "b", "public:fund"), amount / 3)
        currency = PLANS[grant][0].currency
        assert currency is not None
        return {Account(payer, payee, currency): share for payee, share in shares.items() if share}

    # Events

    @rule(
        grant=st.sampled_from(["use", "tiered", "pool"]),
        payer=st.sampled_from(["p1", "p2", "p3"]),
        calls=st.integers(0, 12),
        wait=st.integers(0, 3),
    )
    def use(self, grant: str, payer: str, calls: int, wait: int) -> None:
        self.ledger.now += wait
        index = self.ledger.use(grant, payer=payer, usage={"calls": calls})
        self.uses[index] = self._shares(grant, payer, self._price(grant, calls))

    @rule(amount=st.integers(0, 50))
    def revenue(self, amount: int) -> None:
        self.ledger.now += 2
        claims = RevenueClaim.model_construct(
            aud="n",
            grant="revenue",
            start=self.ledger.now - 1,
            end=self.ledger.now,
            amount=amount,
            iat=0,
            key=KEY,
        )
        index = self.ledger.apply(DeclareRevenue(claims, "grantee", f"r{self.ledger.size}"))
        self.uses[index] = self._shares("revenue", "grantee", Fraction(amount, 9))

    @precondition(lambda self: set(self.uses) - set(self.stands))
    @rule(data=st.data())
    def dispute(self, data: st.DataObject) -> None:
        free = sorted(set(self.uses) - set(self.stands))
        chosen = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=3, unique=True))
        claims = DisputeClaim(aud="n", entries=tuple(sorted(chosen)), reason="wrong", iat=0, key=KEY)
        by = {
            index: next(iter(self.ledger.clearing().parties(self.ledger.clearing().use(index))))
            for index in chosen
        }
        common = set.intersection(
            *(self.ledger.clearing().parties(self.ledger.clearing().use(index)) for index in chosen)
        )
        assert by
        if not common:
            with pytest.raises(TrustcomputeError):
                self.ledger.apply(OpenDispute(claims, "stranger", "t"))
            return
        name = self.ledger.apply(OpenDispute(claims, min(common), f"d{self.ledger.size}"))
        self.open[name] = chosen
        self.stands |= dict.fromkeys(chosen, Fraction(1))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), owed=st.sampled_from(["0", "1/3", "1/2", "1"]), wait=st.integers(0, 3))
    def settle(self, data: st.DataObject, owed: str, wait: int) -> None:
        self.ledger.now += wait
        name = data.draw(st.sampled_from(sorted(self.open)))
        self.ledger.apply(SettleDispute(name, Fraction(owed), "found"))
        for index in self.open.pop(name):
            self.stands[index] = Fraction(owed)

    @rule(
        payer=st.sampled_from("abp"),
        payee=st.sampled_from("abp"),
        amount=st.fractions(min_value=-1, max_value=30, max_denominator=9),
    )
    def adjust(self, payer: str, payee: str, amount: Fraction) -> None:
        command = Adjust(Account(payer, payee, "EUR"), amount, "correction", None)
        if amount <= 0 or payer == payee:
            with pytest.raises(TrustcomputeError):
                self.ledger.apply(command)
            return
        self.ledger.apply(command)
        self.adjusted[payer, payee, "EUR"] += amount

    @rule(length=st.integers(1, 5))
    def close(self, length: int) -> None:
        period = Period(self.start, self.start + length)
        self.ledger.now = max(self.ledger.now, period.end)
        if self.ledger.now > period.end:
            period = Period(self.start, self.ledger.now)
        if ("pool:x", period) not in self.ledger.clearing().weights:
            self.ledger.apply(WeighPool("pool:x", period, WEIGHTS, "shapley", None))
        statement = self.ledger.apply(ClosePeriod(period))
        self.start = period.end
        for line in statement.lines:
            self.paid[line.account] += line.amount
        assert not any(
            sum(amount for (_, c), amount in statement.positions().items() if c == each)
            for each in ("EUR", "CNY")
        )
        self._within_one_unit(statement)
        again = self.ledger.apply(ClosePeriod(period))
        assert again == statement

    def _within_one_unit(self, statement: Any) -> None:
        exact: dict[tuple[bool, str, str], Fraction] = defaultdict(Fraction)
        amounts: dict[tuple[bool, str, str], int] = defaultdict(int)
        for line in statement.lines:
            for side in ((True, line.account.payer), (False, line.account.payee)):
                exact[*side, line.account.currency] += line.rated + line.carried
                amounts[*side, line.account.currency] += line.amount
        assert all(math.floor(exact[side]) <= amounts[side] <= math.ceil(exact[side]) for side in exact)

    @precondition(lambda self: self.start)
    @rule(members=st.sets(st.sampled_from(["a", "b", "c", "p1", "p2"])), data=st.data())
    def net(self, members: set[str], data: st.DataObject) -> None:
        closed = [each.period for each in self.ledger.clearing().closings]
        period = data.draw(st.sampled_from(closed))
        try:
            made = self.ledger.apply(Net(period, tuple(sorted(members))))
        except TrustcomputeError:
            return  # all of it paid, or frozen
        gross: dict[tuple[str, str], int] = defaultdict(int)
        for account, amount in made.gross.items():
            gross[account.payer, account.currency] -= amount
            gross[account.payee, account.currency] += amount
        net = made.positions()
        assert {key: value for key, value in gross.items() if value} == {k: v for k, v in net.items() if v}

    # What must hold

    @invariant()
    def the_log_replays(self) -> None:
        self.ledger.clearing()

    def teardown(self) -> None:
        """When all disputes are settled and all periods closed, what was paid is what was owed."""
        for name in sorted(self.open):
            self.ledger.apply(SettleDispute(name, Fraction(1, 3), "end"))
            self.stands |= dict.fromkeys(self.open[name], Fraction(1, 3))
        self.close(1)
        self.close(1)
        closings = self.ledger.clearing().closings
        owed: dict[Pair, Fraction] = defaultdict(Fraction)
        for index, shares in self.uses.items():
            for account, amount in shares.items():
                owed[account] += amount * self.stands.get(index, Fraction(1))
        for pair, amount in self.adjusted.items():
            owed[pair] += amount
        found: dict[Pair, Fraction] = defaultdict(Fraction)
        for pair, amount in self.paid.items():
            found[pair] += amount
        for account, residual in closings[-1].residuals.items():
            found[account] += residual
        assert _between(found) == _between(owed)
        assert not self.ledger.clearing().frozen(closings[-1].period)


def _between(amounts: dict[Pair, Fraction]) -> dict[Pair, Fraction]:
    """Net by pair: what is given back runs the other way."""
    net: dict[Pair, Fraction] = defaultdict(Fraction)
    for (payer, payee, currency), amount in amounts.items():
        sign = 1 if payer < payee else -1
        net[min(payer, payee), max(payer, payee), currency] += sign * amount
    return {pair: amount for pair, amount in net.items() if amount and pair[0] != pair[1]}


TestMoney = pytest.mark.property(Money.TestCase)
TestMoney.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
