"""Shamir's secret sharing over GF(2¹²⁸): any ``threshold`` of the shares give a secret back, fewer tell nothing.

Called by ``aggregation.masked``. A secret of 16·w bytes is w field elements, each shared by a polynomial of its own (A.
Shamir, *How to Share a Secret*, CACM 22(11), 1979). Share i is the polynomials' value at the field element i + 1.

Perfect secrecy against fewer than ``threshold`` holders; no integrity: who recovers a secret compares it with a
commitment. Constant time in secrets and shares on the compiled kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives.rng import Rng

ELEMENT: Final = 16
MAX_SHARES: Final = 255


def split(secret: bytes, shares: int, threshold: int, rng: Rng) -> U8:
    """uint8[shares, len(secret)]: share i for holder i. secret: one or more elements of 16 bytes."""
    if not 1 <= threshold <= shares <= MAX_SHARES:
        raise ParameterError(f"a secret has 1 to {MAX_SHARES} shares and a threshold among them")
    width = _width(len(secret))
    coefficients = np.concatenate(
        [np.frombuffer(secret, dtype=np.uint8), rng.array((threshold - 1) * len(secret))]
    ).reshape(threshold, 1, width, ELEMENT)
    points = np.repeat(_points(range(shares)), width, axis=0)
    values = np.zeros((shares * width, ELEMENT), dtype=np.uint8)
    for coefficient in coefficients[::-1]:  # Horner, all holders at once
        values = kernels.gf128_mul(values, points)
        values ^= np.broadcast_to(coefficient, (shares, width, ELEMENT)).reshape(-1, ELEMENT)
    return values.reshape(shares, len(secret))


class Recovery:
    """Recovers secrets from the shares of the same holders: their weights are computed once.

    holders: different places of shares, as many as the threshold.
    """

    def __init__(self, holders: Sequence[int]) -> None:
        if not holders or len(set(holders)) < len(holders) or not all(0 <= i < MAX_SHARES for i in holders):
            raise ParameterError("shares are recovered from different holders, counted from 0")
        self.holders = tuple(holders)
        self._weights = _lagrange(_points(holders))

    def recover(self, shares: U8) -> bytes:
        """The secret. shares: uint8[len(holders), n], in the holders' order."""
        if shares.ndim != 2 or len(shares) != len(self.holders):
            raise ParameterError(f"{len(self.holders)} shares are needed, in the holders' order")
        width = _width(shares.shape[1])
        parts = kernels.gf128_mul(
            np.ascontiguousarray(shares).reshape(-1, ELEMENT), np.repeat(self._weights, width, axis=0)
        )
        secret: U8 = np.bitwise_xor.reduce(parts.reshape(len(shares), -1), axis=0)
        return secret.tobytes()


def _width(size: int) -> int:
    if size < ELEMENT or size % ELEMENT:
        raise ParameterError(f"a shared secret has a multiple of {ELEMENT} bytes, not {size}")
    return size // ELEMENT


def _points(places: Sequence[int]) -> U8:
    points = np.zeros((len(places), ELEMENT), dtype=np.uint8)
    points[:, 0] = [place + 1 for place in places]
    return points


def _lagrange(points: U8) -> U8:
    """At zero: Π_{j≠i} x_j / (x_j - x_i); the field's subtraction is exclusive or."""
    count = len(points)
    above, below = _ones(count), _ones(count)
    for shift in range(1, count):
        others = np.roll(points, shift, axis=0)
        above = kernels.gf128_mul(above, others)
        below = kernels.gf128_mul(below, others ^ points)
    return kernels.gf128_mul(above, _inverse(below))


def _inverse(elements: U8) -> U8:
    """a^(2¹²⁸ - 2)."""
    result, power = _ones(len(elements)), kernels.gf128_mul(elements, elements)
    for _ in range(127):
        result, power = kernels.gf128_mul(result, power), kernels.gf128_mul(power, power)
    return result


def _ones(count: int) -> U8:
    ones = np.zeros((count, ELEMENT), dtype=np.uint8)
    ones[:, 0] = 1
    return ones
