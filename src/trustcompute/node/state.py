"""What a consumer keeps of a job until its receipt is in: signed request, seed of its secrets, the peer's turns.

A retry replays the same party with the same randomness and the turns that had arrived, and goes on at the first
that had not: it sends the same bytes and gets the same answer, and an answer that was paid for is not lost. The
secrets are derived from seed, request and input digest: with a changed table every secret changes, and the state
refuses to be used. Files are readable by their owner alone and are written whole or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trustcompute.errors import ParameterError, StoreError, VerificationError
from trustcompute.primitives import canonical
from trustcompute.protocol.message import Frame, frame_digest

MAX_STATE = 128 * 1024
Note = Literal["found", "attempt"]
_JOB = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class JobState:
    """job: 32 hex digits; request: the signed request; seed: 32 secret bytes; input_digest: of our keys."""

    job: str
    request: str
    seed: bytes = field(repr=False)
    input_digest: str
    asked: dict[str, Any]


class StateStore:
    """Jobs in a directory, or in memory where there is none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._memory: dict[str, JobState] = {}
        # Of each job, so that one can be forgotten while another goes on in its thread.
        self._turns: dict[str, dict[tuple[int, int], list[Frame]]] = {}
        self._notes: dict[str, dict[tuple[Note, int], bytes]] = {}
        if directory is not None:
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise StoreError(f"cannot keep jobs in {directory}: {error.strerror}") from error

    def save(self, state: JobState) -> None:
        if self._directory is None:
            self._memory[state.job] = state
            return
        document = {
            "job": state.job,
            "request": state.request,
            "seed": state.seed.hex(),
            "input": state.input_digest,
            "asked": state.asked,
        }
        self._write(f"{state.job}.job.json", canonical.dumps(document))

    def load(self, job: str) -> JobState:
        """Raises ``ParameterError`` for a job that is not kept here."""
        if job in self._memory:
            return self._memory[job]
        if self._directory is None or not _JOB.match(job):
            raise ParameterError(f"no job {job!r} is kept here: pass the same state= as when it was started")
        try:
            raw = (self._directory / f"{job}.job.json").read_bytes()
            d = canonical.loads_canonical(raw, limit=MAX_STATE)
            return JobState(d["job"], d["request"], bytes.fromhex(d["seed"]), d["input"], d["asked"])
        except FileNotFoundError:
            raise ParameterError(
                f"no job {job!r} is kept in {self._directory}: it is finished, or was never there"
            ) from None
        except (OSError, VerificationError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the kept state of job {job} cannot be read: start a new job") from error

    def keep_turn(self, job: str, run: int, turn: int, frames: Sequence[Frame]) -> None:
        """Keep a turn of the peer, before anything is made of it or told to the peer."""
        if self._directory is None:
            self._turns.setdefault(job, {})[run, turn] = list(frames)
            return
        parts = [part for frame in frames for part in (frame.header, b"".join(frame.body))]
        self._write(
            f"{job}.turn-{run}-{turn}", b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        )

    def kept_turn(self, job: str, run: int, turn: int) -> list[Frame] | None:
        """A turn that had arrived, or None."""
        if self._directory is None:
            return self._turns.get(job, {}).get((run, turn))
        try:
            data = memoryview((self._directory / f"{job}.turn-{run}-{turn}").read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"a kept turn of job {job} cannot be read: {error.strerror}") from error
        parts = list(_parts(data))
        return [
            Frame(bytes(header), (body,), frame_digest(bytes(header), [body]))
            for header, body in zip(parts[::2], parts[1::2], strict=True)
        ]

    def forget_turns(self, job: str, run: int) -> None:
        """Forget the peer's turns of a run: it is finished, or begins again."""
        if self._directory is not None:
            for kept in self._directory.glob(f"{job}.turn-{run}-*"):
                kept.unlink(missing_ok=True)
            return
        turns = self._turns.get(job, {})
        for key in [key for key in list(turns) if key[0] == run]:  # a copy: other runs go on
            del turns[key]

    def note(self, job: str, kind: Note, run: int, data: bytes) -> None:
        """Keep something small about a run: what it found (``found``), or how often it began again (``attempt``)."""
        if self._directory is None:
            self._notes.setdefault(job, {})[kind, run] = data
        else:
            self._write(f"{job}.{kind}-{run}", data)

    def noted(self, job: str, kind: Note, run: int) -> bytes | None:
        """What ``note`` kept, or None."""
        if self._directory is None:
            return self._notes.get(job, {}).get((kind, run))
        try:
            return (self._directory / f"{job}.{kind}-{run}").read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"what is kept of job {job} cannot be read: {error.strerror}") from error

    def unfinished(self) -> list[str]:
        """Jobs that are kept here and not finished, the oldest first (their ids are ordered by time)."""
        if self._directory is None:
            return sorted(self._memory)
        return sorted(path.name[:32] for path in self._directory.glob("*.job.json"))

    def has(self, job: str) -> bool:
        """Whether a job is kept here and not finished."""
        return job in self.unfinished()

    def finished(self, job: str) -> bool:
        """Whether the job's receipt is kept and its secrets are forgotten."""
        if self._directory is None:
            return False
        kept = (self._directory / f"{job}.receipt.json").exists()
        return kept and not (self._directory / f"{job}.job.json").exists()

    def receipt(self, job: str) -> bytes:
        """The kept receipt of a finished job. Raises ``StoreError`` where it cannot be read."""
        if self._directory is None:
            raise StoreError("receipts are kept in a state directory: open the session with state=")
        try:
            return (self._directory / f"{job}.receipt.json").read_bytes()
        except OSError as error:
            raise StoreError(f"the receipt of job {job} cannot be read: {error.strerror}") from error

    def finish(self, job: str, receipt: bytes, log_key: str) -> None:
        """Keep the receipt and the key that verifies it, and forget the secrets."""
        if self._directory is not None:
            self._write(f"{job}.receipt.json", receipt)
            self._write(f"{job}.log-key", log_key.encode() + b"\n")
        self.forget(job)

    def forget(self, job: str) -> None:
        """Remove a job and its secrets; it cannot go on."""
        for kept in (self._memory, self._turns, self._notes):
            kept.pop(job, None)
        if self._directory is not None:
            (self._directory / f"{job}.job.json").unlink(missing_ok=True)
            for pattern in ("turn-*", "found-*", "attempt-*"):
                for path in self._directory.glob(f"{job}.{pattern}"):
                    path.unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        assert self._directory is not None
        path = self._directory / name
        temporary = path.with_name(name + ".tmp")
        try:
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            handle = os.open(self._directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _parts(data: memoryview) -> Iterator[memoryview]:
    while data:
        size = int.from_bytes(data[:8], "big")
        yield data[8 : 8 + size]
        data = data[8 + size :]
