"""Masks modulo 2⁶⁴: streams of AES-256 in counter mode, added to a vector of integers or taken off it.

Called by ``aggregation.masked``. A stream is determined by a secret of 32 or more bytes and a purpose (``Rng.derive``'s
HKDF-SHA-512); no part of one is ever used twice, since every round has fresh secrets. Beside it ``Tagger``: a one-time
message authentication code over a whole vector that is linear, so that the code of a sum is the sum of codes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I64, U8

SECRET_BYTES: Final = 32
STEP: Final = 2**15  # values a step: the stream and the vector stay in the second-level cache
TAGS: Final = 3
_SALT: Final = b"trustcompute/masks/1"
_AT_A_TIME: Final = threading.BoundedSemaphore(os.cpu_count() or 1)
"""More threads than processors would only take the interpreter from one another, and the caches."""
_ZEROS: Final = memoryview(bytes(8 * STEP))


class Stream:
    """The mask of one secret and purpose, from its start."""

    __slots__ = ("_cipher",)

    def __init__(self, secret: bytes, purpose: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ParameterError(f"the secret of a mask has at least {SECRET_BYTES} bytes")
        key = HKDF(hashes.SHA512(), length=32, salt=_SALT, info=purpose).derive(secret)
        self._cipher = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()

    def next(self, count: int, buffer: U8) -> I64:
        """int64[count] of the stream, in the buffer (``room``). count: at most ``STEP``."""
        self._cipher.update_into(_ZEROS[: 8 * count], buffer[: 8 * count + 15].data)
        return buffer[: 8 * count].view("<i8")

    def __repr__(self) -> str:
        return "Stream(secret)"


def room() -> U8:
    """A buffer for ``Stream.next``: one serves many streams, one after the other."""
    return np.empty(8 * STEP + 15, dtype=np.uint8)


def apply(values: I64, added: Sequence[Stream], taken: Sequence[Stream] = ()) -> None:
    """values += Σ added - Σ taken modulo 2⁶⁴, in place; the streams are read once and together."""
    with _AT_A_TIME:
        buffer = room()
        for start in range(0, len(values), STEP):
            piece = values[start : start + STEP]
            for stream in added:
                piece += stream.next(len(piece), buffer)
            for stream in taken:
                piece -= stream.next(len(piece), buffer)


class Tagger:
    """int64[TAGS]: the linear part of the code, Σ a_i·x_i modulo 2⁶⁴, with uniform a from ``key``, piece by piece.

    A difference d whose entries are below 2⁴⁹ has an entry that 2⁴⁹ does not divide: a·d takes every one of at
    least 2¹⁶ values equally often, so one code is right by chance with 2⁻¹⁶ at most, and all three with 2⁻⁴⁸.
    """

    def __init__(self, key: bytes) -> None:
        self._streams = [Stream(key, b"tag %d" % at) for at in range(TAGS)]
        self.tags: I64 = np.zeros(TAGS, dtype=np.int64)
        self._buffer = room()

    def add(self, values: I64) -> None:
        """The next values of the vector."""
        for start in range(0, len(values), STEP):
            piece = values[start : start + STEP]
            for at, stream in enumerate(self._streams):
                self.tags[at : at + 1] += np.dot(stream.next(len(piece), self._buffer), piece)


def tags(values: I64, key: bytes) -> I64:
    """Of a vector that is there whole."""
    tagger = Tagger(key)
    tagger.add(values)
    return tagger.tags
