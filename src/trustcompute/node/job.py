"""One job as its provider runs it: the only place where a computation meets the meter.

    take the peer's turn → arm, before a party starts → outbox and charge → the frames may leave → deliver

A job has one run or several, numbered from 0, each with a party, a transcript and secrets of its own. Arming comes
before the first party works, but where its first turn is the one that is charged; the charge, for all runs in full,
comes before the first frame of any run from which the peer could compute output; each answer is durable, and recorded,
before it leaves. What the computation reveals to this side is delivered after it. A failure before arming costs
nothing; after it, the reservation is forfeited, billed only where the fault is the peer's.

A run that released its answer is forgotten here and served from the outbox. One that is lost half way, with the process
or because the peer stayed away, begins again under fresh secrets: until it has released something it has told the
peer nothing about the data, so no job gets more answers than it was charged for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

from trustcompute.broker.broker import Broker
from trustcompute.broker.job import Fault, Release
from trustcompute.broker.outbox import file_name
from trustcompute.errors import JobInterrupted, Refused, RemoteProtocolError, StoreError, TransportError
from trustcompute.node.answers import pack
from trustcompute.protocol.message import Frame
from trustcompute.protocol.operation import Usage
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Incoming, Runner, Turn
from trustcompute.protocol.transcript import Binding

MAX_OPEN_RUNS: Final = 4  # of one job at a time: each holds its party's memory
IDLE_SECONDS: Final = 900.0  # after which the runs of a charged job are forgotten; they can begin again


class ProviderJob:
    """A running job. ``answer`` is idempotent: the same turn with the same bytes gets the same frames.

    party: of a run, by its number; released: runs that released their answer in an earlier process, of a job
    that is charged already; source: names the data, kept with each answer. arms: false where the party's first turn
    is the one that is charged.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        job: str,
        peer: str,
        party: Callable[[int], Party[Any]],
        binding: Binding,
        usage: Usage,
        deliver: Callable[[Any], None],
        runs: int = 1,
        arms: bool = True,
        released: Collection[int] = (),
        source: str = "",
    ) -> None:
        self.id, self.peer, self.runs = job, peer, runs
        self._broker, self._usage, self._deliver, self._source = broker, usage, deliver, source
        self._party, self._binding = party, binding
        self._lock = threading.Lock()  # of what follows
        self._open: dict[int, _Run] = {}
        self._released = set(released)
        self._armed = bool(released) or not arms
        self._used = time.monotonic()
        self.failed = False  # it cannot go on
        self.stale = False  # it had ended when the node last swept

    @property
    def ended(self) -> bool:
        """Nothing is left to do but to answer the last turn once more, should it get lost."""
        return self.failed or (
            len(self._released) == self.runs and all(run.ended for run in self._open.copy().values())
        )

    @property
    def idle(self) -> bool:
        """A charged job whose peer has stayed away. One of several runs can be opened again."""
        with self._lock:
            quiet = time.monotonic() - self._used > IDLE_SECONDS
            return quiet and bool(self._released) and not self._working()

    def has_released(self, run: int) -> bool:
        """Whether the run's answer lies in the outbox and the run is over."""
        with self._lock:
            return run in self._released and run not in self._open

    def answer(self, number: int, turn: int, incoming: Iterable[Incoming]) -> Sequence[Frame]:
        """Take a turn of run ``number``. Raises ``JobInterrupted`` for a run that has to begin again."""
        run = self._run(number, turn)
        try:
            with run.lock:
                return run.answer(turn, incoming)
        except RemoteProtocolError:
            self._fail(run, Fault.PEER)
            raise
        except (Refused, TransportError, StoreError):
            raise  # the broker has decided, or the peer may try the same turn again
        except BaseException:
            self.failed = True
            self._fail(run, Fault.PROVIDER)
            raise
        finally:
            self._used = time.monotonic()
            if self.runs > 1 and run.ended:
                with self._lock:
                    self._open.pop(number, None)

    def _run(self, number: int, turn: int) -> _Run:
        with self._lock:
            if number not in self._open:
                if self.runs > 1 and turn > 0:
                    raise JobInterrupted(f"run {number} is not under way here: begin it again", self.id)
                if len(self._open) >= MAX_OPEN_RUNS:
                    raise TransportError(f"a job may have {MAX_OPEN_RUNS} runs under way: finish one first")
                self._open[number] = _Run(self, number)
            return self._open[number]

    def _working(self) -> bool:
        return any(run.lock.locked() for run in self._open.values())

    def _arm(self) -> None:
        with self._lock:
            if not self._armed:
                self._broker.arm(self.id)
                self._armed = True

    def _post(self, run: int, turn: Turn, answered: list[list[bytes | memoryview]]) -> None:
        release = Release(
            run=run,
            turn=turn.number,
            frames_hash=turn.digest,
            transcript=turn.transcript,
            outbox=file_name(self.id, run, turn.number),
        )
        self._broker.post(self.id, release=release, usage=self._usage, answer=answered)
        with self._lock:
            self._released.add(run)

    def _fail(self, run: _Run, fault: Fault) -> None:
        self.failed |= run.failed
        if self.failed and not self._released:
            self._broker.abandon(self.id, "the run failed", fault)


class _Run:
    """One run of a job under way."""

    def __init__(self, job: ProviderJob, number: int) -> None:
        self.lock = threading.Lock()
        self._job, self._number = job, number
        self._runner = Runner(
            job._party(number),
            job._binding,
            leads=False,
            job=job.id,
            run=number,
            before_start=job._arm,
            before_send=self._before_send,
        )
        self._posted = self._delivered = False

    @property
    def failed(self) -> bool:
        return self._runner.failed

    @property
    def ended(self) -> bool:
        return self._runner.done and self._posted

    def answer(self, turn: int, incoming: Iterable[Incoming]) -> Sequence[Frame]:
        self._runner.take(turn, incoming)
        given = self._runner.give()
        if self._runner.done and not self._delivered:
            self._job._deliver(self._runner.result)
            self._delivered = True  # not before: what could not be kept is, when the turn comes again
        return given.frames

    def _before_send(self, turn: Turn) -> None:
        if self._posted or not (turn.releases or self._runner.done):
            return
        self._job._post(self._number, turn, pack(turn, self._runner.taken, self._job._source))
        self._posted = True
