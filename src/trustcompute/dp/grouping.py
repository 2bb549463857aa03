"""Which group each row is in: numbers for the groups that were given, or for those found in the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.dp.bounding import U64, hash_values, mix
from trustcompute.dp.groups import Group
from trustcompute.dp.plan import is_text, plain_type

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Grouped:
    """labels: a column for each one grouped by, a row a group; code: of each row its group, -1 if in none, int32."""

    labels: pa.Table
    code: I32

    @property
    def count(self) -> int:
        return self.labels.num_rows if self.labels.num_columns else 1

    def hashes(self) -> U64:
        """Of each group, by its labels alone."""
        hashed = np.zeros(self.count, dtype=np.uint64)
        for column in self.labels.columns:
            hashed = mix(hashed, hash_values(_whole(column), b"group"))
        return hashed


def group(by: tuple[Group, ...], table: pa.Table) -> Grouped:
    """Number the groups of a table's rows: all of the given values, or all combinations that occur."""
    if not by:
        return Grouped(pa.table({}), np.zeros(table.num_rows, dtype=np.int32))
    coded = [codes(one, table[one.column]) for one in by]
    combined = coded[0][0]
    places = [np.arange(len(values)) for _, values in coded]
    if all(one.values for one in by):
        for code, values in coded[1:]:
            combined = np.where((combined >= 0) & (code >= 0), combined * len(values) + code, -1)
        places = list(np.indices([len(values) for _, values in coded]).reshape(len(by), -1))
    else:
        for at, (code, values) in enumerate(coded[1:], 1):
            pair = np.where((combined >= 0) & (code >= 0), combined.astype(np.int64) * len(values) + code, -1)
            combined, found = _numbered(pair)
            left, right = np.divmod(found, max(len(values), 1))
            places[:at] = [place[left] for place in places[:at]]
            places[at] = right
    names = [one.column for one in by]
    labels = [values.take(pa.array(place)) for place, (_, values) in zip(places, coded, strict=True)]
    return Grouped(pa.table(labels, names=names), combined.astype(np.int32, copy=False))


def _numbered(values: I64) -> tuple[I32, I64]:
    """Small numbers for the values that are not negative, in any order; and which value each number stands for."""
    encoded = pc.dictionary_encode(pa.array(values, mask=values < 0))
    return (
        pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False),
        encoded.dictionary.to_numpy(zero_copy_only=False),
    )


def codes(one: Group, column: pa.ChunkedArray) -> tuple[I32, pa.Array]:
    """Codes of a column, int32[rows] (-1: none of the values), and the value of each code."""
    kind = plain_type(column.type)
    plain = pc.cast(column, pa.large_string() if is_text(kind) else kind)
    if one.values:
        wanted = _array(one.values, plain.type)
        code = pc.fill_null(pc.index_in(plain, value_set=wanted, skip_nulls=True), -1)
        return np.asarray(code, dtype=np.int32), pa.array(one.values, _label_type(kind))
    encoded = pc.dictionary_encode(plain).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.array([], plain.type).dictionary_encode()
    code = pc.fill_null(encoded.indices.cast(pa.int32()), -1)
    return np.asarray(code, dtype=np.int32), encoded.dictionary


def _label_type(kind: pa.DataType) -> pa.DataType:
    """Values that are given need not fit the column."""
    return pa.large_string() if is_text(kind) else pa.int64() if pa.types.is_integer(kind) else kind


def shown(values: pa.ChunkedArray) -> list[Any]:
    """Python values; text that is not UTF-8 is shown with replacement characters."""
    if not is_text(values.type):
        return list(values.to_pylist())
    return [text.decode("utf-8", "replace") for text in values.cast(pa.large_binary()).to_pylist()]


def _array(values: tuple[str | int | bool, ...], kind: pa.DataType) -> pa.Array:
    """Declared values in a column's type; an integer that the type cannot hold matches nothing."""
    if not pa.types.is_integer(kind):
        return pa.array(values, kind)
    bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    return pa.array([value if low <= int(value) < high else None for value in values], kind)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
