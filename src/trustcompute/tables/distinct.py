"""Rows of 32-byte digests, collected batch by batch, put in order and told apart.

Called by ``keys``. The digests are kept in 64 parts by their first six bits: each part is sorted within a
processor's cache and freed before the next, so that beside the result little more than the digests themselves
is ever in memory.

Sorting whole digests is several times slower than sorting 64-bit words, so each row becomes one word: the top
bits of its digest above its row number. Sorting the words sorts the rows up to digests that agree in those
bits; the rows where that happens are sorted again by all 256 bits, so the order is exact even for digests
that somebody made to collide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]
"""Digests as four big-endian words a row: the order of the words is the order of the bytes."""

PART_BITS = 6
"""10⁷ digests make 64 parts of 5 MB."""


class DigestRows:
    """The digests of a table's rows, to be told apart when all are there."""

    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}
        self._count = 0

    def append(self, digests: U8, rows: I64) -> None:
        """Add uint8[n, 32], the digests of the rows int64[n]; rows ascend, over all calls."""
        part = digests[:, 0] >> (8 - PART_BITS)
        order = np.argsort(part, kind="stable")
        by_part, rows_by_part = np.take(digests, order, axis=0), rows[order]
        counts = np.bincount(part, minlength=1 << PART_BITS)
        stops = np.cumsum(counts)
        for each in np.flatnonzero(counts).tolist():
            piece = slice(stops[each] - counts[each], stops[each])
            if each not in self._parts:
                self._parts[each] = _Part(_Growing(np.uint8, 32), _Growing(np.int64))
            self._parts[each].digests.append(by_part[piece])
            self._parts[each].rows.append(rows_by_part[piece])
        self._count += len(digests)

    def finish(self, rows: int) -> tuple[U8, I64, I64]:
        """(distinct digests uint8[d, 32], ascending; codes int64[rows]; first rows int64[d]), once.

        codes: which of the distinct digests a row has, -1 for a row without one.
        """
        distinct, first_rows = np.empty((self._count, 32), np.uint8), np.empty(self._count, np.int64)
        codes = np.full(rows, -1, np.int64)
        found = 0
        for each in sorted(self._parts):
            part = self._parts.pop(each)  # so that its memory goes with this turn of the loop
            digests, positions = part.digests.used, part.rows.used
            order, starts = sort_digests(digests)
            first = order[starts]
            end = found + len(first)
            np.take(digests, first, axis=0, out=distinct[found:end], mode="clip")  # any other mode buffers
            first_rows[found:end] = positions[first]
            codes[positions] = _ranks(order, starts) + found
            found = end
        distinct.resize((found, 32), refcheck=False)
        first_rows.resize(found, refcheck=False)
        return distinct, codes, first_rows


class _Growing:
    """An array that grows by ``realloc``, which moves no memory when it is large."""

    def __init__(self, dtype: npt.DTypeLike, *shape: int) -> None:
        self._array: npt.NDArray[Any] = np.empty((0, *shape), dtype)
        self._length = 0

    @property
    def used(self) -> npt.NDArray[Any]:
        """What was appended."""
        return self._array[: self._length]

    def append(self, piece: npt.NDArray[Any]) -> None:
        end = self._length + len(piece)
        if end > len(self._array):
            longer = max(end, len(self._array) * 3 // 2)
            self._array.resize((longer, *self._array.shape[1:]), refcheck=False)
        self._array[self._length : end] = piece
        self._length = end


@dataclass(frozen=True, slots=True)
class _Part:
    """Digests that begin with the same six bits, and which rows have them."""

    digests: _Growing
    rows: _Growing


def _ranks(order: I64, starts: I64) -> I64:
    """For each row, which of the distinct digests it has, from what ``sort_digests`` returns."""
    steps = np.zeros(len(order), np.int64)
    steps[starts[1:]] = 1
    ranks = np.empty_like(order)
    ranks[order] = np.cumsum(steps)
    return ranks


def sort_digests(digests: U8) -> tuple[I64, I64]:
    """(order int64[n], starts int64[d]) of uint8[n, 32].

    order: row numbers by ascending digest, equal ones by ascending row; starts: where in ``order`` each of
    the d distinct digests begins.
    """
    words = np.ascontiguousarray(digests).view(">u8")
    order, same_top = _order_packed(words[:, 0].astype(np.uint64), len(words).bit_length())
    agreeing = np.flatnonzero(same_top)
    equal = _equal_neighbours(words, order, agreeing)
    if not equal.all():
        _sort_exactly(order, words, agreeing, equal)
        equal = _equal_neighbours(words, order, agreeing)
    new = np.ones(len(words), np.bool_)
    new[agreeing[equal] + 1] = False
    return order, np.flatnonzero(new)


def group_rows(codes: I64, distinct: int) -> tuple[I64, I64]:
    """(rows int64[m], starts int64[distinct + 1]): the m rows with a code of 0 or above, by code, then row.

    The rows of code c are ``rows[starts[c] : starts[c + 1]]``.
    """
    counts = np.bincount(codes[codes >= 0], minlength=distinct)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    bits = len(codes).bit_length()
    # Shifted, -1 is the largest word of all, so that rows without a code come last.
    order, _ = _order_packed(codes.view(np.uint64) << np.uint64(bits), bits)
    return order[: starts[-1]], starts


def _order_packed(packed: Words, bits: int) -> tuple[I64, Mask]:
    """(order by all but the low ``bits`` bits, then by row; whether neighbours in that order agree in them).

    packed: uint64[n], n < 2^bits; it is overwritten.
    """
    low = np.uint64((1 << bits) - 1)
    packed &= ~low
    packed |= np.arange(len(packed), dtype=np.uint64)
    packed.sort()
    order = (packed & low).view(np.int64)
    packed >>= np.uint64(bits)
    return order, packed[1:] == packed[:-1]


def _equal_neighbours(words: Words, order: I64, places: I64) -> Mask:
    """Whether the digests at positions i and i + 1 of ``order`` are equal, for each i in ``places``."""
    equal: Mask = (words[order[places]] == words[order[places + 1]]).all(axis=1)
    return equal


def _sort_exactly(order: I64, words: Words, agreeing: I64, equal: Mask) -> None:
    """Sort, in place, each run of equal top bits that holds different digests: by all 256 bits, then by row.

    agreeing: the places whose top bits the next place shares; equal: whether it shares all.
    """
    run = np.concatenate([[0], np.cumsum(np.diff(agreeing) != 1)])
    mixed = np.zeros(int(run[-1]) + 1, np.bool_)
    mixed[run[~equal]] = True
    inner = agreeing[mixed[run]]
    places = np.union1d(inner, inner + 1)
    rows = order[places]
    w = words[rows]
    order[places] = rows[np.lexsort((rows, w[:, 3], w[:, 2], w[:, 1], w[:, 0]))]
