"""A table's cells in columns, and the Merkle tree over the columns.

Called by ``building``, ``table`` and ``answer``. The same cells stand in two places: in *buckets*, chosen by a public
salted hash of the key (the same for every predicate, version and epoch), and in *columns*, chosen by ranges of the tag.
A column has a header, its cells in the order of their tags, and zeros up to its capacity; tag zero is never used. The
header says epoch (4 bytes), number (4), and the least and the greatest tag that belong here (8 each, zeros in buckets),
then eight zero bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import VerificationError
from trustcompute.kernels.arrays import I8, I64, U8
from trustcompute.primitives import merkle
from trustcompute.verification import cells, lwe
from trustcompute.verification.cells import CELL, U32, U64, Place

MAX_BUCKET_BITS: Final = 20
MIN_COLUMNS: Final = 4
HEADER: Final = 2 * CELL
LARGEST_TAG: Final = 2**64 - 1
SLACK: Final = 1 / 20
"""Of a column: room for records that a new version adds without moving the others."""
PIECE: Final = 2**16
"""Records that are evaluated, kept or counted at a time."""
BLOCK: Final = 2**23
"""Bytes of columns that are laid out or looked at, at a time."""

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
class Form:
    """Where the cells of a layout are to stand.

    starts: int64[columns + 1], where each column begins among all cells in order; epochs: uint32[columns]; splitters:
    uint64[columns], the least tag of each (columns only).
    """

    place: Place
    shape: Shape
    starts: I64 = field(repr=False)
    epochs: U32 = field(repr=False)
    splitters: U64 | None = field(repr=False, default=None)


def bucket_of(digests: U8, salt: bytes, columns: int) -> U32:
    """The bucket of each key: the first bits of SHA-256(label ‖ salt ‖ digest). salt: 32 public bytes of the
    dataset."""
    bits = columns.bit_length() - 1
    hashed = kernels.digest_columns(_BUCKET + salt, [kernels.FixedColumn(0, digests)])
    first = np.ascontiguousarray(hashed[:, :4]).view(">u4").reshape(-1).astype(np.uint64)
    return (first >> np.uint64(32 - bits)).astype(np.uint32)


def bucket_counts(digests: U8, salt: bytes, columns: int) -> I64:
    """How many keys are in each bucket: int64[columns]."""
    counts = np.zeros(columns, dtype=np.int64)
    for start in range(0, len(digests), PIECE):
        counts += np.bincount(bucket_of(digests[start : start + PIECE], salt, columns), minlength=columns)
    return counts


def buckets_for(digests: U8, salt: bytes, least: int) -> I64:
    """How many keys are in each bucket, of as many as leave ``least`` or more in every one: int64[buckets]."""
    bits = min(MAX_BUCKET_BITS, max(0, int(math.log2(max(1, len(digests) // max(1, least))))))
    counts = bucket_counts(digests, salt, 1 << bits)
    while len(counts) > 1 and counts.min() < least:
        counts = counts.reshape(-1, 2).sum(axis=1)
    return counts


def bucket_form(counts: I64, *, epochs: U32 | None = None, capacity: int = 0) -> Form:
    """counts: of keys in each bucket; epochs: of each; capacity: cells of a bucket, at least."""
    epochs = np.zeros(len(counts), dtype=np.uint32) if epochs is None else epochs
    shape = Shape(len(counts), max(1, capacity, int(counts.max())))
    return Form(Place.BUCKET, shape, _starts(counts), epochs)


def columns_for(records: int) -> int:
    """How many columns ``private`` mode has: about four times the square root of the bytes of all cells."""
    bits = round(math.log2(math.sqrt(CELL * max(records, 1))) + 2.2)
    return min(lwe.MAX_COLUMNS, max(MIN_COLUMNS, 1 << bits))


def column_form(ordered: U8) -> Form:
    """Columns equally full, with room for more. ordered: records in the order of their tags."""
    count, columns = len(ordered), columns_for(len(ordered))
    starts = np.arange(columns + 1, dtype=np.int64) * count // columns
    splitters = np.zeros(columns, dtype=np.uint64)
    if count:
        splitters[1:] = cells.tags(ordered[starts[1:-1]])
    most = max(1, int(np.diff(starts).max()))
    shape = Shape(columns, most + math.ceil(SLACK * most))
    return Form(Place.COLUMN, shape, starts, np.zeros(columns, dtype=np.uint32), splitters)


def column_form_like(ordered: U8, splitters: U64, epochs: U32, capacity: int) -> Form | None:
    """Columns with these ranges; None where one would have more than ``capacity`` cells."""
    counts = np.zeros(len(splitters), dtype=np.int64)
    for start in range(0, len(ordered), PIECE):
        where = column_of(cells.tags(ordered[start : start + PIECE]), splitters)
        counts += np.bincount(where, minlength=len(splitters))
    if counts.max() > capacity:
        return None
    return Form(Place.COLUMN, Shape(len(splitters), capacity), _starts(counts), epochs, splitters)


def _starts(counts: I64) -> I64:
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])


def column_of(tags: U64, splitters: U64) -> U32:
    """The column in whose range each tag lies."""
    return (np.searchsorted(splitters, tags, side="right") - 1).astype(np.uint32)


def last_tags(splitters: U64) -> U64:
    """The greatest tag of each column's range. A range that is empty ends before it begins."""
    return np.append(splitters[1:] - np.uint64(1), np.uint64(LARGEST_TAG))


def laid(form: Form, ordered: U8) -> Iterator[tuple[int, U8]]:
    """(first, uint8[k, length]): all columns of a layout, some at a time.

    ordered: uint8[n, 40], root and plain side of each record, by column and then by tag.
    """
    step = max(1, BLOCK // form.shape.length)
    for first in range(0, form.shape.columns, step):
        numbers = np.arange(first, min(first + step, form.shape.columns))
        yield first, _block(form, numbers, ordered[form.starts[first] : form.starts[numbers[-1] + 1]])


def _block(form: Form, numbers: I64, records: U8) -> U8:
    starts = form.starts[numbers[0] : numbers[-1] + 2] - form.starts[numbers[0]]
    epochs = form.epochs[numbers]
    data = np.zeros((len(numbers), form.shape.length), dtype=np.uint8)
    data[:, 0:4] = epochs.astype(">u4").view(np.uint8).reshape(-1, 4)
    data[:, 4:8] = numbers.astype(">u4").view(np.uint8).reshape(-1, 4)
    if form.splitters is not None:
        data[:, 8:16] = form.splitters[numbers].astype(">u8").view(np.uint8).reshape(-1, 8)
        data[:, 16:24] = last_tags(form.splitters)[numbers].astype(">u8").view(np.uint8).reshape(-1, 8)
    row = np.repeat(np.arange(len(numbers)), np.diff(starts))
    slot = np.arange(len(records)) - starts[row]
    found = np.ascontiguousarray(records[:, :32])
    masks = cells.masks(found, form.place, numbers[row].astype(np.uint32), epochs[row])
    body = data[:, HEADER:].reshape(len(numbers), form.shape.capacity, CELL)
    body[row, slot, :8] = found[:, :8]
    body[row, slot, 8:] = records[:, 32:] ^ masks
    return data


def across(database: I8) -> Iterator[tuple[int, U8]]:
    """(first, uint8[k, length]): the columns of a database, int8[length, m], some at a time."""
    length, columns = database.shape
    step = max(1, BLOCK // length)
    for first in range(0, columns, step):
        yield first, np.ascontiguousarray(database[:, first : first + step].T).view(np.uint8)


def leaves(data: U8) -> bytes:
    """The leaf hashes of columns, uint8[k, length], one after the other."""
    return b"".join(merkle.leaf_hash(column.tobytes()) for column in data)


def leaves_across(database: I8) -> bytes:
    """The leaf hashes of the columns of a database."""
    return b"".join(leaves(columns) for _, columns in across(database))


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
