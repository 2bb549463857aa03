"""A party's table as one vector of integers, and an opened vector as statistics.

Called by the schemes' drivers before anything leaves a party. What does not keep the specification is an error that
names the party and the rule, never a value that is clipped or wraps. Rounding to fixed point is half to even; sums
of integers are exact, so the result is the same in any order and under any scheme.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.aggregation.spec import Slot, Spec
from trustcompute.errors import InputError, LocalProtocolError, TableError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives.rng import Rng
from trustcompute.tables.fixed import column_units, places, plain_numbers, units_of

PIECE: Final = 2**18  # values of a vector that are encoded, masked and sent at a time


class Unusable(InputError):
    """What a party brings does not keep the specification. The message names the party and the rule, and no value."""

    code = "input.aggregate"


def encode(source: object, spec: Spec, party: str) -> I64:
    """int64[spec.slots] of a table (or, for a vector, of a sequence of numbers). Raises ``Unusable``."""
    if spec.length is not None:
        return whole(vector_of(source, spec, party))
    try:
        return _table(source, spec)
    except InputError as error:
        raise Unusable(f"{party}: {error}") from error


class Vector(Protocol):
    """int64[n], read in order and perhaps again from its start: an array, or one that is encoded as it is read."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> I64: ...


class Encoded:
    """A long vector, encoded as it is read: what was read is not kept. Raises ``Unusable`` as it is read."""

    def __init__(self, read: Callable[[int, int], npt.NDArray[Any]], spec: Spec, party: str) -> None:
        assert spec.length is not None
        self._read, self._bounds, self._party = read, spec.columns["value"], party
        self._length = spec.length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> I64:
        start, stop, _ = part.indices(self._length)
        try:
            return units_of(self._read(start, stop), self._bounds, "value") - self._bounds.shift
        except InputError as error:
            raise Unusable(f"{self._party}: {error}") from error


def vector_of(source: Any, spec: Spec, party: str) -> Vector:
    """What ``encode`` makes of a vector, a piece at a time.

    source: numbers; with a ``shape``, such as an array, a memory map or a store on disk, it is read by slices.
    """
    given = source if hasattr(source, "shape") else np.asarray(source)
    if given.shape != (spec.length,):
        raise Unusable(
            f"{party}: rule length: a vector of {spec.length:,} values is wanted, not one of shape {given.shape}"
        )
    return Encoded(lambda start, stop: np.asarray(given[start:stop]), spec, party)


def column_vector(table: tables.Table, column: str, spec: Spec, party: str) -> Vector:
    """A column of a table as a vector, its rows in order; read again from the first where that is asked for."""
    return Encoded(_Rows(table, column).read, spec, party)


class _Rows:
    """A numeric column, read forward."""

    def __init__(self, table: tables.Table, column: str) -> None:
        self._table, self._column = table, column
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._left: npt.NDArray[Any] = np.empty(0)
        self._at = -1

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        if start != self._at:
            if start != 0:
                raise LocalProtocolError("a column is read in order, or again from its start")
            self._batches, self._left = self._table.scan([self._column]).batches, np.empty(0)
        parts, missing = [self._left[: stop - start]], stop - start - len(self._left)
        self._left = self._left[stop - start :]
        while missing > 0:
            batch = next(self._batches, None)
            if batch is None:
                raise TableError("rule length: the dataset has fewer rows than it had")
            values = plain_numbers(batch.column(0), self._column)
            parts.append(values[:missing])
            self._left, missing = values[missing:], missing - len(values)
        self._at = stop
        return np.concatenate([part for part in parts if len(part)])


def add_noise(values: I64, spec: Spec, survivors: int, rng: Rng) -> None:
    """Add this contributor's share of the noise, in place. survivors: the fewest that can be opened."""
    if spec.noise is None:
        return
    width = len(spec.layout)
    by_slot = values.reshape(-1, width)
    for at, slot in enumerate(spec.layout):
        share = spec.noise.share(slot.reach, width, survivors)
        by_slot[:, at] += spec.noise.draw(rng, share, len(by_slot))


def in_range(sums: I64, spec: Spec) -> bool:
    """Whether all sums are possible. One that is not shows a mask that was not taken off, or a fault."""
    limit = 1 << (spec.payload_bits - 1)
    return len(sums) == 0 or (int(sums.max()) < limit and int(sums.min()) > -limit)


def whole(vector: Vector) -> I64:
    """All of a vector, a fresh array."""
    out = np.empty(len(vector), dtype=np.int64)
    for start in range(0, len(out), PIECE):
        out[start : start + PIECE] = vector[start : start + PIECE]
    return out


def _table(source: object, spec: Spec) -> I64:
    width = len(spec.layout)
    sums = np.zeros((spec.groups, width), dtype=np.int64)
    rows = 0
    for batch in _batches(source, spec):
        rows += batch.num_rows
        if rows > spec.max_rows:
            raise TableError(f"rule max_rows: there are more than {spec.max_rows:,} rows")
        groups = _group_of(batch, spec)
        units = {
            name: column_units(batch.column(name), bounds, name) for name, bounds in spec.columns.items()
        }
        for at, slot in enumerate(spec.layout):
            _accumulate(sums[:, at], groups, _contribution(slot, spec, units, batch.num_rows))
    return sums.reshape(-1)


def _batches(source: object, spec: Spec) -> Iterator[pa.RecordBatch]:
    table = tables.open_table(source)
    names = list(spec.named) or list(table.names[:1])
    yield from table.scan(names).batches


def _contribution(slot: Slot, spec: Spec, units: dict[str, I64], rows: int) -> I64:
    """What each row adds to a slot."""
    if slot.statistic == "rows":
        return np.ones(rows, dtype=np.int64)
    if slot.statistic == "weight":
        return units[slot.column]
    bounds = spec.columns[slot.column]
    if slot.statistic == "bucket":
        return _in_bucket(units[slot.column], spec, slot)
    centred = units[slot.column] - bounds.shift
    if slot.statistic == "squares":
        return centred * centred
    if slot.statistic == "weighted":
        return units[str(spec.weight)] * centred
    return centred


def _in_bucket(units: I64, spec: Spec, slot: Slot) -> I64:
    bounds, edges = spec.columns[slot.column], spec.histograms[slot.column]
    low, high = (int(Fraction(edge) * bounds.scale) for edge in edges[slot.place : slot.place + 2])
    last = slot.place == len(edges) - 2
    return ((units >= low) & ((units <= high) if last else (units < high))).astype(np.int64)


def _accumulate(into: I64, groups: I64 | None, amounts: I64) -> None:
    if groups is None:
        into[0] += amounts.sum(dtype=np.int64)
    else:
        np.add.at(into, groups, amounts)


def _group_of(batch: pa.RecordBatch, spec: Spec) -> I64 | None:
    """int64[rows]: the group of each row, the last column of ``by`` running fastest; None without groups."""
    if not spec.by:
        return None
    found = np.zeros(batch.num_rows, dtype=np.int64)
    for name, domain in spec.by.items():
        column = batch.column(name)
        place = places(column, domain, name)
        if column.null_count:
            raise TableError(f"rule nulls: column {name!r} has rows without a group")
        if (place < 0).any():
            raise TableError(f"rule groups: column {name!r} has a value outside the agreed domain")
        found = found * len(domain) + place
    return found


def check_source(source: object, spec: Spec, party: str) -> None:
    """Raise ``Unusable`` for a table that lacks a column, before anything is read of its rows."""
    if spec.length is not None:
        return
    try:
        tables.open_table(source).check_columns(spec.named)
    except InputError as error:
        raise Unusable(f"{party}: {error}") from error
