"""Who is right about a private answer that failed its check: a third party recomputes it from u and the signed v alone.

Called by ``private``, which raises ``Disputed`` with the evidence, and by ``trustcompute verify arbiter``. The
evidence is what was asked (u, which hides the key), what was answered (v), and the holder's signature over both. The
secret of the question, its column and its blind are never opened, nor is the asker's check. The arbiter has the
masked table, which it holds against the signed descriptor first; D·u is then plain arithmetic, and comes out alike
for everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from trustcompute.errors import VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import canonical
from trustcompute.primitives.signing import MAX_TOKEN, VerifyKey, token_hash
from trustcompute.verification import descriptor, pir, statement, table
from trustcompute.verification.cells import U32
from trustcompute.verification.table import Masked

MAX_HEAD: Final = 2 * MAX_TOKEN
_MAGIC: Final = b"trustcompute dispute 1\n"


@dataclass(frozen=True, eq=False)
class Evidence:
    """Questions and answers of one job in private mode.

    token: the table's signed descriptor; asked: u, uint32[k, m]; answered: v, uint32[k, length]; signature: the
    holder's, 64 bytes.
    """

    token: str
    asked: U32 = field(repr=False)
    answered: U32 = field(repr=False)
    signature: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        head = canonical.dumps(
            {"token": self.token, "questions": len(self.asked), "signature": self.signature.hex()}
        )
        words = [np.ascontiguousarray(part, dtype="<u4").tobytes() for part in (self.asked, self.answered)]
        return b"".join([_MAGIC, len(head).to_bytes(4, "big"), head, *words])

    @classmethod
    def from_bytes(cls, data: bytes) -> Evidence:
        """Raises ``VerificationError``."""
        wrong = VerificationError("the evidence of a dispute is not in the agreed form")
        start = len(_MAGIC) + 4
        size = int.from_bytes(data[len(_MAGIC) : start], "big")
        if not data.startswith(_MAGIC) or size > MAX_HEAD or len(data) < start + size:
            raise wrong
        head = canonical.loads_canonical(data[start : start + size], limit=MAX_HEAD)
        try:
            token, questions = head["token"], head["questions"]
            signature = bytes.fromhex(head["signature"])
            shape = descriptor.read(token).columns.shape
        except (KeyError, TypeError, ValueError) as error:
            raise wrong from error
        words = data[start + size :]
        if type(questions) is not int or not questions >= 1 or len(head) != 3:
            raise wrong
        if len(words) != 4 * questions * (shape.columns + shape.length):
            raise wrong
        found = np.frombuffer(words, dtype="<u4").astype(np.uint32)
        asked, answered = np.split(found, [questions * shape.columns])
        return cls(token, asked.reshape(questions, -1), answered.reshape(questions, -1), signature)


class Disputed(VerificationError):
    """An answer that the holder signed failed its check. ``evidence`` is for an arbiter: it tells nothing of the
    key."""

    code = "verification.disputed"

    def __init__(self, message: str, evidence: Evidence) -> None:
        super().__init__(message)
        self.evidence = evidence


@dataclass(frozen=True)
class Judgement:
    """At fault: ``holder``, whose signed answer is not D·u; or ``complainant``, whose evidence the holder did not
    sign, or whose answers are right. wrong: which of the questions were answered wrongly, counted from 0."""

    at_fault: Literal["holder", "complainant"]
    reason: str
    wrong: tuple[int, ...] = ()


@contextmanager
def disputable(token: str, asked: U32, answered: U32, signature: U8) -> Iterator[None]:
    """What fails inside was signed by the holder: raised as ``Disputed``."""
    try:
        yield
    except VerificationError as error:
        evidence = Evidence(token, asked, answered, signature.tobytes())
        raise Disputed(str(error), evidence) from error


def judge(
    evidence: Evidence, masked: Masked, holder: VerifyKey, *, executor: Executor | None = None
) -> Judgement:
    """Decide a dispute. masked: the table, from whoever holds it; holder: whose signatures count.

    Raises ``VerificationError`` where nothing can be decided: the descriptor is not the holder's, or the table at
    hand is not the one that it describes.
    """
    descriptor.verify(evidence.token, holder)
    if masked.id != token_hash(evidence.token):
        raise VerificationError("the dispute is about another table, or another version of it")
    table.check(masked)
    signature = np.frombuffer(evidence.signature, dtype=np.uint8)
    try:
        statement.verify(masked.id, [evidence.asked], [evidence.answered], signature, holder)
    except VerificationError:
        return Judgement("complainant", "the holder did not sign this answer to this question")
    right = pir.answer(masked.database, evidence.asked, executor=executor)
    wrong = np.flatnonzero((right != evidence.answered).any(axis=1)).tolist()
    if wrong:
        return Judgement("holder", "the signed answer is not what its table gives", tuple(wrong))
    return Judgement("complainant", "the signed answer is what the table gives")
