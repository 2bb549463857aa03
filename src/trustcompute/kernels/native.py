"""The compiled kernels behind the same functions as the reference.

Makes the output arrays and raises the errors. Called by ``dispatch`` only. ``use`` says which instruction
sets may be used; each call passes it on, so that two of these objects can be compared in one process.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trustcompute.kernels import _native
from trustcompute.kernels.arrays import (
    I8,
    I64,
    U8,
    U32,
    U64,
    Column,
    FixedColumn,
    OkvsShape,
    ntt_table,
    tree_depth,
)
from trustcompute.kernels.errors import InvalidPoint, InvalidScalar, NotSorted, OkvsFailure


def _empty(count: int, width: int) -> U8:
    return np.empty((count, width), dtype=np.uint8)


def _points_fine(row: int | None) -> None:
    if row is not None:
        raise InvalidPoint.at(row)


class Native:
    """The extension's kernels, with the instruction sets of ``use`` (bits of ``_native.FEATURES``) only."""

    def __init__(self, use: int) -> None:
        self._use = use & _native.detect()
        self.features = tuple(name for name, bit in _native.FEATURES if self._use & bit)

    def ristretto255_mul(self, points: U8, scalars: U8) -> U8:
        out = _empty(len(points), 32)
        _points_fine(_native.ristretto255_mul(self._use, points, scalars, out))
        return out

    def ristretto255_mul_base(self, scalars: U8) -> U8:
        out = _empty(len(scalars), 32)
        _native.ristretto255_mul_base(self._use, scalars, out)
        return out

    def ristretto255_check(self, points: U8) -> None:
        _points_fine(_native.ristretto255_check(self._use, points))

    def ristretto255_sub(self, a: U8, b: U8) -> U8:
        out = _empty(len(a), 32)
        _points_fine(_native.ristretto255_sub(a, b, out))
        return out

    def ristretto255_multiscalar_vartime(self, points: U8, scalars: U8) -> U8:
        out = _empty(1, 32)
        _points_fine(_native.ristretto255_multiscalar_vartime(points, scalars, out))
        return out

    def ristretto255_from_uniform(self, uniform: U8) -> U8:
        out = _empty(len(uniform), 32)
        _native.ristretto255_from_uniform(self._use, uniform, out)
        return out

    def ristretto255_hash(self, messages: U8, dst: bytes) -> U8:
        out = _empty(len(messages), 32)
        _native.ristretto255_hash(self._use, messages, messages.shape[1], dst, out)
        return out

    def ristretto255_hash_mul(self, messages: U8, dst: bytes, scalars: U8) -> U8:
        out = _empty(len(messages), 32)
        _native.ristretto255_hash_mul(self._use, messages, messages.shape[1], dst, scalars, out)
        return out

    def ristretto255_hash_blind(self, messages: U8, dst: bytes, scalars: U8) -> U8:
        out = _empty(len(messages), 32)
        _native.ristretto255_hash_blind(self._use, messages, messages.shape[1], dst, scalars, out)
        return out

    def ristretto255_unblind(self, points: U8, base: U8, scalars: U8) -> U8:
        out = _empty(len(points), 32)
        _points_fine(_native.ristretto255_unblind(self._use, points, base, scalars, out))
        return out

    def scalar255_reduce(self, wide: U8) -> U8:
        out = _empty(len(wide), 32)
        _native.scalar255_reduce(wide, out)
        return out

    def scalar255_mul(self, a: U8, b: U8) -> U8:
        out = _empty(len(a), 32)
        _native.scalar255_mul(a, b, out)
        return out

    def scalar255_sub(self, a: U8, b: U8) -> U8:
        out = _empty(len(a), 32)
        _native.scalar255_sub(a, b, out)
        return out

    def scalar255_invert(self, scalars: U8) -> U8:
        out = _empty(len(scalars), 32)
        row = _native.scalar255_invert(scalars, out)
        if row is not None:
            raise InvalidScalar.at(row)
        return out

    def expand_message_xmd(self, messages: U8, dst: bytes, length: int) -> U8:
        out = _empty(len(messages), length)
        _native.expand_message_xmd(messages, messages.shape[1], dst, length, out)
        return out

    def oprf_finalize(self, inputs: U8, elements: U8) -> U8:
        out = _empty(len(inputs), 64)
        _native.oprf_finalize(inputs, inputs.shape[1], elements, out)
        return out

    def digest_columns(self, prefix: bytes, count: int, columns: Sequence[Column]) -> U8:
        out = _empty(count, 32)
        items = tuple(
            (c.tag, c.values.shape[1], b"", c.values)
            if isinstance(c, FixedColumn)
            else (c.tag, -1, c.offsets, c.data)
            for c in columns
        )
        _native.digest_columns(self._use, prefix, items, out)
        return out

    def match_rows(self, values: U8, table: U8, salt: bytes) -> I64:
        out = np.empty(len(values), dtype=np.int64)
        _native.match_rows(values, table, values.shape[1], salt, out)
        return out

    def sort_rows(self, rows: U8) -> tuple[I64, U8]:
        order, out = np.empty(len(rows), dtype=np.int64), np.empty_like(rows)
        _native.sort_rows(rows, rows.shape[1], order, out)
        return order, out

    def match_sorted(self, values: U8, table: U8) -> I64:
        out = np.empty(len(values), dtype=np.int64)
        row = _native.match_sorted(values, table, values.shape[1], out)
        if row is not None:
            raise NotSorted.at(row)
        return out

    def aes128_ctr(self, keys: U8, blocks: int) -> U8:
        out = _empty(len(keys), 16 * blocks)
        _native.aes128_ctr(self._use, keys, blocks, out)
        return out

    def aes128_hash(self, key: bytes, rows: U8) -> U8:
        out = _empty(len(rows), 16)
        _native.aes128_hash(self._use, key, rows, rows.shape[1], out)
        return out

    def aes128_davies_meyer(self, keys: U8, rows: U8) -> U8:
        out = _empty(len(rows), 16)
        _native.aes128_davies_meyer(self._use, keys, rows, out)
        return out

    def gf128_dot(self, a: U8, b: U8) -> U8:
        out = _empty(1, 16)
        _native.gf128_dot(self._use, a, b, out)
        return out

    def gf128_mul(self, a: U8, b: U8) -> U8:
        out = _empty(len(a), 16)
        _native.gf128_mul(self._use, a, b, out)
        return out

    def okvs_encode(self, hashes: U8, values: U8, key: bytes, shape: OkvsShape, bins: range) -> U8:
        out = _empty(len(bins) * shape.size, 16)
        sizes = (shape.bins, shape.sparse, shape.dense, shape.capacity, bins.start, len(bins))
        row = _native.okvs_encode(self._use, hashes, values, key, *sizes, out)
        if row is not None:
            raise OkvsFailure.at(row)
        return out

    def okvs_decode(self, hashes: U8, table: U8, key: bytes, shape: OkvsShape) -> U8:
        out = _empty(len(hashes), 16)
        _native.okvs_decode(self._use, hashes, table, key, shape.bins, shape.sparse, shape.dense, out)
        return out

    def pprf_expand(self, roots: U8, leaves: int, keys: bytes) -> tuple[U8, U8]:
        out, sums = _empty(len(roots) * leaves, 16), _empty(len(roots) * tree_depth(leaves) * 2, 16)
        _native.pprf_expand(self._use, roots, leaves, keys, out, sums)
        return out, sums

    def pprf_puncture(self, sums: U8, points: I64, leaves: int, keys: bytes) -> tuple[U8, U8]:
        out, totals = _empty(len(points) * leaves, 16), _empty(len(points), 16)
        _native.pprf_puncture(self._use, sums, points, leaves, keys, out, totals)
        return out, totals

    def ntt(self, rows: U64, modulus: int, inverse: bool) -> U64:
        table, out = ntt_table(rows.shape[1], modulus), rows.copy()
        roots, scale = (table.inverse_roots, table.scale) if inverse else (table.roots, 0)
        _native.ntt(self._use, out, rows.shape[1], modulus, roots, scale)
        return out

    def ntt_mul(self, a: U64, b: U64, modulus: int) -> U64:
        out = np.empty_like(a)
        _native.ntt_mul(self._use, a, b, modulus, out)
        return out

    def ring_ternary(self, words: U64, modulus: int) -> U64:
        out = np.empty_like(words)
        _native.ring_ternary(self._use, words, modulus, out)
        return out

    def ring_blend(self, rows: U64, words: U64, values: I64, shift: int, modulus: int) -> U64:
        out = np.empty_like(rows)
        _native.ring_blend(self._use, rows, words, values, shift, modulus, out)
        return out

    def ring_add(self, a: U64, b: U64, modulus: int) -> U64:
        out = np.empty_like(a)
        _native.ring_add(self._use, a, b, modulus, out)
        return out

    def bits_pack(self, values: U64, width: int) -> U8:
        out = np.empty(-(-len(values) * width // 8), dtype=np.uint8)
        _native.bits_pack(values, width, out)
        return out

    def bits_unpack(self, packed: U8, count: int, width: int) -> U64:
        out = np.empty(count, dtype=np.uint64)
        _native.bits_unpack(packed, width, out)
        return out

    def code_compress(self, vector: U8, outputs: int, key: bytes) -> U8:
        half = len(vector) // 2
        _native.code_convolve(self._use, key, vector[half:])
        _native.code_expand(self._use, vector[half:], vector[:outputs], key, 0, vector[:outputs])
        return vector[:outputs]

    def code_convolve(self, vector: U8, key: bytes) -> U8:
        out = vector.copy()
        _native.code_convolve(self._use, key, out)
        return out

    def code_expand(self, vector: U8, systematic: U8, key: bytes, first: int) -> U8:
        out = _empty(len(systematic), 16)
        _native.code_expand(self._use, vector, systematic, key, first, out)
        return out

    def pir_answer(self, database: I8, queries: U32) -> U32:
        out = np.empty((len(database), len(queries)), dtype=np.uint32)
        _native.pir_answer(self._use, database, queries, len(queries), out)
        return out

    def pir_multiply(self, database: I8, matrix: U32) -> U32:
        out = np.empty((len(database), matrix.shape[1]), dtype=np.uint32)
        _native.pir_multiply(self._use, database, matrix, matrix.shape[1], out)
        return out

    def word_product(self, matrix: U32, vector: U32) -> U32:
        out = np.empty(len(matrix), dtype=np.uint32)
        _native.word_product(self._use, matrix, vector, out)
        return out

    def lwe_product(self, keys: U8, rows: int, secret: U32) -> U32:
        out = np.empty(len(keys) * rows, dtype=np.uint32)
        _native.lwe_product(self._use, keys, rows, secret, out)
        return out
