"""What was asked, committed to in the record: nobody can tell from the log, and its asker can show it.

Called by ``Session.verify``, which puts the commitment into every signed request of a question about records, and by
``trustcompute verify opened``. A commitment is a salted hash (``primitives.commitment``) of the digests that are asked
about: the holder, and whoever reads the log, learn nothing from it, also by trying all keys there are. The asker keeps
the opening. A regulator who finds a question in the log demands it, and can be shown neither another question nor
fewer.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import canonical
from trustcompute.primitives.commitment import SALT_BYTES, commit
from trustcompute.primitives.signing import MAX_TOKEN
from trustcompute.verification.answer import Questions

DOMAIN: Final = "questions of a verification"
MAX_OPENING: Final = 2**24

_FIELDS: Final = {"v", "request", "table", "salt", "subjects", "elements"}


@dataclass(frozen=True, eq=False)
class Opening:
    """What opens the commitment of one request. table: the signed descriptor it was asked about; request: the signed
    request, once there is one."""

    table: str
    salt: bytes = field(repr=False)
    questions: Questions = field(repr=False)
    request: str = ""

    @property
    def commitment(self) -> str:
        """64 hex digits, for the parameters of the request."""
        return commit(DOMAIN, self.questions.inputs().tobytes(), self.salt).hex()

    def verify(self, committed: object) -> None:
        """Raises ``VerificationError`` unless this opens ``committed``, the parameter of a request."""
        if committed != self.commitment:
            raise VerificationError("what was opened is not what the record commits to")

    def to_json(self) -> bytes:
        elements = self.questions.elements
        return canonical.dumps(
            {
                "v": 1,
                "request": self.request,
                "table": self.table,
                "salt": self.salt.hex(),
                "subjects": self.questions.subjects.tobytes().hex(),
                "elements": None if elements is None else elements.tobytes().hex(),
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Opening:
        """Raises ``VerificationError``."""
        document: Any = canonical.loads_canonical(data, limit=MAX_OPENING)
        if not isinstance(document, dict) or set(document) != _FIELDS:
            raise VerificationError(f"an opening has exactly the members {', '.join(sorted(_FIELDS))}")
        if type(document["v"]) is not int or document["v"] != 1:
            raise VerificationError("an opening is of version 1: v")
        for name in ("request", "table"):
            if not isinstance(document[name], str) or len(document[name]) > MAX_TOKEN:
                raise VerificationError(f"the opening's {name} is no text of at most {MAX_TOKEN} characters")
        salt, elements = _rows("salt", document["salt"], SALT_BYTES), document["elements"]
        questions = Questions(
            _rows("subjects", document["subjects"]), None if elements is None else _rows("elements", elements)
        )
        if len(salt) != 1 or len(questions.inputs()) != questions.evaluations:
            raise VerificationError(
                "the opening's salt is one of 32 bytes, its elements are as many as its subjects"
            )
        return cls(document["table"], salt.tobytes(), questions, document["request"])


def committed(table: str, questions: Questions) -> Opening:
    """Commit to questions about a table under a fresh salt."""
    return Opening(table, secrets.token_bytes(SALT_BYTES), questions)


def checked(value: object) -> str:
    """The parameter ``commitment`` of a request. Raises ``ParameterError``."""
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ParameterError("commitment must be 64 hex digits: the commitment to what is asked about")
    return value


def _rows(name: str, text: object, width: int = 32) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        if not isinstance(text, str) or not text:
            raise ValueError("no text")
        return np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(-1, width)
    except ValueError as error:
        raise VerificationError(f"the opening's {name} is not hex digits of {width} bytes each") from error
