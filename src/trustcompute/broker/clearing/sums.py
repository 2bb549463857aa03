"""Exact sums over the uses of a period. Numerators are added by denominator, which most amounts share.

Used by ``record`` for statements: one use alone is kept as it is, since most keys of a long tail have one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from trustcompute.broker.clearing.statement import Account, Row
from trustcompute.broker.clearing.terms import Terms, Use

_FREE: Final = Fraction()


class Sums:
    """Exact sums by (payer, grant, height): numerators by denominator, which most amounts share; one alone as it is."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, int], Fraction | dict[int, int]] = {}

    def add(self, use: Use) -> None:
        if use.pieces:
            for height, amount in use.pieces:
                self._add((use.payer, use.grant, height), amount)
        elif use.amount:
            self._add((use.payer, use.grant, 0), use.amount)

    def _add(self, key: tuple[str, str, int], amount: Fraction) -> None:
        found = self._sums.get(key)
        if found is None:
            self._sums[key] = amount
        elif isinstance(found, dict):
            _count(found, amount)
        else:
            self._sums[key] = _count(_count({}, found), amount)

    def items(self) -> Iterator[tuple[tuple[str, str, int], Fraction]]:
        for key, tops in self._sums.items():
            yield key, _total(tops) if isinstance(tops, dict) else tops


@dataclass(slots=True)
class _Counts:
    """Of several uses. tops: numerators of their amounts by denominator."""

    jobs: int = 0
    calls: int = 0
    rows: int = 0
    tops: dict[int, int] = field(default_factory=dict)

    def add(self, use: Use) -> None:
        self.jobs += 1
        self.calls += use.usage.calls
        self.rows += use.usage.rows
        _count(self.tops, use.amount)


class Rows:
    """Use summed up by payer, grant and operation; one alone is kept as it is."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Use | _Counts] = {}

    def add(self, use: Use) -> None:
        key = (use.payer, use.grant, use.operation)
        found = self._found.get(key)
        if found is None:
            self._found[key] = use
        elif isinstance(found, _Counts):
            found.add(use)
        else:
            self._found[key] = counts = _Counts()
            counts.add(found)
            counts.add(use)

    def rows(self, terms: Mapping[str, Terms]) -> Iterator[Row]:
        for key in sorted(self._found):
            payer, grant, operation = key
            currency, found = terms[grant].price.currency or "", self._found[key]
            if isinstance(found, _Counts):
                total = _total(found.tops)
                yield Row(payer, grant, operation, currency, found.jobs, found.calls, found.rows, total)
            else:
                usage = found.usage
                yield Row(payer, grant, operation, currency, 1, usage.calls, usage.rows, found.amount)


def _count(tops: dict[int, int], amount: Fraction) -> dict[int, int]:
    top, bottom = amount.as_integer_ratio()
    tops[bottom] = tops.get(bottom, 0) + top
    return tops


def add(owed: dict[Account, Fraction], account: Account, amount: Fraction) -> None:
    before = owed.get(account)
    owed[account] = amount if before is None else before + amount


def _total(tops: Mapping[int, int]) -> Fraction:
    if len(tops) == 1:
        ((bottom, top),) = tops.items()
        return Fraction(top, bottom)
    return sum((Fraction(top, bottom) for bottom, top in sorted(tops.items())), _FREE)
