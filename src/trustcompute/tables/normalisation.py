"""The rule ``tc-key/1``: from an Arrow column to canonical bytes, a whole batch at a time.

Called by ``keys``. Source: docs/reference/normalisation.md, which this module follows section by section.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute import kernels
from trustcompute.tables.spec import TAGS, KeyColumn, Kind
from trustcompute.tables.table import check_buffers, without_views
from trustcompute.tables.text import cells, normalised

U8 = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

ALLOWED = (
    "strings, integers, binary, dates, timestamps, booleans, decimals, floats that hold whole numbers, and"
    " dictionaries of these"
)
DAY_MS = 86_400_000
TO_MICROSECONDS = {"s": 1_000_000, "ms": 1_000, "us": 1}
NANOSECONDS = 1_000
EXACT_FLOAT_BITS = {16: 11, 32: 24, 64: 53}
"""Width of a float -> bits p of its significand: below 2^p no other whole number rounds to a whole number."""

UNSCALED = {
    32: ("decimal32", 9),
    64: ("decimal64", 18),
    128: ("decimal128", 38),
    256: ("decimal256", 76),
}
"""Width of a decimal in bits -> the type with scale 0 that shows its stored integer."""


class UnusableValue(Exception):
    """row: position within the batch, None for the whole column; reason: what is wrong and what to do."""

    def __init__(self, row: int | None, reason: str) -> None:
        super().__init__(reason)
        self.row, self.reason = row, reason


def kind_of(type_: pa.DataType) -> Kind | None:  # noqa: PLR0911 - one line a kind
    """The kind of a column of this Arrow type; None if it cannot be a key."""
    types = pa.types
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return kind_of(type_.value_type)
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return Kind.TEXT
    if types.is_integer(type_) or types.is_floating(type_):
        return Kind.INTEGER
    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_binary_view(type_):
        return Kind.BINARY
    if types.is_fixed_size_binary(type_) or _is_uuid(type_):
        return Kind.BINARY
    if types.is_date(type_):
        return Kind.DATE
    if types.is_timestamp(type_):
        return Kind.TIMESTAMP if type_.tz is None else Kind.TIMESTAMP_UTC
    if types.is_boolean(type_):
        return Kind.BOOLEAN
    if types.is_decimal(type_):
        return Kind.DECIMAL
    return Kind.NULL if types.is_null(type_) else None


def _is_uuid(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.uuid"


def plain(array: pa.Array) -> pa.Array:
    """A column of a batch, checked, as one to slice and compute on: a dictionary stays one, views go.

    Offsets, dictionary indices and UTF-8 are checked, since an array from an unchecked source may hold
    anything. Raises ``UnusableValue``.
    """
    try:
        check_buffers(array)
    except pa.ArrowException:
        raise UnusableValue(None, "its Arrow buffers are damaged: write the table again") from None
    if isinstance(array, pa.ExtensionArray):
        return plain(array.storage)
    if isinstance(array, pa.RunEndEncodedArray):
        return plain(pc.run_end_decode(array))
    if isinstance(array, pa.DictionaryArray):
        return _plain_dictionary(array)
    if kind_of(array.type) is Kind.TEXT and not _is_valid(array):
        reason = "the value is not UTF-8: decode it, or pass the column as binary"
        raise UnusableValue(_first_invalid(array), reason)
    return array.cast(without_views(array.type))


def _plain_dictionary(array: pa.DictionaryArray) -> pa.DictionaryArray:
    try:
        values = plain(array.dictionary)
    except UnusableValue as error:
        first = pc.index(array.indices, pa.scalar(error.row, array.indices.type)).as_py()
        raise UnusableValue(first if first >= 0 else None, error.reason) from None
    return pa.DictionaryArray.from_arrays(array.indices, values)


def _is_valid(array: pa.Array) -> bool:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _first_invalid(array: pa.Array) -> int:
    """Position of the first value that fails full validation, by bisection."""
    low, high = 0, len(array)
    while high - low > 1:
        middle = (low + high) // 2
        if _is_valid(array.slice(low, middle - low)):
            low = middle
        else:
            high = middle
    return low


def canonical(array: pa.Array, column: KeyColumn) -> tuple[kernels.Column, Mask]:
    """The canonical bytes of a slice of a ``plain`` array: (n cells, bool[n] which of them are not null).

    Cells of nulls hold anything. Raises ``UnusableValue``.
    """
    if isinstance(array, pa.DictionaryArray):
        array = array.dictionary.take(array.indices)
    if pa.types.is_null(array.type):
        empty = kernels.FixedColumn(0, np.zeros((len(array), 0), np.uint8))
        return empty, np.zeros(len(array), np.bool_)
    if column.kind is Kind.TEXT:
        return _text(array, casefold=column.casefold)
    return CANONICAL[column.kind](array)


def _text(array: pa.Array, *, casefold: bool) -> tuple[kernels.Column, Mask]:
    offsets, data = normalised(array.cast(pa.large_string()), casefold=casefold)
    return kernels.VariableColumn(TAGS[Kind.TEXT], offsets, data), offsets[1:] > offsets[:-1]


def _binary(array: pa.Array) -> tuple[kernels.Column, Mask]:
    if pa.types.is_fixed_size_binary(array.type) and array.null_count == 0 and array.type.byte_width:
        width, rows = array.type.byte_width, len(array)
        values = np.frombuffer(array.buffers()[1] or b"", np.uint8, rows * width, offset=array.offset * width)
        return kernels.FixedColumn(TAGS[Kind.BINARY], values.reshape(rows, width)), np.ones(rows, np.bool_)
    array = array.cast(pa.large_binary())
    offsets, data = cells(array.fill_null(b"") if array.null_count else array)
    return kernels.VariableColumn(TAGS[Kind.BINARY], offsets, data), offsets[1:] > offsets[:-1]


def _integer(array: pa.Array) -> tuple[kernels.Column, Mask]:
    if pa.types.is_floating(array.type):
        return _float(array)
    valid = _valid(array)
    values = _numpy(array)
    if values.dtype == np.uint64:
        _refuse(
            valid & (values > np.uint64(2**63 - 1)),
            "the value lies above 2^63 - 1: pass the column as text or decimal",
        )
    return _fixed(Kind.INTEGER, values.astype(np.int64)), valid


def _float(array: pa.Array) -> tuple[kernels.Column, Mask]:
    bits = EXACT_FLOAT_BITS[array.type.bit_width]
    values = _numpy(array).astype(np.float64)
    valid = _valid(array) & ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        exact = (np.abs(values) < 2.0**bits) & (np.trunc(values) == values)
    _refuse(
        valid & ~exact,
        f"a float is no key unless it is a whole number below 2^{bits}: cast the column to an integer,"
        " decimal or text where the data come from",
    )
    return _fixed(Kind.INTEGER, np.where(exact, values, 0).astype(np.int64)), valid


def _date(array: pa.Array) -> tuple[kernels.Column, Mask]:
    valid = _valid(array)
    if pa.types.is_date32(array.type):
        return _fixed(Kind.DATE, _numpy(array.view(pa.int32())).astype(np.int64)), valid
    milliseconds = _numpy(array.view(pa.int64()))
    days = milliseconds // DAY_MS
    _refuse(
        valid & (days * DAY_MS != milliseconds),
        "a date64 must be a whole number of days: pass the column as timestamps",
    )
    return _fixed(Kind.DATE, days), valid


def _timestamp(array: pa.Array) -> tuple[kernels.Column, Mask]:
    kind = Kind.TIMESTAMP if array.type.tz is None else Kind.TIMESTAMP_UTC
    valid = _valid(array)
    values = _numpy(array.view(pa.int64()))
    if array.type.unit == "ns":
        whole = values // NANOSECONDS
        _refuse(
            valid & (whole * NANOSECONDS != values),
            "the timestamp is finer than a microsecond: round the column to microseconds on both sides",
        )
        return _fixed(kind, whole), valid
    factor = TO_MICROSECONDS[array.type.unit]
    limit = 2**63 // factor
    over = (values >= limit) | (values < -limit) if factor > 1 else np.zeros(len(values), np.bool_)
    _refuse(valid & over, "the timestamp does not fit 64 bits in microseconds: correct it")
    return _fixed(kind, np.where(valid, values, 0) * factor), valid


def _boolean(array: pa.Array) -> tuple[kernels.Column, Mask]:
    values = _numpy(array.cast(pa.uint8()))
    return kernels.FixedColumn(TAGS[Kind.BOOLEAN], values.reshape(-1, 1)), _valid(array)


def _decimal(array: pa.Array) -> tuple[kernels.Column, Mask]:
    constructor, precision = UNSCALED[array.type.bit_width]
    unscaled_type = getattr(pa, constructor)(precision, 0)
    unscaled = pa.Array.from_buffers(unscaled_type, len(array), array.buffers(), offset=array.offset)
    digits = unscaled.cast(pa.string()).cast(pa.large_string())
    significant = pc.ascii_rtrim(digits, characters="0")
    zeros = pc.subtract(pc.binary_length(digits), pc.binary_length(significant))
    exponent = pc.subtract(zeros, array.type.scale).cast(pa.string()).cast(pa.large_string())
    text = pc.binary_join_element_wise(significant, exponent, pa.scalar("E", pa.large_string()))
    text = pc.if_else(pc.equal(significant, ""), "0E0", text).cast(pa.large_binary())
    offsets, data = cells(text.fill_null(b"") if text.null_count else text)
    return kernels.VariableColumn(TAGS[Kind.DECIMAL], offsets, data), _valid(array)


def _fixed(kind: Kind, values: npt.NDArray[np.int64]) -> kernels.FixedColumn:
    return kernels.FixedColumn(TAGS[kind], np.ascontiguousarray(values, "<i8").view(np.uint8).reshape(-1, 8))


def _valid(array: pa.Array) -> Mask:
    if array.null_count == 0:
        return np.ones(len(array), np.bool_)
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _numpy(array: pa.Array) -> npt.NDArray[Any]:
    """The stored numbers, whatever stands under the nulls: no copy, and no detour through floats."""
    type_ = array.type.to_pandas_dtype()
    data = array.buffers()[1]
    if data is None or len(array) == 0:
        return np.zeros(len(array), type_)
    width = np.dtype(type_).itemsize
    return np.frombuffer(data, type_, len(array), offset=array.offset * width)


def _refuse(bad: Mask, reason: str) -> None:
    if bad.any():
        raise UnusableValue(int(bad.argmax()), reason)


CANONICAL: dict[Kind, Callable[[pa.Array], tuple[kernels.Column, Mask]]] = {
    Kind.INTEGER: _integer,
    Kind.BINARY: _binary,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _timestamp,
    Kind.TIMESTAMP_UTC: _timestamp,
    Kind.BOOLEAN: _boolean,
    Kind.DECIMAL: _decimal,
}
