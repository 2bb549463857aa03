"""``aggregation.paillier.v1``: vectors packed into Paillier ciphertexts, for few values and for python-paillier's
estates.

Called by ``aggregate`` and ``plan``; the parties are ``keyed``'s. A slot has the specification's ``slot_bits``, so
that no sum reaches its neighbour; 73 slots of 42 bits in 3072: 10.5 bytes a value. ``backend="phe"`` encrypts with
the python-paillier package (extra ``he``), to the same bytes' meaning: either side may use either.
"""

from __future__ import annotations

import importlib
from typing import Any, Final, Literal

import numpy as np

from trustcompute.aggregation.keyed import Opener
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import paillier
from trustcompute.primitives.paillier import Encryptor, PublicKey
from trustcompute.primitives.rng import Rng

ID: Final = "aggregation.paillier.v1"


class PaillierCipher:
    """Packed Paillier for one specification. bits: of the modulus."""

    id = ID

    def __init__(
        self, spec: Spec, *, bits: int = paillier.BITS, backend: Literal["own", "phe"] = "own"
    ) -> None:
        self._spec, self._bits = spec, bits
        self._phe: Any = load_phe() if backend == "phe" else None
        self._slots = (bits - 2) // spec.slot_bits
        self._count = -(-spec.slots // self._slots)
        self.key_bytes = 3 * bits // 8
        self.ciphertext_bytes = self._count * bits // 4

    def generate(self, rng: Rng) -> tuple[bytes, Opener]:
        secret = paillier.keygen(rng, self._bits)
        width = self._spec.slot_bits

        def opener(total: U8, added: int) -> I64:
            found = paillier.from_bytes(secret.public, total.tobytes(), self._count)
            plaintexts = [paillier.decrypt(secret, one) for one in found]
            return paillier.unpack(plaintexts, width, self._slots, self._spec.slots)

        return secret.public.to_bytes(), opener

    def encrypt(self, key: bytes, values: I64, rng: Rng) -> U8:
        public = PublicKey.from_bytes(key, self._bits)
        plaintexts = paillier.pack(values, self._spec.slot_bits, self._slots)
        if self._phe is not None:
            theirs = self._phe.PaillierPublicKey(public.n)
            made: list[Any] = [theirs.raw_encrypt(one % public.n) for one in plaintexts]
        else:
            made = Encryptor(public, len(plaintexts)).encrypt(plaintexts, rng)
        return np.frombuffer(paillier.to_bytes(public, made), dtype=np.uint8)

    def adder(self, key: bytes) -> _Adder:
        return _Adder(PublicKey.from_bytes(key, self._bits), self._count)


class _Adder:
    def __init__(self, public: PublicKey, count: int) -> None:
        self._public, self._count = public, count
        self._totals: list[Any] = []

    def add(self, ciphertext: U8) -> None:
        found = paillier.from_bytes(self._public, ciphertext.tobytes(), self._count)
        if not self._totals:
            self._totals = found
            return
        n2 = self._public.n2
        self._totals = [one * other % n2 for one, other in zip(self._totals, found, strict=True)]

    def total(self) -> U8:
        if not self._totals:
            raise RemoteProtocolError("nothing was added")
        return np.frombuffer(paillier.to_bytes(self._public, self._totals), dtype=np.uint8)


def load_phe() -> Any:
    """python-paillier's module, only when it is asked for: it is under the GPL."""
    try:
        return importlib.import_module("phe.paillier")
    except ImportError as error:
        raise ParameterError(
            "the python-paillier package is not installed: trustcompute[he] brings it"
        ) from error
