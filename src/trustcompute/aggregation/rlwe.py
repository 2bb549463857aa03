"""``aggregation.rlwe.v1`` and ``aggregation.rlwe4096.v1``: additive encryption from ring learning with errors, for
long vectors and contributors that come once.

Called by ``aggregate`` and ``plan``; the parties are ``keyed``'s, the scheme is ``primitives.rlwe``, under a public
key: 12.5 bytes a value. A slot that is wider than a suite's payload is two coefficients, low digits and high.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trustcompute.aggregation.keyed import Opener
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import rlwe
from trustcompute.primitives.ring import BITS
from trustcompute.primitives.rlwe import SEED, SUITES, PublicKey
from trustcompute.primitives.rng import Rng

IDS: Final = {"rlwe-2048": "aggregation.rlwe.v1", "rlwe-4096": "aggregation.rlwe4096.v1"}


class RlweCipher:
    """For one specification. suite: ``rlwe-2048``, or ``rlwe-4096`` for more than 128 bits also against quanta."""

    def __init__(self, spec: Spec, *, suite: str = "rlwe-2048") -> None:
        if suite not in SUITES:
            raise ParameterError(f"a suite is one of {', '.join(SUITES)}, not {suite!r}")
        self._spec, self.suite, self.id = spec, SUITES[suite], IDS[suite]
        self._digit = (self.suite.limit // spec.max_parties).bit_length()
        self.wide = (1 << (spec.payload_bits - 1)) > self.suite.limit
        self._count = spec.slots * (2 if self.wide else 1)
        self.key_bytes = SEED + self.suite.size * BITS // 8
        self.ciphertext_bytes = rlwe.packed_size(self.suite, self._count, seeded=False)

    def generate(self, rng: Rng) -> tuple[bytes, Opener]:
        secret = rlwe.keygen(self.suite, rng)

        def opener(total: U8, added: int) -> I64:
            found = rlwe.decrypt(secret, rlwe.unpack(total.data, self.suite, self._count, added=added))
            return self._joined(found)

        return rlwe.public_key(secret, rng).to_bytes(), opener

    def encrypt(self, key: bytes, values: I64, rng: Rng) -> U8:
        return rlwe.encrypt_packed(PublicKey.from_bytes(key, self.suite), self._digits(values), rng)

    def adder(self, key: bytes) -> _Adder:
        return _Adder(self)

    def _digits(self, values: I64) -> I64:
        """low + high·2^d with low in ±2^(d-1): a sum of lows stays below the suite's limit."""
        if not self.wide:
            return values
        half = np.int64(1 << (self._digit - 1))
        high = (values + half) >> np.int64(self._digit)
        return np.concatenate([values - (high << np.int64(self._digit)), high])

    def _joined(self, found: I64) -> I64:
        if not self.wide:
            return found
        slots = self._spec.slots
        return found[:slots] + (found[slots:] << np.int64(self._digit))


class _Adder:
    def __init__(self, cipher: RlweCipher) -> None:
        self._cipher = cipher
        self._total: rlwe.Ciphertext | None = None

    def add(self, ciphertext: U8) -> None:
        cipher = self._cipher
        found = rlwe.unpack(ciphertext.data, cipher.suite, cipher._count)
        self._total = found if self._total is None else rlwe.add([self._total, found])

    def total(self) -> U8:
        if self._total is None:
            raise RemoteProtocolError("nothing was added")
        return np.frombuffer(self._total.pack(), dtype=np.uint8)
