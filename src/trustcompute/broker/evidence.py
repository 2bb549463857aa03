"""The signed tokens that a book keeps, held against its log: who asked for what is proven, not only said.

For auditors with a book's directory (tokens are not in the log, which names them by hash). What ``audit`` rebuilds from
the entries is believed here; this adds that every grant the log knows was signed by its issuer, within its parent and
with just these terms, and that every job was asked for, and acknowledged, by the key that its grant names. A signature
takes longer than all the rest of an entry's audit, so it is a command of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from trustcompute.broker import delegation, granting, log, request
from trustcompute.broker.grant import SEPARATOR, VerifiedGrant, read_claims
from trustcompute.broker.job import JobRecord
from trustcompute.broker.request import REQUEST_TYPE, Request
from trustcompute.broker.store import Evidence, GrantRow, Reader
from trustcompute.broker.store.sqlite import SqliteStore
from trustcompute.errors import AuditError, GrantError, VerificationError
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.signing import TokenError, VerifyKey, token_hash

GRANT_ENTRIES: Final = ("grant.issued", "grant.accepted")
# A request's claims, and the members of its job's entry that must say the same.
SAME: Final = {"grant": "grant", "op": "operation", "dataset": "dataset"} | {
    name: name for name in ("asker", "recipient", "payer")
}


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """How many tokens were found to be in order.

    unknown: thumbprints of issuers whose key was not given: their grants' signatures were not checked.
    """

    grants: int
    requests: int
    countersignatures: int
    unknown: tuple[str, ...] = ()


def audit_evidence(source: Path, key: NoteKey, *, trusted: Iterable[VerifyKey] = ()) -> EvidenceReport:
    """Check every token of a book's directory. Raises ``AuditError`` at the first that is missing or wrong.

    key: of the log; trusted: keys of other issuers of root grants.
    """
    store = SqliteStore.read_only(source)
    try:
        with store.read() as reader:
            return check(reader, key, trusted)
    finally:
        store.close()


def check(reader: Reader, key: NoteKey, trusted: Iterable[VerifyKey] = ()) -> EvidenceReport:
    """As ``audit_evidence``, for a view of a book."""
    keys = {each.thumbprint: each for each in (key.key, *trusted)}
    grants = _Grants(reader, keys, key.name.removesuffix("/trustcompute"))
    grants.check_all()
    kept = {(each.job, each.kind): each for each in reader.all_evidence()}
    requests = countersignatures = 0
    for job in reader.all_jobs():
        asked = _request(reader, grants, job, kept.get((job.id, "request")))
        requests += 1
        if job.countersigned is not None:
            _countersignature(reader, job, asked, kept.get((job.id, "countersignature")))
            countersignatures += 1
    return EvidenceReport(len(grants.subjects), requests, countersignatures, tuple(sorted(grants.unknown)))


class _Grants:
    """The grants of the log, with the keys that may ask under them."""

    def __init__(self, reader: Reader, keys: dict[str, VerifyKey], audience: str) -> None:
        self._reader, self._keys, self._audience = reader, keys, audience
        self.subjects: dict[str, str] = {}  # thumbprint of who may ask, by the grant's hash
        self.unknown: set[str] = set()
        self._known: dict[str, VerifiedGrant] = {}
        self._chains: dict[str, str] = {}  # their tokens, root first

    def check_all(self) -> None:
        for stored in self._reader.entries():
            entry = log.decode(stored.index, stored.body)
            if entry.type in GRANT_ENTRIES:
                self._check(str(entry.fields["grant"]), entry.fields)

    def _check(self, hash_: str, said: Any) -> None:
        row = self._reader.grants([hash_]).get(hash_)
        if row is None or token_hash(row.token) != hash_:
            raise AuditError(f"the book lacks the token of grant {hash_}, or has another in its place")
        try:
            verified = self._verified(row, said.get("parent"))
        except GrantError as error:
            raise AuditError(
                f"the token of grant {hash_} does not verify ({error.field}): {error}"
            ) from error
        fields = granting.grant_fields(verified)
        wrong = sorted(name for name in fields if said.get(name) != fields[name])
        if wrong:
            raise AuditError(f"the log has other terms of grant {hash_} than its token: {', '.join(wrong)}")
        self.subjects[hash_] = verified.claims.cnf.jkt

    def _verified(self, row: GrantRow, parent: str | None) -> VerifiedGrant:
        chain = row.token if parent is None else self._chains[parent] + SEPARATOR + row.token
        root = delegation.read(chain.partition(SEPARATOR)[0])
        if root.iss in self._keys:
            found = delegation.verify(chain, self._keys, self._audience)
        else:
            self.unknown.add(root.iss)
            above = None if parent is None else self._known[parent]
            found = VerifiedGrant(delegation.read(chain), row.token, row.hash, above)
        self._chains[row.hash], self._known[row.hash] = chain, found
        return found


def _request(reader: Reader, grants: _Grants, job: JobRecord, kept: Evidence | None) -> Request:
    claims = _read(job, kept, job.request)
    if claims.jti != job.id or grants.subjects.get(claims.grant) != VerifyKey.from_x(claims.key).thumbprint:
        raise AuditError(f"job {job.id} was not asked for by the key that its grant names")
    if job.entry is None:
        return claims
    said = log.decode(job.entry, reader.entry(job.entry)).fields
    wrong = sorted(name for name, member in SAME.items() if said.get(member) != getattr(claims, name))
    # Reservations that expired together share an entry.
    named = [job.id, job.request] in said["jobs"] if "jobs" in said else said.get("request") == job.request
    if wrong or not named:
        raise AuditError(
            f"entry {job.entry} says otherwise of job {job.id} than its request: "
            f"{', '.join(wrong) or 'request'}"
        )
    return claims


def _read(job: JobRecord, kept: Evidence | None, hash_: str) -> Request:
    if kept is None or token_hash(kept.token) != hash_:
        raise AuditError(f"the book lacks the request of job {job.id}, or has another in its place")
    try:
        claims, unverified = read_claims(kept.token, REQUEST_TYPE, Request)
        unverified.verify(VerifyKey.from_x(claims.key))
    except (GrantError, TokenError, VerificationError) as error:
        raise AuditError(f"the request of job {job.id} does not verify: {error}") from error
    return claims


def _countersignature(reader: Reader, job: JobRecord, asked: Request, kept: Evidence | None) -> None:
    assert job.countersigned is not None, "it is why we look"
    said = log.decode(job.countersigned, reader.entry(job.countersigned)).fields
    if kept is None or token_hash(kept.token) != said.get("token"):
        raise AuditError(f"the book lacks the countersignature of job {job.id}, or has another in its place")
    try:
        claims, unverified = request.read_countersignature(kept.token)
        unverified.verify(VerifyKey.from_x(asked.key))
    except (GrantError, TokenError) as error:
        raise AuditError(f"the countersignature of job {job.id} does not verify: {error}") from error
    if (claims.job, claims.request, list(claims.answers)) != (job.id, job.request, said.get("answers")):
        raise AuditError(f"the countersignature of job {job.id} is of another job or other answers")
