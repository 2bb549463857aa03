"""What a regulator checks: that an opening is of the very question that a log's entry charged.

Called by ``trustcompute verify opened``. The log has the hash of every signed request, the request a commitment to
what was asked about (``verification.querylog``). The regulator finds the job in the log that it reads
(``inspection``), demands opening and receipt from the asker, and needs nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trustcompute.broker.grant import read_claims
from trustcompute.broker.log import Entry
from trustcompute.broker.request import REQUEST_TYPE, Request
from trustcompute.errors import VerificationError
from trustcompute.primitives.signing import token_hash
from trustcompute.verification import descriptor, question
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.querylog import Opening


@dataclass(frozen=True)
class Opened:
    """A question that was opened. asker: the name in its certificate; questions: records asked about."""

    job: str
    asker: str
    said: Descriptor
    questions: int
    opening: Opening = field(repr=False)

    def about(self, keys: Sequence[Any]) -> list[bool]:
        """Whether it was asked about each of these keys. Raises ``TableError``."""
        subjects = {row.tobytes() for row in self.opening.questions.subjects}
        return [one in subjects for one in question.subjects(self.said, keys)]


def verify(opening: Opening, entry: Entry) -> Opened:
    """entry: of the log, verified, for example ``Receipt.verify``. Raises ``VerificationError``."""
    if token_hash(opening.request) != entry.fields.get("request"):
        raise VerificationError("what was opened is another request than the entry's")
    claims, _ = read_claims(opening.request, REQUEST_TYPE, Request)
    opening.verify(claims.params.get("commitment"))
    if token_hash(opening.table) != claims.params.get("table"):
        raise VerificationError("what was opened was asked about another table")
    said = descriptor.read(opening.table)
    return Opened(claims.jti, claims.san, said, len(opening.questions), opening)
