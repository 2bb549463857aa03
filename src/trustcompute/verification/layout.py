"""A table's cells in columns, and the Merkle tree over the columns.

Called by ``table`` and ``answer``. The same cells stand in two places: in *buckets*, chosen by a public salted hash
of the key (the same for every predicate, version and epoch), and in *columns*, chosen by ranges of the tag. A column
has a header, its cells in the order of their tags, and zeros up to its capacity; tag zero is never used. The header
says epoch (4 bytes), number (4), and the least and the greatest tag that belong here (8 each, zeros in buckets), then
eight zero bytes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import merkle
from trustcompute.verification import cells, lwe
from trustcompute.verification.cells import CELL, U32, U64, Place

MAX_BUCKET_BITS: Final = 20
MIN_COLUMNS: Final = 4
HEADER: Final = 2 * CELL
LARGEST_TAG: Final = 2**64 - 1
SLACK: Final = 1 / 20
"""Of a column: room for records that a new version adds without moving the others."""

_BUCKET: Final = b"trustcompute verification bucket".ljust(32, b"\0")


@dataclass(frozen=True)
class Shape:
    """columns: a power of two; capacity: cells of each."""

    columns: int
    capacity: int

    @property
    def length(self) -> int:
        """Bytes of a column."""
        return CELL * self.capacity + HEADER

    @property
    def depth(self) -> int:
        """Hashes of a path in the tree over the columns."""
        return (self.columns - 1).bit_length()


@dataclass(frozen=True, eq=False)
class Columns:
    """One layout. data: uint8[columns, length]; splitters: uint64[columns], the least tag of each (columns only)."""

    place: Place
    shape: Shape
    data: U8 = field(repr=False)
    splitters: U64 | None = field(repr=False)


def bucket_of(digests: U8, salt: bytes, columns: int) -> U32:
    """The bucket of each key: the first bits of SHA-256(label ‖ salt ‖ digest). salt: 32 public bytes of the
    dataset."""
    bits = columns.bit_length() - 1
    hashed = kernels.digest_columns(_BUCKET + salt, [kernels.FixedColumn(0, digests)])
    first = np.ascontiguousarray(hashed[:, :4]).view(">u4").reshape(-1).astype(np.uint64)
    return (first >> np.uint64(32 - bits)).astype(np.uint32)


def buckets_for(digests: U8, salt: bytes, least: int) -> int:
    """How many buckets: as many as leave ``least`` records or more in every one."""
    bits = min(MAX_BUCKET_BITS, max(0, int(math.log2(max(1, len(digests) // max(1, least))))))
    fine = bucket_of(digests, salt, 1 << bits)
    counts = np.bincount(fine, minlength=1 << bits)
    while bits and counts.min() < least:
        bits -= 1
        counts = counts.reshape(-1, 2).sum(axis=1)
    return 1 << bits


def columns_for(records: int) -> int:
    """How many columns ``private`` mode has: about four times the square root of the bytes of all cells."""
    bits = round(math.log2(math.sqrt(CELL * max(records, 1))) + 2.2)
    return min(lwe.MAX_COLUMNS, max(MIN_COLUMNS, 1 << bits))


def in_buckets(found: U8, plain: U8, where: U32, *, epochs: U32, capacity: int = 0) -> Columns:
    """Lay cells out by the buckets of their keys. found: roots; plain: uint8[n, 8]; where: uint32[n]; epochs: of each
    bucket; capacity: cells of a bucket, at least."""
    return _laid(Place.BUCKET, found, plain, where, capacity=max(capacity, _most(where)), epochs=epochs)


def in_columns(found: U8, plain: U8, splitters: U64, *, epochs: U32, capacity: int) -> Columns:
    """Lay cells out by ranges of their tags. epochs: of each column; capacity: cells of a column, as many as the
    fullest has or more."""
    where = column_of(cells.tags(found), splitters)
    return _laid(Place.COLUMN, found, plain, where, capacity=capacity, epochs=epochs, splitters=splitters)


def splitters_for(tags: U64, columns: int) -> tuple[U64, int]:
    """(splitters, capacity): columns equally full, with room for more."""
    ordered = np.sort(tags)
    starts = (np.arange(columns, dtype=np.int64) * len(ordered)) // columns
    splitters = np.zeros(columns, dtype=np.uint64)
    if len(ordered):
        splitters = ordered[starts]
        splitters[0] = 0
    most = _most(column_of(ordered, splitters))
    return splitters, max(1, most + math.ceil(SLACK * most))


def _most(where: U32) -> int:
    """Cells of the fullest column, at least one."""
    return max(1, int(np.bincount(where).max())) if len(where) else 1


def column_of(tags: U64, splitters: U64) -> U32:
    """The column in whose range each tag lies."""
    return (np.searchsorted(splitters, tags, side="right") - 1).astype(np.uint32)


def last_tags(splitters: U64) -> U64:
    """The greatest tag of each column's range. A range that is empty ends before it begins."""
    return np.append(splitters[1:] - np.uint64(1), np.uint64(LARGEST_TAG))


def _laid(
    place: Place,
    found: U8,
    plain: U8,
    where: U32,
    *,
    capacity: int,
    epochs: U32,
    splitters: U64 | None = None,
) -> Columns:
    columns = len(epochs)
    counts = np.bincount(where, minlength=columns)
    shape = Shape(columns, capacity)
    tags = cells.tags(found)
    order = np.lexsort((tags, where))
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    sorted_where = where[order]
    slot = np.arange(len(order)) - starts[sorted_where]
    data = np.zeros((columns, shape.length), dtype=np.uint8)
    data[:, 0:4] = epochs.astype(">u4").view(np.uint8).reshape(-1, 4)
    data[:, 4:8] = np.arange(columns, dtype=">u4").view(np.uint8).reshape(-1, 4)
    if splitters is not None:
        data[:, 8:16] = splitters.astype(">u8").view(np.uint8).reshape(-1, 8)
        data[:, 16:24] = last_tags(splitters).astype(">u8").view(np.uint8).reshape(-1, 8)
    body = data[:, HEADER:].reshape(columns, shape.capacity, CELL)
    sealed = plain ^ cells.masks(found, place, where, epochs[where])
    body[sorted_where, slot, :8] = found[order, :8]
    body[sorted_where, slot, 8:] = sealed[order]
    return Columns(place, shape, data, splitters)


def leaves(data: U8) -> bytes:
    """The leaf hashes of columns, one after the other."""
    return b"".join(merkle.leaf_hash(column.tobytes()) for column in data)


def leaves_after(before: bytes, data: U8, old: U8) -> bytes:
    """Leaf hashes of changed columns; of those that are as before they are taken over. data, old: uint8[m, length]."""
    found = np.frombuffer(before, dtype=np.uint8).reshape(-1, 32).copy()
    for number in np.flatnonzero((data != old).any(axis=1)):
        found[number] = np.frombuffer(merkle.leaf_hash(data[number].tobytes()), dtype=np.uint8)
    return found.tobytes()


def tree(data: U8) -> merkle.Tree:
    built = merkle.Tree()
    built.append_all(leaves(data))
    return built


@dataclass(frozen=True)
class Header:
    """What a column says of itself."""

    epoch: int
    number: int
    first: int
    last: int


def header(column: U8) -> Header:
    """The header of a column's bytes. Raises ``VerificationError`` where they are not one's."""
    if len(column) < HEADER + CELL or column[24:HEADER].any():
        raise VerificationError("what came is not a column: it has no header")
    raw = column[:24].tobytes()
    return Header(*(int.from_bytes(raw[a:b], "big") for a, b in pairwise((0, 4, 8, 16, 24))))


def sealed_in(column: U8, tag: bytes) -> bytes | None:
    """The sealed side of the cell with this tag, or None where the column has none."""
    body = column[HEADER:].reshape(-1, CELL)
    hits = np.flatnonzero((body[:, :8] == np.frombuffer(tag, dtype=np.uint8)).all(axis=1))
    if len(hits) > 1:
        raise VerificationError("the column has two cells with one tag")
    return body[hits[0], 8:].tobytes() if len(hits) else None


def splitters_digest(splitters: U64) -> str:
    return hashlib.sha256(b"trustcompute splitters 1\n" + splitters.astype(">u8").tobytes()).hexdigest()


def occupied(data: npt.NDArray[np.uint8]) -> int:
    """Cells that are not empty."""
    body = data[:, HEADER:].reshape(len(data), -1, CELL)[:, :, :8]
    return int(body.any(axis=2).sum())
