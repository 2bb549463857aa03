"""The broker: lets a computation run only under a signed grant, meters it, records it, rates it.

One per node, embedded or behind ``node``. It keeps one directory: the book (``store``), and the outbox. Every
change goes through ``writer`` as one durable transaction. What the methods promise:

    charge before release   ``post`` is durable, its entry under a checkpoint, before anything may be sent
    no double charge        the same job id and request give the same record, other requests a ``Conflict``
    no refund once armed    an armed job is charged or forfeited, also by a crash
    no overrun              reservations and charges never exceed a limit, however many threads ask
    revocation at once      read inside the transaction that reserves and inside the one that charges

Adversary: consumers may send anything, lie about anything and repeat anything; the operator may try to deny
or alter what was recorded, which receipts and checkpoints held by others then show. The operator's own node
is trusted to ask the broker before it computes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from trustcompute.broker import audit as auditing
from trustcompute.broker import (
    backup,
    batch,
    budget,
    commands,
    credit,
    evidence,
    grant,
    granting,
    log,
    many,
    policy,
    quote,
    receipt,
    request,
    rotation,
    rules,
    standing,
    tiles,
    upkeep,
)
from trustcompute.broker import order as orders
from trustcompute.broker.audit import AuditReport
from trustcompute.broker.batch import Asked
from trustcompute.broker.budget import Line
from trustcompute.broker.clearing import Statement
from trustcompute.broker.clearing.house import ClearingHouse
from trustcompute.broker.cosigned import Cosigned
from trustcompute.broker.credit import Credit
from trustcompute.broker.credit import Event as CreditEvent
from trustcompute.broker.evidence import EvidenceReport
from trustcompute.broker.grant import Grant, VerifiedGrant
from trustcompute.broker.job import Fault, JobRecord, Release
from trustcompute.broker.keyring import Keyring
from trustcompute.broker.log import Entry, Opening
from trustcompute.broker.many import Answer, Work
from trustcompute.broker.memory import Memory
from trustcompute.broker.notice import topics
from trustcompute.broker.order import VerifiedOrder
from trustcompute.broker.outbox import Frame, Outbox, file_name, packed, parse
from trustcompute.broker.policy import Asset
from trustcompute.broker.publish import Publish
from trustcompute.broker.quote import Explanation, Quote
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.register import Register
from trustcompute.broker.request import Request, VerifiedRequest
from trustcompute.broker.rules import Reference, Rules
from trustcompute.broker.standing import Standing
from trustcompute.broker.store import NOTHING, Evidence, Store
from trustcompute.broker.store.sqlite import SqliteStore, SystemClock
from trustcompute.broker.watch import Hook, Watch
from trustcompute.broker.witness import Quorum, Witnessing
from trustcompute.broker.writer import Book, Clock, Writer
from trustcompute.errors import (
    GrantError,
    ParameterError,
    StoreError,
    TrustcomputeError,
    VerificationError,
)
from trustcompute.primitives import checkpoint
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.signing import VerifyKey, token_hash
from trustcompute.protocol.operation import Operation, Params, Sizes, Usage

if TYPE_CHECKING:
    from trustcompute.broker.store.postgres import PostgresStore

__all__ = ["Answer", "Broker", "Explanation", "Quote", "SystemClock", "Work"]

OUTBOX: Final = "outbox"
MAX_CODE: Final = 200  # characters of a reason or a detail


class Broker:
    """See the module. Any number of threads may share one; after a fork, open a new one.

    log_key: what verifies this log's receipts and checkpoints; give it to consumers and auditors.
    """

    def __init__(
        self,
        store: Store,
        directory: Path,
        key: NoteKey,
        clock: Clock,
        *,
        identity: Identity | None,
        trusted: Iterable[VerifyKey],
        hooks: Sequence[Hook] = (),
    ) -> None:
        """For ``open``, which also recovers. key: of the log; identity: ``None`` where the book is only read."""
        self.log_key = key
        self._name, self._key, self._identity, self._store = log.name_of(key), key.key, identity, store
        self._outbox = None if identity is None else Outbox(directory / OUTBOX)
        ledger = Memory(store) if isinstance(store, SqliteStore) and identity is not None else store
        signer = None if identity is None else identity.key
        self._watch = Watch(hooks)
        self._writer = Writer(ledger, key.name, signer, clock, self._watch)
        self.clearing = ClearingHouse(self._writer, self._name, key.key)
        self.certificates = Register(self._writer, key, signer, self.clearing.fold)
        self._keys = Keyring(self._writer, self._name, (key.key, *trusted))
        self._cosigned = Cosigned(directory, self._writer, self._watch)

    @classmethod
    def open(
        cls,
        directory: Path | str,
        identity: Identity | NoteKey,
        *,
        clock: Clock | None = None,
        trusted: Iterable[VerifyKey] = (),
        database: str | None = None,
        hooks: Sequence[Hook] = (),
        read_only: bool = False,
    ) -> Broker:
        """Open the book in a directory, or begin one, and settle what an earlier process left half done.

        identity: of the node, whose key signs grants and the log; trusted: keys of others whose grants
        count too; database: a connection string of PostgreSQL, where the book is kept there and only the
        outbox in the directory. Several processes may then open one book, each with a directory of its own:
        the first settles what is left open, and of one that dies later the leases run out; hooks: told what
        happens in the book (``watch``). Raises ``StoreError``: in use by another process, of another log or
        release, damaged, no space.

        read_only: for operators and regulators, of a copy or while a node runs, with the log's key in place of an
        identity. Everything that only looks works (statements, receipts, quotes, the audit); what would change the
        book, or tell an answer, raises ``StoreError``, and nothing is recovered, swept or written.
        """
        directory = Path(directory)
        if read_only:
            key = identity if isinstance(identity, NoteKey) else identity_key(identity)
            return cls._open_to_read(directory, key, clock, trusted=trusted, database=database)
        if isinstance(identity, NoteKey):
            raise ParameterError("with a log's key a book is read: open it read_only, or with its identity")
        key = identity_key(identity)
        store: SqliteStore | PostgresStore
        if database is None:
            store = SqliteStore.open(directory, origin=key.name, key=identity.thumbprint)
        else:
            store = _postgres().open(database, origin=key.name, key=identity.thumbprint)
        with _closed_where_it_fails(store):
            broker = cls(
                store, directory, key, clock or store.clock, identity=identity, trusted=trusted, hooks=hooks
            )
            broker._begin()
            if store.alone:
                broker.recover()
            store.admit_others()
        return broker

    @classmethod
    def _open_to_read(
        cls,
        directory: Path,
        key: NoteKey,
        clock: Clock | None,
        *,
        trusted: Iterable[VerifyKey],
        database: str | None,
    ) -> Broker:
        store: SqliteStore | PostgresStore
        store = SqliteStore.read_only(directory) if database is None else _postgres().read_only(database)
        with _closed_where_it_fails(store):
            broker = cls(store, directory, key, clock or store.clock, identity=None, trusted=trusted)
            if not _signed_by(broker.checkpoint(), key):
                raise StoreError(
                    f"the newest checkpoint is not signed by {key.name} with the key that was given: "
                    "read the book with the key that its log has now"
                )
            broker._keys.learn()
        return broker

    @property
    def identity(self) -> Identity:
        """Of the node. Raises ``StoreError`` where the book was opened to read."""
        if self._identity is None:
            raise StoreError(log.READ_ONLY)
        return self._identity

    @property
    def outbox(self) -> Outbox:
        """Answers that are kept. Raises ``StoreError`` where the book was opened to read."""
        if self._outbox is None:
            raise StoreError(log.READ_ONLY)
        return self._outbox

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the book. What is open stays as it is and is settled at the next ``open``."""
        self._writer.close()

    # Grants and datasets

    def register(self, asset: Asset) -> None:
        """Describe a dataset, or describe it anew. Its limits hold across all grantees and versions."""
        self._writer.commit_one(granting.Register(asset))

    def budget(self, dataset: str) -> list[Line]:
        """What was taken of a dataset since it is registered: in all, by epoch and by recipient, with the limits."""
        with self._writer.view() as (reader, _):
            return budget.lines(dataset, reader.all_balances())

    def issue(self, claims: Grant) -> str:
        """Sign a grant, log it, return the token. Raises ``ParameterError`` where it names another issuer.

        ``GrantError`` where an agreement with the grantee about the asset is in force, on another plan.
        """
        token = grant.sign(claims, self.identity.key)
        verified = self._keys.signed(token, claims.aud)
        self.clearing.issue(claims, granting.Issue(verified))
        return token

    def revoke(self, grant_hash: str, reason: str) -> None:
        """Revoke a grant, and with it all that were delegated from it, for good; the next transaction sees it.

        grant_hash: ``grant.hash_of`` its token.
        """
        if len(grant_hash) != 64 or not set(grant_hash) <= set("0123456789abcdef"):
            raise ParameterError("a grant is revoked by its hash: 64 hex digits, SHA-256 of the token")
        self._writer.commit_one(granting.Revoke(grant_hash, reason[:MAX_CODE]))

    def order(self, token: str, grant: str) -> VerifiedOrder:
        """Carry out a signed order about a grant (``order``), from the next transaction on.

        grant: the token, or the chain down to the link that the order is about. Raises ``GrantError`` with the field,
        ``Conflict`` where the grant does not stand as the order takes for granted.
        """
        found = orders.verify(
            token,
            grant=self.verify(grant),
            operator=self.identity.thumbprint,
            audience=self.identity.name,
            now=self._writer.now(),
        )
        self._keys.check_order(found)
        self._writer.commit_one(orders.Give(found, (self.identity.thumbprint, *self._keys.past)))
        if found.claims.do == "exit":
            upkeep.end(self._writer, [found.claims.grant])
        return found

    def standing(self, verified: VerifiedGrant) -> Standing:
        """How a grant and all it was delegated from stand now."""
        links = [link.hash for link in verified.chain]
        with self._writer.view() as (reader, _):
            revoked = reader.revocations(links)
            notices = reader.notices([name for link in links for name in topics(link)])
        return standing.of(verified, lambda link: link in revoked, notices.get)

    def publish(self, token: str) -> Rules:
        """Take in a deny-list or a policy, in force from the next transaction; the same again does nothing.

        It must be signed by this identity or by somebody whose grants count, and be newer than the one in force. Raises
        ``GrantError`` with the field.
        """
        found = rules.verify(token, self._keys.trusted, self._name)
        older = tuple(self._keys.past) if found.iss == self.identity.thumbprint else ()
        self._writer.commit_one(Publish(found, token, token_hash(token), older))
        return found

    def credit(self, token: str) -> CreditEvent:
        """Record a signed credit event or its repair (``credit``), in force from the next transaction.

        Raises ``GrantError`` with the field, ``Conflict`` for a repair of what is not open.
        """
        found = credit.verify(
            token, operator=self.identity.key.public, audience=self.identity.name, now=self._writer.now()
        )
        self._writer.commit_one(credit.Enter(found, token, token_hash(token)))
        return found

    def credits(self) -> list[Credit]:
        """Every party with open credit events, by thumbprint."""
        with self._writer.view() as (reader, _):
            return [credit.credit_of(notice) for notice in reader.notices_in(credit.LOWERED)]

    def rules(self) -> list[tuple[Reference, Rules]]:
        """The deny-lists and policies in force, by kind and issuer."""
        with self._writer.view() as (reader, tree):
            book = Book(reader, NOTHING, self._writer.now(), tree.size)
            return list(zip(book.rules.references, book.rules.documents, strict=True))

    def verify(self, token: str) -> VerifiedGrant:
        """Check the form, audience, issuers, signatures and attenuation of a grant or of a chain of delegated ones.

        Raises ``GrantError`` with the field.

        Dates and revocation are not part of it: they are looked at in every transaction.
        """
        return self._keys.verify(token)

    def verify_request(self, token: str, *, peer: str, grant: str) -> VerifiedRequest:
        """Check a request and the grant it was made under; what fails is counted per peer and hour.

        peer: the name that TLS proved; grant: the grant's token. Raises ``GrantError`` with the field.
        """
        try:
            verified = self.verify(grant)
            return request.verify(
                token, grant=verified, audience=self._name, peer=peer, now=self._writer.now()
            )
        except GrantError:
            if self._identity is not None:
                self.count_failure(peer)
            raise

    def verify_requests(
        self, asked: Sequence[Asked], executor: Executor | None = None
    ) -> Iterator[VerifiedRequest | GrantError]:
        """As ``verify_request``, for many, each with its error in its place; lazily, in order.

        executor: processes to verify in. A signature costs as much as all the rest of a job in a group.
        """
        found = batch.verify(asked, self.verify, self._name, self._writer.now(), executor)
        for each, result in zip(asked, found, strict=True):
            if isinstance(result, GrantError) and self._identity is not None:
                self.count_failure(each.peer)
            yield result

    def chain_of(self, grant_hash: str) -> str:
        """The token of a grant that the book knows, behind those of all it was delegated from."""
        links: list[str] = []
        wanted: str | None = grant_hash
        with self._writer.view() as (reader, _):
            while wanted is not None:
                row = reader.grants([wanted]).get(wanted)
                if row is None:
                    raise ParameterError("the book knows no grant of this hash")
                links.append(row.token)
                wanted = grant.read(row.token).parent
        return grant.SEPARATOR.join(reversed(links))

    def known_grant(self, grant_hash: str) -> Grant | None:
        """The claims of a grant that the log has an entry of, ``None`` where it has none."""
        with self._writer.view() as (reader, _):
            row = reader.grants([grant_hash]).get(grant_hash)
        return None if row is None else grant.read(row.token)

    def count_failure(self, peer: str) -> None:
        """Count one attempt by a peer that did not get as far as a verified request."""
        with self._store.transaction() as transaction:
            transaction.count_failure(peer[:255], self._writer.now() // 3600)

    def failures(self) -> dict[tuple[str, int], int]:
        """Failed attempts by (peer, hour since 1970)."""
        with self._writer.view() as (reader, _):
            return reader.failures()

    # Deciding

    def explain(self, verified: VerifiedGrant, asked: Request, operation: Operation) -> Explanation:
        """What ``reserve`` would decide now on a request, which need not be signed; spends and records nothing.

        From documents, the dataset's description and the meter alone, never from data. Raises ``ParameterError`` for
        parameters the operation does not take.
        """
        return quote.explain(self._writer, verified, asked, operation)

    def admit(self, verified: VerifiedGrant) -> None:
        """Before anything is looked up for the holder of a grant. Raises ``Refused`` unless it is in force."""
        found = policy.in_force(verified.claims, self.standing(verified), self._writer.now())
        reasons = tuple(policy.Reason(rule, name, verified.claims.iss, fix) for rule, name, fix in found)
        if reasons:
            raise policy.refusal(reasons)

    def quote(self, verified: VerifiedGrant, operation: Operation, params: Params, sizes: Sizes) -> Quote:
        """What a job with these parameters and sizes may use and cost, and what is left of the grant.

        Raises ``ParameterError`` for parameters the operation does not take.
        """
        return quote.quote(self._writer, verified, operation, params, sizes)

    def reserve(self, verified: VerifiedRequest, operation: Operation) -> JobRecord:
        """Decide, and reserve the most the job may use, in one transaction.

        The same request again gives the same record (in whatever state the job is by now). Raises
        ``Refused`` (logged with its reasons), ``Conflict`` where the job id was used for another request,
        ``ParameterError`` for parameters the operation does not take.
        """
        record: JobRecord = self._writer.commit_one(commands.Reserve(verified, operation))
        return record

    # The life of a job

    def arm(self, job: str) -> JobRecord:
        """Call before data are touched or a message leaves. Raises ``Refused`` if revoked or late."""
        record: JobRecord = self._writer.commit_one(commands.Arm(job))
        return record

    def post(
        self, job: str, *, release: Release, usage: Usage, answer: Sequence[Frame] | None = None
    ) -> JobRecord:
        """Charge a job and record what is about to be released; send it only after this returns.

        answer: the frames, kept until they are acknowledged or too old; where left out, they must lie in the outbox
        already. usage: of the whole job, at most what was reserved,
        charged with the first release; further releases of the job (other runs or turns) are recorded
        without a charge. The same release again changes nothing. Raises ``Refused`` where the grant was
        revoked meanwhile (the job is then forfeited), ``Conflict`` for other bytes of the same turn or a
        job that has ended, ``JobForfeited``, ``LocalProtocolError`` for more usage than reserved.
        """
        small = None if answer is None else packed(answer)
        if answer is not None and small is None:
            self.outbox.write(job, release.run, release.turn, answer)
        record: JobRecord = self._writer.commit_one(commands.Post(job, release, usage, small))
        return record

    def answer(self, job: str, run: int, turn: int) -> list[list[bytes]]:
        """A kept answer: for each frame its parts. Raises ``StoreError`` where it is gone or damaged."""
        with self._writer.view() as (reader, _):
            small = reader.answer(job, run, turn)
        return self.outbox.read(job, run, turn) if small is None else parse(memoryview(small))

    def run_many(
        self, work: Iterable[Work], answer: Callable[[JobRecord], Answer]
    ) -> list[Receipt | TrustcomputeError]:
        """Many whole jobs in groups of 256: reserve all, arm all, answer each, charge all; a receipt for each.

        work: may be made lazily from ``verify_requests``, whose executor then works while groups are committed.
        answer: called once for each job that was armed, in order, before the group is charged; the frames it
        names must lie in the outbox when it returns, and be sent only after this method has. A job whose
        answer raises ``TrustcomputeError`` is forfeited; so is the rest of the group where anything else is
        raised, which goes on to the caller. What went wrong with a job stands in its place of the result; a
        job that was charged before gives its receipt. Raises ``StoreError`` where nothing could be written.
        """
        return many.run(self._writer, work, answer)

    def abandon(self, job: str, reason: str, fault: Fault) -> JobRecord:
        """End a job that stopped, whatever its state: void, forfeit, or nothing where it has ended."""
        record: JobRecord = self._writer.commit_one(commands.Abandon(job, reason[:MAX_CODE], Fault(fault)))
        return record

    def sweep(self) -> list[JobRecord]:
        """End jobs whose lease has run out, and grants given up under which none is open; forget answers that were
        countersigned or are over seven days old."""
        return upkeep.sweep(self._writer, self.outbox)

    def recover(self) -> list[JobRecord]:
        """Settle what an earlier process left: reserved is voided, armed forfeited, posted stays.

        ``open`` does this. Nothing else may be running jobs of this book.
        """
        return upkeep.recover(self._writer, self.outbox)

    def now(self) -> int:
        """The time by which leases run out, in seconds since 1970."""
        return self._writer.now()

    def job(self, job: str) -> JobRecord | None:
        """What the book says of a job, ``None`` if nothing."""
        return self._writer.job(job)

    def countersign(self, token: str) -> Receipt:
        """Record the consumer's acknowledgement of a job's answers; returns the job's receipt.

        Raises ``GrantError`` with the field where it is not the consumer's or not for what was released,
        ``Conflict`` where the job has no answer. A second one changes nothing.
        """
        claims, unverified = request.read_countersignature(token)
        record: JobRecord = self._writer.commit_one(commands.Countersign(claims, unverified, token))
        self.outbox.remove(file_name(record.id, each.run, each.turn) for each in record.releases)
        return self.receipt(record.id)

    def evidence(self, job: str) -> list[Evidence]:
        """The signed tokens behind entries: of a job its request and, if any, its countersignature; of an order or of
        rules, which their entries name by hash, the document (``job`` is then that hash)."""
        with self._writer.view() as (reader, _):
            return reader.evidence(job)

    def receipt(self, job: str, quorum: Quorum | None = None) -> Receipt:
        """The entry that ended a job, and its proof under the newest checkpoint. Derived, not stored.

        quorum: the proof is under the newest checkpoint that this many witnesses cosigned (``cosign``). Raises
        ``VerificationError`` where none of these covers the entry yet.
        """
        if quorum is None:
            return receipt.of(self._writer, job)
        note = self._cosigned.read()
        return receipt.under(self._writer, job, note, quorum.verify(note, self.log_key))

    def cosign(self, witnesses: Sequence[Witnessing], quorum: Quorum) -> str:
        """Ask witnesses to cosign the newest checkpoint; returns it with all their signatures, and keeps it.

        Whom it cannot reach, or who refuses, is left out; that one has seen another log is told to the hooks.
        Raises ``VerificationError`` where the rest are fewer than the quorum: nothing is kept then.
        """
        if self._identity is None:
            raise StoreError(log.READ_ONLY)
        return self._cosigned.ask(witnesses, quorum, self.log_key)

    def incident(self, kind: str, peer: str, *, job: str | None = None, detail: str = "") -> int:
        """Log what an operator should know of; returns its index. kind, detail: codes, no payloads."""
        index: int = self._writer.commit_one(commands.Incident(kind[:MAX_CODE], peer, job, detail[:MAX_CODE]))
        return index

    def openings(self, index: int) -> list[Opening]:
        """What opens the commitments of an entry, to show somebody one of them; none where it was redacted."""
        with self._writer.view() as (reader, _):
            return reader.openings(index)

    def redact(self, index: int) -> None:
        """Destroy the salts and values behind an entry's commitments, for good; that it was done is logged.

        The entry, its proofs and receipts stay as they are. Copies in back-ups, and in the tokens kept as
        evidence, are not touched. Raises ``ParameterError`` for an entry there is not.
        """
        self._writer.commit_one(commands.Redact(index))
        self._store.scrub()

    # Clearing and audit

    def statement(self, start: int, end: int) -> Statement:
        """What is owed for start <= time < end, from the log alone; of an open period, so far."""
        return self.clearing.statement(start, end)

    def close_period(self, start: int, end: int) -> Statement:
        """Close a period: round, record lines and residuals. The same period again returns its statement.

        Raises ``ParameterError`` for one that overlaps a closed one, ends in the future, or skips uses.
        """
        return self.clearing.close(start, end)

    def entries(self) -> list[Entry]:
        """The whole log, parsed."""
        with self._writer.view() as (reader, _):
            return [log.decode(stored.index, stored.body) for stored in reader.entries()]

    def page(self, start: int, most: int, size: int) -> tuple[str, list[bytes]]:
        """The newest checkpoint, and entries from ``start`` on: at most ``most``, and one beyond ``size`` bytes."""
        with self._writer.view() as (reader, tree):
            bodies: list[bytes] = []
            held = 0
            for index in range(start, min(tree.size, start + most)):
                bodies.append(reader.entry(index))
                held += len(bodies[-1])
                if held > size:
                    break
            return reader.last_checkpoint() or "", bodies

    def checkpoint(self) -> str:
        """The newest signed checkpoint."""
        with self._writer.view() as (reader, _):
            return reader.last_checkpoint() or ""

    def consistency_proof(self, old: int, new: int) -> list[bytes]:
        """That the log of ``new`` entries begins with the log of ``old`` (RFC 6962 §2.1.2)."""
        with self._writer.view() as (_, tree):
            return tree.consistency_proof(old, new)

    def audit(self) -> AuditReport:
        """Recompute everything from the entries and compare it with the book. Raises ``AuditError``."""
        with self._writer.view() as (reader, _):
            return auditing.audit_book(reader, self.log_key)

    def audit_evidence(self) -> EvidenceReport:
        """Check every signed token behind the log: grants, requests, countersignatures. Raises ``AuditError``."""
        with self._writer.view() as (reader, _):
            return evidence.check(
                reader, self.log_key, (*self._keys.trusted.values(), *self._keys.past.values())
            )

    def backup(self, directory: Path) -> None:
        """Copy the book and the outbox into a new directory while jobs run: ``open`` it to restore it.

        The copy is the book of one moment, and every answer that is charged in it lies in its outbox. Raises
        ``StoreError`` for a directory that is not empty, no space, or a book in PostgreSQL, which is backed up
        with its server's tools.
        """
        backup.write(self._store, self.outbox, directory)

    def export(self, directory: Path) -> None:
        """Write the log as tiles, or what an earlier export lacks: ``audit(directory, key)`` needs nothing else."""
        with self._writer.view() as (reader, tree):
            tiles.write(directory, reader.entries(), tree.tree, reader.last_checkpoint() or "")

    def _begin(self) -> None:
        self._writer.commit_one(commands.OpenLog(log.origin_of(self.identity.name), self.identity.thumbprint))
        self._keys.learn()
        if self._keys.past and not _signed_by(self.checkpoint(), self.log_key):
            self._writer.commit_one(rotation.Confirm(self.identity.key.public))

    @classmethod
    def rotate(
        cls,
        directory: Path | str,
        old: Identity,
        new: Identity,
        *,
        compromised: bool = False,
        clock: Clock | None = None,
        database: str | None = None,
    ) -> None:
        """Hand a book over to a new key; open it with the new identity from then on (``rotation``).

        The node must be stopped, and of a book in PostgreSQL every process. compromised: whether the old key may be in
        other hands; grants that it signs from now on are refused. Raises ``ParameterError`` for identities of different
        names, ``Conflict`` for a key that the log had before.
        """
        if old.name != new.name:
            raise ParameterError(f"a log keeps its name: the new identity is for {new.name}, not {old.name}")
        with cls.open(directory, old, clock=clock, database=database) as broker:
            origin = log.origin_of(old.name)
            broker._writer.commit_one(
                rotation.Rotate(origin, old.key.public, new.key, compromised, tuple(broker._keys.past))
            )
        with cls.open(directory, new, clock=clock, database=database):
            pass  # which lets the new key confirm


def identity_key(identity: Identity) -> NoteKey:
    """The key of the log that this identity's node keeps."""
    return log.log_key(identity.name, identity.key.public)


def _postgres() -> type[PostgresStore]:
    from trustcompute.broker.store.postgres import PostgresStore  # noqa: PLC0415 - an extra

    return PostgresStore


@contextlib.contextmanager
def _closed_where_it_fails(store: Store) -> Iterator[None]:
    try:
        yield
    except BaseException:
        store.close()
        raise


def _signed_by(note: str, key: NoteKey) -> bool:
    try:
        checkpoint.verify(note, key)
    except VerificationError:
        return False
    return True
