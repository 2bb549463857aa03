"""Which keys of the holder's table satisfy a predicate: the only place that looks at its values.

Called by ``table`` when a table is built, and by ``audit``. Keys and elements take their form from ``tables``
(``tc-key/1``), as in set intersection. What holds of a key is what holds of *every* row with that key: a record that
is there twice with different values matches nothing that they do not share.

Rows are read once each, in a stream, as a record each: digest of the key, and what the row says of it. Records are put
in order by their keys (``tables.spread``), and those of one key become one. In memory are some batches of rows, a
buffer and a 256th of the records; where the shelf has a directory, all else lies there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute import tables
from trustcompute.errors import ParameterError, TableError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.tables import KeySpec
from trustcompute.tables.distinct import sort_digests
from trustcompute.tables.keys import digested
from trustcompute.tables.spread import Spread
from trustcompute.verification.predicate import Predicate, Value
from trustcompute.verification.shelf import IN_MEMORY, Shelf

Mask = npt.NDArray[np.bool_]
Taking = Callable[[int], U8]
"""The next so many rows of a table, each as what it says of its key: uint8[n, w]."""

KEY, SAYS, ELEMENTS = 32, 1, 32
"""Bytes of a record: digest of the key; whether the predicate holds, or the row has elements; for ``match`` the digest
of key and elements."""

_ORDER = {
    ">=": pc.greater_equal,
    ">": pc.greater,
    "<=": pc.less_equal,
    "<": pc.less,
    "=": pc.equal,
    "!=": pc.not_equal,
}


@dataclass(frozen=True, eq=False)
class Truth:
    """What a predicate says of every distinct key of a table.

    keys: uint8[d, 32], ascending; holds: bool[d], for ``match`` whether the key has elements at all; elements: for
    ``match`` uint8[d, 32], the digests of key and elements together; ambiguous: keys whose rows disagree.
    """

    spec: KeySpec
    keys: U8 = field(repr=False)
    holds: Mask = field(repr=False)
    elements: U8 | None = field(repr=False)
    elements_spec: KeySpec | None
    ambiguous: int

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, chosen: slice | I64) -> Truth:
        """What it says of some of the keys."""
        elements = None if self.elements is None else self.elements[chosen]
        return replace(self, keys=self.keys[chosen], holds=self.holds[chosen], elements=elements)


def decide(
    source: object,
    subject: tuple[str, ...],
    predicate: Predicate,
    *,
    casefold: bool = False,
    executor: Executor | None = None,
    shelf: Shelf = IN_MEMORY,
) -> Truth:
    """Decide a predicate over a table. subject: the key columns; shelf: where the records lie, as long as the result is
    used; what it held before is removed. Raises ``StoreError``, ``TableError`` and ``ParameterError``: a column that is
    not there, or whose type cannot be compared with the predicate's values."""
    table = tables.open_table(source)
    table.check_columns(predicate.columns)
    if set(predicate.columns) & set(subject):
        raise ParameterError(f"the predicate {str(predicate)!r} asks about the key itself: use present")
    form, batches = digested(table, list(subject), casefold=casefold, executor=executor)
    whole, taking = _said(table, subject, predicate, casefold=casefold, executor=executor)
    width = KEY + SAYS + (ELEMENTS if predicate.matches else 0)
    shelf.clear()
    ambiguous = 0
    with shelf.writing():
        spread = Spread(shelf.path("spread"), width)
        for digests, valid in batches:
            spread.append(np.concatenate([digests, taking(len(valid))[valid]], axis=1))
        kept = shelf.rows("records", width)
        for part in spread.parts():
            if len(part):
                records, disagreeing = _by_key(part)
                kept.append(records)
                ambiguous += disagreeing
    records = kept.array()
    keys, holds = records[:, :KEY], records[:, KEY].view(np.bool_)
    return Truth(form, keys, holds, records[:, KEY + SAYS :] if predicate.matches else None, whole, ambiguous)


def _by_key(records: U8) -> tuple[U8, int]:
    """(one record for each key, ascending; keys whose rows disagree): of such a key nothing holds."""
    order, starts = sort_digests(np.ascontiguousarray(records[:, :KEY]))
    records = np.take(records, order, axis=0)
    found, said = records[starts], records[:, KEY:]
    differs = (said != np.repeat(said[starts], np.diff(starts, append=len(order)), axis=0)).any(axis=1)
    disagree = np.logical_or.reduceat(differs, starts)
    found[disagree, KEY:] = 0
    return found, int(disagree.sum())


def _said(
    table: tables.Table,
    subject: tuple[str, ...],
    predicate: Predicate,
    *,
    casefold: bool,
    executor: Executor | None,
) -> tuple[KeySpec | None, Taking]:
    """(the form of key and elements together, for ``match``; what rows say)."""
    if predicate.operator == "present":
        return None, lambda count: np.ones((count, SAYS), dtype=np.uint8)
    if not predicate.matches:
        masks = _masks(table, predicate, casefold=casefold)
        return None, _taking(mask.astype(np.uint8).reshape(-1, SAYS) for mask in masks)
    columns = [*subject, *predicate.columns]
    form, batches = digested(table, columns, casefold=casefold, executor=executor)
    return form, _taking(_elements(found, valid) for found, valid in batches)


def _elements(found: U8, valid: Mask) -> U8:
    rows = np.zeros((len(valid), SAYS + ELEMENTS), dtype=np.uint8)
    rows[valid, 0] = 1
    rows[valid, SAYS:] = found
    return rows


def _taking(stream: Iterator[U8]) -> Taking:
    """Rows of a stream, however it is cut."""
    left: list[U8] = []

    def take(count: int) -> U8:
        while sum(map(len, left)) < count or not left:
            part = next(stream, None)
            if part is None:
                raise TableError(
                    "the table has fewer rows than a moment ago: it was changed while it was read"
                )
            left.append(part)
        rows = left[0] if len(left) == 1 else np.concatenate(left)
        left[:] = [rows[count:]]
        return rows[:count]

    return take


def _masks(table: tables.Table, predicate: Predicate, *, casefold: bool) -> Iterator[Mask]:
    """For each batch, where the predicate holds; never at a null."""
    column = predicate.columns[0]
    scan = table.scan([column])
    kind = scan.schema.field(column).type
    if predicate.operator in ("=", "!=", "in") and _is_text(kind):
        return _text_masks(table, predicate, casefold=casefold)
    test = _test(predicate, kind)
    return (np.asarray(test(batch.column(0)).fill_null(False)).astype(np.bool_) for batch in scan.batches)


def _text_masks(table: tables.Table, predicate: Predicate, *, casefold: bool) -> Iterator[Mask]:
    """Text is compared as keys are: normalised."""
    if any(value.kind != "text" for value in predicate.values):
        raise ParameterError(
            f"the predicate {str(predicate)!r} compares text with what is no text: use quotes"
        )
    form, batches = digested(table, predicate.columns[0], casefold=casefold)
    asked = tables.keys({"value": pa.array([value.text for value in predicate.values])}, "value", spec=form)
    wanted = _names(asked.digests)

    def mask(found: U8, valid: Mask) -> Mask:
        rows = np.zeros(len(valid), dtype=np.bool_)
        rows[valid] = np.isin(_names(found), wanted, invert=predicate.operator == "!=")
        return rows

    return (mask(found, valid) for found, valid in batches)


def _names(digests: U8) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def _test(predicate: Predicate, kind: pa.DataType):  # type: ignore[no-untyped-def]
    """A function of an Arrow array. Raises ``ParameterError`` where values and column cannot be compared."""
    if pa.types.is_dictionary(kind):
        inner = _test(predicate, kind.value_type)
        return lambda array: inner(array.dictionary_decode())
    values = [_scalar(value, kind, predicate) for value in predicate.values]
    if predicate.operator == "between":
        low, high = values
        return lambda array: pc.and_(pc.greater_equal(array, low), pc.less_equal(array, high))
    if predicate.operator == "in":
        listed = pa.array([value.as_py() for value in values], type=kind)
        return lambda array: pc.and_(pc.is_in(array, value_set=listed), pc.is_valid(array))
    return lambda array: _ORDER[predicate.operator](array, values[0])


def _scalar(value: Value, kind: pa.DataType, predicate: Predicate) -> pa.Scalar:
    types = pa.types
    try:
        if value.kind == "number" and types.is_integer(kind):
            return pa.scalar(int(value.text), kind)
        if value.kind == "number" and types.is_floating(kind):
            return pa.scalar(float(value.text), kind)
        if value.kind == "number" and types.is_decimal(kind):
            return pa.scalar(Decimal(value.text), kind)
        if value.kind == "boolean" and types.is_boolean(kind) and predicate.operator in ("=", "!=", "in"):
            return pa.scalar(value.text == "true")
        if value.kind == "text" and types.is_temporal(kind):
            return pa.scalar(value.text).cast(kind)
    except (ValueError, pa.ArrowException):
        pass
    raise ParameterError(
        f"column {predicate.columns[0]!r} of type {kind} cannot be compared with {value} by"
        f" {predicate.operator!r}: whole numbers go with integers, decimals with decimals and floats, quoted dates"
        " with dates; text only with =, != and in"
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
