"""Splits: who shares what a grant costs, exactly. Fixed shares, shares that step with the amount, pools.

Called by ``record``. A split is a list of ``grant.Share``. What a grant costs is cut at the steps of its shares;
each piece is shared by the shares of its height. A share of ``pool:NAME`` is divided by weights that the log
records for the period (by contribution, see ``contribution``); ``public:NAME`` is an earmarked account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final

from trustcompute.broker.clearing.plan import window_of
from trustcompute.broker.grant import Share
from trustcompute.errors import ParameterError

POOL: Final = "pool:"
PUBLIC: Final = "public:"
MAX_WEIGHTS: Final = 256  # parties of one pool in one period


def heights(split: Sequence[Share]) -> tuple[int, ...]:
    """The amounts at which the shares of a split change, rising; none where they are fixed."""
    return tuple(sorted({step.amount for share in split for step in share.above}))


def shares_at(split: Sequence[Share], height: int) -> dict[str, Fraction]:
    """Who gets which share of what a grant costs beyond ``height``; parties with none are left out."""
    found = {share.party: share.beyond(height) for share in split}
    return {party: share for party, share in found.items() if share}


@dataclass(slots=True)
class Cutter:
    """Cuts a grant's amounts, in the order of the log, at the steps of its split; begins anew with each window."""

    steps: tuple[int, ...]
    window: str
    current: int = 0
    before: Fraction = field(default_factory=Fraction)

    def cut(self, amount: Fraction, time: int) -> list[tuple[int, Fraction]]:
        """(height, piece) of an amount; the pieces sum to it."""
        window = window_of(self.window, time)
        if window != self.current:
            self.current, self.before = window, Fraction()
        pieces, start, end = [], self.before, self.before + amount
        for height, top in zip((0, *self.steps), (*self.steps, None), strict=True):
            upper = end if top is None else min(end, Fraction(top))
            if upper > start:
                pieces.append((height, upper - start))
                start = upper
        self.before = end
        return pieces


def check_weights(weights: Mapping[str, Fraction]) -> None:
    """Raises ``ParameterError`` unless they are positive and sum to exactly 1, and no party is a pool itself."""
    if not 1 <= len(weights) <= MAX_WEIGHTS:
        raise ParameterError(f"a pool is shared by 1 to {MAX_WEIGHTS} parties, not {len(weights)}")
    nested = next((party for party in weights if party.startswith(POOL)), None)
    if nested is not None:
        raise ParameterError(f"a pool is shared by parties, not by another pool ({nested})")
    if any(weight <= 0 for weight in weights.values()) or sum(weights.values()) != 1:
        raise ParameterError("the weights of a pool are positive and sum to exactly 1")
