"""The negacyclic number-theoretic transform, and integers packed to the bit, in NumPy.

P. Longa and M. Naehrig, *Speeding up the Number Theoretic Transform* (CANS 2016), algorithms 1 and 2: the forward
transform takes coefficients of Z_q[x]/(x^N + 1) in order to values in bit-reversed order, the inverse takes them
back. No division shows in the timing but NumPy's own.
"""

from __future__ import annotations

import functools

import numpy as np

from trustcompute.kernels.arrays import U8, U64, NttTable, ntt_table

_Q63 = np.uint64(63)


def multiply(a: U64, b: U64, modulus: int) -> U64:
    """a·b modulo a modulus below 2⁵⁰: the quotient by doubles is off by one at most, the rest is exact modulo 2⁶⁴."""
    quotient = np.floor(a.astype(np.float64) * b.astype(np.float64) / modulus).astype(np.uint64)
    rest = a * b - quotient * np.uint64(modulus)
    return reduce(np.where(rest >> _Q63 != 0, rest + np.uint64(modulus), rest), modulus)


def reduce(values: U64, modulus: int) -> U64:
    """What is below twice the modulus."""
    return np.where(values >= modulus, values - np.uint64(modulus), values)


def ntt(rows: U64, modulus: int, inverse: bool) -> U64:
    table = ntt_table(rows.shape[1], modulus)
    return _inverse(rows, table) if inverse else _forward(rows, table)


def _forward(rows: U64, table: NttTable) -> U64:
    x, q = rows.copy(), table.modulus
    size, groups = x.shape[1], 1
    while groups < size:
        view = x.reshape(len(x), groups, 2, size // (2 * groups))
        u = view[:, :, 0, :].copy()
        v = multiply(view[:, :, 1, :], table.roots[groups : 2 * groups, np.newaxis], q)
        view[:, :, 0, :] = reduce(u + v, q)
        view[:, :, 1, :] = reduce(u + np.uint64(q) - v, q)
        groups *= 2
    return x


def _inverse(rows: U64, table: NttTable) -> U64:
    x, q = rows.copy(), table.modulus
    size = x.shape[1]
    groups = size // 2
    while groups >= 1:
        view = x.reshape(len(x), groups, 2, size // (2 * groups))
        u, v = view[:, :, 0, :].copy(), view[:, :, 1, :].copy()
        view[:, :, 0, :] = reduce(u + v, q)
        difference = reduce(u + np.uint64(q) - v, q)
        view[:, :, 1, :] = multiply(difference, table.inverse_roots[groups : 2 * groups, np.newaxis], q)
        groups //= 2
    return multiply(x, np.full(1, table.scale, dtype=np.uint64), q)


def ntt_mul(a: U64, b: U64, modulus: int) -> U64:
    return multiply(a, b, modulus)


@functools.cache
def _weights(width: int) -> U64:
    return np.uint64(1) << np.arange(width, dtype=np.uint64)


def bits_pack(values: U64, width: int) -> U8:
    bits = (values[:, np.newaxis] & _weights(width)) != 0
    return np.packbits(bits.reshape(-1), bitorder="little")


def bits_unpack(packed: U8, count: int, width: int) -> U64:
    bits = np.unpackbits(packed, count=count * width, bitorder="little").reshape(count, width)
    return bits.astype(np.uint64) @ _weights(width)
