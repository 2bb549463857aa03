"""Values as integers: clamped, then multiples of one power of two, chosen from declared bounds alone.

Sums of integers are exact in any order, and every answer lies on a lattice that does not depend on the data: nothing
can be read from rounding (I. Mironov, *On Significance of the Least Significant Bits*, CCS 2012; S. Casacuberta et al.,
*Widespread Underestimation of Sensitivity in Differentially Private Libraries*, CCS 2022; S. Haney et al.,
*Precision-based Attacks and Interval Refining*, 2022).

Overflow: an integer of a row is at most 2^31 in magnitude, a table has fewer than 2^32 rows, so a sum stays within
int64; noise is added in int64 where that cannot overflow either (``MAX_TOTAL``), and saturates.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.errors import ParameterError

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

BITS: Final = 31
SQUARED_BITS: Final = 15  # y <= 2^15: 2y² - H² is at most 2^31
MAX_ROWS: Final = 2**32 - 1
MAX_TOTAL: Final = 2**63 - 1
FINEST: Final = 10  # the steps of a ladder next to 0 are 2^-10


@dataclass(frozen=True)
class Lattice:
    """x becomes q = round((clamp(x, low, high) - origin) / step), first <= q <= last. step: a power of two, or 1."""

    low: Fraction
    high: Fraction
    origin: Fraction
    step: Fraction
    first: int
    last: int

    @property
    def reach(self) -> int:
        """The largest magnitude of a row's integer."""
        return max(abs(self.first), abs(self.last))

    def quantise(self, values: F64) -> tuple[I64, npt.NDArray[np.bool_]]:
        """Integers, and which values there are: NaN is none; infinities are clamped."""
        valid = ~np.isnan(values)
        # Each row by itself, in any rounding: what protects is that the integer lies between first and last.
        found = np.clip(values, float(self.low), float(self.high))
        found -= float(self.origin)
        found /= float(self.step)
        np.rint(found, out=found)
        np.clip(found, self.first, self.last, out=found)
        if not valid.all():
            found[~valid] = 0.0
        return found.astype(np.int64), valid


def floats(column: pa.ChunkedArray) -> F64:
    """float64[rows] of a column of numbers; NaN where it is null."""
    return np.asarray(pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")), dtype=np.float64)


def of_sums(low: Fraction, high: Fraction, *, integers: bool) -> Lattice:
    """For sums: counted from 0."""
    step = _step(max(abs(low), abs(high)), BITS, integers and low.denominator == high.denominator == 1)
    return Lattice(low, high, Fraction(0), step, (low / step).__floor__(), (high / step).__ceil__())


def of_range(low: Fraction, high: Fraction, *, integers: bool, bits: int = BITS - 1) -> Lattice:
    """For means, variances and quantiles: counted from ``low``."""
    step = _step(high - low, bits, integers and low.denominator == high.denominator == 1)
    return Lattice(low, high, low, step, 0, ((high - low) / step).__ceil__())


def _step(reach: Fraction, bits: int, whole: bool) -> Fraction:
    if whole and reach <= 2**bits:
        return Fraction(1)
    # One bit less, so that rounding the bounds outwards stays within 2^bits.
    step = Fraction(2) ** (reach.numerator.bit_length() - reach.denominator.bit_length() + 2 - bits)
    if step < Fraction(1, 2**200):
        raise ParameterError("the bounds are too close together")
    return step


def ladder(low: Fraction, high: Fraction, *, integers: bool) -> tuple[Fraction, ...]:
    """Bounds to be found, ascending: low, high, 0, and powers of two of either sign between them."""
    powers = [Fraction(2) ** exponent for exponent in range(0 if integers else -FINEST, 63)]
    steps = {low, high, Fraction(0), *powers, *(-power for power in powers)}
    return tuple(sorted(step for step in steps if low <= step <= high))


def is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def add_noise(totals: I64, noise: I64) -> I64:
    """Their sum; saturates where it leaves int64, which depends on the noisy sum alone."""
    total = totals + noise
    overflow = ((totals >= 0) == (noise >= 0)) & ((total >= 0) != (totals >= 0))
    return np.where(overflow, np.where(totals >= 0, MAX_TOTAL, -MAX_TOTAL - 1), total)
