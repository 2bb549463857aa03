"""What a log says of money, piece by piece: terms of grants, billed uses, agreements, closed periods, disputes.

Made by ``record`` from the entries.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from trustcompute.broker.clearing.statement import Account, Period, Statement
from trustcompute.broker.grant import PricePlan, Share
from trustcompute.protocol.operation import Usage


class Use(NamedTuple):
    """One billed job, or one declaration of revenue. amount: exact, in minor units.

    pieces: (height, amount) where the grant's split steps with the amount; empty: all of it at height 0.
    """

    index: int  # type: ignore[assignment]  # of the entry; nobody searches a use as a tuple
    time: int
    payer: str
    grant: str
    operation: str
    usage: Usage
    amount: Fraction
    pieces: tuple[tuple[int, Fraction], ...] = ()

    def scaled(self, part: Fraction, time: int) -> Use:
        pieces = tuple((height, amount * part) for height, amount in self.pieces)
        return self._replace(time=time, amount=self.amount * part, pieces=pieces)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a grant's entry says of money. root: hash of the first of its chain; start, end: of yearly fees.

    heights: where its split steps.
    """

    price: PricePlan
    split: tuple[Share, ...]
    root: str
    grantee: str
    start: int
    end: int
    heights: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Agreed:
    """An agreement that was entered. plan: hash of price and split; end: in force until then."""

    index: int
    agreement: str
    plan: str
    made: int
    end: int


@dataclass
class Closing:
    """A closed period as the log has it. settled: lines that a netting run has covered."""

    period: Period
    index: int
    statement: Statement
    settled: set[Account] = field(default_factory=set)

    @property
    def residuals(self) -> dict[Account, Fraction]:
        """What was carried out of it."""
        return {line.account: line.residual for line in self.statement.lines if line.residual}


@dataclass(frozen=True, slots=True)
class Dispute:
    """Opened by a party over entries that bill it; owed: the part of them that the settlement lets stand."""

    id: str
    index: int
    time: int
    by: str
    entries: tuple[int, ...]
    owed: Fraction | None = None
