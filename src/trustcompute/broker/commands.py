"""What the book is told of jobs: each command decides and changes the working copy of one transaction.

The broker's methods make them, ``writer`` runs them. A job's states and who may change them are in ``job``, what a
decision rests on in ``deciding``, what is told of grants and datasets in ``granting``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from trustcompute.broker import deciding, meter, policy, rules
from trustcompute.broker.granting import enter
from trustcompute.broker.job import Fault, JobRecord, JobState, Release
from trustcompute.broker.meter import Account
from trustcompute.broker.outbox import RETENTION
from trustcompute.broker.policy import Decision, Reason
from trustcompute.broker.request import MAX_ANSWERS, Countersignature, VerifiedRequest
from trustcompute.broker.store import NOTHING, Evidence, KeptAnswer, Touched
from trustcompute.broker.writer import Book
from trustcompute.errors import (
    Conflict,
    GrantError,
    JobForfeited,
    LocalProtocolError,
    ParameterError,
    Refused,
)
from trustcompute.primitives import signing
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.operation import Operation, Usage

RESERVED_LEASE: Final = 3600  # seconds from the reservation to the first access to data
ARMED_LEASE: Final = 86400  # seconds from there to the charge
_NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True)
class OpenLog:
    """The first entry: whose log this is. Does nothing in a log that has entries."""

    origin: str
    key: str
    touched: Touched = NOTHING

    def apply(self, book: Book) -> None:
        if book.size == 0:
            book.record("log.opened", {"origin": self.origin, "key": self.key})


@dataclass(frozen=True, slots=True)
class Reserve:
    """Decide and reserve."""

    request: VerifiedRequest
    operation: Operation

    @property
    def touched(self) -> Touched:
        return deciding.touched(self.request.grant, self.request.claims)

    def apply(self, book: Book) -> JobRecord | Refused:
        known = book.jobs.get(self.request.job)
        if known is not None:
            return self._again(known)
        grant = self.request.grant
        decided = deciding.decide(book, grant, self.request.claims, self.operation)
        for link in reversed(grant.chain):
            if not book.known(link.hash):
                enter(book, "grant.accepted", link)
        book.keep(Evidence(self.request.hash, "request", self.request.job, self.request.token))
        if not decided.decision.allowed:
            return self._deny(book, decided.decision)
        book.put_balances(meter.hold(decided.places, book.balances))
        return book.put_job(self._record(book, JobState.RESERVED, decided.accounts, decided.usage))

    def _again(self, known: JobRecord) -> JobRecord | Refused:
        if known.request != self.request.hash:
            raise Conflict(f"job {known.id} was used for another request: take a new job id")
        if known.state is JobState.DENIED:
            return policy.refusal(known.reasons)
        return known

    def _deny(self, book: Book, decision: Decision) -> Refused:
        job = self._record(book, JobState.DENIED, (), _NOTHING)
        entry = book.record(
            "job.denied",
            {
                **{name: value for name, value in _job_fields(job).items() if name != "purpose"},
                "reasons": [reason.to_document() for reason in decision.reasons],
                "versions": dict(decision.versions),
            },
            {"purpose": job.purpose.encode()},  # not a granted purpose, perhaps: any text of the peer's
        )
        book.put_job(job.but(reasons=decision.reasons, entry=entry))
        return policy.refusal(decision.reasons)

    def _record(self, book: Book, state: JobState, accounts: Sequence[Account], usage: Usage) -> JobRecord:
        claims, grant = self.request.claims, self.request.grant
        return JobRecord(
            id=self.request.job,
            state=state,
            request=self.request.hash,
            grant=grant.hash,
            subject=grant.claims.cnf.jkt,
            asker=claims.asker,
            recipient=claims.recipient,
            payer=claims.payer,
            peer=claims.san,
            key=claims.key,
            operation=claims.op,
            dataset=claims.dataset,
            purpose=claims.purpose,
            accounts=tuple(account.name for account in accounts),
            window=book.day,
            reserved=usage,
            lease=book.now + RESERVED_LEASE,
            rules=book.rules.references,
        )


@dataclass(frozen=True, slots=True)
class Arm:
    """Data are about to be touched, or the first message is about to leave: from here failure costs."""

    job: str

    @property
    def touched(self) -> Touched:
        return Touched(jobs=(self.job,))

    def apply(self, book: Book) -> JobRecord | Refused:
        job = _find(book, self.job)
        if job.state is JobState.ARMED:
            return job
        if job.state is not JobState.RESERVED:
            raise _ended(job)
        if (stopped := _stopped(book, job)) is not None:
            return _lose(book, job, stopped, Fault.UNCLEAR)
        if job.lease < book.now:
            _void(book, job, JobState.EXPIRED, "lease")
            return Refused(
                f"the reservation of job {job.id} has run out",
                rule="lease",
                field="job",
                owner=job.peer,
                fix="start a new job",
            )
        return book.put_job(job.but(state=JobState.ARMED, lease=book.now + ARMED_LEASE))


@dataclass(frozen=True, slots=True)
class Post:
    """Charge, and record what is about to be released. The first release charges for the whole job.

    answer: its bytes, kept with the charge; none where they lie in the outbox.
    """

    job: str
    release: Release
    usage: Usage
    answer: bytes | None = None

    @property
    def touched(self) -> Touched:
        return Touched(jobs=(self.job,))

    def apply(self, book: Book) -> JobRecord | Refused:
        job = _find(book, self.job)
        known = job.release_of(self.release.run, self.release.turn)
        if known is not None:
            if replace(known, outbox=self.release.outbox) != self.release:
                raise Conflict(f"job {job.id} has released other bytes in run {known.run}, turn {known.turn}")
            return job
        if job.state is JobState.POSTED:
            return self._release(book, job)
        if not job.open:
            raise _ended(job)
        if (stopped := _stopped(book, job)) is not None:
            return _lose(book, job, stopped, Fault.UNCLEAR)
        return self._charge(book, job)

    def _charge(self, book: Book, job: JobRecord) -> JobRecord:
        self._keep(book)
        book.put_balances(meter.settle(job.accounts, job.reserved, self.usage, job.window, book.balances))
        entry = book.record(
            "job.posted",
            {
                **_job_fields(job),
                **self._released(),
                "accounts": list(job.accounts),
                "usage": meter.usage_document(self.usage),
                "window": job.window,
            },
        )
        return book.put_job(
            job.but(
                state=JobState.POSTED,
                charged=self.usage,
                releases=(self.release,),
                lease=book.now + RETENTION,
                entry=entry,
            )
        )

    def _release(self, book: Book, job: JobRecord) -> JobRecord | Refused:
        if (stopped := _stopped(book, job)) is not None:
            return _refused(job, stopped)
        if len(job.releases) == MAX_ANSWERS:
            raise LocalProtocolError(f"a job releases at most {MAX_ANSWERS} times")
        self._keep(book)
        book.record("job.released", {"job": job.id, "request": job.request, **self._released()})
        return book.put_job(job.but(releases=(*job.releases, self.release)))

    def _keep(self, book: Book) -> None:
        if self.answer is not None:
            book.keep_answer(KeptAnswer(self.job, self.release.run, self.release.turn, self.answer))

    def _released(self) -> dict[str, Any]:
        return {
            "run": self.release.run,
            "turn": self.release.turn,
            "frames": self.release.frames_hash,
            "transcript": self.release.transcript,
        }


@dataclass(frozen=True, slots=True)
class Abandon:
    """The computation stopped: void what was only reserved, forfeit what was armed, leave what has ended."""

    job: str
    reason: str
    fault: Fault

    @property
    def touched(self) -> Touched:
        return Touched(jobs=(self.job,))

    def apply(self, book: Book) -> JobRecord:
        job = _find(book, self.job)
        if job.state is JobState.RESERVED:
            return _void(book, job, JobState.VOIDED, self.reason)
        if job.state is JobState.ARMED:
            return _forfeit(book, job, self.reason, self.fault)
        return job


@dataclass(frozen=True, slots=True)
class Expire:
    """End up to 256 jobs whose lease has run out: reserved ones expire, armed ones are forfeited.

    What is charged has an entry of its own; reservations that only come to nothing share one, where they agree in all
    but their ids: whoever sweeps a hundred thousand of them waits for the disk, not for their entries.
    """

    jobs: tuple[str, ...]

    @property
    def touched(self) -> Touched:
        return Touched(jobs=self.jobs)

    def apply(self, book: Book) -> list[JobRecord]:
        late = [
            each for each in (_find(book, job) for job in self.jobs) if each.open and each.lease < book.now
        ]
        alike: dict[tuple[object, ...], list[JobRecord]] = {}
        for job in late:
            if job.state is JobState.RESERVED:
                alike.setdefault(job.terms, []).append(job)
            else:
                _forfeit(book, job, "lease", Fault.UNCLEAR)
        for group in alike.values():
            _expire(book, group)
        return [book.jobs[job.id] for job in late]


@dataclass(frozen=True, slots=True)
class Countersign:
    """The consumer's acknowledgement of all answers of a job, signed with the request's key."""

    claims: Countersignature
    unverified: signing.Unverified
    token: str

    @property
    def touched(self) -> Touched:
        return Touched(jobs=(self.claims.job,))

    def apply(self, book: Book) -> JobRecord:
        job = book.jobs.get(self.claims.job)
        if job is None:
            raise GrantError("this node knows no such job", "job")
        try:
            self.unverified.verify(VerifyKey.from_x(job.key))
        except signing.TokenError as error:
            raise GrantError(str(error), error.field) from error
        if self.claims.request != job.request:
            raise GrantError("the countersignature is for another request", "request")
        if job.state is not JobState.POSTED:
            raise Conflict(f"job {job.id} is {job.state}: it has no answer to countersign")
        released = sorted(job.releases, key=lambda release: (release.run, release.turn))
        if self.claims.answers != tuple(release.frames_hash for release in released):
            raise GrantError("the countersigned answers are not those that were released", "answers")
        if job.countersigned is not None:
            return job
        hash_ = signing.token_hash(self.token)
        fields = {"job": job.id, "request": job.request, "answers": list(self.claims.answers), "token": hash_}
        entry = book.record("job.countersigned", fields)
        book.keep(Evidence(hash_, "countersignature", job.id, self.token))
        book.forget_answers(job.id)
        return book.put_job(job.but(countersigned=entry))


@dataclass(frozen=True, slots=True)
class ForgetAnswers:
    """Of jobs whose answers nobody is owed any more."""

    jobs: tuple[str, ...]
    touched: Touched = NOTHING

    def apply(self, book: Book) -> None:
        for job in self.jobs:
            book.forget_answers(job)


@dataclass(frozen=True, slots=True)
class Incident:
    """Something an operator should know of. kind, detail: codes, never payloads."""

    kind: str
    peer: str
    job: str | None
    detail: str
    touched: Touched = NOTHING

    def apply(self, book: Book) -> int:
        fields: dict[str, Any] = {"kind": self.kind, "detail": self.detail}
        if self.job is not None:
            fields["job"] = self.job
        return book.record("incident", fields, {"peer": self.peer.encode()})


@dataclass(frozen=True, slots=True)
class Redact:
    """Forget what opens an entry's commitments; their hashes stay, so every proof still holds."""

    index: int
    touched: Touched = NOTHING

    def apply(self, book: Book) -> int:
        if not 0 <= self.index < book.size:
            raise ParameterError(f"the log has {book.size} entries, none with index {self.index}")
        openings = book.reader.openings(self.index)
        if not openings:
            return self.index
        fields = sorted(opening.field for opening in openings)
        book.record("entry.redacted", {"entry": self.index, "redacted": fields})
        for opening in openings:
            book.forget(opening)
        return self.index


def _find(book: Book, job: str) -> JobRecord:
    found = book.jobs.get(job)
    if found is None:
        raise LocalProtocolError(f"the book knows no job {job}")
    return found


def _ended(job: JobRecord) -> Conflict | JobForfeited:
    if job.state is JobState.FORFEITED:
        return JobForfeited(f"job {job.id} was forfeited ({job.detail}): start a new one", job.id)
    return Conflict(f"job {job.id} is {job.state}: start a new one")


def _stopped(book: Book, job: JobRecord) -> Reason | None:
    """Why a job that was allowed may not go on: a link of its grant was revoked, or a deny-list names it now.

    Suspension and exit let open jobs end.
    """
    if book.revoked_any(meter.grants_of(job.accounts)):
        fix = "the grant was revoked for good: ask for a new one"
        return Reason("revoked", "grant", book.issuer(job.grant), fix)
    if not book.rules.denylists or book.rules.references == job.rules:
        return None
    keys, names = rules.facts_of(book.links(job))
    parties = (("asker", job.asker), ("recipient", job.recipient), ("payer", job.payer))
    facts = rules.Facts(
        (*keys, *parties), (*names, ("san", job.peer)), job.dataset, job.operation, job.purpose
    )
    return next((Reason(*finding) for finding in rules.denials(book.rules, facts)), None)


def _refused(job: JobRecord, why: Reason) -> Refused:
    return Refused(
        f"job {job.id} may not go on, nothing is released: {why.fix}",
        rule=why.rule,
        field=why.field,
        owner=why.owner,
        fix=why.fix,
    )


def _lose(book: Book, job: JobRecord, why: Reason, fault: Fault) -> Refused:
    """End a job that was stopped on the way."""
    if job.state is JobState.ARMED:
        _forfeit(book, job, why.rule, fault)
    else:
        _void(book, job, JobState.VOIDED, why.rule)
    return _refused(job, why)


def _void(book: Book, job: JobRecord, state: JobState, reason: str) -> JobRecord:
    book.put_balances(meter.settle(job.accounts, job.reserved, _NOTHING, job.window, book.balances))
    entry = book.record(f"job.{state}", {**_job_fields(job), "reason": reason})
    return book.put_job(job.but(state=state, charged=_NOTHING, detail=reason, entry=entry))


def _expire(book: Book, jobs: list[JobRecord]) -> None:
    """Jobs of the same terms."""
    if len(jobs) == 1:
        _void(book, jobs[0], JobState.EXPIRED, "lease")
        return
    fields = _job_fields(jobs[0])
    del fields["job"], fields["request"]
    pairs = [[job.id, job.request] for job in jobs]
    entry = book.record("jobs.expired", {**fields, "jobs": pairs, "reason": "lease"})
    held = Counter((job.accounts, job.reserved, job.window) for job in jobs)
    for (accounts, reserved, window), count in held.items():
        book.put_balances(meter.settle(accounts, reserved, _NOTHING, window, book.balances, jobs=count))
    for job in jobs:
        book.put_job(job.but(state=JobState.EXPIRED, charged=_NOTHING, detail="lease", entry=entry))


def _forfeit(book: Book, job: JobRecord, reason: str, fault: Fault) -> JobRecord:
    book.put_balances(meter.settle(job.accounts, job.reserved, job.reserved, job.window, book.balances))
    entry = book.record(
        "job.forfeited",
        {
            **_job_fields(job),
            "accounts": list(job.accounts),
            "usage": meter.usage_document(job.reserved),
            "window": job.window,
            "reason": reason,
            "fault": fault.value,
        },
    )
    return book.put_job(
        job.but(state=JobState.FORFEITED, charged=job.reserved, detail=reason, fault=fault, entry=entry)
    )


def _job_fields(job: JobRecord) -> dict[str, Any]:
    return {
        "job": job.id,
        "request": job.request,
        "grant": job.grant,
        "asker": job.asker,
        "recipient": job.recipient,
        "payer": job.payer,
        "operation": job.operation,
        "dataset": job.dataset,
        "purpose": job.purpose,
        **({"rules": [reference.to_document() for reference in job.rules]} if job.rules else {}),
    }
