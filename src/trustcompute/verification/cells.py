"""Cells: what a holder's table says of one key, so that only who is told the key's pseudorandom value can read it.

Called by ``layout`` (which writes them) and by ``answer`` (which reads them). The value of a key is F(0 ‖ digest), of
a key with elements F(1 ‖ digest), F the verifiable OPRF of RFC 9497 under a key that belongs to one predicate and one
key epoch.

    root     SHA-256(salt label ‖ F)                        32 bytes: the first 8 are the tag, the others make masks
    mask     SHA-256(label ‖ root's last 24 ‖ place, column, epoch of the column)[:8]
    cell     tag (8) ‖ mask ⊕ plain (8)
    plain    code ‖ seven zero bytes; for ``match`` SHA-256(label ‖ F(1 ‖ digest of key and elements))[:8]

A mask is bound to its column's epoch, so that a value that changes is never hidden by the mask of the one before it.
SHA-256 as a random oracle; 8 bytes of check: a wrong match with probability 2⁻⁶⁴ a question.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.kernels.arrays import U8

U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

CELL: Final = 16
"""Bytes of a cell; a column begins with a header of as many."""
TAG: Final = 8
SUBJECT, ELEMENTS = b"\0", b"\1"


class Place(IntEnum):
    """Which of a table's two layouts a cell stands in."""

    BUCKET = 0
    COLUMN = 1


class Code(IntEnum):
    """What an answer says. Which element of a match differs is not among it."""

    MISMATCH = 0
    MATCH = 1
    NO_RECORD = 2


_ROOT: Final = b"trustcompute verification root 1".ljust(32, b"\0")
_MASK: Final = b"trustcompute verification mask 1".ljust(64, b"\0")
_CHECK: Final = b"trustcompute verification match 1".ljust(64, b"\0")


def inputs(digests: U8, kind: bytes) -> U8:
    """What goes into the OPRF: uint8[n, 32] -> uint8[n, 33]."""
    return np.concatenate([np.full((len(digests), 1), kind[0], dtype=np.uint8), digests], axis=1)


def roots(values: U8, salt: bytes) -> U8:
    """uint8[n, 64] of the OPRF -> uint8[n, 32]. salt: 32 public bytes, another where two tags fell together."""
    return kernels.digest_columns(_ROOT + salt, [kernels.FixedColumn(0, values)])


def tags(found: U8) -> U64:
    """The tags of roots as numbers, in whose order cells stand: uint64[n]."""
    return np.ascontiguousarray(found[:, :TAG]).view(">u8").reshape(-1).astype(np.uint64)


def masks(found: U8, place: Place, columns: U32, epochs: U32) -> U8:
    """uint8[n, 32], the column and its epoch for each -> uint8[n, 8]."""
    where = np.zeros((len(found), 9), dtype=np.uint8)
    where[:, 0] = place
    where[:, 1:5] = np.ascontiguousarray(columns, dtype=">u4").view(np.uint8).reshape(-1, 4)
    where[:, 5:9] = np.ascontiguousarray(epochs, dtype=">u4").view(np.uint8).reshape(-1, 4)
    secret = np.ascontiguousarray(found[:, TAG:])
    fields = [kernels.FixedColumn(0, secret), kernels.FixedColumn(1, where)]
    return np.ascontiguousarray(kernels.digest_columns(_MASK, fields)[:, :8])


def codes(holds: npt.NDArray[np.bool_]) -> U8:
    """The plain side of cells that say match or mismatch: uint8[n, 8]."""
    plain = np.zeros((len(holds), 8), dtype=np.uint8)
    plain[:, 0] = np.where(holds, Code.MATCH, Code.MISMATCH)
    return plain


def checks(values: U8) -> U8:
    """The plain side of cells of a match, from F of key and elements: uint8[n, 64] -> uint8[n, 8]."""
    return np.ascontiguousarray(kernels.digest_columns(_CHECK, [kernels.FixedColumn(0, values)])[:, :8])
