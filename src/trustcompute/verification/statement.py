"""What a holder signs with every answer, so that it cannot deny it: the table, what was asked, and what it answered.

Called by the parties. The asking side learns nothing from it and cannot be told from it; an arbiter needs it
(``dispute``).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives.signing import SIGNATURE_BYTES, SigningKey, VerifyKey

_LABEL: Final = b"trustcompute verification answer 1\n"

Array = npt.NDArray[Any]


def statement(table: str, asked: list[Array], answered: list[Array]) -> bytes:
    """What is signed: label, the table's id, and SHA-256 of all asked and of all answered arrays with their shapes."""
    return _LABEL + table.encode() + b"\n" + _digest(asked) + _digest(answered)


def sign(table: str, asked: list[Array], answered: list[Array], key: SigningKey) -> U8:
    return np.frombuffer(key.sign(statement(table, asked, answered)), dtype=np.uint8)


def verify(table: str, asked: list[Array], answered: list[Array], signature: U8, key: VerifyKey) -> None:
    """Raises ``VerificationError``."""
    if signature.shape != (SIGNATURE_BYTES,):
        raise VerificationError("the answer is not signed")
    key.verify(signature.tobytes(), statement(table, asked, answered))


def _digest(arrays: list[Array]) -> bytes:
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(f"{array.dtype.str[1:]}{list(array.shape)}\n".encode())
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        hashed.update(little.reshape(-1).view(np.uint8).data)
    return hashed.digest()
