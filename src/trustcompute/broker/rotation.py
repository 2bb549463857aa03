"""A new key for a log: the procedure after which old receipts verify as before and new ones under the new key.

Called by ``Broker.rotate``. Two entries, each under a checkpoint of the key that it speaks for:

    key.rotated     by the old key: names both keys, whether the old one was compromised, and a signature of the new key
                    over all this, so that neither key can be drawn in without its holder
    key.confirmed   by the new key, when the book is first opened with it

Who knows the old key follows the log to the new one, and who knows the new one trusts it for what came before: the
audit does both. A key that was merely retired still counts as an issuer's, of grants it signed. Of a compromised one
only those grants count that the log had an entry of before: whoever stole it can make no new ones. What a thief may
have signed as the log before the rotation, witnesses show (``witness``); a key that was lost, not stolen, cannot sign
its own replacement: its log ends, and a new one begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trustcompute.broker.log import Entry
from trustcompute.broker.notice import Notice
from trustcompute.broker.store import NOTHING, Touched
from trustcompute.broker.writer import Book
from trustcompute.errors import AuditError, Conflict, ParameterError, VerificationError
from trustcompute.primitives import canonical
from trustcompute.primitives.signing import SigningKey, VerifyKey, b64url, b64url_decode, token_hash

RETIRED: Final = "retired"
COMPROMISED: Final = "compromised"
STATES: Final = (RETIRED, COMPROMISED)  # of the notice about a key that was a log's
_DOMAIN: Final = b"trustcompute key rotation v1\n"


@dataclass(frozen=True, slots=True)
class Rotated:
    """What an entry ``key.rotated`` says."""

    old: VerifyKey
    new: VerifyKey
    compromised: bool

    def document(self, origin: str) -> dict[str, Any]:
        return {"origin": origin, "old": self.old.x, "new": self.new.x, "compromised": self.compromised}


def read(entry: Entry, origin: str) -> Rotated:
    """The rotation, if the new key agreed to it. Raises ``AuditError``."""
    fields: Mapping[str, Any] = entry.fields
    try:
        if type(fields["compromised"]) is not bool:
            raise VerificationError("compromised is true or false")
        found = Rotated(
            VerifyKey.from_x(fields["old"]), VerifyKey.from_x(fields["new"]), fields["compromised"]
        )
        found.new.verify(b64url_decode(fields["agreed"]), _DOMAIN + canonical.dumps(found.document(origin)))
    except (KeyError, TypeError, ValueError, VerificationError) as error:
        raise AuditError(f"entry {entry.index}: the new key did not agree to the rotation") from error
    return found


@dataclass(frozen=True, slots=True)
class Rotate:
    """The last thing that the old key signs. The book then belongs to the new one."""

    origin: str
    old: VerifyKey
    new: SigningKey
    compromised: bool
    past: tuple[str, ...] = ()  # thumbprints of the keys before

    @property
    def touched(self) -> Touched:
        return Touched(notices=(name_of(self.old.thumbprint),))

    def apply(self, book: Book) -> int:
        if self.new.public == self.old:
            raise ParameterError("the new key is the old one: make a new identity")
        if self.new.thumbprint in self.past:
            raise Conflict("the key was this log's before: make a new one")
        said = Rotated(self.old, self.new.public, self.compromised).document(self.origin)
        agreed = b64url(self.new.sign(_DOMAIN + canonical.dumps(said)))
        entry = book.record("key.rotated", {**said, "agreed": agreed})
        state = COMPROMISED if self.compromised else RETIRED
        name = name_of(self.old.thumbprint)
        book.put_notice(Notice(name, state, entry, token_hash(self.old.x), self.old.x, entry))
        book.hand_over(self.new.thumbprint)
        return entry


@dataclass(frozen=True, slots=True)
class Confirm:
    """The first thing that the new key signs."""

    key: VerifyKey
    touched: Touched = NOTHING

    def apply(self, book: Book) -> int:
        return book.record("key.confirmed", {"key": self.key.x})


def name_of(thumbprint: str) -> str:
    """The notice about a key that was this log's."""
    return f"key/{thumbprint}"
