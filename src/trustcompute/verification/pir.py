"""SimplePIR over a table's columns: one linear query returns one whole column, and the server cannot tell which.

Called by ``private``, ``table`` (the hint) and ``proof``. The database is D, int8[length, m]: column j of the table
is column j of D. With A, m × n words expanded from a public seed, and the hint H = D·A:

    query    u = A·s + e + Δ·(1 at j)      s uniform, e Gaussian, fresh for every query
    answer   v = D·u
    column   round((v - H·s) / Δ)

Everything that does not depend on j is prepared beforehand (``prepare``) and used once. Adversary: an
honest-but-curious server learns nothing (decision LWE, ``lwe.SECURITY``); a malicious one is caught by ``proof`` and
the column's Merkle leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import LocalProtocolError, VerificationError
from trustcompute.kernels.arrays import I8, I64, U8
from trustcompute.primitives.parallel import ahead, map_rows
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import discrete_gaussian
from trustcompute.verification.cells import U32
from trustcompute.verification.lwe import DIMENSION, SCALE_BITS, VARIANCE

ROWS_A_KEY: Final = 64
"""Rows of A that one key expands to: 360 kB, a piece for one task."""
COLUMNS_AT_ONCE: Final = 2**14
"""Columns of D for which A is held in memory while the hint is made: 92 MB."""

ROWS_AT_ONCE: Final = 2**10
"""Rows of D that one task of a hint copies of these columns: 17 MB."""

_LABEL: Final = b"trustcompute verification matrix".ljust(32, b"\0")
_DELTA: Final = np.uint32(1 << SCALE_BITS)


def matrix_keys(seed: bytes, columns: int) -> tuple[U8, int]:
    """(keys uint8[c, 16], rows a key) that expand to the rows of A. seed: 32 public bytes."""
    rows = min(ROWS_A_KEY, columns)
    index = np.arange(columns // rows, dtype=">u4").view(np.uint8).reshape(-1, 4)
    hashed = kernels.digest_columns(_LABEL + seed, [kernels.FixedColumn(0, index)])
    return np.ascontiguousarray(hashed[:, :16]), rows


def make_hint(database: I8, seed: bytes, *, executor: Executor | None = None) -> U32:
    """H = D·A: int8[length, m] -> uint32[length, n]."""
    length, columns = database.shape
    keys, rows = matrix_keys(seed, columns)
    hint = np.zeros((length, DIMENSION), dtype=np.uint32)
    for start in range(0, columns, COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, columns)
        part = keys[start // rows : -(-stop // rows)]
        matrix = kernels.aes128_ctr(part, rows * DIMENSION // 4).view("<u4").reshape(-1, DIMENSION)
        hint += _product(database, slice(start, stop), matrix, executor)
    return hint


def _product(database: I8, columns: slice | I64, matrix: U32, executor: Executor | None) -> U32:
    """Some columns of D times as many rows of A, some rows of D at a time."""
    share = max(1, min(_share(len(database), executor), ROWS_AT_ONCE))
    return map_rows(
        partial(_multiply, columns=columns, matrix=matrix), database, executor=executor, chunk=share
    )


def _multiply(database: I8, columns: slice | I64, matrix: U32) -> U32:
    return kernels.pir_multiply(np.ascontiguousarray(database[:, columns]), matrix)


def changed_hint(
    hint: U32, before: I8, after: I8, changed: I64, seed: bytes, *, executor: Executor | None = None
) -> U32:
    """H + ΔD·A over the columns that were changed: what ``make_hint`` would give. before, after: int8[length, m]."""
    keys, rows = matrix_keys(seed, before.shape[1])
    found = np.array(hint, dtype=np.uint32)
    for start in range(0, len(changed), COLUMNS_AT_ONCE):
        part = changed[start : start + COLUMNS_AT_ONCE]
        matrix = _rows_of(keys, rows, part)
        for data, sign in ((after, np.add), (before, np.subtract)):  # a difference of two bytes is no byte
            sign(found, _product(data, part, matrix, executor), out=found)
    return found


def _rows_of(keys: U8, rows: int, wanted: I64) -> U32:
    """Rows of A: uint32[wanted, n]."""
    matrix = np.empty((len(wanted), DIMENSION), dtype=np.uint32)
    for key in np.unique(wanted // rows):
        tile = (
            kernels.aes128_ctr(keys[key : key + 1], rows * DIMENSION // 4)
            .view("<u4")
            .reshape(rows, DIMENSION)
        )
        own = wanted // rows == key
        matrix[own] = tile[wanted[own] % rows]
    return matrix


def hint_digest(hint: U32) -> str:
    """SHA-256 (hex) of a hint, row by row, little-endian."""
    hashed = hashlib.sha256(b"trustcompute hint 1\n")
    hashed.update(memoryview(np.ascontiguousarray(hint, dtype="<u4")).cast("B"))
    return hashed.hexdigest()


@dataclass(eq=False)
class Prepared:
    """What one query needs whatever it asks for. Secret; good for one query."""

    masked: U32 = field(repr=False)
    hidden: U32 = field(repr=False)
    used: bool = False


def prepare(hint: U32, seed: bytes, columns: int, rng: Rng, *, executor: Executor | None = None) -> Prepared:
    """A·s + e and H·s for a fresh s and e."""
    return begin(hint, seed, columns, rng, executor=executor)()


def begin(
    hint: U32, seed: bytes, columns: int, rng: Rng, *, executor: Executor | None = None
) -> Callable[[], Prepared]:
    """As ``prepare``, all randomness drawn at once, the product computed by the executor until it is called for."""
    secret = rng.array(4 * DIMENSION).view("<u4").astype(np.uint32)
    keys, rows = matrix_keys(seed, columns)
    share = _share(len(keys), executor)
    parts = [
        ahead(executor, kernels.lwe_product, keys[at : at + share], rows, secret)
        for at in range(0, len(keys), share)
    ]
    error = discrete_gaussian(rng, VARIANCE, columns).astype(np.int64).astype(np.uint32)
    return lambda: Prepared(
        np.concatenate([part() for part in parts]) + error, kernels.word_product(hint, secret)
    )


def prepare_many(
    hint: U32, seed: bytes, columns: int, rng: Rng, count: int, *, executor: Executor | None = None
) -> list[Prepared]:
    """As ``prepare``, for several queries, in parts whose rows of A are expanded once."""
    found: list[Prepared] = []
    while count - len(found) > 1:
        secrets = rng.array(4 * DIMENSION * min(count - len(found), TOGETHER))
        found += _together(hint, matrix_keys(seed, columns), secrets, rng, executor)
    return found if len(found) == count else [*found, prepare(hint, seed, columns, rng, executor=executor)]


def _together(
    hint: U32, matrix: tuple[U8, int], drawn: U8, rng: Rng, executor: Executor | None
) -> list[Prepared]:
    keys, rows = matrix
    secrets = drawn.view("<u4").astype(np.uint32).reshape(-1, DIMENSION)
    count, columns = len(secrets), len(keys) * rows
    tiles = max(1, TILE // rows)
    products = map_rows(partial(_products, rows=rows, secrets=secrets), keys, executor=executor, chunk=tiles)
    masked = np.ascontiguousarray(products.reshape(columns, count).T)
    for number in range(count):  # a query's errors at a time: they are drawn in 64-bit words
        masked[number] += discrete_gaussian(rng, VARIANCE, columns).astype(np.int64).astype(np.uint32)
    return [Prepared(one, kernels.word_product(hint, s)) for one, s in zip(masked, secrets, strict=True)]


def _products(keys: U8, rows: int, secrets: U32) -> U32:
    """Rows of A by every secret: uint32[keys, rows, secrets]."""
    tile = kernels.aes128_ctr(keys, rows * DIMENSION // 4).view("<u4").reshape(-1, DIMENSION)
    found = np.stack([kernels.word_product(tile, secret) for secret in secrets], axis=1)
    return np.ascontiguousarray(found).reshape(len(keys), rows, len(secrets))


TOGETHER: Final = 64
"""Queries that are prepared at once: at 2¹⁶ columns 17 MB, and as much again while they are turned."""
TILE: Final = 512
"""Rows of A that are expanded at once: 2.9 MB, which the third-level cache holds."""


def query(prepared: Prepared, column: int) -> U32:
    """The query for a column: uint32[m]. What is written where depends on the column, on the asker's own machine."""
    if prepared.used:
        raise LocalProtocolError(
            "a prepared query serves once: two with one secret would tell what they ask for"
        )
    prepared.used = True
    asked = prepared.masked.copy()
    asked[column : column + 1] += _DELTA  # an array's arithmetic is modulo 2³²
    return asked


def answer(database: I8, asked: U32, *, executor: Executor | None = None) -> U32:
    """D·u for each query: int8[length, m], uint32[k, m] -> uint32[k, length]. Time depends on sizes only."""
    if len(asked) >= SHARED_FROM:
        share = LANES * -(-len(asked) // (4 * LANES))
        return map_rows(partial(_answers, database), asked, executor=executor, chunk=share)
    products = map_rows(
        partial(kernels.pir_answer, queries=asked),
        database,
        executor=executor,
        chunk=_share(len(database), executor),
    )
    return np.ascontiguousarray(products.T)


def _answers(database: I8, asked: U32) -> U32:
    return np.ascontiguousarray(kernels.pir_answer(database, asked).T)


LANES: Final = 8
"""Queries that the kernel takes together."""
SHARED_FROM: Final = 2 * LANES
"""Queries from which threads share them out, and not rows of the database, so that each is packed only once."""


def column_of(prepared: Prepared, got: U32) -> U8:
    """The column an answer holds: uint32[length] -> uint8[length]. Raises ``VerificationError`` where it is no
    answer."""
    noisy = got - prepared.hidden
    shifted = noisy + np.uint32(1 << (SCALE_BITS - 1))
    noise = (shifted & np.uint32((1 << SCALE_BITS) - 1)).astype(np.int64) - (1 << (SCALE_BITS - 1))
    if len(noise) and int(np.abs(noise).max()) > (1 << (SCALE_BITS - 1)) * 9 // 10:
        raise VerificationError("the answer's noise is larger than any honest one: it decrypts to nothing")
    return (shifted >> np.uint32(SCALE_BITS)).astype(np.uint8)


def _share(rows: int, executor: Executor | None) -> int:
    """Rows a task where a pass over memory is shared by threads: four tasks."""
    return max(1, rows if executor is None else -(-rows // 4))
