"""Small random ring elements from random words, in NumPy: ternary ones, and noise that is blended with a message."""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import I64, NOISE_BITS, U64
from trustcompute.kernels.reference.ntt import reduce


def ring_ternary(words: U64, modulus: int) -> U64:
    """⌊3w/2⁶⁴⌋ - 1."""
    high, low = words >> np.uint64(32), words & np.uint64(2**32 - 1)
    three = np.uint64(3)
    digits = (high * three + (low * three >> np.uint64(32))) >> np.uint64(32)
    return _residues(digits.astype(np.int64) - 1, modulus)


def ring_blend(rows: U64, words: U64, values: I64, shift: int, modulus: int) -> U64:
    """Centred binomial noise: the ones among a word's lowest bits less those among its highest."""
    noise = np.bitwise_count(words & np.uint64(2**NOISE_BITS - 1)).astype(np.int64)
    noise -= np.bitwise_count(words >> np.uint64(64 - NOISE_BITS))
    out = ring_add(rows, _residues(noise, modulus), modulus)
    if values.size == 0:
        return out
    return ring_add(out, _residues(values << np.int64(shift), modulus), modulus)


def ring_add(a: U64, b: U64, modulus: int) -> U64:
    return reduce(a + b, modulus)


def _residues(values: I64, modulus: int) -> U64:
    return (values + (values >> 63 & modulus)).view(np.uint64)
