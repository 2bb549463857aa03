"""The record: an append-only log of canonical JSON entries under an RFC 6962 tree and signed checkpoints.

Written by ``writer`` alone, inside the transaction that changes the meter; read by receipts, clearing and
audit. An entry has a type, a version and a time, and what its type asks for. Who takes part is named by key
thumbprints; whatever else could identify somebody or repeat a value (parameters, peers' names) is a salted
commitment, whose salt lies in a table beside the log and can be forgotten. Times never run backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from trustcompute.errors import AuditError, LocalProtocolError, ParameterError, StoreError
from trustcompute.primitives import canonical, checkpoint, commitment, merkle
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.signing import SigningKey, VerifyKey

ENTRY_VERSION: Final = 1
_SUFFIX: Final = "/trustcompute"  # of a log's origin, after the node's name
MAX_ENTRY: Final = 64 * 1024 - 1  # the limit of C2SP tlog-tiles entry bundles
READ_ONLY: Final = "the book was opened to read, and nothing is written: ask the node that keeps it"

TYPES: Final = frozenset(
    {
        "log.opened",
        "asset.registered",
        "grant.issued",
        "grant.accepted",
        "grant.revoked",
        "grant.suspended",
        "grant.resumed",
        "grant.ending",
        "grant.ended",
        "grant.reviewed",
        "rules.published",
        "credit.lowered",
        "credit.repaired",
        "key.rotated",
        "key.confirmed",
        "job.denied",
        "job.posted",
        "job.released",
        "job.voided",
        "job.expired",
        "jobs.expired",
        "job.forfeited",
        "job.countersigned",
        "entry.redacted",
        "incident",
        "period.lines",
        "period.closed",
        "revenue.declared",
        "pool.weighed",
        "dispute.opened",
        "dispute.settled",
        "adjustment.posted",
        "netting.payments",
        "netting.run",
        "agreement.entered",
        "certificate.issued",
        "certificate.circulated",
        "certificate.applied",
        "certificate.changed",
        "certificate.cancelled",
        "certificate.recognised",
    }
)


class Entry(NamedTuple):
    """An entry that was read back. body: its canonical bytes; fields: all its members."""

    index: int  # type: ignore[assignment]  # nobody searches an entry as a tuple
    body: bytes
    fields: Mapping[str, Any]

    @property
    def type(self) -> str:
        return str(self.fields["type"])

    @property
    def time(self) -> int:
        return int(self.fields["time"])


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens one commitment of an entry; deleting it redacts the entry."""

    index: int
    field: str
    salt: bytes
    value: bytes

    def __repr__(self) -> str:
        return f"Opening(index={self.index}, field={self.field!r}, salt and value not shown)"


class StoredEntry(NamedTuple):
    """An entry as the book keeps it. leaf: its hash in the tree."""

    index: int  # type: ignore[assignment]  # as above
    leaf: bytes
    body: bytes


def encode(kind: str, time: int, fields: Mapping[str, Any]) -> bytes:
    """The canonical bytes of an entry. Raises ``LocalProtocolError`` for an unknown type or one too large."""
    if kind not in TYPES:
        raise LocalProtocolError(f"the log has no entries of type {kind!r}")
    body = canonical.dumps({**fields, "type": kind, "v": ENTRY_VERSION, "time": time})
    if len(body) > MAX_ENTRY:
        raise LocalProtocolError(
            f"an entry of the log has at most {MAX_ENTRY} bytes, this {kind} has {len(body)}"
        )
    return body


def decode(index: int, body: bytes) -> Entry:
    """Parse an entry. Raises ``AuditError`` naming it where it is not one that this version writes."""
    try:
        fields = canonical.loads_canonical(body, limit=MAX_ENTRY)
    except canonical.DocumentError as error:
        raise AuditError(f"entry {index} is damaged: {error}") from error
    if not isinstance(fields, dict) or fields.get("v") != ENTRY_VERSION or fields.get("type") not in TYPES:
        raise AuditError(f"entry {index} is of a type or version that this release does not know")
    if type(fields.get("time")) is not int or fields["time"] < 0:
        raise AuditError(f"entry {index} has no time")
    return Entry(index, body, fields)


def conceal(index: int, field: str, value: bytes) -> tuple[str, Opening]:
    """A commitment (hex) for the field of an entry, and what opens it."""
    salt = commitment.new_salt()
    return commitment.commit(field, value, salt).hex(), Opening(index, field, salt, value)


def origin_of(name: str) -> str:
    """The origin of the log that a node of this DNS name keeps."""
    return name + _SUFFIX


def name_of(key: NoteKey) -> str:
    """The DNS name of the node that keeps the log of this key. Raises ``ParameterError`` for a key of another kind."""
    name = key.name.removesuffix(_SUFFIX)
    if origin_of(name) != key.name:
        raise ParameterError(f"the key of a node's log is named NODE{_SUFFIX}, not {key.name}")
    return name


def log_key(name: str, key: VerifyKey) -> NoteKey:
    """What verifies the checkpoints of that node's log."""
    return NoteKey(origin_of(name), key)


class Log:
    """The tree of a log, a cache of the book's leaf hashes, and the key that signs its checkpoints."""

    def __init__(self, origin: str, key: SigningKey | None, leaves: Iterable[bytes]) -> None:
        """key: ``None`` for who only reads it."""
        self._origin, self._key = origin, key
        self._tree = merkle.Tree(leaves)
        self._last_time = 0

    @property
    def size(self) -> int:
        return len(self._tree)

    @property
    def tree(self) -> merkle.Tree:
        """For writing it out; nobody but this class changes it."""
        return self._tree

    @property
    def last_time(self) -> int:
        """Time of the last entry: no later one is dated before."""
        return self._last_time

    def root(self, size: int | None = None) -> bytes:
        return self._tree.root(size)

    def append(self, bodies: Sequence[bytes], time: int) -> tuple[list[StoredEntry], str]:
        """Add entries; returns them as the book stores them, and the signed checkpoint over all."""
        if self._key is None:
            raise StoreError(READ_ONLY)
        stored = []
        for body in bodies:
            leaf = merkle.leaf_hash(body)
            stored.append(StoredEntry(self._tree.append(leaf), leaf, body))
        self._last_time = time
        return stored, checkpoint.sign(Checkpoint(self._origin, self.size, self._tree.root()), self._key)

    def extend(self, leaves: Iterable[bytes]) -> None:
        """Take over leaf hashes that another process of the same broker has added."""
        for leaf in leaves:
            self._tree.append(leaf)

    def return_to(self, size: int, last_time: int) -> None:
        """Forget entries that could not be committed; their checkpoint was shown to nobody."""
        if size > self.size:
            raise StoreError(
                "the book has fewer leaf hashes than its last checkpoint: audit it, restore a backup"
            )
        self._tree.truncate(size)
        self._last_time = last_time

    def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        return self._tree.inclusion_proof(index, size)

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        return self._tree.consistency_proof(old, new)


def check_against(log: Log, note: str | None) -> None:
    """Raises ``StoreError`` unless the tree is the one that the book's last checkpoint was signed over."""
    signed = Checkpoint("", 0, merkle.EMPTY_ROOT) if note is None else checkpoint.parse_unverified(note)
    if (signed.size, signed.root) != (log.size, log.root()):
        raise StoreError(
            "the book's entries are not those of its last checkpoint: audit it, restore a backup"
        )
