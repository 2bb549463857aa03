"""The meter's arithmetic: reservations and charges against limits, per account, unit and window of time.

A job's use is debited to a list of accounts at once (the grant's and the dataset's; with delegation every
ancestor's), or to none. Per account and unit there is one balance for all time and one per UTC day, each of
two parts: ``posted`` has been used, ``pending`` is reserved. posted + pending never exceeds the limit. All
amounts are int64. Pure functions over balances; the writer loads and stores them in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from trustcompute.broker.grant import Limit
from trustcompute.errors import LocalProtocolError, StoreError
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import MAX_AMOUNT, UNITS, Usage

TOTAL: Final = -1  # the window of all time; other windows are numbers of UTC days since 1970
DAY: Final = 86400
NO_LIMIT: Final = Limit()


class BalanceKey(NamedTuple):
    account: str
    window: int
    unit: str


@dataclass(frozen=True, slots=True)
class Balance:
    """posted + pending <= limit, always; ``limit`` is 2^63 - 1 where nothing limits."""

    posted: int = 0
    pending: int = 0
    limit: int = MAX_AMOUNT

    @property
    def left(accounts: Sequence[Account], day: int, balances: Balances) -> dict[str, dict[str, int]]:
    """What could be reserved now by unit and span, where any of the accounts limits it: the least of them."""
    found: dict[str, dict[str, int]] = {}
    for account in accounts:
        for unit, limit in account.limits.items():
            spans = found.setdefault(unit, {})
            for span, window, bound in (
                ("per_call", None, limit.per_call),
                ("per_day", day, limit.per_day),
                ("total", TOTAL, limit.total),
            ):
                if bound is None:
                    continue
                balance = Balance() if window is None else balances.get(BalanceKey(account.name, window, unit), Balance())
                remains = max(bound - balance.posted - balance.pending, 0)
                spans[span] = min(spans.get(span, remains), remains)
    return found


def usage_document(usage: Usage) -> dict[str, Any]:
    """Usage as documents and the book carry it: units that are not zero."""
    return {unit: canonical.integer(amount) for unit, amount in _used(usage)}


def parse_usage(document: Mapping[str, Any]) -> Usage:
    """The inverse of ``usage_document``. Raises ``DocumentError``."""
    unknown = set(document) - set(UNITS)
    if unknown:
        raise canonical.DocumentError(f"unknown unit of usage: the units are {', '.join(UNITS)}", "usage")
    try:
        return Usage(**{unit: canonical.parse_integer(amount, unit) for unit, amount in document.items()})
    except ValueError as error:
        raise canonical.DocumentError(str(error), "usage") from error


def _used(usage: Usage) -> list[tuple[str, int]]:
    return [(unit, amount) for unit in UNITS if (amount := getattr(usage, unit))]
