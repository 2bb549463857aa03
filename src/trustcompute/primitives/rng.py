"""Randomness as an argument: a stream of bytes from the operating system, or from a seed that is kept.

Called by every protocol party: ``Rng.from_os()`` for one run, ``Rng.derive(seed, info=...)`` where a job
must be able to go on after a restart by replaying itself (the seed stays in the job's directory). The stream
is AES-256 in counter mode (NIST SP 800-38A §6.5) from a zero counter, under a key from HKDF-SHA-512 (RFC
5869).
"""

from __future__ import annotations

import os
import threading
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trustcompute.errors import LocalProtocolError, ParameterError
from trustcompute.kernels.arrays import I64, U8

MIN_SEED = 32
"""Bytes: a seed carries as much entropy as the cipher's key."""
MAX_DRAW = 2**40
_SALT = b"trustcompute/rng/1"
_PIECE = bytes(2**20)


class Rng:
    """A stream of random bytes. Safe to share between threads; refuses to be pickled, and shows nothing in
    ``repr``.

    After a fork, a stream from the operating system is seeded anew in the child; a derived one refuses
    there, since two processes drawing the same bytes would use one blind for two inputs.
    """

    __slots__ = ("_derived", "_lock", "_process", "_stream")
    _derived: bool

    def __init__(self) -> None:
        raise TypeError("use Rng.from_os() or Rng.derive(seed, info=...)")

    @classmethod
    def from_os(cls) -> Rng:
        """A stream under a fresh key from the operating system."""
        rng = object.__new__(cls)
        rng._derived = False
        rng._start(os.urandom(32))
        return rng

    @classmethod
    def derive(cls, seed: bytes, *, info: bytes) -> Rng:
        """The stream that seed and info determine. seed: 32 or more secret bytes; info: its purpose.

        The same pair gives the same bytes forever: put everything into ``info`` that must change the secrets.
        """
        if not isinstance(seed, bytes) or len(seed) < MIN_SEED:
            raise ParameterError(f"the seed of a random stream must be at least {MIN_SEED} bytes")
        rng = object.__new__(cls)
        rng._derived = True
        rng._start(HKDF(hashes.SHA512(), length=32, salt=_SALT, info=info).derive(seed))
        return rng

    def _start(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
        self._lock = threading.Lock()
        self._process = os.getpid()

    def array(self, count: int) -> U8:
        """The next ``count`` bytes, uint8[count]."""
        if not 0 <= count <= MAX_DRAW:
            raise ParameterError(f"a draw must have 0 to {MAX_DRAW} bytes, not {count}")
        if self._process != os.getpid():
            if self._derived:
                raise LocalProtocolError(
                    "this random stream belongs to the process this one was forked from:"
                    " derive another one here, with its own info"
                )
            self._start(os.urandom(32))
        drawn = np.empty(count + 15, dtype=np.uint8)  # the cipher wants room for a block more, less one byte
        with self._lock:
            for start in range(0, count, len(_PIECE)):
                piece = memoryview(_PIECE)[: min(len(_PIECE), count - start)]
                self._stream.update_into(piece, drawn[start : start + len(piece) + 15].data)
        return drawn[:count]

    def bytes(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        return self.array(count).tobytes()

    def permutation(self, count: int) -> I64:
        """A uniform permutation of 0..count-1, int64[count].

        The order of independent 64-bit keys, drawn again should two be equal (at 10⁸ rows: 3 times in 10⁴),
        which makes every order exactly as likely as any other. Sorting takes time that depends on the
        permutation.
        """
        while True:
            keys = self.array(8 * count).view("<u8")
            order = np.argsort(keys)
            ranked = keys[order]
            if not np.any(ranked[1:] == ranked[:-1]):
                return order.astype(np.int64, copy=False)

    def __repr__(self) -> str:
        return f"Rng({'derived' if self._derived else 'from the operating system'})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a random stream is never pickled: two copies would draw the same bytes")
