"""A party's table as one vector of integers, and an opened vector as statistics.

Called by the schemes' drivers before anything leaves a party. What does not keep the specification is an error that
names the party and the rule, never a value that is clipped or wraps. Rounding to fixed point is half to even; sums
of integers are exact, so the result is the same in any order and under any scheme.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.aggregation.spec import Slot, Spec
from trustcompute.errors import InputError, TableError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives.rng import Rng
from trustcompute.tables.fixed import Bounds, column_units, places, units_of

CHUNK: Final = 2**20  # values a step of a vector


class Unusable(InputError):
    """What a party brings does not keep the specification. The message names the party and the rule, and no value."""

    code = "input.aggregate"


def encode(source: object, spec: Spec, party: str) -> I64:
    """int64[spec.slots] of a table (or, for a vector, of a sequence of numbers). Raises ``Unusable``."""
    try:
        if spec.length is not None:
            return _vector(source, spec, spec.length, spec.columns["value"])
        return _table(source, spec)
    except InputError as error:
        raise Unusable(f"{party}: {error}") from error


def add_noise(values: I64, spec: Spec, survivors: int, rng: Rng) -> None:
    """Add this contributor's share of the noise, in place. survivors: the fewest that can be opened."""
    if spec.noise is None:
        return
    width = len(spec.layout)
    by_slot = values.reshape(-1, width)
    for at, slot in enumerate(spec.layout):
        share = spec.noise.share(slot.reach, width, survivors)
        by_slot[:, at] += spec.noise.draw(rng, share, len(by_slot))


def in_range(sums: I64, spec: Spec) -> npt.NDArray[np.bool_]:
    """bool[n]: which sums are possible. One that is not shows a mask that was not taken off, or a fault."""
    limit = np.int64(1) << np.int64(spec.payload_bits - 1)
    return (sums < limit) & (sums > -limit)


def _vector(source: object, spec: Spec, length: int, bounds: Bounds) -> I64:
    given = np.asarray(source)
    if given.shape != (length,):
        raise TableError(
            f"rule length: a vector of {length:,} values is wanted, not one of shape {given.shape}"
        )
    out = np.empty(length, dtype=np.int64)
    for start in range(0, length, CHUNK):
        piece = given[start : start + CHUNK]
        out[start : start + CHUNK] = units_of(piece, bounds, "value") - bounds.shift
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
