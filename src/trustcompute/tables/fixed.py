"""Columns of numbers as whole units of a fixed point, within declared bounds, and labels as places in a listed domain.

Called by whoever adds up what tables hold (``aggregation``, ``psi``) before anything leaves a party. A value outside
its bounds is an error that names the column and the rule, never a value that is clipped or wraps; no error repeats a
value. Rounding of floats and decimals to units is half to even.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.errors import ParameterError, TableError
from trustcompute.kernels.arrays import I64
from trustcompute.tables.table import without_views

Label = str | int | bool

_EXACT: Final = 2.0**53
_NUMBER: Final = re.compile(r"[+-]?[0-9]{0,40}(\.[0-9]{0,40}|/[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?\Z")
"""What is read as a number: an exponent from a peer must not make an integer of a thousand digits."""


@dataclass(frozen=True)
class Bounds:
    """low, high: the least and largest value, integers or decimal strings; scale: fixed-point units of one."""

    low: int | str
    high: int | str
    scale: int = 1

    def __post_init__(self) -> None:
        if type(self.scale) is not int or not 1 <= self.scale <= 2**40:
            raise ParameterError("a scale is an integer of 1 to 2^40: the fixed-point units of one")
        if self.least > self.most:
            raise ParameterError(f"bounds from {self.low} to {self.high} hold no value")

    @property
    def least(self) -> int:
        return self.units(self.low)

    @property
    def most(self) -> int:
        return self.units(self.high)

    @property
    def shift(self) -> int:
        """The public middle, in units: what is counted is the distance from it."""
        return (self.least + self.most) // 2

    @property
    def reach(self) -> int:
        """The largest distance from the middle, at least 1."""
        return max(self.most - self.shift, self.shift - self.least, 1)

    def units(self, value: int | str) -> int:
        """A number in whole units. Raises ``ParameterError`` for what is none."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ParameterError(
                "bounds are integers or decimal strings, such as '0.25': floats are not exact"
            )
        try:
            units = exactly(value) * self.scale
        except (ValueError, ZeroDivisionError):
            raise ParameterError(f"{str(value)[:40]!r} is not a decimal number") from None
        if units.denominator != 1 or abs(units) > 2**62:
            raise ParameterError(
                f"the bound {value} is not a whole number of units of 1/{self.scale}, below 2^62"
            )
        return int(units)


def exactly(value: int | str) -> Fraction:
    """What a number or its text says. Raises ``ValueError`` for text of none, ``ZeroDivisionError``."""
    if isinstance(value, str) and not _NUMBER.match(value):
        raise ValueError("no number")
    return Fraction(value)


def column_units(column: pa.Array, bounds: Bounds, name: str) -> I64:
    """int64[rows] of a column's numbers, each within bounds. Raises ``TableError``, for missing values too."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type) and not column.null_count:
        return _checked(_decimal_units(column, bounds, name), bounds, name)
    return units_of(plain_numbers(column, name), bounds, name)


def plain_numbers(column: pa.Array, name: str) -> npt.NDArray[Any]:
    """Integers or floats of a column, none of them missing. Raises ``TableError``."""
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if column.null_count:
        raise TableError(
            f"rule nulls: column {name!r} has missing values: fill or leave out these rows first"
        )
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise TableError(f"rule type: column {name!r} is {column.type}, which cannot be added up")
    values: npt.NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def units_of(values: npt.NDArray[Any], bounds: Bounds, name: str) -> I64:
    """int64[n]: numbers in units, each within bounds. Raises ``TableError``."""
    if values.dtype.kind == "f":
        exact = values.astype(np.float64, copy=False)
        if not np.isfinite(exact).all():
            raise TableError(f"rule numbers: column {name!r} has a value that is not a finite number")
        scaled = np.rint(exact * bounds.scale)
        # Compared as floats first: a cast of what does not fit an integer would not be an error.
        if len(scaled) and np.abs(scaled).max() >= _EXACT:
            raise _outside(bounds, name)
        return _checked(scaled.astype(np.int64), bounds, name)
    if values.dtype.kind not in "iub":
        raise TableError(f"rule type: column {name!r} is {values.dtype}, which cannot be added up")
    low, high = -((-bounds.least) // bounds.scale), bounds.most // bounds.scale
    if len(values) and (int(values.min()) < low or int(values.max()) > high):
        raise _outside(bounds, name)
    return values.astype(np.int64) * np.int64(bounds.scale)


def _decimal_units(column: pa.Array, bounds: Bounds, name: str) -> I64:
    try:
        wide = column.cast(
            pa.decimal256(column.type.precision, column.type.scale)
        )  # 38 digits have no room to grow
        scaled = pc.multiply(wide, pa.scalar(Decimal(bounds.scale)))
        return _numpy(pc.round(scaled, round_mode="half_to_even").cast(pa.int64()))
    except pa.ArrowException:  # more digits than an integer of 64 bits holds
        raise _outside(bounds, name) from None


def _checked(units: I64, bounds: Bounds, name: str) -> I64:
    if len(units) and (int(units.min()) < bounds.least or int(units.max()) > bounds.most):
        raise _outside(bounds, name)
    return units


def _outside(bounds: Bounds, name: str) -> TableError:
    return TableError(f"rule bounds: column {name!r} has a value outside {bounds.low} to {bounds.high}")


def places(column: pa.Array, domain: Sequence[Label], name: str) -> I64:
    """int64[rows]: where each value stands in a domain of one kind, -1 for what is missing or stands nowhere.

    Raises ``TableError`` for a column of another kind than the domain's.
    """
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    column = column.cast(without_views(column.type))
    try:
        found = pc.index_in(column, value_set=pa.array(domain).cast(column.type), skip_nulls=True)
    except pa.ArrowException:
        raise TableError(f"rule groups: column {name!r} is not of the domain's kind") from None
    return _numpy(found.fill_null(-1).cast(pa.int64()))


def _numpy(column: pa.Array) -> I64:
    found: I64 = column.to_numpy(zero_copy_only=False)
    return found
