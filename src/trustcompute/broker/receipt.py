"""Receipts: one entry of a log, and the proof that it is in it, for whoever knows the log's key. Offline.

The broker makes them on demand (they are derived, not stored); consumers keep them as JSON files. RFC 6962
inclusion proof, C2SP checkpoint.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trustcompute.broker import log
from trustcompute.broker.log import Entry, Log
from trustcompute.broker.store import Reader
from trustcompute.broker.witness import Quorum
from trustcompute.broker.writer import Writer
from trustcompute.errors import AuditError, InputError, LocalProtocolError, VerificationError
from trustcompute.primitives import canonical, checkpoint, merkle
from trustcompute.primitives.checkpoint import MAX_NOTE, Checkpoint, NoteKey

RECEIPT_VERSION: Final = 1
MAX_RECEIPT: Final = (
    2 * (log.MAX_ENTRY + MAX_NOTE) + 4096
)  # quoting at most doubles them; a proof is under 3 KiB

_FIELDS = {"v", "entry", "index", "proof", "checkpoint"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """entry: canonical bytes, number ``index``; proof: RFC 6962 path, 32 bytes a step; checkpoint: a note."""

    entry: bytes
    index: int
    proof: tuple[bytes, ...]
    checkpoint: str

    def verify(self, key: NoteKey, quorum: Quorum | None = None) -> Entry:
        """The entry, if the log of this key contains it. Raises ``VerificationError``.

        key: ``log.log_key(name, key)`` of the node that keeps the log, or parsed from its text form;
        quorum: the witnesses of whom enough must have cosigned, or the receipt is not believed.
        """
        signed = (
            checkpoint.verify(self.checkpoint, key) if quorum is None else quorum.verify(self.checkpoint, key)
        )
        merkle.verify_inclusion(
            merkle.leaf_hash(self.entry), self.index, signed.size, self.proof, signed.root
        )
        try:
            return log.decode(self.index, self.entry)
        except AuditError as error:
            raise VerificationError(str(error)) from error

    def to_document(self) -> dict[str, Any]:
        return {
            "v": RECEIPT_VERSION,
            "entry": self.entry.decode(),
            "index": self.index,
            "proof": [base64.b64encode(step).decode() for step in self.proof],
            "checkpoint": self.checkpoint,
        }

    @classmethod
    def from_document(cls, document: object) -> Receipt:
        """Raises ``VerificationError`` for what is not a receipt; the proof is not checked here."""
        if not isinstance(document, dict) or set(document) != _FIELDS:
            raise VerificationError(f"a receipt has exactly the fields {', '.join(sorted(_FIELDS))}")
        if type(document["v"]) is not int or document["v"] != RECEIPT_VERSION:  # ``True`` equals 1
            raise VerificationError(f"a receipt is of version {RECEIPT_VERSION}: v")
        entry, index, proof, note = (document[name] for name in ("entry", "index", "proof", "checkpoint"))
        if not isinstance(entry, str) or not isinstance(note, str) or type(index) is not int:
            raise VerificationError("a receipt's entry and checkpoint are text, its index is an integer")
        if not isinstance(proof, list) or len(proof) > merkle.MAX_PROOF:
            raise VerificationError(f"a receipt's proof is a list of at most {merkle.MAX_PROOF} hashes")
        return cls(entry.encode(), index, tuple(_step(step) for step in proof), note)

    def to_json(self) -> bytes:
        """Canonical JSON."""
        return canonical.dumps(self.to_document())

    @classmethod
    def from_json(cls, data: bytes) -> Receipt:
        """Raises ``VerificationError``."""
        return cls.from_document(canonical.loads_canonical(data, limit=MAX_RECEIPT))

    def save(self, path: Path) -> None:
        path.write_bytes(self.to_json())

    @classmethod
    def load(cls, path: Path) -> Receipt:
        """Raises ``InputError`` where it cannot be read, ``VerificationError`` where it holds no receipt."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        return cls.from_json(data)


def of(writer: Writer, job: str) -> Receipt:
    """The receipt of a job that has ended. What ended of late is proven from memory: consumers ask for it at once."""
    ended = writer.ended(job)
    if ended is not None:
        return Receipt(ended.entry.body, ended.entry.index, tuple(ended.proof), ended.note)
    with writer.view() as (reader, tree):
        return prove(reader, tree, ending(reader, job))


def under(writer: Writer, job: str, note: str, signed: Checkpoint) -> Receipt:
    """The same under an older checkpoint. Raises ``VerificationError`` where that does not cover the entry yet."""
    with writer.view() as (reader, tree):
        index = ending(reader, job)
        if index >= signed.size:
            raise VerificationError(f"entry {index} is under no cosigned checkpoint yet: cosign again")
        return Receipt(reader.entry(index), index, tuple(tree.inclusion_proof(index, signed.size)), note)


def ending(reader: Reader, job: str) -> int:
    """Index of the entry that ended a job."""
    record = reader.jobs([job]).get(job)
    if record is None or record.entry is None:
        raise LocalProtocolError(f"job {job} has no entry in the log")
    return record.entry


def prove(reader: Reader, tree: Log, index: int) -> Receipt:
    """The receipt of an entry, under the newest checkpoint."""
    note = reader.last_checkpoint() or ""
    return Receipt(reader.entry(index), index, tuple(tree.inclusion_proof(index, tree.size)), note)


def _step(text: object) -> bytes:
    try:
        step = base64.b64decode(str(text), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError("a step of a receipt's proof is not base64") from error
    if base64.b64encode(step).decode() != text:
        raise VerificationError("a step of a receipt's proof is not canonical base64")
    return step
