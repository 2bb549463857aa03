"""Paillier's encryption, with many integers in one plaintext: whoever has the public key adds, the secret key
opens sums.

Called by ``aggregation.paillier``. P. Paillier, *Public-Key Cryptosystems Based on Composite Degree Residuosity
Classes* (EUROCRYPT 1999), generator n + 1. Randomness after I. Damgård, M. Jurik and J. B. Nielsen, *A
generalization of Paillier's public-key system with applications to electronic voting* (2010), §4.2: p ≡ q ≡ 3 (mod
4), gcd(p-1, q-1) = 2, h = -x², and (h^n)^a for an exponent a of half the modulus's length, from a table of powers.
A key that comes without h^n (python-paillier's) takes r^n instead, which is slower.

IND-CPA under decisional composite residuosity (with h^n also: that ±squares look like its powers). GMP's time and
the table's addresses depend on secrets: not for a processor whose cache a stranger shares.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import gmpy2
import numpy as np

from trustcompute import kernels
from trustcompute.errors import ParameterError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives.rng import Rng

BITS: Final = 3072
LEAST_BITS: Final = 2048
MOST_BITS: Final = 8192
FEW: Final = 4  # encryptions that are not worth a table
MANY: Final = 100  # encryptions that are worth a table of bytes: 49,000 products at 3072 bits, and 38 MB
ROUNDS: Final = 40  # of Miller-Rabin: a composite passes with 4^-40 at most

Integer = Any
"""An ``mpz``."""


@dataclass(frozen=True)
class PublicKey:
    """n; base: h^n mod n², or None where the key came without."""

    n: int
    base: int | None = None

    def __post_init__(self) -> None:
        bits = self.n.bit_length()
        if not LEAST_BITS <= bits <= MOST_BITS or bits % 16 or self.n % 2 == 0:
            raise ParameterError(
                f"a Paillier modulus is odd and has {LEAST_BITS} to {MOST_BITS} bits, a multiple of 16"
            )
        if self.base is not None and not (1 < self.base < self.n**2 and gmpy2.gcd(self.base, self.n) == 1):
            raise ParameterError("the base of a Paillier key is no unit modulo n²")

    @property
    def bits(self) -> int:
        return self.n.bit_length()

    @property
    def ciphertext_bytes(self) -> int:
        return self.bits // 4

    @cached_property
    def n2(self) -> Integer:
        return gmpy2.mpz(self.n) ** 2

    def slots(self, slot_bits: int) -> int:
        """How many integers of that many bits, sign included, one plaintext holds."""
        return (self.bits - 2) // slot_bits

    def ciphertexts(self, count: int, slot_bits: int) -> int:
        return -(-count // self.slots(slot_bits))

    def to_bytes(self) -> bytes:
        size = self.bits // 8
        return self.n.to_bytes(size, "big") + (self.base or 0).to_bytes(2 * size, "big")

    @classmethod
    def from_bytes(cls, data: bytes, bits: int = BITS) -> PublicKey:
        """Raises ``RemoteProtocolError`` for bytes that are no key of that size."""
        size = bits // 8
        if len(data) != 3 * size:
            raise RemoteProtocolError(f"a Paillier key of {bits} bits has {3 * size} bytes, not {len(data)}")
        n, base = int.from_bytes(data[:size], "big"), int.from_bytes(data[size:], "big")
        if n.bit_length() != bits:
            raise RemoteProtocolError(f"the Paillier modulus does not have {bits} bits")
        try:
            return cls(n, base or None)
        except ParameterError as error:
            raise RemoteProtocolError(str(error)) from error

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"paillier" + self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class SecretKey:
    """Two different primes of equal length."""

    p: int = field(repr=False)
    q: int = field(repr=False)
    public: PublicKey

    def __post_init__(self) -> None:
        if self.p * self.q != self.public.n or self.p == self.q or min(self.p, self.q) < 2:
            raise ParameterError(
                "the primes of a Paillier key must be different, and their product its modulus"
            )

    @cached_property
    def _halves(self) -> tuple[tuple[Integer, Integer, Integer], ...]:
        """Of each prime: itself, its square, and 1/L((n+1)^(p-1) mod p²) modulo p."""
        made = []
        for prime in (gmpy2.mpz(self.p), gmpy2.mpz(self.q)):
            square = prime * prime
            opened = (gmpy2.powmod(self.public.n + 1, prime - 1, square) - 1) // prime
            made.append((prime, square, gmpy2.invert(opened, prime)))
        return tuple(made)

    @cached_property
    def _join(self) -> Integer:
        return gmpy2.invert(self.p, self.q)


def keygen(rng: Rng, bits: int = BITS) -> SecretKey:
    """A fresh key; about a second at 3072 bits. Raises ``ParameterError`` for a size that is none."""
    if not LEAST_BITS <= bits <= MOST_BITS or bits % 16:
        raise ParameterError(f"a key has {LEAST_BITS} to {MOST_BITS} bits, a multiple of 16")
    while True:
        p, q = _prime(rng, bits // 2), _prime(rng, bits // 2)
        if p != q and gmpy2.gcd(p - 1, q - 1) == 2:
            break
    n = p * q
    x = _unit(rng, n)
    base = gmpy2.powmod(-x * x, n, n * n)
    return SecretKey(int(p), int(q), PublicKey(int(n), int(base)))


def _prime(rng: Rng, bits: int) -> Integer:
    """≡ 3 (mod 4), its two highest bits set, so that a product of two has twice the bits."""
    while True:
        drawn = int.from_bytes(rng.bytes(bits // 8), "big")
        candidate = gmpy2.mpz(drawn | 3 << (bits - 2) | 3)
        if gmpy2.is_prime(candidate, ROUNDS):
            return candidate


def _unit(rng: Rng, n: Integer) -> Integer:
    """Uniform in the units modulo n, to 2⁻¹²⁸."""
    while True:
        drawn = gmpy2.mpz(int.from_bytes(rng.bytes(int(n).bit_length() // 8 + 16), "big")) % n
        if gmpy2.gcd(drawn, n) == 1:
            return drawn


class Encryptor:
    """Encrypts under one key. expected: about how many plaintexts, which says how large a table of powers is worth."""

    def __init__(self, public: PublicKey, expected: int = MANY) -> None:
        self.public = public
        self._width = 0 if public.base is None or expected < FEW else 4 if expected < MANY else 8
        self._table = _powers(public, self._width) if self._width else []

    def encrypt(self, plaintexts: Sequence[int], rng: Rng) -> list[Integer]:
        """A ciphertext each. Plaintexts are signed, below n/2 in size."""
        n, n2 = gmpy2.mpz(self.public.n), self.public.n2
        if any(2 * abs(one) >= self.public.n for one in plaintexts):
            raise ParameterError("a plaintext must be below n/2 in size")
        made = []
        for one in plaintexts:
            unit, multiple = self._randomness(rng)
            made.append((1 + (one + multiple) % n * n) * unit % n2)
        return made

    def _randomness(self, rng: Rng) -> tuple[Integer, Integer]:
        """u and t: an encryption of nothing is u·(1 + t·n) modulo n²."""
        public, n2 = self.public, self.public.n2
        if public.base is None:
            return gmpy2.powmod(_unit(rng, gmpy2.mpz(public.n)), public.n, n2), 0
        exponent = rng.bytes(public.bits // 16)
        if not self._width:
            return gmpy2.powmod(public.base, int.from_bytes(exponent, "little"), n2), 0
        digits = exponent if self._width == 8 else _nibbles(exponent)
        entries = [row[digit] for row, digit in zip(self._table, digits, strict=True)]
        unit = gmpy2.mpz(1)
        for one, two in zip(entries[::2], entries[1::2], strict=True):
            unit = unit * (one[0] * two[0]) % n2  # two halves make one full factor: a reduction for both
        return unit, sum(entry[1] for entry in entries)

    def __repr__(self) -> str:
        return f"Encryptor({self.public.bits} bits)"


def _nibbles(data: bytes) -> list[int]:
    return [part for byte in data for part in (byte & 15, byte >> 4)]


def _powers(public: PublicKey, width: int) -> list[list[tuple[Integer, Integer]]]:
    """Of every digit of an exponent, every value: row i stands for base^(d·2^(width·i)) for each d.

    y = a·(1 + t·n) modulo n² is kept as a < n and t: factors half as long, and t of a product is the sum of all t
    and of what a reduction of a product of a modulo n carries over.
    """
    n = gmpy2.mpz(public.n)
    carried, unit = gmpy2.f_divmod(gmpy2.mpz(public.base or 1), n)
    inverse = gmpy2.invert(unit, n)
    step = (unit, carried * inverse % n, inverse)

    def product(one: tuple[Any, Any, Any], two: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        carry, low = gmpy2.f_divmod(one[0] * two[0], n)
        inverse = one[2] * two[2] % n
        return low, (one[1] + two[1] + carry * inverse) % n, inverse

    table = []
    for _ in range(public.bits // 2 // width):
        row, power = [(gmpy2.mpz(1), gmpy2.mpz(0))], step
        for _ in range(1, 1 << width):
            row.append(power[:2])
            power = product(power, step)
        table.append(row)
        step = power
    return table


def add(public: PublicKey, ciphertexts: Sequence[Integer]) -> Integer:
    """The ciphertext of the sum; who added what shows in its randomness."""
    total = gmpy2.mpz(1)
    for one in ciphertexts:
        total = total * one % public.n2
    return total


def decrypt(secret: SecretKey, ciphertext: Integer) -> int:
    """The plaintext, between -n/2 and n/2."""
    n = secret.public.n
    residues = [
        (gmpy2.powmod(ciphertext % square, prime - 1, square) - 1) // prime * inverse % prime
        for prime, square, inverse in secret._halves
    ]
    low, high = residues
    found = int(low + (high - low) * secret._join % secret.q * secret.p)
    return found if 2 * found < n else found - n


def pack(values: I64, slot_bits: int, slots: int) -> list[int]:
    """Signed plaintexts Σ v_i·2^(slot_bits·i), ``slots`` values each. Raises ``ParameterError``."""
    half = 1 << (slot_bits - 1)
    if len(values) and (int(values.max()) >= half or int(values.min()) < -half):
        raise ParameterError(f"a value does not fit a slot of {slot_bits} bits")
    offset, raised = _halves_of(slot_bits, slots), (values + np.int64(half)).view(np.uint64)
    plaintexts = []
    for start in range(0, len(values), slots):
        piece = raised[start : start + slots]
        whole = int.from_bytes(kernels.bits_pack(piece, slot_bits).tobytes(), "little")
        plaintexts.append(whole - (offset if len(piece) == slots else _halves_of(slot_bits, len(piece))))
    return plaintexts


def unpack(plaintexts: Sequence[int], slot_bits: int, slots: int, count: int) -> I64:
    """int64[count] of sums of packed plaintexts. Raises ``VerificationError`` for what no sum of them can be."""
    half, out = 1 << (slot_bits - 1), np.empty(count, dtype=np.int64)
    if len(plaintexts) != -(-count // slots):
        raise VerificationError(f"{len(plaintexts)} plaintexts do not hold {count} values")
    for at, plaintext in enumerate(plaintexts):
        piece = out[at * slots : (at + 1) * slots]
        whole = plaintext + _halves_of(slot_bits, len(piece))
        size = (slot_bits * len(piece) + 7) // 8
        if whole < 0 or whole.bit_length() > slot_bits * len(piece):
            raise VerificationError("a decrypted plaintext does not hold a packed sum")
        packed = np.frombuffer(whole.to_bytes(size, "little"), dtype=np.uint8)
        piece[:] = kernels.bits_unpack(packed, len(piece), slot_bits).view(np.int64) - half
    return out


def _halves_of(slot_bits: int, slots: int) -> int:
    """What makes every slot of a sum non-negative: half a slot in each."""
    ones = ((1 << (slot_bits * slots)) - 1) // ((1 << slot_bits) - 1)
    return ones << (slot_bits - 1)


def to_bytes(public: PublicKey, ciphertexts: Sequence[Integer]) -> bytes:
    """``ciphertext_bytes`` each, big endian."""
    return b"".join(int(one).to_bytes(public.ciphertext_bytes, "big") for one in ciphertexts)


def from_bytes(public: PublicKey, data: bytes, count: int) -> list[Integer]:
    """Sizes, ranges and units are checked. Raises ``RemoteProtocolError``."""
    size = public.ciphertext_bytes
    if len(data) != size * count:
        raise RemoteProtocolError(f"{count} Paillier ciphertexts have {size * count} bytes, not {len(data)}")
    found = [gmpy2.mpz(int.from_bytes(data[at : at + size], "big")) for at in range(0, len(data), size)]
    product = gmpy2.mpz(1)
    for one in found:
        if not 0 < one < public.n2:
            raise RemoteProtocolError("a Paillier ciphertext is not between 0 and n²")
        product = product * one % public.n
    if count and gmpy2.gcd(product, public.n) != 1:
        raise RemoteProtocolError("a Paillier ciphertext is no unit modulo n²")
    return found


def public_document(public: PublicKey) -> dict[str, Any]:
    """The public key as python-paillier's command writes it (a JSON Web Key, kty DAJ). Our base is not in it."""
    return {
        "kty": "DAJ",
        "alg": "PAI-GN1",
        "n": _base64(public.n),
        "key_ops": ["encrypt"],
        "kid": public.digest,
    }


def secret_document(secret: SecretKey) -> dict[str, Any]:
    """The secret key as python-paillier's command writes it. Whoever reads it opens everything."""
    pub = public_document(secret.public)
    return {"kty": "DAJ", "key_ops": ["decrypt"], "p": _base64(secret.p), "q": _base64(secret.q), "pub": pub,
            "kid": secret.public.digest}  # fmt: skip


def read_public(document: Any) -> PublicKey:
    """A public key of python-paillier. Raises ``ParameterError``."""
    try:
        if document["kty"] != "DAJ" or document["alg"] != "PAI-GN1":
            raise ValueError
        return PublicKey(_integer(document["n"]))
    except (KeyError, TypeError, ValueError):
        raise ParameterError("this is no public key as python-paillier writes it") from None


def read_secret(document: Any) -> SecretKey:
    """A secret key of python-paillier. Raises ``ParameterError``."""
    try:
        return SecretKey(_integer(document["p"]), _integer(document["q"]), read_public(document["pub"]))
    except (KeyError, TypeError, ValueError):
        raise ParameterError("this is no secret key as python-paillier writes it") from None


def number_document(ciphertext: Integer) -> dict[str, Any]:
    """A ciphertext as python-paillier's command writes it. The exponent, which is in the clear, is always 0."""
    return {"v": str(int(ciphertext)), "e": 0}


def read_number(document: Any, public: PublicKey, *, exponent: int = 0) -> Integer:
    """A ciphertext of python-paillier, of a value times 16^-exponent. Raises ``ParameterError``.

    exponent: the one that was agreed on: it is in the clear, and one that varies shows magnitudes.
    """
    try:
        text, shown = document["v"], document["e"]
        if not isinstance(text, str) or len(text) > public.bits or not text.isascii() or not text.isdigit():
            raise ValueError
        found = gmpy2.mpz(text)
    except (KeyError, TypeError, ValueError):
        raise ParameterError("this is no ciphertext as python-paillier writes it") from None
    if type(shown) is not int or shown != exponent:
        raise ParameterError(f"the exponent of every ciphertext must be {exponent}, as agreed")
    if not 0 < found < public.n2 or gmpy2.gcd(found, public.n) != 1:
        raise ParameterError("the ciphertext is no unit modulo n²")
    return found


def _base64(value: int) -> str:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _integer(text: str) -> int:
    if not isinstance(text, str) or len(text) > MOST_BITS:
        raise ValueError
    return int.from_bytes(
        base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True), "big"
    )
