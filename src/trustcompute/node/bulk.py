"""Intersections of files that do not fit into memory, over a node, from the consumer's side.

    keys digested to disk → a job of several runs → which rows match, kept → countersigned → rows written → forgotten

Called by ``Session.intersect_file``. Everything that must outlast the process lies in one directory for each file and
key, below the session's state directory:

    digests, rows, manifest.json   the file's keys (``tables.stored``), if they are those of the file as it is now
    job.json                       the job that was opened for them
    matched.json, matched          once all runs are finished: what the job took, and which keys were found, packed

Killed at any point, the same call goes on: keys that were digested are not digested again, runs that are finished are
not run again, and a job whose receipt is in only has its rows written. The directory is bound to the file by name, size
and time of change, and the job to the digest of its keys: with another file nothing goes on, and every secret changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from trustcompute.broker.receipt import Receipt
from trustcompute.errors import (
    Conflict,
    JobForfeited,
    ParameterError,
    Refused,
    StoreError,
)
from trustcompute.node import differencing
from trustcompute.node.intersection import bucket_party, key_choice, key_spec, planned
from trustcompute.node.metered import Metered
from trustcompute.node.runs import JobRuns
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Leakage, Sizes
from trustcompute.protocol.run import Cost
from trustcompute.psi import buckets, padding, planner
from trustcompute.psi.files import FileIntersection, packed, unpacked
from trustcompute.psi.intersection import On, split_on
from trustcompute.psi.operation import named
from trustcompute.tables.keys import Mask
from trustcompute.tables.progress import Callback, Phase
from trustcompute.tables.stored import StoredKeys, load, store
from trustcompute.tables.writing import check_writable, write_rows

if TYPE_CHECKING:
    from trustcompute.node.session import Session

MAX_NOTE: Final = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class MeteredFileIntersection(FileIntersection, Metered):
    """An intersection of a file with another organisation's dataset. ``receipt`` proves offline what was charged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAsked:
    """What ``Session.intersect_file`` was asked for, but for the file and where the result goes."""

    session: Session
    dataset: str
    on: On
    protocol: planner.Protocol
    runs: int | None
    pad_to: padding.PadTo
    purpose: str | None
    scenario: str | None
    resume: bool
    at_a_time: int | None
    progress: Callback | None
    stop: threading.Event | None


def intersect_file(
    asked: FileAsked, file: Path, out: Path, columns: Sequence[str] | None
) -> MeteredFileIntersection:
    """See ``Session.intersect_file``."""
    session, progress, stop = asked.session, asked.progress, asked.stop
    ours, theirs = split_on(asked.on)
    check_writable(file, out)
    spec = key_spec(key_choice(session._entry(asked.dataset), theirs))
    with _Kept.of(session, asked.dataset, file, ours, theirs) as kept:
        job = _standing(session, kept)
        if asked.resume and not kept.begun:
            raise ParameterError(
                "there is nothing to go on with for this file: its job is finished, or was never begun;"
                " leave resume out to begin one"
            )
        if job is not None and not asked.resume:
            raise ParameterError(
                f"job {job} for this file is unfinished: pass resume=True to go on with it, or cancel it"
            )
        keys = load(file, ours, kept.keys, spec=spec)
        if keys is None and job is not None:
            raise ParameterError(
                f"the file has changed since job {job} began: put it back, or cancel the job and start a new one"
            )
        if keys is None:
            keys = store(
                file, ours, kept.keys, spec=spec, executor=session._executor, progress=progress, stop=stop
            )
        matched = kept.matched()
        if matched is None or not matched.acknowledged(session, job):
            matched = _run(asked, keys, kept)
        mask = kept.mask(len(keys))
        phase = Phase("write", keys.rows, progress, stop=stop)
        rows = write_rows(file, keys.chosen(mask), out, columns=columns, phase=phase)
        receipt = session._states.receipt(matched.job)
        kept.forget()
    return MeteredFileIntersection(
        count=int(mask.sum()),
        rows=rows,
        out=out,
        protocol=matched.operation,
        runs=matched.runs,
        cost=matched.cost,
        leakage=matched.leakage,
        job=matched.job,
        acknowledged=Receipt.from_json(receipt),
    )


def _standing(session: Session, kept: _Kept) -> str | None:
    """The job kept for the file, if it can go on or is finished; one whose giving up was cut off is given up here."""
    job = kept.job()
    if job is None or session._states.has(job) or session._states.finished(job):
        return job
    kept.end()
    return None


def cancel_file(session: Session, dataset: str, file: Path, *, on: On) -> str | None:
    """See ``Session.cancel_file``."""
    ours, theirs = split_on(on)
    with _Kept.of(session, dataset, file, ours, theirs) as kept:
        job = kept.job()
        if job is not None:
            with contextlib.suppress(Conflict):  # it never reached the node, or has ended there
                session.cancel(job)
            session._states.forget(job)
        kept.forget()
        return job


def _run(asked: FileAsked, keys: StoredKeys, kept: _Kept) -> _Matched:
    """All runs of the job, from where they are; what they found is kept before it is acknowledged."""
    session, job = asked.session, kept.job()
    _, columns = split_on(asked.on)
    entry = session._entry(asked.dataset)
    sizes = Sizes(padding.padded_rows(len(keys), asked.pad_to), key_choice(entry, columns).distinct)
    runs = buckets.plan_runs(sizes) if asked.runs is None else asked.runs
    if job is not None:
        runs = buckets.runs_of(session._states.load(job).asked["params"])
    params: dict[str, Any] = {
        "columns": columns,
        "keys": keys.spec.digest,
        "output": "rows",
        "reveal": "consumer",
        "runs": runs,
    }
    protocol = planned(session, sizes, params, job) if asked.protocol == "auto" else asked.protocol
    operation = named(protocol)
    params |= differencing.of_ours(session, operation.id, asked.dataset, keys, sizes.consumer)
    try:
        runs_of_job = JobRuns(
            session,
            operation,
            asked.dataset,
            params,
            sizes,
            party=bucket_party(session, operation, sizes, keys),
            input_digest=bytes.fromhex(keys.digest),
            purpose=asked.purpose,
            scenario=asked.scenario,
            job=job,
            begun=kept.begin,
        )
        runs_of_job.run_all(at_a_time=asked.at_a_time, progress=asked.progress, stop=asked.stop)
    except (JobForfeited, Conflict, Refused):
        if (begun := kept.job()) is not None:  # it can never go on: a new one may begin
            session._states.forget(begun)
            kept.end()
        raise
    mask = np.zeros(len(keys), np.bool_)
    for number in range(runs_of_job.count):
        first, digests = keys.part(number, runs_of_job.count)
        mask[first : first + len(digests)] = runs_of_job.found(number)
    leakage = padding.leakage(
        operation.leakage(params), consumer=asked.pad_to is not None, provider=entry.padded
    )
    matched = _Matched(runs_of_job.job, operation.id, runs_of_job.count, runs_of_job.cost, leakage)
    kept.keep(matched, mask)
    runs_of_job.finish(None).receipt  # noqa: B018 - waited for: what is kept of the file is forgotten then
    return matched


@dataclass(frozen=True, slots=True)
class _Matched:
    """A job whose runs are all finished."""

    job: str
    operation: str
    runs: int
    cost: Cost
    leakage: Leakage

    def acknowledged(self, session: Session, job: str | None) -> bool:
        """Whether the receipt is in and the job's secrets are gone; else the job is still to be acknowledged."""
        return self.job == job and session._states.finished(self.job)


class _Kept:
    """What is kept of one file's job. Use as a context manager: one process at a time works there.

    begun: something was kept before. A finished job leaves nothing, so that going on with it cannot begin another.
    """

    def __init__(self, directory: Path, begun: bool) -> None:
        self._directory, self.begun = directory, begun
        self.keys = directory / "keys"

    @classmethod
    @contextlib.contextmanager
    def of(
        cls, session: Session, dataset: str, file: Path, ours: Sequence[str], theirs: Sequence[str]
    ) -> Iterator[_Kept]:
        if session._directory is None:
            raise ParameterError("files are intersected in a state directory: open the session with state=")
        told = [session.grant.aud, dataset, str(file.absolute()), list(ours), list(theirs)]
        name = hashlib.sha256(canonical.dumps(told)).hexdigest()[:32]
        directory = session._directory / "files" / name
        try:
            directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(directory.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreError(f"cannot keep a job in {directory}: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise Conflict(
                "another process is intersecting this file with this dataset: wait for it"
            ) from None
        try:
            begun = directory.exists()
            directory.mkdir(mode=0o700, exist_ok=True)
            yield cls(directory, begun)
        finally:
            os.close(handle)

    def job(self) -> str | None:
        found = self._read("job.json")
        return None if found is None else str(found["job"])

    def begin(self, job: str) -> None:
        self._write("job.json", canonical.dumps({"job": job}))

    def end(self) -> None:
        """The job can never go on; the keys stay."""
        for name in ("job.json", "matched.json", "matched"):
            (self._directory / name).unlink(missing_ok=True)

    def matched(self) -> _Matched | None:
        d = self._read("matched.json")
        if d is None:
            return None
        cost = Cost(d["turns"], d["sent"], d["received"])
        return _Matched(d["job"], d["operation"], d["runs"], cost, Leakage(d["consumer"], d["provider"]))

    def mask(self, keys: int) -> Mask:
        try:
            return unpacked((self._directory / "matched").read_bytes(), keys)
        except (OSError, ValueError) as error:
            raise StoreError(f"what the job found cannot be read in {self._directory}") from error

    def keep(self, matched: _Matched, mask: Mask) -> None:
        """What was found first, that it is there second."""
        self._write("matched", packed(mask))
        document = {
            "job": matched.job,
            "operation": matched.operation,
            "runs": matched.runs,
            "turns": matched.cost.turns,
            "sent": matched.cost.bytes_sent,
            "received": matched.cost.bytes_received,
            "consumer": matched.leakage.consumer,
            "provider": matched.leakage.provider,
        }
        self._write("matched.json", canonical.dumps(document))

    def forget(self) -> None:
        """Everything. The job first, so that a half-forgotten directory holds keys at most."""
        self.end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = canonical.loads((self._directory / name).read_bytes(), limit=MAX_NOTE)
            return found
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self._directory / name} cannot be read: {error.strerror}") from error

    def _write(self, name: str, data: bytes) -> None:
        path = self._directory / name
        temporary = path.with_name(name + ".tmp")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}; free space, and resume") from error
