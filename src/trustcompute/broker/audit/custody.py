"""Whose log it is at each of its places: the key that opened it, and those it was handed over to (``rotation``)."""

from __future__ import annotations

import contextlib
from collections.abc import MutableMapping

from trustcompute.broker import rotation
from trustcompute.broker.audit.fault import EntryError
from trustcompute.broker.log import Entry
from trustcompute.errors import VerificationError
from trustcompute.primitives import checkpoint
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.signing import VerifyKey


class Custody:
    """signer: of the checkpoints at this place of the log; owner: thumbprint of the key that it belongs to there."""

    def __init__(
        self, key: NoteKey, first: NoteKey | None, notices: MutableMapping[str, tuple[str, int]]
    ) -> None:
        """first: the key that opened the log, where its checkpoints are known: ``key`` may then be any that the log
        had, else it is the last."""
        self._key, self._first, self._notices = key, first, notices
        self.signer = first or key
        self.owner = ""
        self._keys: dict[str, NoteKey] = {}  # all that it had so far, where it was handed over
        self._confirmed = True

    def check(self) -> None:
        """Raises ``AuditError`` unless the key that was given is, or was, the log's."""
        given = self._key.key.thumbprint
        if given != self.owner and (self._first is None or given not in self._keys):
            raise EntryError(
                "the log was opened under another name or key, and not handed over to this one", 0
            )

    def held(self, note: str) -> Checkpoint:
        """A checkpoint that somebody holds, by any key that the log had."""
        for key in self._keys.values():
            with contextlib.suppress(VerificationError):
                return checkpoint.verify(note, key)
        return checkpoint.verify(note, self._key)

    def opened(self, entry: Entry) -> None:
        self.owner = str(entry.fields["key"])
        strange = self._first is not None and self.owner != self._first.key.thumbprint
        if entry.fields["origin"] != self._key.name or strange:
            raise EntryError("the log was opened under another name or key", entry.index)

    def rotated(self, entry: Entry) -> None:
        found = rotation.read(entry, self._key.name)
        if found.old.thumbprint != self.owner or not self._confirmed:
            raise EntryError("it hands over a log that belongs to another key", entry.index)
        self.owner, self.signer = found.new.thumbprint, NoteKey(self._key.name, found.new)
        for each in (found.old, found.new):
            self._keys[each.thumbprint] = NoteKey(self._key.name, each)
        state = rotation.COMPROMISED if found.compromised else rotation.RETIRED
        self._notices[rotation.name_of(found.old.thumbprint)] = state, entry.index
        self._confirmed = False

    def confirmed(self, entry: Entry) -> None:
        if self._confirmed or VerifyKey.from_x(entry.fields["key"]).thumbprint != self.owner:
            raise EntryError("it confirms no rotation", entry.index)
        self._confirmed = True
