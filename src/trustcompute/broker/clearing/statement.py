"""Statements: a period's uses and lines, and the entries that closing it leaves in the log.

Made by ``record`` from the log alone. Every line is a credit and a debit, so all postings of a currency sum to zero.
Form 1 is what logs were closed with before there were disputes and adjustments; it is rebuilt bit for bit.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final, NamedTuple

from trustcompute.broker.clearing.rounding import apportion, balanced
from trustcompute.errors import AuditError, ParameterError
from trustcompute.primitives import canonical

FORM: Final = 2
_BATCH: Final = 1024
MAX_PART: Final = 48 * 1024  # bytes of lines in one entry, well below log.MAX_ENTRY


def integer_text(value: int) -> str:
    """The canonical JSON of ``canonical.integer``."""
    found = canonical.integer(value)
    return f"{found}" if type(found) is int else f'"{found}"'


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


class Line(NamedTuple):
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

    def to_canonical(self) -> str:
        """``canonical.dumps`` of the document."""
        account, amount, carried, residual = self.account, self.amount, self.carried, self.residual
        text = canonical.string
        return (
            f'{{"amount":{integer_text(amount)},'
            f'"carried":"{carried or 0}","currency":{text(account.currency)},"payee":{text(account.payee)},'
            f'"payer":{text(account.payer)},"rated":"{self.rated}","residual":"{residual or 0}"}}'
        )


class Row(NamedTuple):
    """Use summed up for printing: by payer, grant and operation. rated: exact, in minor units.

    operation: of the jobs; ``fee`` and ``revenue`` for yearly fees and shares of declared revenue.
    """

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

    def to_canonical(self) -> str:
        """``canonical.dumps`` of the document."""
        text = canonical.string
        calls, rows = integer_text(self.calls), integer_text(self.rows)
        return (
            f'{{"calls":{calls},"currency":{text(self.currency)},"grant":{text(self.grant)},"jobs":{self.jobs},'
            f'"operation":{text(self.operation)},"payer":{text(self.payer)},"rated":"{self.rated}","rows":{rows}}}'
        )


@dataclass(frozen=True, slots=True)
class Posting:
    """An exact amount beside the uses: an adjustment of this period, or what a dispute holds back from it.

    index: of the entry (an adjustment's own, or the disputed use's).
    """

    index: int
    account: Account
    amount: Fraction

    def to_document(self) -> list[Any]:
        return [self.index, *self.account, str(self.amount)]


@dataclass(frozen=True)
class Statement:
    """A period's uses and lines. closed: whether the log has closed it; an open one may still grow.

    adjustments: are part of the lines; held: are not, until their dispute is settled.
    """

    period: Period
    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    closed: bool
    adjustments: tuple[Posting, ...] = ()
    held: tuple[Posting, ...] = ()
    form: int = FORM

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
        document: dict[str, Any] = {
            "v": self.form,
            "start": self.period.start,
            "end": self.period.end,
            "rows": [row.to_document() for row in self.rows],
            "lines": [line.to_document() for line in self.lines],
        }
        if self.form > 1:
            document["adjustments"] = [posting.to_document() for posting in self.adjustments]
            document["held"] = [posting.to_document() for posting in self.held]
        return document

    def as_closed(self) -> Statement:
        """The same, closed; its hash is the same."""
        made = replace(self, closed=True)
        made.__dict__["hash"] = self.hash
        return made

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical document: what closing the period records."""
        digest = hashlib.sha256()
        for piece in self._pieces():
            digest.update(piece.encode())
        return digest.hexdigest()

    def _pieces(self) -> Iterator[str]:
        """``canonical.dumps(self.to_document())`` in pieces: a million lines are never one document in memory."""
        document = replace(self, rows=(), lines=()).to_document()
        for index, (name, value) in enumerate(sorted(document.items())):
            yield f'{"," if index else "{"}"{name}":'
            if name in ("rows", "lines"):
                texts = (each.to_canonical() for each in (self.rows if name == "rows" else self.lines))
                yield "["
                yield from joined(texts)
                yield "]"
            else:
                yield canonical.dumps([value]).decode()[1:-1]
        yield "}"


def joined(texts: Iterator[str]) -> Iterator[str]:
    """Members of a canonical list, in pieces of some hundred KiB."""
    before = ""
    while batch := list(itertools.islice(texts, _BATCH)):
        yield before + ",".join(batch)
        before = ","


def lines_of(
    period: Period, owed: Mapping[Account, Fraction], carried: Mapping[Account, Fraction], form: int
) -> tuple[Line, ...]:
    """Round what is owed (with what is carried) into lines. Raises ``AuditError`` were money not conserved."""
    amounts = apportion(period, owed) if form == 1 else balanced(period, owed)
    nothing = Fraction()
    made = []
    for account in sorted(owed):
        exact, amount = owed[account], amounts[account]
        top, bottom = exact.as_integer_ratio()
        over = top - amount * bottom
        before = carried.get(account)
        rated = exact if before is None else exact - before
        line = Line(account, rated, before or nothing, amount, _residual(over, bottom) if over else nothing)
        if not -bottom < over < bottom or (before and rated + before != amount + line.residual):
            raise AuditError(f"the line {account} does not conserve money: please report this")
        made.append(line)
    return tuple(made)


@functools.lru_cache(maxsize=8192)
def _residual(over: int, bottom: int) -> Fraction:
    """Most lines have one of few denominators, so one of few residuals: the rest of a minor unit."""
    return Fraction(over, bottom)


def closing_entries(statement: Statement) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Fields of the entries that close a period: parts with its lines, and the closing itself."""
    rows = ([*line.account, canonical.integer(line.amount), str(line.residual)] for line in statement.lines)
    parts = [{"part": number, "lines": part} for number, part in enumerate(cut(rows))]
    totals = {currency: canonical.integer(total) for currency, total in sorted(statement.totals().items())}
    closing = {
        "start": statement.period.start,
        "end": statement.period.end,
        "parts": len(parts),
        "lines": len(statement.lines),
        "totals": totals,
        "statement": statement.hash,
    }
    return parts, closing | ({"form": statement.form} if statement.form > 1 else {})


def cut(rows: Iterator[list[Any]]) -> Iterator[list[list[Any]]]:
    """Rows in parts that fit into an entry."""
    part: list[list[Any]] = []
    size = 0
    for row in rows:
        length = sum(map(len, map(str, row))) + 3 * len(row) + 2  # all of them plain ASCII
        if part and size + length > MAX_PART:
            yield part
            part, size = [], 0
        part.append(row)
        size += length
    if part:
        yield part
