"""The asking side of verification over a node: which table, which mode, what is kept for the next time.

Called by ``Session.verify`` and ``Session.prepare_verification``. What is kept per table, in the session and in its
directory: the hint and what belongs to it (public), and a mark on a table whose answers failed a check, which is not
asked again.
"""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from trustcompute.errors import ParameterError, RemoteProtocolError, StoreError, VerificationError
from trustcompute.node.documents import CatalogEntry, PredicateEntry
from trustcompute.node.metered import Metered
from trustcompute.primitives.identity import peer_key, verify_certificate
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import VerifyKey, token_hash
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.party import Party
from trustcompute.verification import (
    bucket,
    descriptor,
    download,
    operation,
    pir,
    planner,
    private,
    querylog,
    question,
)
from trustcompute.verification.answer import VerifiedAnswer
from trustcompute.verification.arbiter import Disputed, Evidence
from trustcompute.verification.bucket import Promise
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.download import Columns
from trustcompute.verification.local import Verification
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.operation import BUCKET, DOWNLOAD, PRIVATE
from trustcompute.verification.pir import Prepared
from trustcompute.verification.planner import Plan
from trustcompute.verification.predicate import match_of, parse
from trustcompute.verification.private import Public
from trustcompute.verification.proof import Check
from trustcompute.verification.querylog import Opening

if TYPE_CHECKING:
    from trustcompute.node.session import Session


@dataclass(frozen=True)
class MeteredVerification(Verification, Metered):
    """Verified answers of another organisation. plan: which mode and why; ``receipt`` proves offline what was
    charged."""

    plan: Plan


class Kept:
    """What a session keeps of the tables it asked: hints, queries prepared, and which tables are not to be trusted."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._public: dict[str, Public] = {}
        self._columns: dict[str, Columns] = {}
        self._prepared: dict[str, deque[Prepared]] = {}
        self._rejected: set[str] = set()
        self._openings: dict[str, Opening] = {}

    def public(self, promise: Promise) -> Public | None:
        """The hint and what belongs to it, if an earlier call received it."""
        if promise.id not in self._public and self._directory is not None:
            path = self._directory / f"{promise.id}.hint"
            if path.exists():
                self._public[promise.id] = _load(path, promise.said)
        return self._public.get(promise.id)

    def keep(self, table: str, public: Public) -> None:
        if table in self._public:
            return
        self._public[table] = public
        if self._directory is not None:
            leaves = public.tree.hashes(0, 0, len(public.tree))
            body = public.splitters.astype("<u8").tobytes() + leaves + public.hint.astype("<u4").tobytes()
            _write(self._directory / f"{table}.hint", body)

    def columns(self, promise: Promise) -> Columns | None:
        """The masked table, if an earlier call received it; from the directory it is mapped, and checked again."""
        if promise.id not in self._columns and self._directory is not None:
            path, shape = self._directory / f"{promise.id}.cells", promise.said.columns.shape
            if path.exists():
                if path.stat().st_size != shape.length * shape.columns:
                    raise VerificationError(f"{path} does not hold the table it was kept as: remove it")
                cells = np.memmap(path, dtype=np.uint8, mode="r", shape=(shape.length, shape.columns))
                self._columns[promise.id] = download.columns_of(promise.said, cells)
        return self._columns.get(promise.id)

    def keep_columns(self, table: str, columns: Columns) -> None:
        if table in self._columns:
            return
        self._columns[table] = columns
        if self._directory is not None:
            _write(self._directory / f"{table}.cells", np.ascontiguousarray(columns.cells).data)

    def prepared(self, table: str) -> deque[Prepared]:
        return self._prepared.setdefault(table, deque())

    def take(self, table: str) -> Iterator[Prepared]:
        """Prepared queries, each given once."""
        ready = self.prepared(table)
        while ready:
            yield ready.popleft()

    def reject(self, table: str, evidence: Evidence | None = None) -> None:
        """Its answers failed a check: it is not asked again, by any process that shares the directory. evidence: kept
        for an arbiter."""
        self._rejected.add(table)
        if self._directory is not None and evidence is not None:
            _write(self._directory / f"{table}.dispute", evidence.to_bytes())
        if self._directory is not None:
            _write(self._directory / f"{table}.rejected", b"")

    def keep_opening(self, job: str, opening: Opening) -> None:
        """Keep what opens a job's commitment, before anything is asked."""
        self._openings[job] = opening
        if self._directory is not None:
            _write(self._directory / f"{job}.opening", opening.to_json())

    def opening(self, job: str) -> Opening:
        """What opens a job's commitment. Raises ``ParameterError`` where it is not kept here."""
        if job not in self._openings:
            path = None if self._directory is None else self._directory / f"{job}.opening"
            if path is None or not path.exists():
                raise ParameterError(f"the opening of job {job!r} is not kept here: pass the same state=")
            self._openings[job] = Opening.from_json(path.read_bytes())
        return self._openings[job]

    def rejected(self, table: str) -> bool:
        there = self._directory is not None and (self._directory / f"{table}.rejected").exists()
        return there or table in self._rejected


def verify(
    session: Session,
    dataset: str,
    predicate: str | None,
    keys: Sequence[Any] | None,
    *,
    match: Sequence[str] | None,
    rows: Any,
    on: Mapping[str, str] | None,
    mode: planner.Mode,
    check: Check | None,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
    consent: Sequence[str] = (),
) -> MeteredVerification:
    """``Session.verify``."""
    promise = _promise(session, dataset, predicate, match, check)
    if (keys is None) == (rows is None):
        raise ParameterError("pass keys= (a list), or rows= (a table with the key's columns)")
    kept, executor = session.kept, session.executor
    asked = question.asked(
        promise.said, question.listed(promise.said, keys) if rows is None else rows, on=on, executor=executor
    )
    _check_usable(promise, check, kept)
    begun = None if job is None else session.begun(job)
    if begun is not None:  # goes on as it began; a batch is a private job of more questions
        mode = "batch" if mode == "batch" else _BEGUN[begun["operation"]]
    public = kept.public(promise)
    columns = kept.columns(promise) if mode == "download" else None
    fetch = (columns if mode == "download" else public) is None
    if begun is not None:
        fetch = bool(begun["params"].get("fetch"))
    chosen = planner.plan(
        promise.said, len(asked.questions), checked=check is not None, fetch=fetch, mode=mode
    )
    sizes = Sizes(chosen.questions, promise.said.records)
    params = operation.parameters(chosen.operation, promise.said, promise.id, fetch=fetch)
    opening = querylog.committed(promise.token, asked.questions) if job is None else kept.opening(job)
    params["commitment"] = opening.commitment
    if consent:
        params["consent"] = list(consent)

    def party(_: object, rng: Rng) -> Party[list[VerifiedAnswer]]:
        known = None if fetch else public
        try:
            if chosen.mode == "bucket":
                return (yield from bucket.consumer(promise, asked.questions, rng))
            if chosen.mode == "download":
                had = None if fetch else columns
                got = yield from download.consumer(promise, asked.questions, had, rng)
                kept.keep_columns(promise.id, got.columns)
                return got.answers
            assert check is not None
            questions = asked.questions.padded(chosen.questions, rng)
            found = yield from private.consumer(
                promise, questions, check, known, rng, prepared=kept.take(promise.id), executor=executor
            )
        except VerificationError as error:
            kept.reject(promise.id, error.evidence if isinstance(error, Disputed) else None)
            raise
        kept.keep(promise.id, found.public)
        return found.answers[: len(asked.questions)]

    done = session.compute(
        operation.named(chosen.operation),
        dataset,
        params,
        sizes,
        party,
        input_digest=asked.questions.digest(),
        purpose=purpose,
        scenario=scenario,
        job=job,
        begun=lambda job: kept.keep_opening(job, replace(opening, request=session.signed(job))),
    )
    answers = done.output
    return MeteredVerification(
        asked.spread(answers),
        done.cost,
        chosen.leakage,
        chosen.operation,
        chosen,
        job=done.job,
        acknowledged=done.acknowledged,
    )


_BEGUN: Final[dict[str, planner.Chosen]] = {BUCKET: "bucket", PRIVATE: "private", DOWNLOAD: "download"}


def prepare(
    session: Session, dataset: str, predicate: str | None, match: Sequence[str] | None, count: int
) -> int:
    """``Session.prepare_verification``."""
    promise = _promise(session, dataset, predicate, match)
    public = session.kept.public(promise)
    if public is None:
        raise ParameterError("there is no hint yet to prepare with: ask once in private mode first")
    ready = session.kept.prepared(promise.id)
    seed, columns = bytes.fromhex(promise.said.seed), promise.said.columns.columns
    ready.extend(
        pir.prepare_many(public.hint, seed, columns, Rng.from_os(), count, executor=session.executor)
    )
    return len(ready)


def _promise(
    session: Session,
    dataset: str,
    predicate: str | None,
    match: Sequence[str] | None,
    check: Check | None = None,
) -> Promise:
    """The descriptor of the predicate asked for, its signature checked. Of an earlier table, where it still answers
    and the check is for it."""
    if (predicate is None) == (match is None):
        raise ParameterError("pass a predicate, or match= with the columns to compare")
    entry, holder = session.entry(dataset), _holder(session)
    entries = _published(entry)
    if predicate is not None:
        wanted = str(parse(predicate))
    else:
        subject = tuple(descriptor.read(entries[0].descriptor).subject)
        wanted = str(match_of(tuple(match or ()), subject))
    for one in entries:
        if one.text == wanted:
            tokens = [one.descriptor, *one.earlier]
            token = next((t for t in tokens if check is not None and token_hash(t) == check.table), tokens[0])
            said = descriptor.verify(token, holder)
            version = entry.version if token == one.descriptor else said.version
            if (said.dataset, said.version, said.predicate) != (entry.id, version, one.text):
                raise RemoteProtocolError(
                    "the catalogue shows the descriptor of another dataset or predicate"
                )
            return Promise(token, token_hash(token), said, holder)
    known = ", ".join(one.text for one in entries)
    raise ParameterError(f"dataset {dataset!r} does not answer {wanted!r}; it answers: {known}")


def _published(entry: CatalogEntry) -> list[PredicateEntry]:
    if not entry.predicates:
        raise ParameterError(f"dataset {entry.id!r} publishes no predicates: nothing can be verified of it")
    return entry.predicates


def _holder(session: Session) -> VerifyKey:
    certificate = verify_certificate(session.certificate, session.authority)
    return peer_key(certificate)


def _check_usable(promise: Promise, check: Check | None, kept: Kept) -> None:
    if kept.rejected(promise.id):
        raise VerificationError(
            "an answer from this table failed its check: it is not asked again; ask an arbiter, or wait for another"
            " version"
        )
    if check is not None and check.table != promise.id:
        raise VerificationError("the auditor's check is for another version of the table: ask for a new one")
    if check is not None and check.spent:
        raise VerificationError("this check has met a wrong answer before: ask the auditor for another one")


def _load(path: Path, said: Descriptor) -> Public:
    columns, length = said.columns.columns, said.columns.shape.length
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if len(data) != 40 * columns + 4 * DIMENSION * length:
        raise VerificationError(f"{path} does not hold the hint it was kept as: remove it")
    hint = data[40 * columns :].view("<u4").reshape(length, DIMENSION)
    return private.public_of(
        said, data[: 8 * columns].view("<u8"), data[8 * columns : 40 * columns].tobytes(), hint
    )


def _write(path: Path, body: bytes | memoryview) -> None:
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(body)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
