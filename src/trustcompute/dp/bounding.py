"""Bounding: of each privacy unit at most ℓ0 groups, and at most c rows in each of them.

Which ones stay is decided by a keyed hash of the unit, the group and the row's values: not by the order of rows, and
of each unit without looking at any other, so that adding or removing a unit changes its own rows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute import kernels
from trustcompute.dp.unit import PrivacyUnit

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

KEY_BYTES: Final = 32
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64


@dataclass(frozen=True)
class Bounded:
    """rows: positions that stay, int64; group: of each of these rows; pair_group: of each (unit, group) that stays."""

    rows: I64
    group: I64
    pair_group: I64


@dataclass(frozen=True)
class Codes:
    """A column as numbers: code of each row (-1: null), and a keyed hash of each code's value."""

    code: I64
    hashes: U64


def encode(column: pa.ChunkedArray, key: bytes) -> Codes:
    """Number the values of a column in any order; their hashes depend on values and key only."""
    encoded = pc.dictionary_encode(column).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], column.type).dictionary_encode()
    indices = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    return Codes(indices, hash_values(encoded.dictionary, key))


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
    x = (x ^ (x >> np.uint64(30))) * _MIX[0]
    x = (x ^ (x >> np.uint64(27))) * _MIX[1]
    found: U64 = x ^ (x >> np.uint64(31))
    return found


def bound(
    units: Codes, groups: I64, group_hashes: U64, contents: Sequence[U64], unit: PrivacyUnit
) -> Bounded:
    """Which rows stay. groups: of each row, -1 where it is in none; contents: hashes of the row's values."""
    inside = np.flatnonzero((groups >= 0) & (units.code >= 0))
    width = max(len(group_hashes), 1)
    pair = units.code[inside] * width + groups[inside]
    order = np.argsort(pair)
    inside, pair = inside[order], pair[order]
    starts = run_starts(pair)
    pair_unit, pair_group = np.divmod(pair[starts], width)
    kept_pairs = _lowest(
        pair_unit, lambda at: mix(units.hashes[pair_unit[at]], group_hashes[pair_group[at]]), unit.groups
    )
    lengths = np.diff(np.append(starts, len(pair)))
    kept_rows = np.repeat(kept_pairs, lengths)
    within = np.repeat(np.arange(len(starts)), lengths)

    def content(at: I64) -> U64:
        hashed = units.hashes[units.code[inside[at]]]
        for part in contents:
            hashed = mix(hashed, part[inside[at]])
        return hashed

    kept_rows &= _lowest(within, content, unit.rows_per_group)
    rows = inside[kept_rows]
    return Bounded(rows, groups[rows], pair_group[kept_pairs])


def every_row(groups: I64) -> Bounded:
    """Where each row is a unit of its own, each row that is in a group stays."""
    rows = np.flatnonzero(groups >= 0)
    return Bounded(rows, groups[rows], groups[rows])


def run_starts(ascending: I64) -> I64:
    """Where each run of equal values starts."""
    if not len(ascending):
        return np.empty(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(ascending)) + 1]).astype(np.int64)


def _lowest(owner: I64, rank_by: Any, most: int) -> npt.NDArray[np.bool_]:
    """bool[n]: of each owner's entries (owners ascend) the ``most`` of lowest hash, hashed only where needed."""
    keep = np.ones(len(owner), dtype=bool)
    starts = run_starts(owner)
    lengths = np.diff(np.append(starts, len(owner)))
    crowded = np.flatnonzero(np.repeat(lengths > most, lengths))
    if crowded.size:
        ranked = crowded[np.lexsort((rank_by(crowded), owner[crowded]))]
        firsts = run_starts(owner[ranked])
        place = np.arange(len(ranked)) - np.repeat(firsts, np.diff(np.append(firsts, len(ranked))))
        keep[ranked[place >= most]] = False
    return keep
