"""GF(2¹²⁸) with x¹²⁸ + x⁷ + x² + x + 1. Bit i of a little-endian 128-bit integer is the coefficient of xⁱ.

*Not constant time.*
"""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import U8

MODULUS = (1 << 128) | 0x87


def multiply(a: int, b: int) -> int:
    """a·b, by shifting and adding."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a <<= 1
        if a >> 128:
            a ^= MODULUS
        b >>= 1
    return product


def invert(a: int) -> int:
    """1/a = a^(2¹²⁸ - 2); 0 for 0."""
    result, power = 1, multiply(a, a)
    for _ in range(127):
        result, power = multiply(result, power), multiply(power, power)
    return result


def integer(row: U8) -> int:
    return int.from_bytes(row.tobytes(), "little")


def element(value: int) -> U8:
    return np.frombuffer(value.to_bytes(16, "little"), dtype=np.uint8)


def gf128_mul(a: U8, b: U8) -> U8:
    out = np.empty((len(a), 16), dtype=np.uint8)
    factors = [integer(row) for row in b] * (len(a) if len(b) == 1 else 1)
    for index, factor in enumerate(factors[: len(a)]):
        out[index] = element(multiply(integer(a[index]), factor))
    return out


def gf128_dot(a: U8, b: U8) -> U8:
    total = 0
    for x, y in zip(a, b, strict=True):
        total ^= multiply(integer(x), integer(y))
    return element(total).reshape(1, 16)
