"""Bounding: of each privacy unit at most ℓ0 groups, and at most c rows in each of them.

Which ones stay is decided by a keyed hash of the unit, the group and the row's values: not by the order of rows, and
of each unit without looking at any other, so that adding or removing a unit changes its own rows only. For the same
reason a table may be bounded in parts, as long as each unit is in one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute import kernels
from trustcompute.dp.unit import PrivacyUnit

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

KEY_BYTES: Final = 32
CHUNK: Final = 2**20  # rows at a time: their work arrays take some 60 MB
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64


@dataclass(frozen=True)
class Codes:
    """A column as numbers. code: of each row, -1 where null, int32; values: of each code."""

    code: I32
    values: pa.Array
    key: bytes

    @cached_property
    def hashes(self) -> U64:
        """A keyed hash of each code's value."""
        return hash_values(self.values, self.key)


@dataclass(frozen=True)
class Bounded:
    """kept: which rows stay; units: how many count in each group."""

    kept: Bools
    units: I64


def encode(column: pa.ChunkedArray, key: bytes) -> Codes:
    """Number the values of a column in any order; their hashes depend on values and key only."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], column.type).dictionary_encode()
    code = pc.fill_null(encoded.indices.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    return Codes(code, encoded.dictionary, key)


def hash_values(values: pa.Array, key: bytes) -> U64:
    """uint64[n]: SHA-256 of key and value, cut."""
    text = pc.cast(values, pa.large_string()) if not _is_binary(values.type) else values
    data = pc.fill_null(pc.cast(text, pa.large_binary()), b"")
    _, offsets, body = data.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[data.offset : data.offset + len(data) + 1]
    content = np.frombuffer(body, dtype=np.uint8) if body is not None else np.empty(0, dtype=np.uint8)
    column = kernels.VariableColumn(1, ends - ends[0], content[ends[0] : ends[-1]])
    digests = kernels.digest_columns(key.ljust(64, b"\0"), [column])
    return np.ascontiguousarray(digests[:, :8]).view("<u8").ravel()


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def mix(left: U64, right: U64) -> U64:
    """A 64-bit hash of two (D. Lea's and S. Vigna's splitmix64 finaliser)."""
    x = left * np.uint64(0x9E3779B97F4A7C15) + right
    x ^= x >> np.uint64(30)
    x *= _MIX[0]
    x ^= x >> np.uint64(27)
    x *= _MIX[1]
    x ^= x >> np.uint64(31)
    return x


def bound(
    units: Codes,
    groups: I32,
    group_hashes: U64,
    contents: Sequence[Callable[[], U64]],
    unit: PrivacyUnit,
) -> Bounded:
    """Which rows stay. groups: of each row, -1 where it is in none; contents: give hashes of values,
    a row each; asked for only where a unit has more rows than may stay.
    """
    width = max(len(group_hashes), 1)
    kept, counted = np.zeros(len(groups), dtype=bool), np.zeros(width, dtype=np.int64)
    rows, pair = _by_unit_and_group(units, groups, width)
    for start, stop in _of_whole_units(pair, width):
        row, of_row = rows[start:stop], pair[start:stop]
        starts = run_starts(of_row)
        pair_unit, pair_group = np.divmod(of_row[starts], width)

        def pair_rank(at: I64, pair_unit: I64 = pair_unit, pair_group: I64 = pair_group) -> U64:
            return mix(units.hashes[pair_unit[at]], group_hashes[pair_group[at]])

        def row_rank(at: I64, row: I64 = row) -> U64:
            hashed = units.hashes[units.code[row[at]]]
            for content in contents:
                hashed = mix(hashed, content()[row[at]])
            return hashed

        of_pair = lowest(pair_unit, pair_rank, unit.groups)
        lengths = np.diff(np.append(starts, len(row)))
        stays = np.repeat(of_pair, lengths)
        if lengths.max(initial=0) > unit.rows_per_group:
            stays &= lowest(np.repeat(np.arange(len(starts)), lengths), row_rank, unit.rows_per_group)
        kept[row[stays]] = True
        np.add.at(counted, pair_group[of_pair], 1)
    return Bounded(kept, counted[: len(group_hashes)])


def every_row(groups: I32, count: int) -> Bounded:
    """Where each row is a unit of its own, each row that is in a group stays."""
    kept = groups >= 0
    return Bounded(kept, np.bincount(groups[kept], minlength=count).astype(np.int64))


def _by_unit_and_group(units: Codes, groups: I32, width: int) -> tuple[I64, I64]:
    """Rows that have a unit and a group, by unit, then by group; and unit·width + group of each."""
    inside = np.flatnonzero((groups >= 0) & (units.code >= 0))
    pair = units.code[inside].astype(np.int64) * width + groups[inside]
    shift = len(groups).bit_length()
    if (len(units.values) * width).bit_length() + shift > 63:
        order = np.argsort(pair, kind="stable")
        return inside[order], pair[order]
    # To sort numbers that hold the row takes a seventh of the time of sorting positions.
    pair <<= shift
    pair |= inside
    pair.sort()
    inside = pair & ((1 << shift) - 1)
    pair >>= shift
    return inside, pair


def _of_whole_units(pair: I64, width: int) -> Iterator[tuple[int, int]]:
    """Ranges of about ``CHUNK`` rows that cut no unit in two."""
    start = 0
    while start < len(pair):
        last = pair[min(start + CHUNK, len(pair)) - 1]
        stop = int(np.searchsorted(pair, last // width * width + width))
        yield start, stop
        start = stop


def run_starts(ascending: I64) -> I64:
    """Where each run of equal values starts."""
    if not len(ascending):
        return np.empty(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(ascending[1:] != ascending[:-1]) + 1]).astype(np.int64)


def lowest(owner: I64, rank_by: Callable[[I64], U64], most: int) -> Bools:
    """bool[n]: of each owner's entries (owners ascend) the ``most`` of lowest rank, ranked only where needed."""
    keep = np.ones(len(owner), dtype=bool)
    starts = run_starts(owner)
    lengths = np.diff(np.append(starts, len(owner)))
    crowded = np.flatnonzero(np.repeat(lengths > most, lengths))
    if crowded.size:
        firsts = run_starts(owner[crowded])
        lengths = np.diff(np.append(firsts, len(crowded)))
        ranked = _ranked(np.repeat(np.arange(len(firsts)), lengths), rank_by(crowded))
        place = np.arange(len(ranked)) - np.repeat(firsts, lengths)
        keep[crowded[ranked[place >= most]]] = False
    return keep


def _ranked(run: I64, rank: U64) -> I64:
    """Positions by run, then by rank. Sorts numbers that hold the run, as much of the rank as has room, and the
    position; runs in which that much was equal are sorted once more, by all of it.
    """
    bits = len(run).bit_length()
    room = 63 - bits - int(run[-1]).bit_length()
    key = (run << room | (rank >> np.uint64(64 - room)).astype(np.int64)) << bits | np.arange(len(run))
    key.sort()
    ranked = key & ((1 << bits) - 1)
    key >>= bits
    tied = run[ranked[1:][key[1:] == key[:-1]]]
    if tied.size:
        again = np.flatnonzero(np.isin(run, tied))  # runs keep their places, whatever the order within
        ranked[again] = again[np.lexsort((rank[again], run[again]))]
    return ranked
