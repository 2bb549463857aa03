"""The meter's arithmetic: reservations and charges against limits, per account, unit and window of time.

A job's use is debited to a list of accounts at once (the grant's and the dataset's; with delegation every
ancestor's), or to none. Per account and unit there is one balance for all time and one per UTC day, each of
two parts: ``posted`` has been used, ``pending`` is reserved. posted + pending never exceeds the limit. All
amounts are int64. Pure functions over balances; the writer loads and stores them in one transaction.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


class Balance(NamedTuple):
    """posted + pending <= limit, always; ``limit`` is 2^63 - 1 where nothing limits."""

    posted: int = 0
    pending: int = 0
    limit: int = MAX_AMOUNT

    @property
    def left(self) -> int:
        return self.limit - self.posted - self.pending


UNUSED: Final = Balance()
_AMOUNTS: Final = {int, str}  # types, in documents
_made: Final = tuple.__new__  # of a named tuple: balances are made eight times and more for every job


@dataclass(frozen=True, slots=True)
class Account:
    """name: ``grant:<hash>`` or ``dataset:<id>``; owner: of its limits; shared: by several grantees."""

    name: str
    limits: Mapping[str, Limit]
    owner: str
    shared: bool = False

    def limit(self, unit: str) -> Limit:
        return self.limits.get(unit, NO_LIMIT)


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A limit that a job would exceed. span: ``per_call``, ``per_day`` or ``total``."""

    account: Account
    unit: str
    span: str
    asked: int
    left: int


Balances = Mapping[BalanceKey, Balance]


def grant_account(grant: str) -> str:
    return f"grant:{grant}"


def grants_of(accounts: Iterable[str]) -> frozenset[str]:
    """Hashes of the grants among accounts: a job's grant and all its ancestors."""
    return _grants_of(tuple(accounts))


@functools.lru_cache(maxsize=1024)
def _grants_of(accounts: tuple[str, ...]) -> frozenset[str]:
    parts = (name.partition(":") for name in accounts)
    return frozenset(rest for kind, _, rest in parts if kind == "grant")


def dataset_account(dataset: str) -> str:
    return f"dataset:{dataset}"


def day_of(time: int) -> int:
    """The UTC day of a time in seconds: the window of ``per_day`` limits."""
    return time // DAY


def shortfalls(
    accounts: Sequence[Account], usage: Usage, day: int, balances: Balances
) -> Iterator[Shortfall]:
    """Every limit that stands in the way of reserving ``usage`` now."""
    amounts = used(usage)
    for account in accounts:
        for unit, asked in amounts:
            limit = account.limit(unit)
            if limit.per_call is not None and asked > limit.per_call:
                yield Shortfall(account, unit, "per_call", asked, limit.per_call)
            for span, window, bound in (("per_day", day, limit.per_day), ("total", TOTAL, limit.total)):
                balance = balances.get(BalanceKey(account.name, window, unit), UNUSED)
                left = (MAX_AMOUNT if bound is None else bound) - balance.posted - balance.pending
                if asked > left:
                    yield Shortfall(account, unit, span, asked, max(left, 0))


class Place(NamedTuple):
    """Where a reservation is debited: ``amount`` to the balance of ``key``, whose limit is ``limit`` now."""

    key: BalanceKey
    amount: int
    limit: int


def places(accounts: Sequence[Account], usage: Usage, day: int) -> tuple[Place, ...]:
    """Every balance that reserving ``usage`` changes."""
    return tuple(
        Place(BalanceKey(account.name, window, unit), amount, MAX_AMOUNT if bound is None else bound)
        for account in accounts
        for unit, amount in used(usage)
        for limit in (account.limit(unit),)
        for window, bound in ((day, limit.per_day), (TOTAL, limit.total))
    )


def fits(wanted: Iterable[Place], balances: Balances) -> bool:
    """Whether no total and no day stands in the way. Bounds on single calls depend on no balance: ``shortfalls``."""
    for key, amount, limit in wanted:
        posted, pending, _ = balances.get(key, UNUSED)
        if posted + pending + amount > limit:
            return False
    return True


def hold(wanted: Iterable[Place], balances: Balances) -> dict[BalanceKey, Balance]:
    """What balances become by a reservation that nothing stands in the way of, with the limits now in force."""
    changed = {}
    for key, amount, limit in wanted:
        posted, pending, _ = balances.get(key, UNUSED)
        changed[key] = _made(Balance, (posted, pending + amount, limit))
    return changed


def settle(
    accounts: tuple[str, ...],
    reserved: Usage,
    charged: Usage,
    day: int,
    balances: Balances,
    *,
    jobs: int = 1,
) -> dict[BalanceKey, Balance]:
    """What balances become when a reservation turns into a charge of at most as much; the rest is free again.

    jobs: how many there are of the same kind, each of this usage.
    """
    changed = {}
    for key, amount, cost in _moves(accounts, reserved, charged, day):
        posted, pending, limit = balances.get(key, UNUSED)
        if pending < amount * jobs:
            raise StoreError(
                f"the book holds less {key.unit} in reserve for {key.account} than its open jobs: audit it"
            )
        changed[key] = _made(Balance, (posted + cost * jobs, pending - amount * jobs, limit))
    return changed


@functools.lru_cache(maxsize=1024)
def _moves(
    accounts: tuple[str, ...], reserved: Usage, charged: Usage, day: int
) -> tuple[tuple[BalanceKey, int, int], ...]:
    """Every balance that settling changes: what is reserved of it, and what is charged."""
    for unit, amount in used(charged):
        if amount > getattr(reserved, unit):
            raise LocalProtocolError(
                f"the computation used {amount} {unit}, but reserved {getattr(reserved, unit)}: "
                "its operation's bound is wrong; nothing was charged or released"
            )
    return tuple(
        (BalanceKey(name, window, unit), amount, getattr(charged, unit))
        for name in accounts
        for unit, amount in used(reserved)
        for window in (day, TOTAL)
    )


def left(accounts: Sequence[Account], day: int, balances: Balances) -> dict[str, dict[str, int]]:
    """What could be reserved now by unit and span, where any of the accounts limits it: the least of them."""
    found: dict[str, dict[str, int]] = {}
    for account in accounts:
        for unit, limit in account.limits.items():
            spans = found.setdefault(unit, {})
            if limit.per_call is not None:
                spans["per_call"] = min(spans.get("per_call", limit.per_call), limit.per_call)
            for span, window, bound in (("per_day", day, limit.per_day), ("total", TOTAL, limit.total)):
                if bound is not None:
                    balance = balances.get(BalanceKey(account.name, window, unit), UNUSED)
                    remains = max(bound - balance.posted - balance.pending, 0)
                    spans[span] = min(spans.get(span, remains), remains)
    return found


def usage_document(usage: Usage) -> dict[str, Any]:
    """Usage as documents and the book carry it: units that are not zero."""
    return {unit: canonical.integer(amount) for unit, amount in used(usage)}


def parse_usage(document: Mapping[str, Any]) -> Usage:
    """The inverse of ``usage_document``. Raises ``DocumentError``."""
    if not {*map(type, document.values())} <= _AMOUNTS:  # ``True`` equals 1, and is no amount
        raise canonical.DocumentError("an amount of usage must be an integer", "usage")
    return _parsed(tuple(document.items()))


@functools.lru_cache(maxsize=4096)
def _parsed(items: tuple[tuple[str, Any], ...]) -> Usage:
    """Most jobs of a log use one of a few amounts."""
    if not {unit for unit, _ in items} <= set(UNITS):
        raise canonical.DocumentError(f"unknown unit of usage: the units are {', '.join(UNITS)}", "usage")
    try:
        return Usage(**{unit: canonical.parse_integer(amount, unit) for unit, amount in items})
    except ValueError as error:
        raise canonical.DocumentError(str(error), "usage") from error


@functools.lru_cache(maxsize=4096)
def used(usage: Usage) -> tuple[tuple[str, int], ...]:
    """(unit, amount) for every unit that is used."""
    return tuple((unit, amount) for unit in UNITS if (amount := getattr(usage, unit)))
