"""Elements of Z_q[x]/(x^N + 1) as rows of residues, uint64[n, N]: drawn, added, packed. Nothing is secret by itself.

Called by ``rlwe`` and ``rlwe_threshold``. q is one of ``kernels.NTT_MODULI``; of a ring modulo a product, each prime
has rows of its own, made from the same random words. Constant time in values, as far as NumPy is.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels.arrays import I64, U8, U64
from trustcompute.primitives.rng import Rng

BITS: Final = 50  # of a residue
NOISE_BITS: Final = 21  # centred binomial: the difference of 21 and 21 bits, σ² = 10.5
_MASK: Final = np.uint64(2**BITS - 1)


def words(rng: Rng, size: int, polynomials: int) -> U64:
    """Random words, one for each coefficient: uint64[polynomials, N]."""
    return rng.array(8 * polynomials * size).view("<u8").reshape(polynomials, size)


def noise(drawn: U64, modulus: int) -> U64:
    """Centred binomial of each word, as a residue."""
    ones = np.bitwise_count(drawn & np.uint64(2**NOISE_BITS - 1)).astype(np.int64)
    ones -= np.bitwise_count(drawn >> np.uint64(64 - NOISE_BITS))
    return residues(ones, modulus)


def ternary(drawn: U64, modulus: int) -> U64:
    """Uniform in -1, 0, 1 to 2⁻⁶³, as residues: ⌊3w/2⁶⁴⌋ - 1 of words w."""
    high, low = drawn >> np.uint64(32), drawn & np.uint64(2**32 - 1)
    three = np.uint64(3)
    digits = (high * three + (low * three >> np.uint64(32))) >> np.uint64(32)
    return residues(digits.astype(np.int64) - 1, modulus)


def uniform(stream: Rng, size: int, polynomials: int, modulus: int) -> U64:
    """Uniform residues, by rejection of 50-bit words: one in 2²⁹ or fewer is drawn again. For public seeds."""
    found = words(stream, size, polynomials) & _MASK
    while (bad := found >= modulus).any():
        found[bad] = stream.array(8 * int(bad.sum())).view("<u8") & _MASK
    return found


def residues(values: I64, modulus: int) -> U64:
    """Of integers within ±q."""
    return (values + (values >> 63 & modulus)).view(np.uint64)


def plus(a: U64, b: U64, modulus: int) -> U64:
    total = (a + b).view(np.int64) - modulus
    return (total + (total >> 63 & modulus)).view(np.uint64)


def minus(a: U64, b: U64, modulus: int) -> U64:
    return residues(a.view(np.int64) - b.view(np.int64), modulus)


def product(a: U64, transformed: U64, modulus: int) -> U64:
    """Of polynomials with one that is transformed already."""
    found = kernels.ntt_mul(kernels.ntt(a, modulus), transformed, modulus)
    return kernels.ntt(found, modulus, inverse=True)


def pack(rows: U64) -> U8:
    """uint8[6.25·n·N]."""
    return kernels.bits_pack(rows.reshape(-1), BITS)


def unpack(data: bytes | memoryview | U8, size: int, polynomials: int, modulus: int) -> U64:
    """Every residue is checked. Raises ``RemoteProtocolError``."""
    packed: U8 = np.frombuffer(data, dtype=np.uint8)
    found = kernels.bits_unpack(packed, polynomials * size, BITS)
    if len(found) and int(found.max()) >= modulus:
        raise RemoteProtocolError("a ciphertext or key has a residue beyond the modulus")
    return found.reshape(polynomials, size)
