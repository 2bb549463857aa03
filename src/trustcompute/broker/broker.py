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

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self

from trustcompute.broker import audit as auditing
from trustcompute.broker import (
    backup,
    batch,
    budget,
    clearing,
    commands,
    credit,
    delegation,
    evidence,
    grant,
    log,
    meter,
    policy,
    request,
    rotation,
    rules,
    standing,
    tiles,
)
from trustcompute.broker import order as orders
from trustcompute.broker.audit import AuditReport
from trustcompute.broker.batch import Asked
from trustcompute.broker.budget import Line
from trustcompute.broker.clearing import Statement
from trustcompute.broker.clearing.house import ClearingHouse
from trustcompute.broker.credit import Credit
from trustcompute.broker.credit import Event as CreditEvent
from trustcompute.broker.evidence import EvidenceReport
from trustcompute.broker.grant import Grant, VerifiedGrant
from trustcompute.broker.job import Fault, JobRecord, JobState, Release
from trustcompute.broker.log import Entry, Opening
from trustcompute.broker.memory import Memory
from trustcompute.broker.notice import topics
from trustcompute.broker.order import VerifiedOrder
from trustcompute.broker.outbox import Outbox, keep
from trustcompute.broker.policy import Asset, Decision
from trustcompute.broker.publish import Publish
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.register import Register
from trustcompute.broker.request import Request, VerifiedRequest
from trustcompute.broker.rules import Reference, Rules
from trustcompute.broker.standing import Standing
from trustcompute.broker.store import Evidence, Reader, Store
from trustcompute.broker.store.sqlite import SqliteStore
from trustcompute.broker.watch import Hook, SplitView, Watch
from trustcompute.broker.witness import Contradicted, Quorum, Witnessing, ask
from trustcompute.broker.writer import MAX_GROUP, Book, Clock, Command, Writer
from trustcompute.errors import (
    GrantError,
    JobForfeited,
    LocalProtocolError,
    ParameterError,
    StoreError,
    TransportError,
    TrustcomputeError,
    VerificationError,
)
from trustcompute.primitives import checkpoint
from trustcompute.primitives.checkpoint import CosignerKey, NoteKey
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.signing import VerifyKey, token_hash
from trustcompute.protocol.operation import Operation, Params, Sizes, Usage

OUTBOX: Final = "outbox"
COSIGNED_FILE: Final = "cosigned"
CACHED_GRANTS: Final = 1024
MAX_CODE: Final = 200  # characters of a reason or a detail


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        return int(time.time())


@dataclass(frozen=True, slots=True)
class Quote:
    """What a job may cost. usage: the most it may use; price: of that, exact, in minor units of the currency.

    left: what is left of the grant's limits now, by unit and span (``total``, ``per_call``, ``per_day``).
    """

    usage: Usage
    price: Fraction
    currency: str | None
    left: Mapping[str, Mapping[str, int]]

    def to_document(self) -> dict[str, Any]:
        left = {
            unit: {span: str(amount) for span, amount in spans.items()} for unit, spans in self.left.items()
        }
        usage = meter.usage_document(self.usage)
        return {"usage": usage, "price": str(self.price), "currency": self.currency, "left": left}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided, rule by rule, and what it would cost: ``Broker.explain``."""

    decision: Decision
    quote: Quote

    @property
    def allowed(self) -> bool:
        return self.decision.allowed

    @property
    def reasons(self) -> tuple[policy.Reason, ...]:
        return self.decision.reasons

    def to_document(self) -> dict[str, Any]:
        verdicts = [
            {
                "rule": verdict.rule,
                "allowed": verdict.allowed,
                "kept": verdict.kept,
                "reasons": [reason.to_document() for reason in verdict.reasons],
            }
            for verdict in self.decision.verdicts
        ]
        return {
            "allowed": self.allowed,
            "verdicts": verdicts,
            "versions": dict(self.decision.versions),
            "quote": self.quote.to_document(),
        }


@dataclass(frozen=True, slots=True)
class Work:
    """One job for ``run_many``. request: verified, or why it is not, which is then the job's outcome."""

    request: VerifiedRequest | GrantError
    operation: Operation


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job releases, and what it used of all it reserved."""

    release: Release
    usage: Usage


class Broker:
    """See the module. Any number of threads may share one; after a fork, open a new one."""

    def __init__(
        self,
        store: Store,
        outbox: Outbox,
        identity: Identity,
        clock: Clock,
        *,
        trusted: Iterable[VerifyKey],
        hooks: Sequence[Hook] = (),
    ) -> None:
        """For ``open``, which also recovers."""
        self.identity = identity
        self.outbox = outbox
        self._store = store
        self._directory = outbox.directory.parent
        self._sizes: dict[CosignerKey, int] = {}  # of the log, when each witness last cosigned it
        origin = log.origin_of(identity.name)
        ledger = Memory(store) if isinstance(store, SqliteStore) else store
        self._watch = Watch(hooks)
        self._writer = Writer(ledger, origin, identity.key, clock, self._watch)
        self.clearing = ClearingHouse(self._writer, identity.name, identity.key.public)
        self.certificates = Register(self._writer, identity, self.clearing.fold)
        keys = (identity.key.public, *trusted)
        self._trusted = {key.thumbprint: key for key in keys}
        self._past: dict[str, VerifyKey] = {}  # keys that this log had before
        self._stolen: frozenset[str] = frozenset()  # of these, by thumbprint
        self._verified: OrderedDict[str, VerifiedGrant] = OrderedDict()
        self._cache_mutex = Lock()

    @classmethod
    def open(
        cls,
        directory: Path | str,
        identity: Identity,
        *,
        clock: Clock | None = None,
        trusted: Iterable[VerifyKey] = (),
        database: str | None = None,
        hooks: Sequence[Hook] = (),
    ) -> Broker:
        """Open the book in a directory, or begin one, and settle what an earlier process left half done.

        identity: of the node, whose key signs grants and the log; trusted: keys of others whose grants
        count too; database: a connection string of PostgreSQL, where the book is kept there and only the
        outbox in the directory. Several processes may then open one book, each with a directory of its own:
        the first settles what is left open, and of one that dies later the leases run out; hooks: told what
        happens in the book (``watch``). Raises ``StoreError``: in use by another process, of another log or
        release, damaged, no space.
        """
        directory = Path(directory)
        origin = log.origin_of(identity.name)
        if database is not None:
            return cls._open_postgres(directory, database, identity, clock, trusted=trusted, hooks=hooks)
        store = SqliteStore.open(directory, origin=origin, key=identity.thumbprint)
        try:
            broker = cls(
                store,
                Outbox(directory / OUTBOX),
                identity,
                clock or SystemClock(),
                trusted=trusted,
                hooks=hooks,
            )
            broker._begin()
            broker.recover()
        except BaseException:
            store.close()
            raise
        return broker

    @classmethod
    def _open_postgres(
        cls,
        directory: Path,
        database: str,
        identity: Identity,
        clock: Clock | None,
        *,
        trusted: Iterable[VerifyKey],
        hooks: Sequence[Hook],
    ) -> Broker:
        from trustcompute.broker.store.postgres import PostgresStore  # noqa: PLC0415 - an extra

        store = PostgresStore.open(database, origin=log.origin_of(identity.name), key=identity.thumbprint)
        try:
            broker = cls(
                store,
                Outbox(directory / OUTBOX),
                identity,
                clock or store.clock,
                trusted=trusted,
                hooks=hooks,
            )
            broker._begin()
            if store.alone:
                broker.recover()
            store.admit_others()
        except BaseException:
            store.close()
            raise
        return broker

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the book. What is open stays as it is and is settled at the next ``open``."""
        self._writer.close()

    @property
    def log_key(self) -> NoteKey:
        """What verifies this log's receipts and checkpoints; give it to consumers and auditors."""
        return log.log_key(self.identity.name, self.identity.key.public)

    # Grants and datasets

    def register(self, asset: Asset) -> None:
        """Describe a dataset, or describe it anew. Its limits hold across all grantees and versions."""
        self._writer.commit_one(commands.Register(asset))

    def budget(self, dataset: str) -> list[Line]:
        """What was taken of a dataset since it is registered: in all, by epoch and by recipient, with the limits."""
        with self._writer.view() as (reader, _):
            return budget.lines(dataset, reader.all_balances())

    def issue(self, claims: Grant) -> str:
        """Sign a grant, log it, return the token. Raises ``ParameterError`` where it names another issuer.

        ``GrantError`` where an agreement with the grantee about the asset is in force, on another plan.
        """
        token = grant.sign(claims, self.identity.key)
        verified = delegation.verify(token, self._trusted, claims.aud)
        self.clearing.issue(claims, commands.Issue(verified))
        return token

    def revoke(self, grant_hash: str, reason: str) -> None:
        """Revoke a grant, and with it all that were delegated from it, for good; the next transaction sees it.

        grant_hash: ``grant.hash_of`` its token.
        """
        if len(grant_hash) != 64 or not set(grant_hash) <= set("0123456789abcdef"):
            raise ParameterError("a grant is revoked by its hash: 64 hex digits, SHA-256 of the token")
        self._writer.commit_one(commands.Revoke(grant_hash, reason[:MAX_CODE]))

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
        if found.claims.iss in self._stolen:
            raise GrantError("the order is signed with a key that was compromised", "iss")
        self._writer.commit_one(orders.Give(found, (self.identity.thumbprint, *self._past)))
        if found.claims.do == "exit":
            self._end([found.claims.grant])
        return found

    def _end(self, ending: Sequence[str]) -> None:
        """End the grants among these, all given up, under which no job is open."""
        if not ending:
            return
        with self._writer.view() as (reader, _):
            busy: set[str] = set().union(*(meter.grants_of(job.accounts) for job in reader.open_jobs()))
        self._writer.commit_all([orders.End(grant) for grant in ending if grant not in busy])

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
        found = rules.verify(token, self._trusted, self.identity.name)
        older = tuple(self._past) if found.iss == self.identity.thumbprint else ()
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
            book = Book(reader, [], self._writer.now(), tree.size)
            return list(zip(book.rules.references, book.rules.documents, strict=True))

    def verify(self, token: str) -> VerifiedGrant:
        """Check the form, audience, issuers, signatures and attenuation of a grant or of a chain of delegated ones.

        Raises ``GrantError`` with the field.

        Dates and revocation are not part of it: they are looked at in every transaction.
        """
        hash_ = token_hash(token) if token.isascii() else ""  # of all its links
        with self._cache_mutex:
            known = self._verified.get(hash_)
            if known is not None:
                self._verified.move_to_end(hash_)
                return known
        verified = delegation.verify(token, self._trusted | self._past, self.identity.name)
        self._check_issuer(verified)
        with self._cache_mutex:
            self._verified[hash_] = verified
            while len(self._verified) > CACHED_GRANTS:
                self._verified.popitem(last=False)
        return verified

    def verify_request(self, token: str, *, peer: str, grant: str) -> VerifiedRequest:
        """Check a request and the grant it was made under; what fails is counted per peer and hour.

        peer: the name that TLS proved; grant: the grant's token. Raises ``GrantError`` with the field.
        """
        try:
            verified = self.verify(grant)
            return request.verify(
                token, grant=verified, audience=self.identity.name, peer=peer, now=self._writer.now()
            )
        except GrantError:
            self.count_failure(peer)
            raise

    def verify_requests(
        self, asked: Sequence[Asked], executor: Executor | None = None
    ) -> Iterator[VerifiedRequest | GrantError]:
        """As ``verify_request``, for many, each with its error in its place; lazily, in order.

        executor: processes to verify in. A signature costs as much as all the rest of a job in a group.
        """
        found = batch.verify(asked, self.verify, self.identity.name, self._writer.now(), executor)
        for each, result in zip(asked, found, strict=True):
            if isinstance(result, GrantError):
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
        with self._writer.view() as (reader, tree):
            book = Book(reader, [commands.touched(verified, asked)], self._writer.now(), tree.size)
            decision, usage, accounts = commands.decide(book, verified, asked, operation)
            left = meter.left(
                commands.lowered(
                    book.notice, verified, [account for account in accounts if not account.shared]
                ),
                book.day,
                book.balances,
            )
        price = verified.claims.price
        return Explanation(decision, Quote(usage, clearing.most(price, usage), price.currency, left))

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
        usage = operation.bound(operation.check(params, sizes), sizes)
        claims = verified.claims
        accounts = [commands.grant_account(link) for link in verified.chain]
        with self._writer.view() as (reader, _):
            day = meter.day_of(self._writer.now())
            balances = reader.balances([account.name for account in accounts], [meter.TOTAL, day])
            parties = {link.claims.cnf.jkt for link in verified.chain}
            notices = reader.notices([credit.name_of(party) for party in parties])
        left = meter.left(commands.lowered(notices.get, verified, accounts), day, balances)
        return Quote(usage, clearing.most(claims.price, usage), claims.price.currency, left)

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

    def post(self, job: str, *, release: Release, usage: Usage) -> JobRecord:
        """Charge a job and record what is about to be released; send it only after this returns.

        The frames must lie in the outbox already. usage: of the whole job, at most what was reserved,
        charged with the first release; further releases of the job (other runs or turns) are recorded
        without a charge. The same release again changes nothing. Raises ``Refused`` where the grant was
        revoked meanwhile (the job is then forfeited), ``Conflict`` for other bytes of the same turn or a
        job that has ended, ``JobForfeited``, ``LocalProtocolError`` for more usage than reserved.
        """
        record: JobRecord = self._writer.commit_one(commands.Post(job, release, usage))
        return record

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
        done: list[Receipt | TrustcomputeError] = []
        waiting = iter(work)
        while group := list(itertools.islice(waiting, MAX_GROUP)):
            done += self._run_group(group, answer)
        return done

    def _run_group(
        self, work: Sequence[Work], answer: Callable[[JobRecord], Answer]
    ) -> list[Receipt | TrustcomputeError]:
        found: list[Any] = [each.request for each in work]
        asked = {
            place: commands.Reserve(each.request, each.operation)
            for place, each in enumerate(work)
            if not isinstance(each.request, TrustcomputeError)
        }
        self._step(found, asked)
        self._step(found, {n: commands.Arm(each.id) for n, each in _open(found).items()})
        charges: dict[int, Command] = {}
        try:
            for place, job in _open(found).items():
                charges[place] = _charge(job, answer)
        except BaseException:
            self._step(
                found,
                {n: commands.Abandon(each.id, "failed", Fault.PROVIDER) for n, each in _open(found).items()},
            )
            raise
        self._step(found, charges)
        with self._writer.view() as (reader, tree):
            note = reader.last_checkpoint() or ""
            return [_outcome(reader, tree, note, each) for each in found]

    def _step(self, found: list[Any], group: Mapping[int, Command]) -> None:
        """Commit a group, and put each outcome in its place."""
        outcomes = self._writer.commit(list(group.values())) if group else []
        for place, outcome in zip(group, outcomes, strict=True):
            found[place] = outcome

    def abandon(self, job: str, reason: str, fault: Fault) -> JobRecord:
        """End a job that stopped, whatever its state: void, forfeit, or nothing where it has ended."""
        record: JobRecord = self._writer.commit_one(commands.Abandon(job, reason[:MAX_CODE], Fault(fault)))
        return record

    def sweep(self) -> list[JobRecord]:
        """End jobs whose lease has run out, and grants given up under which none is open; forget answers that were
        countersigned or are over seven days old."""
        now = self._writer.now()
        with self._writer.view() as (reader, _):
            late, ending = reader.late(now), reader.notices_in(standing.ENDING)
        ended = self._writer.commit_all([commands.Expire(job) for job in late])
        self._end([each.name.partition("/")[2] for each in ending])
        self._prune()
        return ended

    def recover(self) -> list[JobRecord]:
        """Settle what an earlier process left: reserved is voided, armed forfeited, posted stays.

        ``open`` does this. Nothing else may be running jobs of this book.
        """
        with self._writer.view() as (reader, _):
            left = reader.open_jobs()
        ended = self._writer.commit_all([commands.Abandon(job.id, "restart", Fault.PROVIDER) for job in left])
        self._prune()
        return ended

    def now(self) -> int:
        """The time by which leases run out, in seconds since 1970."""
        return self._writer.now()

    def job(self, job: str) -> JobRecord | None:
        """What the book says of a job, ``None`` if nothing."""
        with self._writer.view() as (reader, _):
            return reader.jobs([job]).get(job)

    def countersign(self, token: str) -> Receipt:
        """Record the consumer's acknowledgement of a job's answers; returns the job's receipt.

        Raises ``GrantError`` with the field where it is not the consumer's or not for what was released,
        ``Conflict`` where the job has no answer. A second one changes nothing.
        """
        claims, unverified = request.read_countersignature(token)
        record: JobRecord = self._writer.commit_one(commands.Countersign(claims, unverified, token))
        self.outbox.discard(record.id)
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
        ended = self._writer.ended(job) if quorum is None else None
        if ended is not None:
            return Receipt(ended.entry.body, ended.entry.index, tuple(ended.proof), ended.note)
        with self._writer.view() as (reader, tree):
            record = reader.jobs([job]).get(job)
            if record is None or record.entry is None:
                raise LocalProtocolError(f"job {job} has no entry in the log")
            if quorum is None:
                return _receipt(reader, tree, record.entry)
            signed = quorum.verify(self._cosigned(), self.log_key)
            if record.entry >= signed.size:
                raise VerificationError(
                    f"entry {record.entry} is under no cosigned checkpoint yet: cosign again"
                )
            proof = tree.inclusion_proof(record.entry, signed.size)
            return Receipt(reader.entry(record.entry), record.entry, tuple(proof), self._cosigned())

    def cosign(self, witnesses: Sequence[Witnessing], quorum: Quorum) -> str:
        """Ask witnesses to cosign the newest checkpoint; returns it with all their signatures, and keeps it.

        Whom it cannot reach, or who refuses, is left out; that one has seen another log is told to the hooks.
        Raises ``VerificationError`` where the rest are fewer than the quorum: nothing is kept then.
        """
        note = self.checkpoint()
        size = checkpoint.parse_unverified(note).size
        cosigned = note
        for witness in witnesses:
            try:
                line = ask(witness, note, lambda old: self.consistency_proof(old, size), self._seen(witness))
                cosigned = checkpoint.add_signature(cosigned, line)
                self._sizes[witness.cosigner] = size
            except Contradicted as error:
                if (
                    not size < error.size <= self._writer.size
                ):  # else it has cosigned a newer one of ours meanwhile
                    self._watch.tell(SplitView(self._writer.now(), witness.cosigner.name, size))
            except (VerificationError, TransportError):
                continue
        quorum.verify(cosigned, self.log_key)
        keep(self._directory / COSIGNED_FILE, cosigned.encode())
        return cosigned

    def _seen(self, witness: Witnessing) -> int:
        return self._sizes.get(witness.cosigner, 0)

    def _cosigned(self) -> str:
        try:
            return (self._directory / COSIGNED_FILE).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise VerificationError("no checkpoint was cosigned yet: call cosign") from error
        except OSError as error:
            raise StoreError(f"the cosigned checkpoint cannot be read: {error.strerror}") from error

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
            return list(_entries(reader))

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
            return evidence.check(reader, self.log_key, (*self._trusted.values(), *self._past.values()))

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
        with self._writer.view() as (reader, _):
            retired, stolen = (reader.notices_in(each) for each in (rotation.RETIRED, rotation.COMPROMISED))
            signed = reader.last_checkpoint() or ""
        keys = [VerifyKey.from_x(each.token) for each in (*retired, *stolen)]
        self._past = {key.thumbprint: key for key in keys}
        self._stolen = frozenset(VerifyKey.from_x(each.token).thumbprint for each in stolen)
        if self._past and not _signed_by(signed, self.log_key):
            self._writer.commit_one(rotation.Confirm(self.identity.key.public))

    def _check_issuer(self, verified: VerifiedGrant) -> None:
        """Of a stolen key only those grants count that the log had an entry of when it was rotated."""
        root = verified.chain[-1]
        if root.claims.iss in self._stolen:
            with self._writer.view() as (reader, _):
                row = reader.grants([root.hash]).get(root.hash)
                notice = reader.notices([rotation.name_of(root.claims.iss)])
            if row is None or any(
                row.entry > each.entry for each in notice.values() if each.state == rotation.COMPROMISED
            ):
                raise GrantError("the issuer's key was compromised: ask for a grant under its new key", "iss")

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
                rotation.Rotate(origin, old.key.public, new.key, compromised, tuple(broker._past))
            )
        with cls.open(directory, new, clock=clock, database=database):
            pass  # which lets the new key confirm

    def _prune(self) -> None:
        """Keep in the outbox what is charged, not countersigned and not too old, and open jobs' files.

        A charged job may have runs left, whose answers are written before the book says so.
        """
        names = self.outbox.names()  # before the book is looked at: a job is in it before its first file is
        now = self._writer.now()
        with self._writer.view() as (reader, _):
            kept = {job.id for job in (*reader.open_jobs(), *reader.unacknowledged(now))}
        self.outbox.remove({name for name in names if name[:32] not in kept})


def _signed_by(note: str, key: NoteKey) -> bool:
    try:
        checkpoint.verify(note, key)
    except VerificationError:
        return False
    return True


def _entries(reader: Reader) -> Iterator[Entry]:
    return (log.decode(stored.index, stored.body) for stored in reader.entries())


def _open(found: Sequence[Any]) -> dict[int, JobRecord]:
    return {n: each for n, each in enumerate(found) if isinstance(each, JobRecord) and each.open}


def _charge(job: JobRecord, answer: Callable[[JobRecord], Answer]) -> Command:
    try:
        made = answer(job)
    except TrustcomputeError as error:
        return commands.Abandon(job.id, error.code, Fault.PROVIDER)
    return commands.Post(job.id, made.release, made.usage)


def _outcome(reader: Reader, tree: log.Log, note: str, found: Any) -> Receipt | TrustcomputeError:
    """What ``run_many`` says of a job."""
    if isinstance(found, TrustcomputeError):
        return found
    if found.state is not JobState.POSTED:
        return JobForfeited(f"job {found.id} is {found.state} ({found.detail}): start a new one", found.id)
    body = reader.entry(found.entry)
    return Receipt(body, found.entry, tuple(tree.inclusion_proof(found.entry, tree.size)), note)


def _receipt(reader: Reader, tree: log.Log, index: int) -> Receipt:
    note = reader.last_checkpoint()
    assert note is not None, "an entry lies under a checkpoint"
    return Receipt(reader.entry(index), index, tuple(tree.inclusion_proof(index, tree.size)), note)
