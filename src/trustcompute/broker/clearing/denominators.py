"""How fine exact amounts may get: what every line of a log is a whole multiple of, and its bound.

Rates, shares, weights and settled parts multiply, so every line and every residual is a multiple of 1 over the product
of their four least common multiples (and of the adjustments'). It is known from what was declared, before any sum is
formed. Unbounded, a few thousand odd denominators would make residuals that no entry can hold, and a period that can
never be closed: so what would make it too fine is refused where it is declared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from trustcompute.broker.grant import PricePlan, Share
from trustcompute.errors import ParameterError

MAX_BITS: Final = 4096  # of the product: 1,234 digits, so a line with its residual stays below 4 KiB


@dataclass(frozen=True, slots=True)
class Denominators:
    """Least common multiples of the denominators that a log has declared so far."""

    rates: int = 1
    shares: int = 1
    weights: int = 1
    parts: int = 1
    amounts: int = 1

    @property
    def bits(self) -> int:
        """Of what all exact amounts are multiples of one over."""
        return math.lcm(self.rates * self.shares * self.weights * self.parts, self.amounts).bit_length()

    def with_plan(self, price: PricePlan, split: Iterable[Share]) -> Denominators:
        tiers = [tier.rate for tier in price.tiers or ()]
        rates = [each for each in (price.per_call, price.per_row, price.fee, price.rate, *tiers) if each]
        shares = [each for share in split for each in (share.share, *(step.share for step in share.above))]
        return replace(self, rates=_lcm(self.rates, rates), shares=_lcm(self.shares, shares))

    def with_weights(self, weights: Iterable[Fraction]) -> Denominators:
        return replace(self, weights=_lcm(self.weights, weights))

    def with_part(self, part: Fraction) -> Denominators:
        return replace(self, parts=_lcm(self.parts, [part]))

    def with_amount(self, amount: Fraction) -> Denominators:
        return replace(self, amounts=_lcm(self.amounts, [amount]))

    def check(self) -> None:
        """Raises ``ParameterError`` where amounts would get too fine."""
        if self.bits > MAX_BITS:
            raise ParameterError(
                f"exact amounts of this log would be multiples of one over a number of {self.bits:,} bits, more than "
                f"{MAX_BITS:,}: use denominators that divide a power of ten, or one that was used before"
            )


def _lcm(known: int, more: Iterable[str | Fraction]) -> int:
    return math.lcm(known, *(Fraction(each).denominator for each in more))
