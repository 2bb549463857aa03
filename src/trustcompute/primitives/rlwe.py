"""Additive encryption from ring learning with errors: vectors of integers, added under encryption, nothing multiplied.

Called by ``aggregation`` and by whoever adds up under one key. V. Lyubashevsky, C. Peikert and O. Regev, *On Ideal
Lattices and Learning with Errors over Rings* (EUROCRYPT 2010); messages sit above the noise, as in J. Fan and F.
Vercauteren (ePrint 2012/144), at a power of two: b = a·s + e + 2^k·m over Z_q[x]/(x^N + 1), a coefficient a value.

Secret-key ciphertexts carry the seed of ``a``; public-key ones carry a second polynomial. Sums of both kinds are
added the same way. Who holds the secret key opens everything encrypted under it: a key shared by parties lets them
read each other.

Security of a suite: ``core_svp`` (Alkim et al., *Post-quantum key exchange*, USENIX Security 2016, §6.3; primal attack,
2^(0.292β) classical, 2^(0.265β) quantum). Decryption must not be shown to whoever chooses ciphertexts, noise and
all: what ``decrypt`` returns is rounded. Constant time in secrets on the compiled kernels, as far as NumPy is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import e, isqrt, log2, pi
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.kernels import NOISE_BITS
from trustcompute.kernels.arrays import I64, U8, U64
from trustcompute.primitives import ring
from trustcompute.primitives.ring import BITS
from trustcompute.primitives.rng import Rng

MODULUS: Final = kernels.NTT_MODULI[0]
SEED: Final = 32
TAIL_NATS: Final = 60  # a noise beyond what the suite allows for: e^-60 a coefficient
STEP: Final = 2**15  # coefficients at a time: what is made of them stays in the second-level cache
MAX_POLYNOMIALS: Final = 2**20
_HALF: Final = MODULUS // 2


@dataclass(frozen=True)
class Suite:
    """name: in documents; size: N; parties: the most ciphertexts that are added; shift: k, where messages begin.

    A sum of at most ``parties`` public-key ciphertexts has noise below 2^(k-1), with probability 1 - 2⁻⁸⁰ a
    coefficient.
    """

    name: str
    size: int
    parties: int = 1024

    @property
    def shift(self) -> int:
        # e·u + e' + e''·s: 2N products of ternary (σ² = 2/3) and noise, and a noise.
        variance = self.parties * (2 * self.size * 2 * NOISE_BITS // 3 // 2 + NOISE_BITS // 2 + 1)
        return (isqrt(2 * TAIL_NATS * variance) + 1).bit_length() + 1

    @property
    def payload_bits(self) -> int:
        """Of the sum, its sign included."""
        return BITS - self.shift

    @property
    def limit(self) -> int:
        """The largest absolute value of a sum."""
        return (1 << (self.payload_bits - 1)) - 1

    def polynomials(self, count: int) -> int:
        return -(-count // self.size)


SUITES: Final = {one.name: one for one in (Suite("rlwe-2048", 2048), Suite("rlwe-4096", 4096))}


def core_svp(size: int, bits: float = BITS, *, quantum: bool = False) -> float:
    """Bits of the primal attack: the least 0.292β (0.265β) with σ√β ≤ δ^(2β-d-1)·q^(m/d), d = N + m + 1."""
    sigma, best = (2 / 3) ** 0.5, float("inf")  # the ternary secret, which is the smaller part
    noise = (NOISE_BITS / 2) ** 0.5
    for samples in range(size // 4, 2 * size + 1, size // 16):
        low, high = 60, 4 * size
        while low < high:
            beta = (low + high) // 2
            delta = ((pi * beta) ** (1 / beta) * beta / (2 * pi * e)) ** (1 / (2 * (beta - 1)))
            dimension = size + samples + 1
            # the secret scaled up to the size of the noise
            volume = (bits * samples + size * log2(noise / sigma)) / dimension
            if log2(noise) + log2(beta) / 2 <= (2 * beta - dimension - 1) * log2(delta) + volume:
                high = beta
            else:
                low = beta + 1
        best = min(best, (0.265 if quantum else 0.292) * low)
    return best


@dataclass(frozen=True, eq=False)
class SecretKey:
    """A ternary polynomial, transformed."""

    suite: Suite
    transformed: U64 = field(repr=False)


@dataclass(frozen=True, eq=False)
class PublicKey:
    """seed: of the uniform polynomial a; b = a·s + e, transformed, uint64[1, N]."""

    suite: Suite
    seed: bytes
    transformed: U64 = field(repr=False)

    def to_bytes(self) -> bytes:
        return self.seed + ring.pack(self.transformed).tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, suite: Suite) -> PublicKey:
        """Raises ``RemoteProtocolError`` for bytes that are no key of the suite."""
        size = SEED + suite.size * BITS // 8
        if len(data) != size:
            raise RemoteProtocolError(f"a public key of {suite.name} has {size} bytes, not {len(data)}")
        return cls(suite, data[:SEED], _unpacked(data[SEED:], suite, 1))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.suite.name.encode() + self.to_bytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Ciphertext:
    """count values. body uint64[n, N]; other: uint64[n, N], or, of a fresh secret-key encryption, the seed it is
    made of.

    added: of how many encryptions it is the sum.
    """

    suite: Suite
    count: int
    body: U64 = field(repr=False)
    other: U64 | bytes = field(repr=False)
    added: int = 1

    def pack(self) -> bytes:
        """6.25 bytes a value from a secret key, 12.5 from a public key, and padding to whole polynomials."""
        other = self.other if isinstance(self.other, bytes) else ring.pack(self.other).data
        return b"".join([ring.pack(self.body).data, other])


def packed_size(suite: Suite, count: int, *, seeded: bool) -> int:
    """Bytes of a packed ciphertext: a function of the number of values."""
    polynomials = suite.polynomials(count) * suite.size * BITS // 8
    return polynomials + SEED if seeded else 2 * polynomials


def unpack(
    data: bytes | memoryview, suite: Suite, count: int, *, seeded: bool = False, added: int = 1
) -> Ciphertext:
    """Sizes and every residue are checked before anything is computed. Raises ``RemoteProtocolError``."""
    if not 0 <= count <= MAX_POLYNOMIALS * suite.size or not 1 <= added <= suite.parties:
        raise RemoteProtocolError("a ciphertext has too many values, or is the sum of too many")
    if len(data) != packed_size(suite, count, seeded=seeded):
        raise RemoteProtocolError(
            f"a ciphertext of {count} values has {packed_size(suite, count, seeded=seeded)} bytes, not {len(data)}"
        )
    polynomials = suite.polynomials(count)
    cut = polynomials * suite.size * BITS // 8
    other = bytes(data[cut:]) if seeded else _unpacked(data[cut:], suite, polynomials)
    return Ciphertext(suite, count, _unpacked(data[:cut], suite, polynomials), other, added)


def keygen(suite: Suite, rng: Rng) -> SecretKey:
    """A fresh secret key."""
    return SecretKey(suite, kernels.ntt(_ternary(rng, suite, 1), MODULUS))


def public_key(secret: SecretKey, rng: Rng) -> PublicKey:
    """A public key for it."""
    suite, seed = secret.suite, rng.bytes(SEED)
    product = kernels.ntt_mul(uniform(seed, suite, 1), secret.transformed, MODULUS)
    return PublicKey(suite, seed, _plus(product, kernels.ntt(_noise(rng, suite, 1), MODULUS)))


def encrypt(key: SecretKey | PublicKey, values: I64, rng: Rng) -> Ciphertext:
    """values: int64[n], each at most ``suite.limit`` in size; what a sum may reach is the caller's to bound.

    IND-CPA under ring-LWE. Raises ``ParameterError`` for a value beyond the limit.
    """
    suite = key.suite
    _check(values, suite)
    body = np.empty((suite.polynomials(len(values)), suite.size), dtype=np.uint64)
    if isinstance(key, SecretKey):
        seed = rng.bytes(SEED)
        for rows, first in _under_secret(key, values, seed, rng):
            body[rows] = first
        return Ciphertext(suite, len(values), body, seed)
    other = np.empty_like(body)
    for rows, first, second in _under_public(key, values, rng):
        body[rows], other[rows] = first, second
    return Ciphertext(suite, len(values), body, other)


def encrypt_packed(key: SecretKey | PublicKey, values: I64, rng: Rng) -> U8:
    """The same as the bytes that ``Ciphertext.pack`` makes, uint8[packed_size], written as they are made."""
    suite = key.suite
    _check(values, suite)
    seeded, unit = isinstance(key, SecretKey), suite.size * BITS // 8
    out = np.empty(packed_size(suite, len(values), seeded=seeded), dtype=np.uint8)
    half = suite.polynomials(len(values)) * unit
    if isinstance(key, SecretKey):
        seed = rng.bytes(SEED)
        for rows, first in _under_secret(key, values, seed, rng):
            out[rows.start * unit : rows.stop * unit] = ring.pack(first)
        out[half:] = np.frombuffer(seed, dtype=np.uint8)
        return out
    for rows, first, second in _under_public(key, values, rng):
        out[rows.start * unit : rows.stop * unit] = ring.pack(first)
        out[half + rows.start * unit : half + rows.stop * unit] = ring.pack(second)
    return out


def _check(values: I64, suite: Suite) -> None:
    if values.dtype != np.int64 or values.ndim != 1:
        raise ParameterError("values must be a flat int64 array")
    if len(values) and max(int(values.max()), -int(values.min())) > suite.limit:
        raise ParameterError(f"a value is beyond ±{suite.limit}: what {suite.name} holds for a sum")


def _under_secret(key: SecretKey, values: I64, seed: bytes, rng: Rng) -> Iterator[tuple[slice, U64]]:
    """Rows of polynomials, and the bodies of these."""
    suite, stream = key.suite, _uniform_stream(seed)
    for rows in _steps(suite.polynomials(len(values)), suite):
        drawn = ring.uniform(stream, suite.size, rows.stop - rows.start, MODULUS)
        masks = kernels.ntt(kernels.ntt_mul(drawn, key.transformed, MODULUS), MODULUS, inverse=True)
        yield rows, _sealed(masks, rng, values, suite, rows)


def _under_public(key: PublicKey, values: I64, rng: Rng) -> Iterator[tuple[slice, U64, U64]]:
    """Rows of polynomials, and the bodies and second polynomials of these."""
    suite, base = key.suite, uniform(key.seed, key.suite, 1)
    for rows in _steps(suite.polynomials(len(values)), suite):
        count = rows.stop - rows.start
        blind = kernels.ntt(_ternary(rng, suite, count), MODULUS)
        first = kernels.ntt(kernels.ntt_mul(blind, key.transformed, MODULUS), MODULUS, inverse=True)
        body = _sealed(first, rng, values, suite, rows)
        second = kernels.ntt(kernels.ntt_mul(blind, base, MODULUS), MODULUS, inverse=True)
        yield rows, body, ring.blend(second, ring.words(rng, suite.size, count), MODULUS)


def expand(ciphertext: Ciphertext) -> Ciphertext:
    """The same with its second polynomial written out, so that it can be added to others."""
    if not isinstance(ciphertext.other, bytes):
        return ciphertext
    suite, rows = ciphertext.suite, len(ciphertext.body)
    transformed = uniform(ciphertext.other, suite, rows)
    other = kernels.ntt(transformed, MODULUS, inverse=True)
    return Ciphertext(suite, ciphertext.count, ciphertext.body, other, ciphertext.added)


def add(ciphertexts: Sequence[Ciphertext]) -> Ciphertext:
    """Of ciphertexts of one suite and length under one key. Raises ``ParameterError`` for more than the suite adds."""
    first, added = ciphertexts[0], sum(one.added for one in ciphertexts)
    if any((one.suite, one.count) != (first.suite, first.count) for one in ciphertexts):
        raise ParameterError("only ciphertexts of one suite and of equally many values are added")
    if added > first.suite.parties:
        raise ParameterError(f"{first.suite.name} adds up to {first.suite.parties} encryptions, not {added}")
    body, other = np.zeros_like(first.body), np.zeros_like(first.body)
    for one in ciphertexts:
        body = _plus(body, one.body)
        other = _plus(other, _written(one))
    return Ciphertext(first.suite, first.count, body, other, added)


def decrypt(secret: SecretKey, ciphertext: Ciphertext) -> I64:
    """int64[count]: the values, or the sum of values that were added, rounded off the noise."""
    suite, values = secret.suite, np.empty((len(ciphertext.body), secret.suite.size), dtype=np.int64)
    if ciphertext.suite != suite:
        raise ParameterError("the ciphertext is of another suite than the key")
    other = _written(ciphertext)
    for rows in _steps(len(values), suite):
        product = ring.product(other[rows], secret.transformed, MODULUS)
        values[rows] = _rounded(ring.minus(ciphertext.body[rows], product, MODULUS), suite)
    return values.reshape(-1)[: ciphertext.count]


def uniform(seed: bytes, suite: Suite, polynomials: int) -> U64:
    """Uniform residues from a public seed, uint64[polynomials, N]."""
    return ring.uniform(_uniform_stream(seed), suite.size, polynomials, MODULUS)


def _uniform_stream(seed: bytes) -> Rng:
    return Rng.derive(seed, info=b"rlwe uniform polynomials v1")


def _noise(rng: Rng, suite: Suite, polynomials: int) -> U64:
    return ring.noise(ring.words(rng, suite.size, polynomials), MODULUS)


def _ternary(rng: Rng, suite: Suite, polynomials: int) -> U64:
    return ring.ternary(ring.words(rng, suite.size, polynomials), MODULUS)


def _sealed(masks: U64, rng: Rng, values: I64, suite: Suite, rows: slice) -> U64:
    """Masks, noise and 2^k·m for the polynomials of these rows, padded with zeros."""
    piece = values[rows.start * suite.size : rows.stop * suite.size]
    if len(piece) < masks.size:
        piece = np.concatenate([piece, np.zeros(masks.size - len(piece), dtype=np.int64)])
    drawn = ring.words(rng, suite.size, len(masks))
    return ring.blend(masks, drawn, MODULUS, piece.reshape(masks.shape), suite.shift)


def _rounded(residues: U64, suite: Suite) -> I64:
    signed = residues.view(np.int64)
    centred = signed - (((_HALF - signed) >> 63) & MODULUS)
    rounded: I64 = (centred + (1 << (suite.shift - 1))) >> suite.shift
    return rounded


def _plus(a: U64, b: U64) -> U64:
    return ring.plus(a, b, MODULUS)


def _written(ciphertext: Ciphertext) -> U64:
    other = expand(ciphertext).other
    assert not isinstance(other, bytes)
    return other


def _steps(polynomials: int, suite: Suite) -> list[slice]:
    step = STEP // suite.size
    return [slice(at, min(at + step, polynomials)) for at in range(0, polynomials, step)]


def _unpacked(data: bytes | memoryview, suite: Suite, polynomials: int) -> U64:
    return ring.unpack(data, suite.size, polynomials, MODULUS)
