"""What a release may spend: ``zcdp``, ``pure`` or ``approx``. Amounts are decimal strings, integers or fractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal, get_args

from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import MAX_LOSS, MIN_LOSS, PrivacyLoss, amount, zcdp_rho

Amount = str | int | Fraction
Kind = Literal["zcdp", "pure", "pure_as_zcdp", "approx"]
MIN_DELTA: Final = Fraction(1, 10**18)  # the ledger's unit


@dataclass(frozen=True, slots=True)
class Budget:
    """One release's budget, charged whole. Made by ``zcdp``, ``pure`` and ``approx``."""

    kind: Kind
    main: Fraction  # ρ of zcdp, ε of the others
    delta: Fraction

    def __post_init__(self) -> None:
        name = "rho" if self.kind == "zcdp" else "epsilon"
        if self.kind not in get_args(Kind):
            raise ParameterError(f"a budget is of kind {', '.join(get_args(Kind))}, not {self.kind!r}")
        if not MIN_LOSS <= self.main <= MAX_LOSS:
            raise ParameterError(f"{name} must lie between 0.000000001 and {MAX_LOSS}, not {self.main}")
        if self.delta and not MIN_DELTA <= self.delta <= Fraction(1, 2):
            raise ParameterError("delta must be 0, or lie between 1e-18 and 0.5")
        if self.kind == "approx" and not self.delta:
            raise ParameterError("approximate differential privacy needs a delta above 0: or ask for dp.pure")

    @property
    def loss(self) -> PrivacyLoss:
        """What is charged."""
        if self.kind == "zcdp":
            return PrivacyLoss.zcdp(self.main, self.delta)
        if self.kind == "pure_as_zcdp":
            return PrivacyLoss.pure_as_zcdp(self.main)
        return PrivacyLoss(epsilon=self.main, delta=self.delta)

    @property
    def noise(self) -> Literal["laplace", "gaussian"]:
        return "laplace" if self.kind.startswith("pure") else "gaussian"

    @property
    def measurable(self) -> Fraction:
        """What mechanisms share: ε where noise is Laplace, ρ where it is Gaussian."""
        return zcdp_rho(self.main, self.delta / 2) if self.kind == "approx" else self.main

    @property
    def selectable(self) -> Fraction:
        """The δ that finding groups may use."""
        return self.delta / 2 if self.kind == "approx" else self.delta

    def without_delta(self) -> Budget:
        """The same, where nothing needs δ: it is not charged then."""
        return self if self.kind == "approx" else Budget(self.kind, self.main, Fraction(0))

    def to_document(self) -> dict[str, str]:
        return {"kind": self.kind, "amount": str(self.main), "delta": str(self.delta)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Budget:
        if not isinstance(document, Mapping) or set(document) != {"kind", "amount", "delta"}:
            raise ParameterError("a budget has kind, amount and delta")
        return cls(
            document["kind"], amount("the budget", document["amount"]), amount("delta", document["delta"])
        )


def zcdp(rho: Amount, delta: Amount = "1e-9") -> Budget:
    """ρ-zCDP, by Gaussian noise. delta: what finding unknown groups may cost; not charged where none are."""
    return Budget("zcdp", amount("rho", rho), amount("delta", delta))


def pure(epsilon: Amount, *, as_zcdp: bool = False) -> Budget:
    """ε-differential privacy, by Laplace noise. as_zcdp: charged as ρ = ε²/2, to a budget kept in ρ."""
    return Budget("pure_as_zcdp" if as_zcdp else "pure", amount("epsilon", epsilon), Fraction(0))


def approx(epsilon: Amount, delta: Amount) -> Budget:
    """(ε, δ)-differential privacy, by Gaussian noise; half of δ pays for it, the other for finding groups."""
    return Budget("approx", amount("epsilon", epsilon), amount("delta", delta))
