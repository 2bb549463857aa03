"""Elements of Z_q[x]/(x^N + 1) as rows of residues, uint64[n, N]: drawn, added, packed. Nothing is secret by itself.

Called by ``rlwe`` and ``rlwe_threshold``. q is one of ``kernels.NTT_MODULI``; of a ring modulo a product, each prime
has rows of its own, made from the same random words. Constant time in values on the compiled
kernels, as far as NumPy is.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels.arrays import I64, U8, U64
from trustcompute.primitives.rng import Rng

BITS: Final = 50  # of a residue
NO_VALUES: Final = np.empty(0, dtype=np.int64)
_MASK: Final = np.uint64(2**BITS - 1)


def words(rng: Rng, size: int, polynomials: int) -> U64:
    """Random words, one for each coefficient: uint64[polynomials, N]."""
    return rng.array(8 * polynomials * size).view("<u8").reshape(polynomials, size)


def noise(drawn: U64, modulus: int) -> U64:
    """Centred binomial of each word, as a residue."""
    return blend(np.zeros_like(drawn), drawn, modulus)


def blend(rows: U64, drawn: U64, modulus: int, values: I64 = NO_VALUES, shift: int = 0) -> U64:
    """rows + noise + values·2^shift."""
    return kernels.ring_blend(rows, drawn, values, shift, modulus)


def ternary(drawn: U64, modulus: int) -> U64:
    """Uniform in -1, 0, 1 to 2⁻⁶³, as residues."""
    return kernels.ring_ternary(drawn, modulus)


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
    return kernels.ring_add(a, b, modulus)


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
