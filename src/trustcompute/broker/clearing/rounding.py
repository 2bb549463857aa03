"""Rounding, once per period: whole minor units, every line, payer and payee within one of its exact amount.

First the lines of each payer by the largest remainder (Hamilton's method), ties by lot. Where that leaves a payee,
or a payer with negative residuals, more than one unit off, single units are moved along the shortest paths of lines
until nobody is. That this always succeeds is the theorem of controlled rounding: a matrix can be rounded so that
entries, row sums and column sums each go to their floor or ceiling (Bacharach 1966; Cox 1987). Here it is a flow
with integral bounds, for which the exact amounts themselves are a feasible solution.

Nothing depends on the order in which lines are given.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from trustcompute.primitives import canonical

if TYPE_CHECKING:
    from trustcompute.broker.clearing.statement import Account, Period


def apportion(period: Period, owed: Mapping[Account, Fraction]) -> dict[Account, int]:
    """Round the lines of each payer and currency together by the largest remainder.

    Lines owed nothing or less (a residual carried from an upward rounding) get 0 and keep what they carry. Each
    amount is at least the floor and at most the ceiling of what is owed. This alone is how periods of statement
    form 1 were closed.
    """
    groups: dict[tuple[str, str], list[tuple[int, int, Account]]] = defaultdict(list)
    amounts = dict.fromkeys(owed, 0)
    for account, exact in owed.items():
        top, bottom = exact.as_integer_ratio()
        if top > 0:
            amounts[account], over = divmod(top, bottom)
            groups[account.payer, account.currency].append((over, bottom, account))
    for found in groups.values():
        common = math.lcm(
            *{bottom for _, bottom, _ in found}
        )  # bounded by what was declared: ``denominators``
        lines = [(-over * (common // bottom), account) for over, bottom, account in found]
        units = -sum(remainder for remainder, _ in lines) // common
        for account in _largest(period, lines, units):
            amounts[account] += 1
    return amounts


def balanced(period: Period, owed: Mapping[Account, Fraction]) -> dict[Account, int]:
    """As ``apportion``, and then every party within one unit of what all its lines together are owed.

    A line owed less than nothing (-1 < residual < 0) may get -1: a unit too much in the period before comes back.
    """
    amounts = apportion(period, owed)
    by_currency: dict[str, list[Account]] = defaultdict(list)
    for account in owed:
        by_currency[account.currency].append(account)
    for accounts in by_currency.values():
        _Balance(period, owed, amounts, accounts).settle()
    return amounts


class Side(NamedTuple):
    """A party as payer or as payee: two nodes of the graph."""

    pays: bool
    party: str


_State = tuple[Side, int]  # a side that must change by this much


class _Balance:
    """Lines of one currency as a graph: payers and payees are nodes, lines that can still go up or down edges."""

    def __init__(
        self,
        period: Period,
        owed: Mapping[Account, Fraction],
        amounts: dict[Account, int],
        accounts: list[Account],
    ) -> None:
        self._period, self._owed, self._amounts, self._accounts = period, owed, amounts, accounts
        payers, payees = _Totals(), _Totals()
        for account in accounts:
            top, bottom = owed[account].as_integer_ratio()
            amount = amounts[account]
            payers.add(account.payer, top, bottom, amount)
            payees.add(account.payee, top, bottom, amount)
        totals = [
            (Side(pays, party), total)
            for pays, found in ((True, payers), (False, payees))
            for party, total in found.by_party.items()
        ]
        self.sums = {side: total[0][0] for side, total in totals}
        exact = {side: _sum(total[1]) for side, total in totals}
        self._low = {side: math.floor(each) for side, each in exact.items()}
        self._high = {side: math.ceil(each) for side, each in exact.items()}
        self._lines: dict[Side, list[Account]] | None = None

    def settle(self) -> None:
        """Move units until every side is between floor and ceiling of what it is owed."""
        off = [
            side for side in sorted(self.sums) if not self._low[side] <= self.sums[side] <= self._high[side]
        ]
        for side in off:
            while self.sums[side] > self._high[side]:
                self._move(side, -1)
            while self.sums[side] < self._low[side]:
                self._move(side, 1)

    def _move(self, start: Side, step: int) -> None:
        """Change ``start`` by ``step``, and along alternating lines whatever else must change for it."""
        came: dict[_State, tuple[_State, Account]] = {}
        queue = deque([(start, step)])
        while queue:
            here = queue.popleft()
            side, change = here
            for account in self._of(side):
                if not self._can(account, change):
                    continue
                other = _sides(account)[0 if not side.pays else 1]
                if self._bears(other, change):
                    self._apply(account, change)
                    self._follow(here, came)
                    return
                there = (other, -change)
                if there not in came and other != start:
                    came[there] = here, account
                    queue.append(there)
        raise AssertionError("the exact amounts are a feasible flow, so there is a path")

    def _follow(self, end: _State, came: Mapping[_State, tuple[_State, Account]]) -> None:
        """Change all lines of the path that led to ``end``."""
        while end in came:
            end, account = came[end]
            self._apply(account, end[1])

    def _apply(self, account: Account, change: int) -> None:
        self._amounts[account] += change
        for side in _sides(account):
            self.sums[side] += change

    def _can(self, account: Account, change: int) -> bool:
        exact, amount = self._owed[account], self._amounts[account]
        return exact.denominator > 1 and -1 < amount + change - exact < 1

    def _bears(self, side: Side, change: int) -> bool:
        """Whether a side stays within, or comes closer to, what it is owed."""
        after = self.sums[side] + change
        return after <= self._high[side] if change > 0 else after >= self._low[side]

    def _of(self, side: Side) -> list[Account]:
        """Lines of a side that are not whole, in the order of their lots."""
        if self._lines is None:
            lines: dict[Side, list[Account]] = defaultdict(list)
            fractional = [each for each in self._accounts if self._owed[each].denominator > 1]
            for account in sorted(fractional, key=lambda each: _lot(self._period, each)):
                for each in _sides(account):
                    lines[each].append(account)
            self._lines = lines
        return self._lines[side]


def _sides(account: Account) -> tuple[Side, Side]:
    return Side(True, account.payer), Side(False, account.payee)


def _largest(period: Period, lines: list[tuple[int, Account]], units: int) -> Iterator[Account]:
    """The lines with the largest remainders (here negative, of one denominator); only where they tie is a lot drawn."""
    lines.sort(key=_remainder)
    if 0 < units < len(lines) and lines[units - 1][0] == lines[units][0]:
        tied = lines[units][0]
        first = next(index for index, line in enumerate(lines) if line[0] == tied)
        last = next((index for index, line in enumerate(lines) if line[0] > tied), len(lines))
        lines[first:last] = sorted(lines[first:last], key=lambda line: _lot(period, line[1]))
    return (account for _, account in lines[:units])


_remainder: Callable[[tuple[int, Any]], int] = lambda line: line[0]  # noqa: E731


class _Totals:
    """Of each party: the sum of its rounded lines, and of its exact ones their numerators by denominator."""

    def __init__(self) -> None:
        self.by_party: dict[str, tuple[list[int], dict[int, int]]] = {}

    def add(self, party: str, top: int, bottom: int, amount: int) -> None:
        found = self.by_party.get(party)
        if found is None:
            found = self.by_party[party] = ([0], {})
        rounded, tops = found
        rounded[0] += amount
        tops[bottom] = tops.get(bottom, 0) + top


def _sum(by_denominator: Mapping[int, int]) -> Fraction:
    """A sum whose denominators are brought together once for each, not at every step."""
    return sum((Fraction(top, bottom) for bottom, top in sorted(by_denominator.items())), Fraction())


def _lot(period: Period, account: Account) -> bytes:
    """Of the canonical list of what is hashed."""
    payer, payee, currency = map(canonical.string, account)
    return hashlib.sha256(f"[{period.start},{period.end},{payer},{payee},{currency}]".encode()).digest()
