"""Which keys of the holder's table satisfy a predicate: the only place that looks at its values.

Called by ``table`` when a table is built, and by ``audit``. Keys and elements take their form from ``tables``
(``tc-key/1``), as in set intersection. What holds of a key is what holds of *every* row with that key: a record that
is there twice with different values matches nothing that they do not share.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import U8
from trustcompute.tables import Keys, KeySpec
from trustcompute.verification.predicate import Predicate, Value

Mask = npt.NDArray[np.bool_]

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


def decide(
    source: object,
    subject: tuple[str, ...],
    predicate: Predicate,
    *,
    casefold: bool = False,
    executor: Executor | None = None,
) -> Truth:
    """Decide a predicate over a table. subject: the key columns. Raises ``TableError`` and ``ParameterError``: a
    column that is not there, or whose type cannot be compared with the predicate's values."""
    table = tables.open_table(source)
    table.check_columns(predicate.columns)
    if set(predicate.columns) & set(subject):
        raise ParameterError(f"the predicate {str(predicate)!r} asks about the key itself: use present")
    keys = tables.keys(table, list(subject), casefold=casefold, executor=executor)
    if predicate.matches:
        return _matched(table, subject, predicate, keys, casefold=casefold, executor=executor)
    mask = _rows(table, predicate, casefold=casefold)
    return Truth(keys.spec, keys.digests, *_of_keys(keys, mask))


def _of_keys(keys: Keys, mask: Mask) -> tuple[Mask, None, None, int]:
    known = keys.codes >= 0
    some_true, some_false = np.zeros(len(keys), dtype=np.bool_), np.zeros(len(keys), dtype=np.bool_)
    some_true[keys.codes[known & mask]] = True
    some_false[keys.codes[known & ~mask]] = True
    return ~some_false, None, None, int((some_true & some_false).sum())


def _matched(
    table: tables.Table,
    subject: tuple[str, ...],
    predicate: Predicate,
    keys: Keys,
    *,
    casefold: bool,
    executor: Executor | None,
) -> Truth:
    whole = tables.keys(table, [*subject, *predicate.columns], casefold=casefold, executor=executor)
    first = whole.codes[keys.first_rows] if len(keys) else np.zeros(0, dtype=np.int64)
    known = np.flatnonzero(keys.codes >= 0)
    other = np.zeros(len(keys), dtype=np.bool_)
    other[keys.codes[known[whole.codes[known] != first[keys.codes[known]]]]] = True
    holds = (first >= 0) & ~other
    elements = np.zeros((len(keys), 32), dtype=np.uint8)
    elements[holds] = whole.digests[first[holds]]
    return Truth(keys.spec, keys.digests, holds, elements, whole.spec, int(other.sum()))


def _rows(table: tables.Table, predicate: Predicate, *, casefold: bool) -> Mask:
    """bool[rows]: where the predicate holds; never at a null."""
    if predicate.operator == "present":
        return np.ones(table.count(), dtype=np.bool_)
    column = predicate.columns[0]
    scan = table.scan([column])
    kind = scan.schema.field(column).type
    if predicate.operator in ("=", "!=", "in") and _is_text(kind):
        return _text_rows(table, predicate, casefold=casefold)
    test = _test(predicate, kind)
    found = [np.asarray(test(batch.column(0)).fill_null(False)) for batch in scan.batches]
    return np.concatenate([part.astype(np.bool_) for part in found]) if found else np.zeros(0, dtype=np.bool_)


def _text_rows(table: tables.Table, predicate: Predicate, *, casefold: bool) -> Mask:
    """Text is compared as keys are: normalised."""
    if any(value.kind != "text" for value in predicate.values):
        raise ParameterError(
            f"the predicate {str(predicate)!r} compares text with what is no text: use quotes"
        )
    column = predicate.columns[0]
    held = tables.keys(table, column, casefold=casefold)
    asked = tables.keys(
        {"value": pa.array([value.text for value in predicate.values])}, "value", spec=held.spec
    )
    among = {digest.tobytes() for digest in asked.digests}
    inside = np.array([digest.tobytes() in among for digest in held.digests] + [False], dtype=np.bool_)
    found = inside[held.codes]
    return (held.codes >= 0) & ~found if predicate.operator == "!=" else found


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
