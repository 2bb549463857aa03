"""Columns of a table as bytes of one width a row, and back: ``tc-label/1``.

Called by ``psi`` and the node, for labels of matched rows. A row is its cells in the columns' order; a cell is two
bytes (little-endian: 0 for a null, else the value's length plus one), the value, and zeros up to the column's width. So
rows of different lengths cannot be told apart once they are encrypted.

Whole numbers, dates and moments (microseconds) are 8 bytes of a little-endian integer, floating-point numbers
IEEE 754 binary64, truth values 0 or 1; text is UTF-8 and binary is what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.errors import TableError
from trustcompute.tables.keys import I64, U8
from trustcompute.tables.source import opened, take
from trustcompute.tables.table import Table, shown

MAX_COLUMNS: Final = 64
MAX_WIDTH: Final = 4096  # bytes of a row with all its cells
FIXED: Final = 8
_HEAD: Final = 2


class LabelKind(StrEnum):
    """What a label's value is."""

    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMP_UTC = "timestamp_utc"
    TEXT = "text"
    BINARY = "binary"


TYPES: Final[dict[LabelKind, pa.DataType]] = {
    LabelKind.INTEGER: pa.int64(),
    LabelKind.FLOAT: pa.float64(),
    LabelKind.BOOLEAN: pa.bool_(),
    LabelKind.DATE: pa.date32(),
    LabelKind.TIMESTAMP: pa.timestamp("us"),
    LabelKind.TIMESTAMP_UTC: pa.timestamp("us", "UTC"),
    LabelKind.TEXT: pa.large_string(),
    LabelKind.BINARY: pa.large_binary(),
}
LONG: Final = (LabelKind.TEXT, LabelKind.BINARY)  # kinds whose values have lengths of their own


@dataclass(frozen=True, slots=True)
class LabelColumn:
    """One column of labels. width: the most bytes that a value takes; 8 for all but text and binary."""

    name: str
    kind: LabelKind
    width: int

    def __post_init__(self) -> None:
        if self.kind not in LONG and self.width != FIXED:
            raise TableError(f"labels of kind {self.kind} take {FIXED} bytes, not {self.width}")
        if not 1 <= self.width <= MAX_WIDTH:
            raise TableError(f"a label takes 1 to {MAX_WIDTH} bytes, not {self.width}")


Form = tuple[LabelColumn, ...]


def row_bytes(form: Form) -> int:
    """Of one row of labels."""
    return sum(_HEAD + column.width for column in form)


def form_of(source: object, widths: Mapping[str, int]) -> Form:
    """The form of these columns of a table, in this order. widths: for each the most bytes that a value takes.

    No row is read, but a stream is opened. Raises ``TableError``.
    """
    schema = opened(source).scan(list(widths)).schema
    form = tuple(LabelColumn(name, kind_of(schema.field(name)), width) for name, width in widths.items())
    if not 1 <= len(form) <= MAX_COLUMNS or row_bytes(form) > MAX_WIDTH:
        raise TableError(f"labels are 1 to {MAX_COLUMNS} columns of {MAX_WIDTH} bytes together, at most")
    return form


def widths_of(source: object, columns: Sequence[str]) -> dict[str, int]:
    """The least widths that hold every value of these columns. Reads them."""
    table = opened(source)
    return {name: _longest(table, name) for name in columns}


def check_fits(source: object, form: Form) -> None:
    """Raise ``TableError`` where a value is longer than its column's width. Reads the columns that can be."""
    table = opened(source)
    for column in form:
        if column.kind in LONG and (longest := _longest(table, column.name)) > column.width:
            raise TableError(
                f"column {shown(column.name)} has values of {longest} bytes: give it that width, not {column.width}"
            )


def encode(source: object, rows: I64, form: Form) -> U8:
    """The labels of these rows, uint8[k, row_bytes]. Raises ``TableError`` for a value that does not fit."""
    found = take(source, rows, [column.name for column in form])
    cells = [_encoded(found[column.name].combine_chunks(), column) for column in form]
    return np.concatenate(cells, axis=1)


def decode(labels: U8, form: Form) -> pa.Table:
    """The inverse of ``encode``. Raises ``TableError`` for bytes that are no labels of this form."""
    columns, at = {}, 0
    for column in form:
        cell = labels[:, at : at + _HEAD + column.width]
        columns[column.name] = _decoded(cell, column)
        at += _HEAD + column.width
    return pa.table(columns)


def kind_of(field: pa.Field) -> LabelKind:  # noqa: PLR0911 - one line a kind
    """What a column's values are as labels. Raises ``TableError`` for what cannot be one."""
    types = pa.types
    found = field.type.value_type if types.is_dictionary(field.type) else field.type
    if types.is_integer(found):
        return LabelKind.INTEGER
    if types.is_floating(found):
        return LabelKind.FLOAT
    if types.is_boolean(found):
        return LabelKind.BOOLEAN
    if types.is_date(found):
        return LabelKind.DATE
    if types.is_timestamp(found):
        return LabelKind.TIMESTAMP if found.tz is None else LabelKind.TIMESTAMP_UTC
    if types.is_string(found) or types.is_large_string(found) or types.is_string_view(found):
        return LabelKind.TEXT
    if types.is_binary(found) or types.is_large_binary(found) or types.is_binary_view(found):
        return LabelKind.BINARY
    raise TableError(
        f"column {shown(field.name)} of type {found} cannot be a label; allowed are {', '.join(LabelKind)}"
    )


def _longest(table: Table, name: str) -> int:
    scan = table.scan([name])
    kind = kind_of(scan.schema.field(name))
    if kind not in LONG:
        return FIXED
    longest = 1
    for batch in scan.batches:
        lengths = pc.binary_length(batch.column(0).cast(TYPES[kind]))
        longest = max(longest, pc.max(lengths).as_py() or 0)
    return longest


def _encoded(values: Any, column: LabelColumn) -> U8:
    try:
        values = values.cast(TYPES[column.kind])
    except pa.ArrowInvalid:
        raise TableError(
            f"column {shown(column.name)} has a value that no {column.kind} can hold: cast it to text"
        ) from None
    there = values.is_valid().to_numpy(zero_copy_only=False)
    cells = np.zeros((len(values), _HEAD + column.width), np.uint8)
    if column.kind in LONG:
        lengths = _fill(cells[:, _HEAD:], values, column)
    else:
        numbers = _numbers(values, column.kind)
        cells[:, _HEAD:] = numbers.reshape(-1, 1).view(np.uint8)
        cells[~there] = 0
        lengths = np.full(len(values), FIXED)
    heads = np.where(there, lengths + 1, 0).astype("<u2")
    cells[:, :_HEAD] = heads.reshape(-1, 1).view(np.uint8)
    return cells


def _numbers(values: Any, kind: LabelKind) -> npt.NDArray[Any]:
    """Eight bytes each, little-endian."""
    if kind is LabelKind.FLOAT:
        found = values.fill_null(0.0).to_numpy(zero_copy_only=False).astype("<f8")
        return np.asarray(found)
    plain = values.view(pa.int32()) if kind is LabelKind.DATE else values
    found = plain.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False).astype("<i8")
    return np.asarray(found)


def _fill(cells: U8, values: Any, column: LabelColumn) -> I64:
    """Put values of different lengths into their cells; their lengths."""
    values = values.view(pa.large_binary()).fill_null(b"")
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(ends)
    if (lengths > column.width).any():
        raise TableError(
            f"column {shown(column.name)} has a value longer than its width, {column.width} bytes"
        )
    if len(values) and ends[-1] > ends[0]:
        inside = np.arange(column.width) < lengths[:, None]
        cells[inside] = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    return np.asarray(lengths, np.int64)


def _decoded(cells: U8, column: LabelColumn) -> Any:
    heads = np.ascontiguousarray(cells[:, :_HEAD]).view("<u2").ravel().astype(np.int64)
    there, lengths = heads > 0, np.maximum(heads - 1, 0)
    wrong = lengths > column.width if column.kind in LONG else there & (lengths != FIXED)
    if wrong.any():
        raise _not_labels(column)
    try:
        if column.kind in LONG:
            return _texts(cells[:, _HEAD:], lengths, there).cast(TYPES[column.kind])
        return _values(np.ascontiguousarray(cells[:, _HEAD:]), there, column.kind)
    except (pa.ArrowInvalid, OverflowError):
        raise _not_labels(column) from None


def _texts(cells: U8, lengths: I64, there: npt.NDArray[np.bool_]) -> Any:
    inside = np.arange(cells.shape[1]) < lengths[:, None]
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int64)
    nulls = pa.array(there).buffers()[1] if len(there) else None
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(lengths), [nulls, pa.py_buffer(offsets), pa.py_buffer(cells[inside].tobytes())]
    )


def _values(cells: U8, there: npt.NDArray[np.bool_], kind: LabelKind) -> Any:
    if kind is LabelKind.FLOAT:
        return pa.array(cells.view("<f8").ravel(), mask=~there)
    numbers = cells.view("<i8").ravel()
    if kind is LabelKind.BOOLEAN and (numbers >> 1).any():
        raise OverflowError
    if kind is LabelKind.DATE:
        return pa.array(numbers, mask=~there).cast(pa.int32()).cast(pa.date32())
    return pa.array(numbers, mask=~there).cast(TYPES[kind])


def _not_labels(column: LabelColumn) -> TableError:
    return TableError(f"the bytes of column {shown(column.name)} are no labels of kind {column.kind}")
