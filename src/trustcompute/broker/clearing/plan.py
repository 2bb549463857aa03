"""Price plans: what a use costs, exactly. Kinds and terms are the documents' (``grant.PricePlan``).

Called by ``record`` for every use of the log, and by quotes. What a tier or an allowance has used up counts within
the plan's own window, by the grant's root, so that neither periods nor delegations can multiply it.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from trustcompute.broker.grant import PricePlan, Tier
from trustcompute.protocol.operation import Usage

NOTHING: Final = Fraction()
_DAY: Final = 86_400
_FEBRUARY_28: Final = 28


def rate(plan: PricePlan, usage: Usage, purpose: str = "", used: tuple[int, int] = (0, 0)) -> Fraction:
    """What this usage costs, exact, in minor units of the plan's currency.

    used: calls and rows before it in the plan's window. Yearly fees and revenue are not usage: ``fees``, ``record``.
    """
    if plan.kind == "conditional":
        if purpose in (plan.free_for or ()):
            return NOTHING
        calls = _beyond(usage.calls, used[0], plan.free_calls)
        rows = _beyond(usage.rows, used[1], plan.free_rows)
        return _flat(plan.per_call, plan.per_row, calls, rows)
    flat = _flat(plan.per_call, plan.per_row, usage.calls, usage.rows)
    if plan.tiers is None:
        return flat
    before = used[0] if plan.unit == "calls" else used[1]
    more = usage.calls if plan.unit == "calls" else usage.rows
    return flat + tiered(plan.tiers, before + more) - tiered(plan.tiers, before)


def most(plan: PricePlan, usage: Usage) -> Fraction:
    """The most this usage may cost, whatever was used before: no allowance left, all of it in the dearest tier."""
    flat = _flat(plan.per_call, plan.per_row, usage.calls, usage.rows)
    if plan.tiers is None:
        return flat
    units = usage.calls if plan.unit == "calls" else usage.rows
    return flat + units * max(Fraction(tier.rate) for tier in plan.tiers)


def tiered(tiers: tuple[Tier, ...], units: int) -> Fraction:
    """What the first ``units`` of a window cost: each at the rate of its tier."""
    total, start = NOTHING, 0
    for tier in tiers:
        end = units if tier.upto is None else min(units, tier.upto)
        if end > start:
            total += (end - start) * Fraction(tier.rate)
            start = end
    return total


@dataclass(slots=True)
class Meter:
    """One grant's plan and what its current window has used; asked in the order of the log."""

    plan: PricePlan
    window: int = 0
    calls: int = 0
    rows: int = 0

    def rate(self, usage: Usage, purpose: str, time: int) -> Fraction:
        """As ``rate``, and counts the usage."""
        if self.plan.window is None:
            return rate(self.plan, usage, purpose)
        window = window_of(self.plan.window, time)
        if window != self.window:
            self.window, self.calls, self.rows = window, 0, 0
        amount = rate(self.plan, usage, purpose, (self.calls, self.rows))
        if purpose not in (self.plan.free_for or ()):  # what is free anyway does not use up an allowance
            self.calls += usage.calls
            self.rows += usage.rows
        return amount


def window_of(window: str, time: int) -> int:
    """Which window a time (seconds since 1970) lies in: a number that differs from the next one's."""
    return 0 if window == "grant" else _window_of_day(window, time // _DAY)


@functools.lru_cache(maxsize=4096)
def _window_of_day(window: str, day: int) -> int:
    date = datetime.datetime.fromtimestamp(day * _DAY, datetime.UTC)
    return date.year * 12 + date.month if window == "month" else date.year


def fees(start: int, end: int) -> Iterator[int]:
    """When yearly fees fall due: at ``start`` and its anniversaries (UTC) before ``end``; 29 February counts as 28."""
    first = datetime.datetime.fromtimestamp(start, datetime.UTC)
    for year in range(first.year, datetime.MAXYEAR + 1):
        leap = first.month == 2 and first.day > _FEBRUARY_28
        date = first.replace(year=year, day=_FEBRUARY_28 if leap and year != first.year else first.day)
        due = int(date.timestamp())
        if due >= end:
            return
        yield due


def _beyond(amount: int, used: int, free: int | None) -> int:
    """How much of ``amount`` is beyond what is free, when ``used`` came before; nothing is free where it is absent."""
    if free is None:
        return amount
    return max(0, used + amount - free) - max(0, used - free)


@functools.lru_cache(maxsize=4096)
def _flat(per_call: str, per_row: str, calls: int, rows: int) -> Fraction:
    return Fraction(per_call) * calls + Fraction(per_row) * rows
