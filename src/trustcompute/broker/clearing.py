"""Clearing: from the log alone to what every party owes. Exact until the end, rounded once.

Usage is rated exactly (``Fraction`` of a minor unit) by the price plan of its grant and shared by its
split. Amounts accrue per line (payer, payee, currency). Closing a period rounds each payer's lines together
by the largest remainder, so that they sum to the whole units the payer owes; ties go by a hash, not by who
is listed first; what rounding left over is carried into the next period and recorded. Every line is a
credit and a debit: all postings of a currency sum to zero. What is billed: posted jobs, and jobs forfeited
by the peer's own fault.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, NamedTuple

from trustcompute.broker import meter
from trustcompute.broker.grant import PricePlan, Share
from trustcompute.broker.job import Fault
from trustcompute.broker.log import Entry
from trustcompute.errors import AuditError, ParameterError
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Usage

STATEMENT_VERSION: Final = 1
MAX_PART: Final = 48 * 1024  # bytes of lines in one entry, well below log.MAX_ENTRY


class Account(NamedTuple):
    """A line's key. payer, payee: thumbprint or party name; currency: ISO 4217."""

    payer: str
    payee: str
    currency: str


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """start <= time < end, in seconds since 1970 (UTC)."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ParameterError(f"a period ends after it starts, not {self.start} to {self.end}")


@dataclass(frozen=True, slots=True)
class Use:
    """One billed job. amount: exact, in minor units."""

    index: int
    time: int
    payer: str
    grant: str
    operation: str
    usage: Usage
    amount: Fraction


@dataclass(frozen=True, slots=True)
class Line:
    """rated: of this period, exact; carried: residual before; amount = rated + carried - residual."""

    account: Account
    rated: Fraction
    carried: Fraction
    amount: int
    residual: Fraction

    def to_document(self) -> dict[str, Any]:
        return {
            "payer": self.account.payer,
            "payee": self.account.payee,
            "currency": self.account.currency,
            "rated": str(self.rated),
            "carried": str(self.carried),
            "amount": canonical.integer(self.amount),
            "residual": str(self.residual),
        }


@dataclass(frozen=True, slots=True)
class Row:
    """Use summed up for printing: by payer, grant and operation. rated: exact, in minor units."""

    payer: str
    grant: str
    operation: str
    currency: str
    jobs: int
    calls: int
    rows: int
    rated: Fraction

    def to_document(self) -> dict[str, Any]:
        return {
            "payer": self.payer,
            "grant": self.grant,
            "operation": self.operation,
            "currency": self.currency,
            "jobs": self.jobs,
            "calls": canonical.integer(self.calls),
            "rows": canonical.integer(self.rows),
            "rated": str(self.rated),
        }


@dataclass(frozen=True, slots=True)
class Statement:
    """A period's uses and lines. closed: whether the log has closed it; an open one may still grow."""

    period: Period
    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    closed: bool

    def positions(self) -> dict[tuple[str, str], int]:
        """Net amount by (party, currency): what it receives less what it pays. Sums to zero per currency."""
        net: dict[tuple[str, str], int] = defaultdict(int)
        for line in self.lines:
            net[line.account.payer, line.account.currency] -= line.amount
            net[line.account.payee, line.account.currency] += line.amount
        return dict(net)

    def totals(self) -> dict[str, int]:
        """What all payers together owe, by currency."""
        total: dict[str, int] = defaultdict(int)
        for line in self.lines:
            total[line.account.currency] += line.amount
        return dict(total)

    def to_document(self) -> dict[str, Any]:
        return {
            "v": STATEMENT_VERSION,
            "start": self.period.start,
            "end": self.period.end,
            "rows": [row.to_document() for row in self.rows],
            "lines": [line.to_document() for line in self.lines],
        }

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical document: what closing the period records."""
        return hashlib.sha256(canonical.dumps(self.to_document())).hexdigest()


def rate(price: PricePlan, usage: Usage) -> Fraction:
    """What this usage costs, exact, in minor units of the plan's currency."""
    return _rated(price.per_call, price.per_row, usage.calls, usage.rows)


@functools.lru_cache(maxsize=4096)
def _rated(per_call: str, per_row: str, calls: int, rows: int) -> Fraction:
    return Fraction(per_call) * calls + Fraction(per_row) * rows


def apportion(period: Period, owed: Mapping[Account, Fraction]) -> dict[Account, int]:
    """Round the lines of each payer and currency together by the largest remainder (Hamilton's method).

    Lines owed nothing or less (a residual carried from an upward rounding) get 0 and keep what they carry.
    Each amount is at least the floor and at most the ceiling of what is owed. Independent of the order of
    ``owed``.
    """
    groups: dict[tuple[str, str], dict[Account, Fraction]] = defaultdict(dict)
    amounts = dict.fromkeys(owed, 0)
    for account, exact in owed.items():
        if exact > 0:
            groups[account.payer, account.currency][account] = exact
    for lines in groups.values():
        floors = {account: math.floor(exact) for account, exact in lines.items()}
        units = math.floor(sum(lines.values())) - sum(floors.values())
        order = sorted(lines, key=lambda account: (floors[account] - lines[account], _lot(period, account)))
        amounts |= floors | {account: floors[account] + 1 for account in order[:units]}
    return amounts


@dataclass
class Closing:
    """What the log says of a closed period. residuals: carried out of it."""

    period: Period
    index: int
    statement: str
    residuals: dict[Account, Fraction]


@dataclass
class Clearing:
    """Everything the log says about money, fed entry by entry in order."""

    uses: list[Use] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    _plans: dict[str, tuple[PricePlan, tuple[Share, ...]]] = field(default_factory=dict)
    _parts: dict[Account, Fraction] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Clearing:
        made = cls()
        for entry in entries:
            made.feed(entry)
        return made

    def feed(self, entry: Entry) -> None:
        """Take the next entry. Raises ``AuditError`` where a closing does not follow from the log."""
        fields = entry.fields
        if entry.type in ("grant.issued", "grant.accepted"):
            split = tuple(Share.model_validate(share) for share in fields["split"])
            self._plans[fields["grant"]] = PricePlan.model_validate(fields["price"]), split
        elif entry.type == "job.posted" or (entry.type == "job.forfeited" and fields["fault"] == Fault.PEER):
            self.uses.append(self._use(entry))
        elif entry.type == "period.lines":
            self._parts |= {Account(*line[:3]): Fraction(line[4]) for line in fields["lines"]}
        elif entry.type == "period.closed":
            self._close(entry)

    def statement(self, period: Period) -> Statement:
        """The statement of a closed period, or of one that may be closed next (``ParameterError`` else)."""
        closing = next((each for each in self.closings if each.period == period), None)
        if closing is None:
            self.check(period)
        carried = self._carried(period)
        rated: dict[Account, Fraction] = defaultdict(Fraction)
        rows: dict[tuple[str, str, str], list[Use]] = defaultdict(list)
        for use in self._within(period):
            price, split = self._plans[use.grant]
            rows[use.payer, use.grant, use.operation].append(use)
            for share in split if use.amount else ():
                assert price.currency is not None
                rated[Account(use.payer, share.party, price.currency)] += use.amount * Fraction(share.share)
        owed = {key: rated.get(key, Fraction()) + carried.get(key, Fraction()) for key in {*rated, *carried}}
        lines = _lines(period, owed, carried)
        return Statement(period, tuple(self._rows(rows)), lines, closing is not None)

    def check(self, period: Period) -> None:
        """Raises ``ParameterError`` where it overlaps a closed one, or leaves uses before it unbilled."""
        last = self.closings[-1].period.end if self.closings else 0
        if period.start < last:
            raise ParameterError(
                f"the log is closed until {last}: a period starts there, not at {period.start}"
            )
        skipped = next((use for use in self.uses if last <= use.time < period.start), None)
        if skipped is not None:
            raise ParameterError(
                f"a job of {skipped.time} would never be billed: start the period at {last} or then"
            )

    def _use(self, entry: Entry) -> Use:
        fields = entry.fields
        usage = meter.parse_usage(fields["usage"])
        amount = rate(self._plans[fields["grant"]][0], usage)
        return Use(
            entry.index, entry.time, fields["payer"], fields["grant"], fields["operation"], usage, amount
        )

    def _close(self, entry: Entry) -> None:
        fields = entry.fields
        period = Period(fields["start"], fields["end"])
        self.closings.append(Closing(period, entry.index, fields["statement"], self._parts))
        self._parts = {}
        if self.statement(period).hash != fields["statement"]:
            raise AuditError(
                f"entry {entry.index} closes a period with a statement that does not follow from the log"
            )

    def _carried(self, period: Period) -> dict[Account, Fraction]:
        before = [closing for closing in self.closings if closing.period.end <= period.start]
        return {key: residual for key, residual in before[-1].residuals.items() if residual} if before else {}

    def _within(self, period: Period) -> Iterator[Use]:
        return (use for use in self.uses if period.start <= use.time < period.end)

    def _rows(self, rows: Mapping[tuple[str, str, str], list[Use]]) -> Iterator[Row]:
        for (payer, grant, operation), uses in sorted(rows.items()):
            yield Row(
                payer=payer,
                grant=grant,
                operation=operation,
                currency=self._plans[grant][0].currency or "",
                jobs=len(uses),
                calls=sum(use.usage.calls for use in uses),
                rows=sum(use.usage.rows for use in uses),
                rated=sum((use.amount for use in uses), Fraction()),
            )


def closing_entries(statement: Statement) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fields of the entries that close a period: parts with its lines, and the closing itself."""
    parts: list[dict[str, Any]] = []
    lines: list[list[Any]] = []
    size = 0
    for line in statement.lines:
        row = [*line.account, canonical.integer(line.amount), str(line.residual)]
        length = len(canonical.dumps(row))
        if lines and size + length > MAX_PART:
            parts.append({"part": len(parts), "lines": lines})
            lines, size = [], 0
        lines.append(row)
        size += length
    if lines:
        parts.append({"part": len(parts), "lines": lines})
    totals = {currency: canonical.integer(total) for currency, total in sorted(statement.totals().items())}
    closing = {
        "start": statement.period.start,
        "end": statement.period.end,
        "parts": len(parts),
        "lines": len(statement.lines),
        "totals": totals,
        "statement": statement.hash,
    }
    return parts, closing


def _lines(
    period: Period, owed: Mapping[Account, Fraction], carried: Mapping[Account, Fraction]
) -> tuple[Line, ...]:
    amounts = apportion(period, owed)
    lines = tuple(
        Line(
            account=account,
            rated=owed[account] - carried.get(account, Fraction()),
            carried=carried.get(account, Fraction()),
            amount=amounts[account],
            residual=owed[account] - amounts[account],
        )
        for account in sorted(owed)
    )
    assert sum(line.amount + line.residual for line in lines) == sum(owed.values()), "money is conserved"
    return lines


def _lot(period: Period, account: Account) -> bytes:
    return hashlib.sha256(canonical.dumps([period.start, period.end, *account])).digest()
