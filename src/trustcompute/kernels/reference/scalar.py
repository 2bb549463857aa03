"""Integers modulo the order of ristretto255 (RFC 9496 §4.4), and rows of bytes as integers and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from gmpy2 import invert, mpz

from trustcompute.kernels.arrays import U8
from trustcompute.kernels.errors import InvalidScalar

ORDER = mpz(2**252 + 27742317777372353535851937790883648493)


def integers(rows: U8) -> list[mpz]:
    """Each row as a little-endian integer."""
    return [mpz(int.from_bytes(row.tobytes(), "little")) for row in rows]


def packed(encodings: Iterable[bytes], width: int) -> U8:
    """Byte strings of equal width as rows."""
    return np.frombuffer(bytearray().join(encodings), dtype=np.uint8).reshape(-1, width)


def _reduced(values: Iterable[mpz]) -> U8:
    return packed((int(value % ORDER).to_bytes(32, "little") for value in values), 32)


def scalar255_reduce(wide: U8) -> U8:
    return _reduced(integers(wide))


def scalar255_mul(a: U8, b: U8) -> U8:
    return _reduced(x * y for x, y in zip(integers(a), integers(b), strict=True))


def scalar255_sub(a: U8, b: U8) -> U8:
    return _reduced(x - y for x, y in zip(integers(a), integers(b), strict=True))


def scalar255_invert(scalars: U8) -> U8:
    values = integers(scalars)
    for index, value in enumerate(values):
        if value % ORDER == 0:
            raise InvalidScalar.at(index)
    return _reduced(invert(value, ORDER) for value in values)
