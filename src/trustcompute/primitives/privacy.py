"""Privacy loss: exact amounts, conversions that err on the side of privacy, and plans.

Called by ``dp``, and by aggregation for its noise. Amounts are rationals; a function that returns a bound rounds in
the direction its name says, with MPFR's directed rounding (``interval``). Sources:

- zCDP and its conversion: M. Bun, T. Steinke, *Concentrated Differential Privacy*, TCC 2016; C. Canonne, G. Kamath,
  T. Steinke, *The Discrete Gaussian for Differential Privacy*, NeurIPS 2020, corollary 13.
- That sums of losses may be held against a budget while releases are chosen adaptively, as the ledger does (theorem 1):
  J. Whitehouse, A. Ramdas, R. Rogers, Z. S. Wu, *Fully-Adaptive Composition in Differential Privacy*, ICML 2023.
  Adaptive filters on privacy loss distributions are unsound; only plans use those.
- Plans: S. Meiser, E. Mohammadi, *Tight on Budget?*, CCS 2018 (privacy buckets): losses rounded up to a grid give an
  upper bound, rounded down a lower one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from math import gcd, lcm
from typing import Any, Final, Self

import gmpy2

from trustcompute.errors import ParameterError
from trustcompute.primitives.interval import Directed, exact, exp_minus

RHO_UNIT: Final = 10**12
EPSILON_UNIT: Final = 10**12
DELTA_UNIT: Final = 10**18
MAX_LOSS: Final = 1000  # of ρ or ε: more protects nobody, and the ledger's int64 ends at 9.2 million
MIN_LOSS: Final = Fraction(1, 10**9)
PRECISION: Final = 160

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,24})?([eE]-?[0-9]{1,2})?\Z")
_RATIO = re.compile(r"[0-9]{1,30}/[1-9][0-9]{0,30}\Z")


def amount(name: str, value: str | int | Fraction) -> Fraction:
    """A parameter as an exact rational: "0.05", "1e-6", "1/20", 2. Floats are refused, and so is text of no number."""
    if isinstance(value, bool) or not isinstance(value, str | int | Fraction):
        raise ParameterError(
            f"{name} must be a decimal string such as '0.05', or an integer: floats are inexact"
        )
    if isinstance(value, str) and not (_DECIMAL.match(value) or _RATIO.match(value)):
        raise ParameterError(
            f"{name} must be a number that is not negative, such as '0.05', '1e-6' or '1/20'"
        )
    return Fraction(value)


@dataclass(frozen=True, slots=True)
class PrivacyLoss:
    """What was spent, exactly: ρ of zCDP, ε of pure differential privacy, and δ. Losses of a session add up."""

    rho: Fraction = Fraction(0)
    epsilon: Fraction = Fraction(0)
    delta: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if self.rho < 0 or self.epsilon < 0 or not 0 <= self.delta < 1:
            raise ParameterError(
                "a privacy loss has rho and epsilon of at least 0, and delta from 0 to below 1"
            )

    def __add__(self, other: PrivacyLoss) -> PrivacyLoss:
        return PrivacyLoss(
            self.rho + other.rho, self.epsilon + other.epsilon, min(self.delta + other.delta, _ALMOST_ONE)
        )

    def ledger(self) -> dict[str, int]:
        """In the ledger's integers, rounded up: ρ and ε in 10⁻¹², δ in 10⁻¹⁸."""
        return {
            "rho": (self.rho * RHO_UNIT).__ceil__(),
            "epsilon": (self.epsilon * EPSILON_UNIT).__ceil__(),
            "delta": (self.delta * DELTA_UNIT).__ceil__(),
        }

    @classmethod
    def pure(cls, epsilon: Fraction) -> Self:
        """ε-differential privacy, kept as ε."""
        return cls(epsilon=epsilon)

    @classmethod
    def pure_as_zcdp(cls, epsilon: Fraction) -> Self:
        """ε-differential privacy kept as ρ = ε²/2 (Bun and Steinke, proposition 1.4)."""
        return cls(rho=epsilon * epsilon / 2)

    @classmethod
    def zcdp(cls, rho: Fraction, delta: Fraction = Fraction(0)) -> Self:
        """δ-approximate ρ-zCDP."""
        return cls(rho=rho, delta=delta)


_ALMOST_ONE = 1 - Fraction(1, 10**18)


def zcdp_delta(rho: Fraction, epsilon: Fraction) -> Fraction:
    """The least δ found, rounded up, such that ρ-zCDP implies (ε, δ)-DP. rho > 0.

    δ = inf over α > 1 of e^{(α-1)(αρ-ε)} (1 - 1/α)^α / (α - 1). Every α gives a bound: the best one is looked for in
    ordinary precision, and the bound at it computed with directed rounding.
    """
    context = gmpy2.context(precision=80)
    low, high = gmpy2.mpfr("1e-12", 80), context.add(context.div(gmpy2.mpq(epsilon) + 100, gmpy2.mpq(rho)), 2)

    def slope(step: Any) -> Any:
        """Derivative by α of the logarithm: (2α-1)ρ - ε + log(1 - 1/α), increasing in α = 1 + step."""
        grown = context.add(step, 1)
        return context.add(
            context.sub(
                context.mul(context.sub(context.mul(2, grown), 1), gmpy2.mpq(rho)), gmpy2.mpq(epsilon)
            ),
            context.log(context.div(step, grown)),
        )

    for _ in range(90):
        middle = context.div(context.add(low, high), 2)
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return min(Fraction(1), _zcdp_delta_at(rho, epsilon, exact(low)))


def _zcdp_delta_at(rho: Fraction, epsilon: Fraction, step: Fraction) -> Fraction:
    """The bound at α = 1 + step, rounded up."""
    up = Directed(PRECISION).up
    _, exponent = Directed(PRECISION).ratio(step * ((1 + step) * rho - epsilon))
    _, shrink = Directed(PRECISION).ratio(step / (1 + step))
    power = up.mul(up.log(shrink), Directed(PRECISION).ratio(1 + step)[0])  # the logarithm is negative
    return exact(up.exp(up.add(exponent, power))) / step


def zcdp_epsilon(rho: Fraction, delta: Fraction) -> Fraction:
    """The least ε found, rounded up to 10⁻¹², such that ρ-zCDP implies (ε, δ)-DP."""
    if not 0 < delta < 1:
        raise ParameterError("delta must lie between 0 and 1, and above the delta that was spent")
    if rho == 0:
        return Fraction(0)
    return _least(lambda epsilon: zcdp_delta(rho, epsilon) <= delta, EPSILON_UNIT, start=rho + 1)


def zcdp_rho(epsilon: Fraction, delta: Fraction) -> Fraction:
    """The largest ρ found, rounded down to 10⁻¹², such that ρ-zCDP implies (ε, δ)-DP."""
    if epsilon <= 0 or not 0 < delta < 1:
        raise ParameterError("epsilon must be above 0, and delta between 0 and 1")
    return _least(lambda rho: zcdp_delta(rho, epsilon) > delta, RHO_UNIT, start=epsilon) - Fraction(
        1, RHO_UNIT
    )


def _least(holds: Any, unit: int, start: Fraction) -> Fraction:
    """The least multiple of 1/unit for which a condition holds that, once true, stays true."""
    high = (start * unit).__ceil__()
    while not holds(Fraction(high, unit)):
        high *= 2
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(Fraction(middle, unit)) else (middle, high)
    return Fraction(high, unit)


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """``count`` releases of a plan, each ε-differentially private.

    Dominated by randomised response with e^ε (P. Kairouz, S. Oh, P. Viswanath, *The Composition Theorem for
    Differential Privacy*, ICML 2015); for a count with discrete Laplace noise, that is its loss exactly.
    """

    epsilon: Fraction
    count: int = 1


def plan_delta(events: Sequence[PlannedEvent], epsilon: Fraction) -> tuple[Fraction, Fraction]:
    """Lower and upper bound of the δ at ε of a plan: releases whose parameters are fixed before the first answer.

    Losses lie on a grid that all of the plan's ε are multiples of, or else on one of 1/1000 of the least, to which they
    are rounded down and up. Probabilities and convolutions are in integers, rounded in the same direction.
    """
    low, high = (_Tail(loss, grid, up=up) for loss, grid, up in _composed(events))
    return low.delta(epsilon), high.delta(epsilon)


def plan_epsilon(events: Sequence[PlannedEvent], delta: Fraction) -> tuple[Fraction, Fraction]:
    """Lower and upper bound, to 10⁻⁶, of the ε at δ of a plan."""
    if not 0 < delta < 1:
        raise ParameterError("delta must lie between 0 and 1")
    tails = [_Tail(loss, grid, up=up) for loss, grid, up in _composed(events)]
    low, high = (
        _least(lambda epsilon, tail=tail: tail.delta(epsilon) <= delta, 10**6, start=Fraction(1))
        for tail in tails
    )
    return max(low - Fraction(1, 10**6), Fraction(0)), high


PLAN_BITS: Final = 200
MAX_PLAN_POINTS: Final = 2**20
_Loss = tuple[int, list[int]]  # first loss in grid steps, and masses in 2^-PLAN_BITS


def plan_points(events: Sequence[PlannedEvent]) -> int:
    """How many points the loss of a plan has: what accounting for it takes is about in proportion."""
    return sum(2 * event.count * (event.epsilon / _grid(events)).__ceil__() + 1 for event in events)


def _grid(events: Sequence[PlannedEvent]) -> Fraction:
    """Of which all ε are multiples; or a thousandth of the least, where that is coarser."""
    epsilons = [event.epsilon for event in events]
    bottom = lcm(*(epsilon.denominator for epsilon in epsilons))
    common = Fraction(gcd(*((epsilon * bottom).numerator for epsilon in epsilons)), bottom)
    return max(common, min(epsilons) / 1000)


def _composed(events: Sequence[PlannedEvent]) -> Iterator[tuple[_Loss, Fraction, bool]]:
    """The loss of a whole plan, rounded down and then up, and the grid."""
    if not events or any(not MIN_LOSS <= event.epsilon <= MAX_LOSS or event.count < 1 for event in events):
        raise ParameterError(
            f"a plan lists events with an ε from 10^-9 to {MAX_LOSS} and counts of at least 1"
        )
    if plan_points(events) > MAX_PLAN_POINTS:
        raise ParameterError(
            "the plan is too long, or its epsilons too far apart, for its loss to be computed"
        )
    grid = _grid(events)
    for up in (False, True):
        losses = (_power(_event_loss(event.epsilon, grid, up), event.count, up) for event in events)
        yield reduce(lambda left, right, up=up: _convolve(left, right, up), losses), grid, up  # type: ignore[misc]


class _Tail:
    """E[(1 - e^{ε-L})⁺] of a loss L for any ε, rounded up or down.

    With j the first step above ε: Σ_{i≥j} m(i) - e^{-(L(j)-ε)}·T(j), where T(j) = m(j) + e^{-grid}·T(j+1).
    """

    def __init__(self, loss: _Loss, grid: Fraction, *, up: bool) -> None:
        self._first, masses = loss
        self._grid, self._up = grid, up
        shrink = exp_minus(grid, PLAN_BITS)[not up]
        self._above, self._shrunk = [0], [0]
        for mass in reversed(masses):
            self._above.append(self._above[-1] + mass)
            self._shrunk.append(mass + (self._shrunk[-1] * shrink >> PLAN_BITS) + (not up))

    def delta(self, epsilon: Fraction) -> Fraction:
        step = max((epsilon / self._grid).__floor__() + 1, self._first)
        left = len(self._above) - 1 - (step - self._first)  # steps from this one on
        if left <= 0:
            return Fraction(0)
        power = exp_minus(step * self._grid - epsilon, PLAN_BITS)[not self._up]
        taken = (self._shrunk[left] * power >> PLAN_BITS) + (not self._up)
        return min(Fraction(max(self._above[left] - taken, 0), 1 << PLAN_BITS), Fraction(1))


def _event_loss(epsilon: Fraction, grid: Fraction, up: bool) -> _Loss:
    """+ε with probability e^ε/(1 + e^ε), else -ε: the larger loss is given too much, or too little."""
    low, high = exp_minus(epsilon, PLAN_BITS + 8)
    one = 1 << (PLAN_BITS + 8)
    likely = -((-one << PLAN_BITS) // (one + low)) if up else (one << PLAN_BITS) // (one + high)
    steps = epsilon / grid
    top, bottom = (steps.__ceil__(), (-steps).__ceil__()) if up else (steps.__floor__(), (-steps).__floor__())
    masses = [0] * (top - bottom + 1)
    masses[-1], masses[0] = likely, (1 << PLAN_BITS) - likely
    return bottom, masses


def _convolve(left: _Loss, right: _Loss, up: bool) -> _Loss:
    """Sums of independent losses. Polynomials as long integers: exact, and as fast as GMP multiplies."""
    (first, a), (second, b) = left, right
    size = (2 * PLAN_BITS + 8 + min(len(a), len(b)).bit_length() + 7) // 8  # bytes that hold any coefficient
    count, unit = len(a) + len(b) - 1, 1 << PLAN_BITS
    raw = int(_packed(a, size) * _packed(b, size)).to_bytes(size * count, "little")
    pieces = (int.from_bytes(raw[at : at + size], "little") for at in range(0, size * count, size))
    masses = [(piece + unit - 1) // unit if up else piece // unit for piece in pieces]
    return first + second, masses


def _packed(masses: Sequence[int], size: int) -> Any:
    return gmpy2.mpz(int.from_bytes(b"".join(mass.to_bytes(size, "little") for mass in masses), "little"))


def _power(loss: _Loss, count: int, up: bool) -> _Loss:
    result: _Loss | None = None
    while count:
        if count & 1:
            result = loss if result is None else _convolve(result, loss, up)
        count >>= 1
        if count:
            loss = _convolve(loss, loss, up)
    assert result is not None
    return result
