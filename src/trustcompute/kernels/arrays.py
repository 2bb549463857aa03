"""The arrays kernels take: their types, and the checks that every argument passes before any kernel runs.

Called by ``trustcompute.kernels`` only; the extension checks lengths again, because it writes to memory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trustcompute.errors import ParameterError

U8 = NDArray[np.uint8]
I8 = NDArray[np.int8]
U32 = NDArray[np.uint32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

MAX_DST = 255
"""RFC 9380 §5.3.1 writes the length of a tag as one byte; longer tags, which it would hash, are refused."""
MAX_EXPANDED = 255 * 64
"""RFC 9380 §5.3.1: expand_message_xmd yields at most 255 blocks of its hash."""
MAX_CELL = 2**32 - 1
"""``digest_columns`` writes the length of a cell as four bytes."""
MAX_CELLS = 2**16 - 1
"""Cells of one bin of a key-value store: the extension keeps them in 16 bits."""
MAX_DENSE = 16
"""Dense cells of one bin; three are usual."""
CODE_WEIGHT, CODE_TAPS = 21, 24
"""The expand-convolute code: entries an output adds up, and random taps of its convolution."""
MIN_CODE = 64
"""The shortest vector the code takes: longer than two windows of its convolution."""


NTT_MODULI = (2**50 - 16383, 2**50 - 212991, 2**50 - 1097727, 2**50 - 1490943)
"""Primes that leave one modulo 16384: rings of up to 8192 coefficients. Below 2⁵⁰, so that doubles hold
all residues."""
NTT_SIZES = (1024, 2048, 4096, 8192)
NOISE_BITS = 21
"""Centred binomial noise: the difference of the ones among 21 and among 21 random bits, σ² = 10.5."""
MAX_PACKED = 63
"""Bits of a packed integer at most."""


@dataclass(frozen=True, eq=False)
class NttTable:
    """Powers of a 2N-th root of one in bit-reversed order, uint64[N], of its inverse, and 1/N."""

    modulus: int
    roots: U64
    inverse_roots: U64
    scale: int


@functools.cache
def ntt_table(size: int, modulus: int) -> NttTable:
    """The root is that of the least base that gives one."""
    base, root = 2, 0
    while root == 0 or pow(root, size, modulus) != modulus - 1:
        root = pow(base, (modulus - 1) // (2 * size), modulus)
        base += 1
    bits = size.bit_length() - 1
    order = [int(f"{at:0{bits}b}"[::-1], 2) for at in range(size)]
    roots, inverses = (_powers(one, size, modulus) for one in (root, pow(root, -1, modulus)))
    return NttTable(modulus, roots[order], inverses[order], pow(size, -1, modulus))


def _powers(base: int, count: int, modulus: int) -> U64:
    found = [1]
    for _ in range(count - 1):
        found.append(found[-1] * base % modulus)
    return np.array(found, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class OkvsShape:
    """A key-value store of ``bins`` bins, each with ``sparse`` + ``dense`` cells and at most ``capacity`` keys."""

    bins: int
    sparse: int
    dense: int
    capacity: int

    @property
    def size(self) -> int:
        """Cells of a bin."""
        return self.sparse + self.dense

    @property
    def cells(self) -> int:
        """Cells of all bins."""
        return self.bins * self.size


@dataclass(frozen=True, eq=False)
class VariableColumn:
    """One column of byte strings, as Arrow lays them out: cell i is ``data[offsets[i] : offsets[i + 1]]``.

    tag: 0..255, hashed before every cell; offsets: int64[n + 1], not falling; data: uint8[any].
    """

    tag: int
    offsets: I64
    data: U8


@dataclass(frozen=True, eq=False)
class FixedColumn:
    """One column of cells of equal width. tag: 0..255, hashed before every cell; values: uint8[n, w]."""

    tag: int
    values: U8


Column = VariableColumn | FixedColumn


def rows(name: str, array: object, width: int | None = None) -> U8:
    """``array`` as C-contiguous uint8[n, width]; a strided view is copied, anything else is refused."""
    wanted = f"a uint8 array of shape (n, {'w' if width is None else width})"
    if not isinstance(array, np.ndarray):
        raise ParameterError(f"{name} must be {wanted}, not {type(array).__name__}")
    if array.dtype != np.uint8 or array.ndim != 2 or (width is not None and array.shape[1] != width):
        raise ParameterError(f"{name} must be {wanted}, not {array.dtype} of shape {array.shape}")
    return np.ascontiguousarray(array)


def paired(name: str, array: object, count: int, *, or_one: bool = False) -> U8:
    """``array`` as uint8[count, 32], or uint8[1, 32] meant for every row where ``or_one`` allows it."""
    found = rows(name, array, 32)
    if len(found) != count and not (or_one and len(found) == 1):
        allowed = f"{count} rows" + (" or a single one" if or_one else "")
        raise ParameterError(f"{name} must have {allowed}, not {len(found)}")
    return found


def tag(dst: object) -> bytes:
    """A domain separation tag of RFC 9380."""
    if not isinstance(dst, bytes) or not 1 <= len(dst) <= MAX_DST:
        raise ParameterError(f"a domain separation tag must be bytes of length 1 to {MAX_DST}")
    return dst


def table(columns: Sequence[Column]) -> tuple[int, list[Column]]:
    """(rows, columns with contiguous buffers) after checking tags, offsets and that all are equally long."""
    if not columns:
        raise ParameterError("digest_columns needs at least one column: the number of rows comes from it")
    checked = [_column(column) for column in columns]
    lengths = {len(c.values) if isinstance(c, FixedColumn) else len(c.offsets) - 1 for c in checked}
    if len(lengths) != 1:
        raise ParameterError(f"columns must be equally long, not {sorted(lengths)} rows")
    return lengths.pop(), checked


def _column(column: Column) -> Column:
    if not isinstance(column.tag, int) or not 0 <= column.tag <= 255:
        raise ParameterError(f"a column's tag must be an integer in 0..255, not {column.tag!r}")
    if isinstance(column, FixedColumn):
        return FixedColumn(column.tag, rows("values", column.values))
    offsets, data = column.offsets, column.data
    if (
        not isinstance(offsets, np.ndarray)
        or offsets.dtype != np.int64
        or offsets.ndim != 1
        or not len(offsets)
    ):
        raise ParameterError("offsets must be an int64 array of n + 1 elements")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 1:
        raise ParameterError("the data of a variable column must be a flat uint8 array")
    widths = np.diff(offsets)
    if offsets[0] < 0 or offsets[-1] > len(data) or (len(widths) and widths.min() < 0):
        raise ParameterError("offsets must start at 0 or above, never fall, and end inside the data")
    if len(widths) and widths.max() > MAX_CELL:
        raise ParameterError(f"a cell may hold at most {MAX_CELL} bytes")
    return VariableColumn(column.tag, np.ascontiguousarray(offsets), np.ascontiguousarray(data))


def blocks(name: str, array: object, count: int | None = None) -> U8:
    """``array`` as uint8[n, 16], with n = ``count`` where that is given."""
    found = rows(name, array, 16)
    if count is not None and len(found) != count:
        raise ParameterError(f"{name} must have {count} rows, not {len(found)}")
    return found


def cipher_key(name: str, key: object, width: int = 16) -> bytes:
    """A key of AES-128, or two of them."""
    if not isinstance(key, bytes) or len(key) != width:
        raise ParameterError(f"{name} must be {width} bytes")
    return key


def okvs_shape(shape: OkvsShape) -> OkvsShape:
    if not 1 <= shape.bins < 2**31 or shape.sparse < 3 or not 0 <= shape.dense <= MAX_DENSE:
        raise ParameterError(
            f"a key-value store has bins, 3 or more sparse and at most {MAX_DENSE} dense cells"
        )
    if shape.size > MAX_CELLS or not 0 <= shape.capacity <= MAX_CELLS:
        raise ParameterError(f"a bin has at most {MAX_CELLS} cells and keys")
    return shape


def tree_depth(leaves: int) -> int:
    """Levels below the root of a tree with this many leaves."""
    if not 1 <= leaves <= 2**30:
        raise ParameterError(f"a tree has 1 to 2^30 leaves, not {leaves}")
    return (leaves - 1).bit_length()


def tree_level(leaves: int, level: int) -> int:
    """Nodes of a level that have a leaf below them; level 0 is the root."""
    return -(-leaves >> (tree_depth(leaves) - level))


def ring_words(name: str, array: object, modulus: int) -> U64:
    """``array`` as C-contiguous uint64[n, N], for a ring modulo the modulus."""
    if modulus not in NTT_MODULI:
        raise ParameterError(f"the modulus must be one of {', '.join(map(str, NTT_MODULI))}")
    if not isinstance(array, np.ndarray) or array.dtype != np.uint64 or array.ndim != 2:
        raise ParameterError(f"{name} must be a uint64 array of shape (n, N)")
    return np.ascontiguousarray(array)


def residues(name: str, array: object, modulus: int, size: int | None = None) -> U64:
    """``array`` as C-contiguous uint64[n, N] of values below the modulus."""
    checked = ring_words(name, array, modulus)
    if checked.shape[1] not in NTT_SIZES or (size is not None and checked.shape[1] != size):
        raise ParameterError(
            f"rows of {name} must have {size or NTT_SIZES} coefficients, not {checked.shape[1]}"
        )
    if checked.size and int(checked.max()) >= modulus:
        raise ParameterError(f"{name} must lie below the modulus")
    return checked


def packed_width(width: int) -> int:
    if not 1 <= width <= MAX_PACKED:
        raise ParameterError(f"packed integers have 1 to {MAX_PACKED} bits, not {width}")
    return width


def database(array: object) -> I8:
    """A database of signed bytes, C-contiguous int8[r, m]."""
    if not isinstance(array, np.ndarray) or array.dtype != np.int8 or array.ndim != 2:
        raise ParameterError("the database must be an int8 array of shape (r, m)")
    return np.ascontiguousarray(array)


def words(name: str, array: object, *shape: int | None) -> U32:
    """``array`` as C-contiguous, aligned uint32 of this shape; ``None``: any length."""
    wanted = f"a uint32 array of shape ({', '.join('any' if n is None else str(n) for n in shape)})"
    if not isinstance(array, np.ndarray) or array.dtype != np.uint32 or array.ndim != len(shape):
        raise ParameterError(f"{name} must be {wanted}")
    if any(want not in (None, got) for got, want in zip(array.shape, shape, strict=True)):
        raise ParameterError(f"{name} must be {wanted}, not of shape {array.shape}")
    return np.require(array, requirements=["C", "A"])  # what came in a message may lie anywhere
