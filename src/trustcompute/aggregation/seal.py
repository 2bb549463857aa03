"""``aggregation.bfv.v1`` and ``aggregation.ckks.v1``: Microsoft SEAL's schemes through the TenSEAL package (extra
``he``), for estates that have it.

Called by ``aggregate``; the parties are ``keyed``'s. What the package does not guard, this does:

- BFV's plaintext modulus is a prime above 2^slot_bits, so that no sum wraps, which TenSEAL would not tell.
- CKKS is approximate, and its raw decryption tells about the secret key (B. Li and D. Micciancio, *On the Security
  of Homomorphic Encryption on Approximate Numbers*, EUROCRYPT 2021): sums are rounded to integers before anybody
  sees them, and a specification without noise is refused.
- TenSEAL 0.3.18 holds a SEAL that trusts what it deserialises: sizes are bounded, and the outer form of bytes from
  others is read here before they are handed on. That is not a proof: prefer ``rlwe`` among strangers.
- Ciphertexts are compressed, a few bytes more or less: they are padded to one size.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, Literal

import gmpy2
import numpy as np

from trustcompute.aggregation.keyed import Opener
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives.rng import Rng

IDS: Final = {"bfv": "aggregation.bfv.v1", "ckks": "aggregation.ckks.v1"}
SMALL_BITS: Final = 20  # of a plaintext modulus that N = 4096 leaves room for
CKKS_BITS: Final = 40  # of a sum: doubles encode it with an error far below a half
CKKS_SCALE: Final = 40
CIPHERTEXT: Final = {("bfv", 4096): 91_000, ("bfv", 8192): 440_000, ("ckks", 8192): 241_000}
"""Bytes a ciphertext is padded to: about 2.5 % above what SEAL 4.3 makes of one with 128-bit parameters."""
KEY_BYTES: Final = 600_000
_HEAD: Final = 4
_SEAL: Final = b"\x5e\xa1"  # with which SEAL's serialised objects begin


class SealCipher:
    """BFV or CKKS for one specification. Raises ``ParameterError`` where they cannot serve it, or without TenSEAL."""

    key_bytes = KEY_BYTES

    def __init__(self, spec: Spec, *, kind: Literal["bfv", "ckks"] = "bfv") -> None:
        self._spec, self._kind, self._seal = spec, kind, load_tenseal()
        self.id = IDS[kind]
        if kind == "ckks" and spec.noise is None:
            raise ParameterError(
                "CKKS opens sums with noise inside only: give the specification noise, or take bfv"
            )
        if kind == "ckks" and spec.payload_bits > CKKS_BITS:
            raise ParameterError(
                f"CKKS holds sums of {CKKS_BITS} bits exactly, and {spec.payload_bits} are needed"
            )
        self._size = 4096 if kind == "bfv" and spec.slot_bits < SMALL_BITS else 8192
        self._slots = self._size // (2 if kind == "ckks" else 1)
        self._count = -(-spec.slots // self._slots)
        self._piece = CIPHERTEXT[kind, self._size]
        self.ciphertext_bytes = self._count * self._piece

    def generate(self, rng: Rng) -> tuple[bytes, Opener]:
        """The key is drawn by SEAL, from the operating system."""
        secret = self._context()
        public = secret.serialize(
            save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
        )

        def opener(total: U8, added: int) -> I64:
            found = [np.array(one.decrypt()) for one in self._read(secret, total)]
            sums: I64 = np.concatenate(found)[: self._spec.slots]
            return np.rint(sums).astype(np.int64) if self._kind == "ckks" else sums.astype(np.int64)

        return public, opener

    def encrypt(self, key: bytes, values: I64, rng: Rng) -> U8:
        context = self._public(key)
        padded = np.zeros(self._count * self._slots, dtype=np.int64)
        padded[: len(values)] = values
        pieces = [self._encrypted(context, one) for one in padded.reshape(self._count, self._slots)]
        return self._written(pieces)

    def adder(self, key: bytes) -> _Adder:
        return _Adder(self, self._public(key))

    def _context(self) -> Any:
        seal = self._seal
        if self._kind == "ckks":
            made = seal.context(
                seal.SCHEME_TYPE.CKKS, poly_modulus_degree=self._size, coeff_mod_bit_sizes=[60, 40, 60]
            )
            made.global_scale = 2**CKKS_SCALE
            return made
        modulus = plain_modulus(self._spec.slot_bits, self._size)
        return seal.context(seal.SCHEME_TYPE.BFV, poly_modulus_degree=self._size, plain_modulus=modulus)

    def _public(self, key: bytes) -> Any:
        """The context a key is: with the parameters this specification has, or refused."""
        try:
            context = self._seal.context_from(key)
            same = _parameters(context) == _parameters(self._context())
        except (ValueError, RuntimeError, TypeError, MemoryError) as error:
            raise RemoteProtocolError("this is no public context of TenSEAL") from error
        if not same or not context.has_public_key() or context.has_secret_key():
            raise RemoteProtocolError(
                "the context has other parameters than agreed, or not just a public key"
            )
        return context

    def _encrypted(self, context: Any, values: I64) -> bytes:
        if self._kind == "ckks":
            made = self._seal.ckks_vector(context, values.astype(np.float64))
        else:
            made = self._seal.bfv_vector(context, values.tolist())
        return bytes(made.serialize())

    def _written(self, pieces: list[bytes]) -> U8:
        out = np.zeros((len(pieces), self._piece), dtype=np.uint8)
        for row, piece in zip(out, pieces, strict=True):
            if len(piece) > self._piece - _HEAD:
                raise ParameterError(
                    "TenSEAL made a larger ciphertext than expected: its version is not supported"
                )
            row[:_HEAD] = np.frombuffer(len(piece).to_bytes(_HEAD, "little"), dtype=np.uint8)
            row[_HEAD : _HEAD + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        return out.reshape(-1)

    def _read(self, context: Any, data: U8) -> list[Any]:
        """Vectors of TenSEAL. Raises ``RemoteProtocolError`` before SEAL sees what has another form."""
        read = self._seal.ckks_vector_from if self._kind == "ckks" else self._seal.bfv_vector_from
        found = []
        for row in data.reshape(self._count, self._piece):
            size = int.from_bytes(row[:_HEAD].tobytes(), "little")
            if not 0 < size <= self._piece - _HEAD or row[_HEAD + size :].any():
                raise RemoteProtocolError("a ciphertext of TenSEAL is not padded as agreed")
            piece = row[_HEAD : _HEAD + size].tobytes()
            check_form(piece, self._slots)
            try:
                vector = read(context, piece)
                fits = vector.size() == self._slots
            except (ValueError, RuntimeError, TypeError, MemoryError) as error:
                raise RemoteProtocolError("SEAL cannot read a ciphertext") from error
            if not fits:
                raise RemoteProtocolError("a ciphertext of TenSEAL holds another number of values")
            found.append(vector)
        return found


class _Adder:
    def __init__(self, cipher: SealCipher, context: Any) -> None:
        self._cipher, self._context = cipher, context
        self._totals: list[Any] = []

    def add(self, ciphertext: U8) -> None:
        found = self._cipher._read(self._context, ciphertext)
        self._totals = [a + b for a, b in zip(self._totals, found, strict=True)] if self._totals else found

    def total(self) -> U8:
        if not self._totals:
            raise RemoteProtocolError("nothing was added")
        return self._cipher._written([bytes(one.serialize()) for one in self._totals])


def _parameters(context: Any) -> Any:
    """SEAL's hash of scheme, degree and moduli, and the scale where there is one."""
    kind = context.seal_context().data.key_parms_id()
    try:
        return kind, context.global_scale
    except ValueError:  # BFV has none
        return kind, None


def plain_modulus(bits: int, size: int) -> int:
    """The least prime above 2^bits that is 1 modulo 2·size, so that a vector has a value a coefficient."""
    step = 2 * size
    found = ((1 << bits) // step + 1) * step + 1
    while not gmpy2.is_prime(found):
        found += step
    return found


def check_form(data: bytes, slots: int) -> None:
    """Protocol Buffers' outer form of a TenSEAL vector: one size, one object of SEAL, for CKKS a scale; nothing else.

    Raises ``RemoteProtocolError``.
    """
    at, seen = 0, []
    while at < len(data):
        tag, at = data[at], at + 1
        if tag & 7 == 1:  # a double
            at += 8
        elif tag & 7 == 2:  # bytes
            size, at = _varint(data, at)
            if tag >> 3 == 2 and data[at : at + 2] != _SEAL:
                raise RemoteProtocolError(
                    "a ciphertext of TenSEAL holds something else than an object of SEAL"
                )
            if tag >> 3 == 1 and _varint(data[at : at + size], 0) != (slots, size):
                raise RemoteProtocolError("a ciphertext of TenSEAL says that it has another length")
            at += size
        elif tag & 7 == 0:
            value, at = _varint(data, at)
            if tag >> 3 == 1 and value != slots:
                raise RemoteProtocolError("a ciphertext of TenSEAL says that it has another length")
        else:
            raise RemoteProtocolError("a ciphertext of TenSEAL has a field of another kind")
        seen.append(tag >> 3)
    if at != len(data) or seen not in ([1, 2], [1, 2, 3]):
        raise RemoteProtocolError("a ciphertext of TenSEAL must hold one size and one object")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place in range(5):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            return value, at
    raise RemoteProtocolError("a ciphertext of TenSEAL has a broken length")


def load_tenseal() -> Any:
    """The TenSEAL package, only when it is asked for."""
    try:
        return importlib.import_module("tenseal")
    except ImportError as error:
        raise ParameterError("the TenSEAL package is not installed: trustcompute[he] brings it") from error
