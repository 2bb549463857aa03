"""Differential privacy inside an aggregate: every contributor adds its share of integer noise before anything
leaves it.

Called by ``spec`` and ``encoding``. Shares are Skellam variables, whose sum is Skellam, drawn exactly
(``sampling``): what is opened is private already. The loss is that of N. Agarwal, P. Kairouz and Z. Liu, *The
Skellam Mechanism for Differentially Private Federated Learning* (NeurIPS 2021, arXiv 2110.04995), theorem 3.5, made
linear in the order: ρ = Δ²/2μ + (Δ² + 3Δ)/2μ² for one integer with sensitivity Δ under Skellam noise of variance μ.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Any, Final

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives import sampling
from trustcompute.primitives.privacy import amount
from trustcompute.primitives.rng import Rng

TAIL_NATS: Final = 45  # e^-45 < 2^-64: how unlikely a sum of noise beyond ``tail`` is
LEDGER: Final = 10**12  # ρ is charged in 10^-12
MAX_VARIANCE: Final = 2**29  # of one share, as the exact sampler takes it


@dataclass(frozen=True)
class Noise:
    """rho: the zCDP loss of the whole aggregate, a decimal string, divided equally between the slots of a group.

    rows_per_unit: rows of one party that the presence of one unit may change, each in any group. colluders:
    contributors whose noise is not counted on. The loss holds for the fewest contributors that can survive; more
    add more noise.
    """

    rho: str
    rows_per_unit: int = 1
    colluders: int = 0

    def __post_init__(self) -> None:
        ledger = amount("rho", self.rho) * LEDGER if isinstance(self.rho, str) else Fraction(0)
        if not 1 <= ledger <= 100 * LEDGER or ledger.denominator != 1:
            raise ParameterError("rho must be a decimal string from 10^-12 to 100, with at most 12 places")
        if type(self.rows_per_unit) is not int or not 1 <= self.rows_per_unit <= 2**20:
            raise ParameterError("rows_per_unit must be an integer from 1 to 2^20")
        if type(self.colluders) is not int or not 0 <= self.colluders <= 254:
            raise ParameterError("colluders must be a number of contributors")

    @property
    def ledger(self) -> int:
        """ρ in 10⁻¹², as it is charged."""
        return int(Fraction(self.rho) * LEDGER)

    def variance(self, reach: int, slots: int) -> Fraction:
        """The variance a slot's whole noise must have, where one row changes it by at most ``reach``.

        The least μ, to 1/16 above, with (Δ²μ + Δ² + 3Δ)/2μ² ≤ ρ/slots.
        """
        # A unit changes up to m rows, each in one slot of its kind: Δ1 = m·reach, Δ2² ≤ m²·reach².
        delta, rho = self.rows_per_unit * reach, Fraction(self.rho) / slots
        square = delta * delta
        # 2ρμ² - Δ²μ - (Δ² + 3Δ) = 0
        root = square * square + 8 * rho * (square + 3 * delta)
        up = Fraction(isqrt((root * 2**16).__ceil__()) + 1, 2**8)
        return Fraction((16 * (square + up) / (4 * rho)).__ceil__(), 16)

    def share(self, reach: int, slots: int, survivors: int) -> Fraction:
        """The variance of one contributor's noise: the whole, divided by those who can be counted on."""
        honest = survivors - self.colluders
        if honest < 1:
            raise ParameterError(
                f"{survivors} survivors of whom {self.colluders} may collude leave nobody's noise: lower colluders"
            )
        share = Fraction((16 * self.variance(reach, slots) / honest).__ceil__(), 16)
        if share > MAX_VARIANCE:
            raise ParameterError(
                "the noise of a slot would need a variance above 2^29 a contributor: lower a scale, narrow the bounds,"
                " raise rho, or leave the variance out"
            )
        return share

    def tail(self, parties: int) -> int:
        """How far noise reaches, a unit of a slot's reach: beyond it with probability below 2⁻⁶⁴ (Bernstein).

        Of a share at most ``MAX_VARIANCE``, from every party; P(|X| > x) ≤ 2e^(-x²/(2(μ + x/3))).
        """
        return isqrt(2 * parties * MAX_VARIANCE * TAIL_NATS) + 2 * TAIL_NATS

    def draw(self, rng: Rng, variance: Fraction, count: int) -> I64:
        """int64[count] of one share."""
        if count == 0:
            return np.empty(0, dtype=np.int64)
        return sampling.skellam(rng, variance, count)

    def to_document(self) -> dict[str, Any]:
        return {"rho": self.rho, "rows_per_unit": self.rows_per_unit, "colluders": self.colluders}

    @classmethod
    def from_document(cls, document: Any) -> Noise:
        return cls(document["rho"], document["rows_per_unit"], document["colluders"])
