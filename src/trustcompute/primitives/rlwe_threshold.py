"""Additive encryption from ring learning with errors whose secret key nobody has: every party holds a summand.

Called by ``aggregation.threshold``. C. Mouchet et al., *Multiparty Homomorphic Encryption from
Ring-Learning-with-Errors* (PoPETs 2021), its collective key and collective decryption, for sums alone: party i has a
ternary s_i and shows b_i = a·s_i + e_i; b = Σ b_i is a public key of s = Σ s_i. Of a ciphertext (c, d) each party shows
d·s_i + r_i, with r_i uniform in ±2^f; c minus all of them is 2^k·m and noise. All are needed; nothing is multiplied.

Shares tell the sum and nothing else, to 2⁻⁴⁰. Of the honest parties' shares all but one are ring-LWE samples under d,
of secrets whose only other sample is b_i. The last is what is left, c - 2^k·m - (noise of the ciphertext) - Σ (other
shares' d·s_i), and r_i: without the noise it is a function of what everybody knows. The noise is at most B a
coefficient, and M coefficients of it and r_i differ from r_i alone by a statistical distance of M·B/2^(f+1). So
f = ⌈log2(M·B)⌉ + 39, and two shares of one ciphertext must never be given: their mean tells more. q is a product of as
many 50-bit primes as k, that is f, the parties, and the sum ask for.

B: given e and s, each coefficient of e·u and of e''·s is a sum of independent ternary or centred binomial terms, which
are subgaussian with their own variances. Those of e and s themselves are within a few percent of their means, N
coefficients of them; the 60 of ``TAIL_NATS`` leave room for that.

Adversary: n - 1 parties together learn nothing of the last one's values but the sum, as long as key shares and
ciphertexts are what ``key_share`` and ``encrypt`` make, and it encrypts under no key and shares in no decryption that
the others do not (``aggregation.threshold`` sees to that). Core-SVP as in ``rlwe``. Constant time in secrets on the
compiled kernels, as far as NumPy is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isqrt, log2, prod
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.kernels import NOISE_BITS
from trustcompute.kernels.arrays import I64, U8, U64
from trustcompute.primitives import ring
from trustcompute.primitives.ring import BITS
from trustcompute.primitives.rlwe import TAIL_NATS, core_svp
from trustcompute.primitives.rng import Rng

STATISTICAL: Final = 40
SHAPES: Final = ((4096, 2), (8192, 3), (8192, 4))
"""Ring sizes and numbers of primes, smallest first: at most 106 and 212 bits of modulus are 128 bits of security in the
tables of ePrint 2024/463."""
MAX_VALUE: Final = 2**48
_LIMB: Final = 25
_POINT: Final = 10  # bits behind the point while digits are put together


@dataclass(frozen=True)
class Suite:
    """size: N; primes: of the modulus; parties: who hold a part of the key, each of whom encrypts at most once into a
    sum; count: values of a vector."""

    size: int
    primes: int
    parties: int
    count: int

    @property
    def moduli(self) -> tuple[int, ...]:
        return kernels.NTT_MODULI[: self.primes]

    @property
    def polynomials(self) -> int:
        return -(-self.count // self.size)

    @property
    def noise_bound(self) -> int:
        """B: of a sum's coefficient, with probability 1 - 2⁻⁸⁰. e·u + e' - e''·s; e and s are sums over parties."""
        product = 2 * self.size * 2 * NOISE_BITS // 3 // 2 * self.parties
        return isqrt(2 * TAIL_NATS * self.parties * (product + NOISE_BITS // 2 + 1)) + 1

    @property
    def flood_bits(self) -> int:
        """f: what a party adds to its share is uniform in -2^f to 2^f - 1."""
        return (self.polynomials * self.size * self.noise_bound - 1).bit_length() + STATISTICAL - 1

    @property
    def statistical_bits(self) -> float:
        return self.flood_bits + 1 - log2(self.polynomials * self.size * self.noise_bound)

    @property
    def shift(self) -> int:
        """k: noise and all floods are below 2^(k - 2)."""
        return (self.noise_bound + (self.parties << self.flood_bits)).bit_length() + 2

    @cached_property
    def limit(self) -> int:
        """The largest absolute value of a sum."""
        return min((prod(self.moduli) // 2 >> self.shift) - 2, MAX_VALUE)

    @property
    def core_svp(self) -> float:
        return core_svp(self.size, BITS * self.primes)

    @property
    def polynomial_bytes(self) -> int:
        return self.primes * self.size * BITS // 8

    @property
    def element_bytes(self) -> int:
        """Of a decryption share; a ciphertext has two."""
        return self.polynomials * self.polynomial_bytes


def choose(parties: int, count: int, most: int) -> Suite:
    """The smallest suite for sums up to ±most. Raises ``ParameterError`` where none holds them."""
    for size, primes in SHAPES:
        suite = Suite(size, primes, parties, count)
        if suite.limit >= most:
            return suite
    raise ParameterError(
        f"sums of {most.bit_length() + 1} bits over {count:,} values and {parties} parties leave no room for the noise"
        " that hides the key: lower a scale, or take fewer values"
    )


@dataclass(frozen=True, eq=False)
class SecretShare:
    """A ternary polynomial, transformed, uint64[primes, 1, N]."""

    suite: Suite
    transformed: U64 = field(repr=False)


@dataclass(frozen=True, eq=False)
class PublicKey:
    """a, and a·s + e for the sum of all shares, transformed, uint64[primes, 1, N] each."""

    suite: Suite
    a: U64 = field(repr=False)
    b: U64 = field(repr=False)


@dataclass(frozen=True, eq=False)
class Ciphertext:
    """body, other: uint64[primes, n, N]. added: of how many encryptions it is the sum."""

    suite: Suite
    body: U64 = field(repr=False)
    other: U64 = field(repr=False)
    added: int = 1

    def pack(self) -> U8:
        return np.concatenate([pack(self.body), pack(self.other)])


def common(seed: bytes, suite: Suite) -> U64:
    """a, uniform, from a seed that nobody chose alone, uint64[primes, 1, N]; it counts as transformed."""
    stream = Rng.derive(seed, info=b"rlwe threshold common polynomial v1")
    return np.stack([ring.uniform(stream, suite.size, 1, modulus) for modulus in suite.moduli])


def key_share(suite: Suite, a: U64, rng: Rng) -> tuple[SecretShare, U64]:
    """A fresh share of the secret key, and what is shown of it: a·s_i + e_i, uint64[primes, 1, N]."""
    secret, noise = ring.words(rng, suite.size, 1), ring.words(rng, suite.size, 1)
    transformed, shown = np.empty_like(a), np.empty_like(a)
    for at, q in enumerate(suite.moduli):
        transformed[at] = kernels.ntt(ring.ternary(secret, q), q)
        masked = kernels.ntt_mul(a[at], transformed[at], q)
        shown[at] = ring.plus(masked, kernels.ntt(ring.noise(noise, q), q), q)
    return SecretShare(suite, transformed), shown


def public_key(suite: Suite, a: U64, shown: Sequence[U64]) -> PublicKey:
    """Of what all parties showed."""
    return PublicKey(suite, a, _sum(suite, shown))


def encrypt(key: PublicKey, values: I64, rng: Rng) -> Ciphertext:
    """values: int64[suite.count], each at most ``suite.limit`` in size. Raises ``ParameterError``."""
    suite = key.suite
    if values.dtype != np.int64 or values.shape != (suite.count,):
        raise ParameterError(f"values must be int64[{suite.count}]")
    if suite.count and max(int(values.max()), -int(values.min())) > suite.limit:
        raise ParameterError(f"a value is beyond ±{suite.limit}: what a sum may be")
    count = suite.polynomials
    padded = np.zeros(count * suite.size, dtype=np.int64)
    padded[: suite.count] = values
    blind, first, second = (ring.words(rng, suite.size, count) for _ in range(3))
    body = np.empty((suite.primes, count, suite.size), dtype=np.uint64)
    other = np.empty_like(body)
    for at, q in enumerate(suite.moduli):
        hidden = kernels.ntt(ring.ternary(blind, q), q)
        message = _times(ring.residues(padded, q).reshape(count, suite.size), 1 << suite.shift, q)
        body[at] = kernels.ntt(kernels.ntt_mul(hidden, key.b[at], q), q, inverse=True)
        body[at] = ring.plus(ring.blend(body[at], first, q), message, q)
        other[at] = kernels.ntt(kernels.ntt_mul(hidden, key.a[at], q), q, inverse=True)
        other[at] = ring.blend(other[at], second, q)
    return Ciphertext(suite, body, other)


def add(ciphertexts: Sequence[Ciphertext]) -> Ciphertext:
    """Raises ``ParameterError`` for more than one a party."""
    suite, added = ciphertexts[0].suite, sum(one.added for one in ciphertexts)
    if added > suite.parties:
        raise ParameterError(f"a sum has at most {suite.parties} encryptions, not {added}")
    body = _sum(suite, [one.body for one in ciphertexts])
    return Ciphertext(suite, body, _sum(suite, [one.other for one in ciphertexts]), added)


def decryption_share(secret: SecretShare, total: Ciphertext, rng: Rng) -> U64:
    """uint64[primes, n, N]. Never make two of one ciphertext: whoever calls sees to that."""
    suite = secret.suite
    low = ring.words(rng, suite.size, suite.polynomials) >> np.uint64(64 - BITS)
    high = ring.words(rng, suite.size, suite.polynomials) >> np.uint64(64 + BITS - 1 - suite.flood_bits)
    share = np.empty_like(total.other)
    for at, q in enumerate(suite.moduli):
        flood = ring.plus(_times(high, 1 << BITS, q), _reduced(low, q), q)
        centre = np.full((1, suite.size), (1 << suite.flood_bits) % q, dtype=np.uint64)
        opened = ring.product(total.other[at], secret.transformed[at], q)
        share[at] = ring.plus(opened, ring.minus(flood, centre, q), q)
    return share


def combine(total: Ciphertext, shares: Sequence[U64]) -> I64:
    """int64[suite.count]: the sum of the values, from the shares of all parties."""
    suite = total.suite
    taken = _sum(suite, shares)
    rows = [ring.minus(total.body[at], taken[at], q) for at, q in enumerate(suite.moduli)]
    return _rounded(rows, suite).reshape(-1)[: suite.count]


def pack(element: U64) -> U8:
    """6.25 bytes a coefficient and prime."""
    return np.concatenate([ring.pack(rows) for rows in element])


def unpack(data: U8, suite: Suite, polynomials: int) -> U64:
    """Size and every residue are checked before anything is computed. Raises ``RemoteProtocolError``."""
    if len(data) != polynomials * suite.polynomial_bytes:
        raise RemoteProtocolError(
            f"{polynomials} polynomials have {polynomials * suite.polynomial_bytes} bytes"
        )
    parts = data.reshape(suite.primes, -1)
    return np.stack(
        [ring.unpack(part, suite.size, polynomials, q) for part, q in zip(parts, suite.moduli, strict=True)]
    )


def unpack_ciphertext(data: U8, suite: Suite) -> Ciphertext:
    """As ``unpack``."""
    if len(data) != 2 * suite.element_bytes:
        raise RemoteProtocolError(f"a ciphertext has {2 * suite.element_bytes} bytes, not {len(data)}")
    body, other = data.reshape(2, -1)
    return Ciphertext(suite, unpack(body, suite, suite.polynomials), unpack(other, suite, suite.polynomials))


def _sum(suite: Suite, elements: Sequence[U64]) -> U64:
    total = elements[0].copy()
    for one in elements[1:]:
        for at, q in enumerate(suite.moduli):
            total[at] = ring.plus(total[at], one[at], q)
    return total


def _times(rows: U64, factor: int, q: int) -> U64:
    return kernels.ntt_mul(rows, np.full((1, rows.shape[1]), factor % q, dtype=np.uint64), q)


def _reduced(values: U64, q: int) -> U64:
    """Of what is below 2^50, which every modulus nearly is."""
    return ring.residues(values.view(np.int64) - q, q)


def _rounded(rows: Sequence[U64], suite: Suite) -> I64:
    """⌊v/2^k⌉ of v modulo q, given modulo each prime.

    v and an offset that makes it positive, in mixed radix (D. Knuth, TAOCP 2, §4.3.2), times 1/2^k in fixed point: off
    by 2^-7 at most, and v/2^k is within 1/4 of an integer.
    """
    offset = (suite.limit << suite.shift) + (1 << (suite.shift - 1))
    total = np.zeros(rows[0].shape, dtype=np.uint64)
    behind = np.zeros(rows[0].shape, dtype=np.uint64)
    digits: list[U64] = []
    for at, q in enumerate(suite.moduli):
        digit = ring.plus(rows[at], np.full_like(rows[at], offset % q), q)
        for below, modulus in zip(digits, suite.moduli, strict=False):
            digit = _times(ring.minus(digit, _reduced(below, q), q), pow(modulus, -1, q), q)
        scaled = (prod(suite.moduli[:at]) << 3 * _LIMB) >> suite.shift
        total += digit * np.uint64((scaled >> 3 * _LIMB) % 2**64)
        behind += _fraction(digit, scaled % (1 << 3 * _LIMB))
        digits.append(digit)
    total += behind >> np.uint64(_POINT)
    return total.view(np.int64) - suite.limit


def _fraction(digits: U64, fraction: int) -> U64:
    """digits·fraction/2^75 with ``_POINT`` bits behind the point, rounded down."""
    mask = (1 << _LIMB) - 1
    first, second, third = (np.uint64(fraction >> _LIMB * at & mask) for at in (2, 1, 0))
    high, low = digits >> np.uint64(_LIMB), digits & np.uint64(mask)
    found = (high * first) << np.uint64(_POINT)
    found += (high * second + low * first) >> np.uint64(_LIMB - _POINT)
    return found + ((high * third + low * second) >> np.uint64(2 * _LIMB - _POINT))
