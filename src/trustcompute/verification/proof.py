"""The check that a linear answer is D·u for the table's D: VeriSimplePIR.

Called by ``private`` on the asking side, ``audit`` makes one. De Castro and Lee, "VeriSimplePIR: Verifiability in
SimplePIR at No Online Cost for Honest Servers" (USENIX Security 2024, ePrint 2024/341), with the auditor computing
what the holder would have to prove. For a secret matrix C of bits, 64 × length, and Z = C·D:

    accept v for u exactly if Z·u = C·v  (mod 2³²)

If v ≠ D·u, a uniform row of C gives both sides the same value with probability at most ½, whatever was sent: 2⁻⁶⁴ in
all, for an answer that does not depend on C. Accepting tells nothing of C to whoever answers honestly; after one
rejection it must not be used again. Because u and v alone are looked at, a holder that spoils some columns cannot
learn from a rejection which one was asked for.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import ParameterError, StoreError, VerificationError
from trustcompute.kernels.arrays import I8, U8
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey, VerifyKey
from trustcompute.verification.cells import U32
from trustcompute.verification.lwe import MAX_LENGTH

ROWS: Final = 64
"""Rows of C: the statistical security in bits."""
TYPE: Final = "tc-verification-check+jwt"
_AT_ONCE: Final = 2**12


@dataclass(eq=False)
class Check:
    """A client's own (C, Z) for one table, from an auditor: keep it secret from the holder.

    table: the id of the table; bits: C, uint8[64, length]; sums: Z, int32[64, m] as uint32; statement: the auditor's
    signature over the table's id and the digest of both.
    """

    table: str
    bits: U8 = field(repr=False)
    sums: U32 = field(repr=False)
    statement: str = field(repr=False)
    spent: bool = False

    def verify(self, asked: U32, got: U32) -> None:
        """Raise ``VerificationError`` unless got = D·asked: uint32[m], uint32[length]. Once it has raised, it serves
        no more."""
        if self.spent:
            raise VerificationError(
                "this check has met a wrong answer before: ask the auditor for another one"
            )
        left = kernels.word_product(self.sums, asked)
        right = kernels.word_product(self.bits.astype(np.uint32), got)
        if not np.array_equal(left, right):
            self.spent = True
            raise VerificationError(
                "the answer is not what the registered table gives: it was altered, or the table was"
            )

    def save(self, path: Path) -> None:
        """Raises ``StoreError``. The file is readable by its owner alone."""
        head = canonical.dumps(
            {"statement": self.statement, "length": self.bits.shape[1], "columns": self.sums.shape[1]}
        )
        try:
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(len(head).to_bytes(4, "big") + head)
                file.write(np.packbits(self.bits).tobytes())
                file.write(self.sums.astype("<u4", copy=False).tobytes())
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path | str, auditor: VerifyKey) -> Check:
        """Raises ``VerificationError`` unless the auditor signed it, ``StoreError``."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        try:
            size = int.from_bytes(data[:4], "big")
            head = canonical.loads(data[4 : 4 + min(size, signing.MAX_TOKEN)], limit=signing.MAX_TOKEN)
            length, columns = int(head["length"]), int(head["columns"])
            packed = -(-ROWS * length // 8)
            body = data[4 + size :]
            if length < 1 or columns < 1 or len(body) != packed + 4 * ROWS * columns:
                raise ValueError("length")
            bits = np.unpackbits(np.frombuffer(body[:packed], dtype=np.uint8))[: ROWS * length]
            sums = np.frombuffer(body[packed:], dtype="<u4").astype(np.uint32).reshape(ROWS, columns)
            statement = str(head["statement"])
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError(f"{path} holds no check of an auditor") from error
        claims = signing.verify(statement, TYPE, auditor)
        made = cls(str(claims.get("table")), bits.reshape(ROWS, length), sums, statement)
        if claims != _claims(made.table, made.bits, made.sums):
            raise VerificationError(f"{path} is not what the auditor signed")
        return made

    def __repr__(self) -> str:
        return f"Check(table={self.table[:16]}…, spent={self.spent})"


def issue(table: str, database: I8, rng: Rng, auditor: SigningKey) -> Check:
    """A fresh (C, Z) for one client. database: int8[length, m], which the auditor has checked (``audit``)."""
    length, columns = database.shape
    if length > MAX_LENGTH:
        raise ParameterError(f"a column of {length} bytes is longer than any table has")
    bits = np.unpackbits(rng.array(ROWS * -(-length // 8)).reshape(ROWS, -1), axis=1)[:, :length]
    sums = np.empty((ROWS, columns), dtype=np.uint32)
    factor = bits.astype(np.float32)
    for start in range(0, columns, _AT_ONCE):  # sums of at most 2^16 bytes are exact: below 2^24
        part = database[:, start : start + _AT_ONCE].astype(np.float32)
        sums[:, start : start + _AT_ONCE] = (factor @ part).astype(np.int64).astype(np.uint32)
    bits = np.ascontiguousarray(bits)
    return Check(table, bits, sums, signing.sign(TYPE, _claims(table, bits, sums), auditor))


def _claims(table: str, bits: npt.NDArray[np.uint8], sums: U32) -> dict[str, Any]:
    hashed = hashlib.sha256(b"trustcompute check 1\n" + np.packbits(bits).tobytes())
    hashed.update(sums.astype("<u4", copy=False).tobytes())
    return {"table": table, "check": hashed.hexdigest(), "shape": [*bits.shape, sums.shape[1]]}
