"""From rows to cells: counts, exact sums, and who contributes how much to which cell. The only place that looks at
data.

Called by ``suppress`` and ``query``. Sums are integers in the smallest unit of their column (cents of a decimal with
two digits), so that they are exact in any order; columns of floats are refused, since theirs are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute import tables
from trustcompute.errors import ParameterError, TableError
from trustcompute.kernels.arrays import I64
from trustcompute.tables.table import without_views
from trustcompute.verification.statistical.network import Shape
from trustcompute.verification.statistical.rules import MAX_LABEL, MAX_LABELS, Label, Rules, Shares, Way

LARGEST: Final = 2**62
"""Absolute amounts of a column add up to less than this, so that sums of 64 bits are exact."""


@dataclass(frozen=True, eq=False)
class Amount:
    """What one column brings to every cell, by contributor. Pairs of cell and contributor stand cell by cell, the
    largest size first.

    count: int64[cells], rows with a value; sums: int64[cells]; first: int64[cells + 1], where each cell's pairs begin;
    who: int64[pairs]; amount: int64[pairs]; rows: int64[pairs].
    """

    count: I64 = field(repr=False)
    sums: I64 = field(repr=False)
    first: I64 = field(repr=False)
    who: I64 = field(repr=False)
    amount: I64 = field(repr=False)
    rows: I64 = field(repr=False)

    def shares(self, cell: int, most: int) -> Shares:
        """Contributions to a cell, the largest ``most`` of them one by one."""
        begin, end = int(self.first[cell]), int(self.first[cell + 1])
        sizes = np.abs(self.amount[begin:end])
        return Shares(tuple(sizes[:most].tolist()), end - begin, int(sizes.sum()))

    def largest(self, cell: int, most: int) -> list[int]:
        """Who contributes most to a cell, that many at most."""
        begin, end = int(self.first[cell]), int(self.first[cell + 1])
        return [int(one) for one in self.who[begin : min(end, begin + most)]]

    def of(self, contributor: int, *, rows: bool = False) -> dict[int, int]:
        """Cell -> what one contributor brings to it; or in how many rows."""
        places = self._places.get(contributor, np.zeros(0, dtype=np.int64))
        cells = np.searchsorted(self.first, places, side="right") - 1
        return dict(zip(cells.tolist(), (self.rows if rows else self.amount)[places].tolist(), strict=True))

    @cached_property
    def _places(self) -> dict[int, I64]:
        """Contributor -> its pairs."""
        order = np.argsort(self.who, kind="stable")
        people, first = np.unique(self.who[order], return_index=True)
        return dict(zip(people.tolist(), np.split(order, first[1:]), strict=False))


@dataclass(frozen=True, eq=False)
class Cells:
    """A table's cells, all totals included. rows: every row counts 1; columns: what was added up, by name."""

    shape: Shape
    rows: Amount
    columns: dict[str, Amount]


class Source:
    """A holder's table, opened for statistics. ways and scales are what is published of it; scales: decimal digits.

    Raises ``TableError`` for columns that are not there or cannot be added up exactly, ``ParameterError`` for columns
    that cannot be published together.
    """

    def __init__(self, source: Any, rules: Rules) -> None:
        table = tables.open_table(source)
        wanted = [*rules.by, *rules.columns, *([rules.contributor] if rules.contributor else [])]
        scan = table.scan(wanted or table.names[:1])
        whole = pa.Table.from_batches(scan.batches, scan.schema)
        self.rules, self.count = rules, whole.num_rows
        grouped = {name: _grouped(whole[name], name, tuple(values)) for name, values in rules.by.items()}
        self.ways = {name: way for name, (way, _) in grouped.items()}
        self._codes = {name: codes for name, (_, codes) in grouped.items()}
        _check_independent(self.ways, self._codes)
        units = {name: _units(whole[name], name, signed=name in rules.signed) for name in rules.columns}
        self._units = {name: (values, known) for name, (values, known, _) in units.items()}
        self.scales = {name: scale for name, (_, _, scale) in units.items()}
        self._who = np.arange(self.count, dtype=np.int64)
        if rules.contributor is not None:
            self._who = _numbered(whole[rules.contributor])

    def cells(self, by: Sequence[str]) -> Cells:
        """The table by these columns, none to two of them."""
        shape = Shape(tuple(self.ways[name].groups for name in by))
        codes = [self._codes[name] for name in by]
        ones = np.ones(self.count, dtype=np.int64)
        every = np.ones(self.count, dtype=np.bool_)
        return Cells(
            shape,
            _amount(shape, codes, ones, every, self._who),
            {name: _amount(shape, codes, *self._units[name], self._who) for name in self.rules.columns},
        )


def _amount(shape: Shape, codes: list[I64], units: I64, known: np.ndarray[Any, Any], who: I64) -> Amount:
    counts, sums = np.zeros(shape.cells, dtype=np.int64), np.zeros(shape.cells, dtype=np.int64)
    pairs, amounts, numbers = [], [], []
    people = int(who.max()) + 1 if len(who) else 1
    for totalled in np.ndindex(*(2,) * len(shape.ways)):
        cell = np.zeros(len(units), dtype=np.int64)
        for code, groups, whole in zip(codes, shape.ways, totalled, strict=True):
            cell = cell * (groups + 1) + (groups if whole else code)
        cell, own = cell[known], units[known]
        counts += np.bincount(cell, minlength=shape.cells)
        np.add.at(sums, cell, own)
        pair, place, number = np.unique(cell * people + who[known], return_inverse=True, return_counts=True)
        amount = np.zeros(len(pair), dtype=np.int64)
        np.add.at(amount, place, own)
        pairs.append(pair)
        amounts.append(amount)
        numbers.append(number)
    pair, amount, rows = np.concatenate(pairs), np.concatenate(amounts), np.concatenate(numbers)
    at, one = np.divmod(pair, people)
    order = np.lexsort((one, -np.abs(amount), at))
    first = np.searchsorted(at[order], np.arange(shape.cells + 1))
    return Amount(counts, sums, first.astype(np.int64), one[order], amount[order], rows[order])


def _grouped(column: pa.ChunkedArray, name: str, values: tuple[Label, ...]) -> tuple[Way, I64]:
    """A way, and the group of each row: int64[rows]."""
    plain = _plain(column)
    kind = plain.type
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind)):
        raise TableError(f"column {name!r} of type {kind} names no groups: texts, integers and booleans do")
    if not values:
        values = _found(plain, name)
    try:
        wanted = pa.array(values, pa.large_string() if _is_text(kind) else None).cast(kind)
    except (pa.ArrowException, ValueError) as error:
        raise ParameterError(f"the values of {name!r} are not of the column's type {kind}") from error
    places = pc.index_in(plain, value_set=wanted, skip_nulls=True)
    codes = np.asarray(pc.fill_null(places, len(values)), dtype=np.int64)
    rest = bool((codes == len(values)).any())
    return Way(name, values, rest), codes


def _found(plain: pa.ChunkedArray, name: str) -> tuple[Label, ...]:
    try:
        values = sorted(pc.unique(plain).drop_null().to_pylist())
    except UnicodeDecodeError:
        raise TableError(f"column {name!r} has text that is not UTF-8: name the groups") from None
    if len(values) > MAX_LABELS:
        raise TableError(
            f"column {name!r} has {len(values):,} values, groups have at most {MAX_LABELS}: name them"
        )
    if any(isinstance(value, str) and len(value) > MAX_LABEL for value in values):
        raise TableError(f"a value of column {name!r} is longer than {MAX_LABEL} characters: name the groups")
    return tuple(values)


def _check_independent(ways: dict[str, Way], codes: dict[str, I64]) -> None:
    """Refuse two columns one of which tells the other: tables by each would be about the same groups."""
    several = [name for name, way in ways.items() if way.groups > 1]
    for one in several:
        for other in several:
            if one != other and _tells(codes[one], codes[other], ways[other].groups):
                raise ParameterError(
                    f"column {one!r} tells column {other!r} (each of its groups lies in one of the other's): publish"
                    " one of them, so that groups of different tables cannot be subtracted"
                )


def _tells(one: I64, other: I64, groups: int) -> bool:
    if len(one) == 0:
        return False
    pairs = np.unique(one * groups + other)
    return len(np.unique(one)) > 1 and len(pairs) == len(np.unique(one)) and len(np.unique(other)) > 1


def _units(column: pa.ChunkedArray, name: str, *, signed: bool) -> tuple[I64, np.ndarray[Any, Any], int]:
    """(int64[rows] in the smallest unit, bool[rows] whether there is one, decimal digits). Raises ``TableError``."""
    plain = _plain(column)
    scale = 0
    known = np.asarray(pc.is_valid(plain))
    try:
        if pa.types.is_decimal(plain.type):
            scale = plain.type.scale
            if not 0 <= scale <= 18:
                raise TableError(f"column {name!r} of type {plain.type} has more digits than can be added up")
            units = _unscaled(plain.cast(pa.decimal128(38, scale)), known)
        elif not pa.types.is_integer(plain.type):
            raise TableError(
                f"column {name!r} of type {plain.type} cannot be added up exactly: cast it to integers or decimals"
            )
        else:
            units = np.asarray(pc.fill_null(plain.cast(pa.int64()), 0), dtype=np.int64)
    except pa.ArrowException:
        raise TableError(f"column {name!r} has values that do not fit 64 bits in its smallest unit") from None
    if not signed and (units < 0).any():
        raise TableError(f"column {name!r} has negative values: name it in signed=, or leave it out")
    high, low = np.divmod(np.abs(units), 2**31)  # of which the least integer is its own: negative
    if high.min(initial=0) < 0 or int(high.sum()) * 2**31 + int(low.sum()) >= LARGEST:
        raise TableError(f"column {name!r} adds up to more than 2^62 of its smallest unit: round it first")
    return units, known, scale


def _unscaled(column: pa.ChunkedArray, known: np.ndarray[Any, Any]) -> I64:
    """int64[rows] of decimals of 128 bits without their point, 0 where there is none. Raises ``pa.ArrowInvalid``."""
    found = np.zeros(len(column), dtype=np.int64)
    start = 0
    for chunk in column.chunks:
        words = np.frombuffer(chunk.buffers()[1], dtype="<i8").reshape(-1, 2)[chunk.offset :][: len(chunk)]
        there = known[start : start + len(chunk)]
        if (words[there, 1] != words[there, 0] >> 63).any():
            raise pa.ArrowInvalid("more than 64 bits")
        found[start : start + len(chunk)][there] = words[there, 0]
        start += len(chunk)
    return found


def _numbered(column: pa.ChunkedArray) -> I64:
    """A number for each contributor; nulls have one together."""
    encoded = pc.dictionary_encode(_plain(column), null_encoding="encode")
    codes = encoded.combine_chunks()
    chunks = codes.chunks if isinstance(codes, pa.ChunkedArray) else [codes]
    found = [np.asarray(chunk.indices.cast(pa.int64()), dtype=np.int64) for chunk in chunks]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return column.cast(without_views(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
