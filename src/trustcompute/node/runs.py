"""A job of several runs, from the consumer's side: some at a time, each kept when finished, acknowledged together.

    open → run 0 … k-1, in parallel → the caller uses what they found → countersign all answers → receipt

Called by ``intersection`` and ``bulk``. Killed at any point, the job goes on from its directory: a finished run is read
from what was kept of it, one that was under way is replayed with the same randomness. Where the node was
restarted and has lost such a run, it begins again with an attempt number of its own in the seed of its secrets, so
that no secret serves two conversations.

Every answer is durable on the node's side until all are countersigned, so only what a run found is kept here, not the
answer itself. The countersignature does not wait for what is found: only for its being kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from trustcompute.broker.grant import hash_of
from trustcompute.broker.log import decode
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import JobInterrupted, RemoteProtocolError, StoreError, TrustcomputeError
from trustcompute.node.client import Client, Computed, check_charge
from trustcompute.node.link import Link, RunLost
from trustcompute.primitives import canonical
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.operation import Operation, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Answer, Cost, Runner, drive
from trustcompute.protocol.transcript import Binding
from trustcompute.psi.buckets import runs_of
from trustcompute.psi.ecdh import Found
from trustcompute.tables.progress import Callback, Phase

T = TypeVar("T")

AT_A_TIME: Final = 2  # runs: while one side of one computes, the other side of the other does
MAX_ATTEMPTS: Final = 32  # of one run, each after a restart of the node
MAX_NOTE: Final = 4096

RunParty = Callable[[int, Params, Rng], Party[Found]]


@dataclass(frozen=True, slots=True)
class Finished:
    """What is kept of a run: the answer it acknowledges, what it took, and which keys it found (bool[keys], packed)."""

    answer: Answer
    cost: Cost
    keys: int
    packed: bytes

    def pack(self) -> bytes:
        head = canonical.dumps(
            {
                "answer": self.answer.digest,
                "transcript": self.answer.transcript,
                "turns": self.cost.turns,
                "sent": self.cost.bytes_sent,
                "received": self.cost.bytes_received,
                "keys": self.keys,
            }
        )
        return len(head).to_bytes(4, "big") + head + self.packed

    @classmethod
    def unpack(cls, data: bytes) -> Finished:
        size = int.from_bytes(data[:4], "big")
        d = canonical.loads(data[4 : 4 + size], limit=MAX_NOTE)
        cost = Cost(d["turns"], d["sent"], d["received"])
        return cls(Answer(d["answer"], d["transcript"]), cost, d["keys"], data[4 + size :])

    def mask(self) -> npt.NDArray[np.bool_]:
        bits = np.unpackbits(np.frombuffer(self.packed, np.uint8), count=self.keys)
        return bits.astype(np.bool_)


class JobRuns:
    """One job: opened when this is made. ``run_all``, then ``found``, then ``finish``."""

    def __init__(
        self,
        session: Client,
        operation: Operation,
        dataset: str,
        params: Params,
        sizes: Sizes,
        *,
        party: RunParty,
        input_digest: bytes,
        purpose: str | None,
        scenario: str | None,
        job: str | None,
        begun: Callable[[str], object] = lambda job: None,
    ) -> None:
        """begun: told the job's id before the node is."""
        self._session, self._operation, self._sizes, self._party = session, operation, sizes, party
        self._state = session._begin(
            operation,
            dataset,
            params,
            sizes,
            input_digest=input_digest,
            purpose=purpose,
            scenario=scenario,
            job=job,
            begun=begun,
            ahead=True,  # once for all runs, which begin together
        )
        self._params: Params = self._state.asked["params"]
        self._input = input_digest
        self.count = runs_of(self._params)

    @property
    def job(self) -> str:
        return self._state.job

    def run_all(
        self,
        *,
        at_a_time: int | None = None,
        progress: Callback | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Run what is not finished, two at a time unless said otherwise.

        stop: when set, what is under way is finished and ``JobInterrupted`` is raised.
        """
        left = [run for run in range(self.count) if self._kept(run) is None]
        phase = Phase("match", self.count, progress, before=self.count - len(left))
        stopped = threading.Event()

        def one(run: int) -> None:
            if stopped.is_set() or (stop is not None and stop.is_set()):
                return
            try:
                self._run(run)
                phase.advance(1)
            except BaseException:
                stopped.set()
                raise

        with ThreadPoolExecutor(
            min(at_a_time or AT_A_TIME, max(1, len(left))), "trustcompute-run"
        ) as threads:
            tasks = [threads.submit(one, run) for run in left]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:  # an error, or an interrupt from the keyboard: nothing further begins
                stopped.set()
        _raise_first(tasks)
        if any(self._kept(run) is None for run in left):
            raise JobInterrupted(f"stopped; job {self.job} can go on: pass job={self.job!r}", self.job)

    def found(self, run: int) -> npt.NDArray[np.bool_]:
        """Which keys of its bucket a finished run found: bool[keys]."""
        return self._finished(run).mask()

    @property
    def cost(self) -> Cost:
        """Of all runs, once they are finished."""
        return _sum([self._finished(run) for run in range(self.count)])

    def finish(self, output: T) -> Computed[T]:
        """Acknowledge all answers, take and check the receipt, forget the job's secrets."""
        session, state = self._session, self._state
        finished = [self._finished(run) for run in range(self.count)]
        answers = [one.answer.digest for one in finished]
        bound = self._operation.bound(self._params, self._sizes)

        def check(receipt: Receipt) -> None:
            posted = decode(receipt.index, receipt.entry).fields.get("run")
            if type(posted) is not int or not 0 <= posted < self.count:
                raise RemoteProtocolError("the receipt is not for a run of this job")
            check_charge(receipt, state, finished[posted].answer, bound)

        signed = session._acknowledging.submit(session._countersign, state, answers, lambda: None)
        return Computed(
            output,
            _sum(finished),
            self._operation.leakage(self._params),
            job=state.job,
            acknowledged=session._finished(state, signed, check),
        )

    def _kept(self, run: int) -> bytes | None:
        return self._session._states.noted(self.job, "found", run)

    def _finished(self, run: int) -> Finished:
        kept = self._kept(run)
        if kept is None:
            raise StoreError(f"run {run} of job {self.job} is not finished")
        return Finished.unpack(kept)

    def _run(self, run: int) -> None:
        """One run to its end, from its beginning again where the node has lost it."""
        states = self._session._states
        for attempt in range(self._attempt(run), MAX_ATTEMPTS):
            try:
                finished = self._attempted(run, attempt)
            except RunLost:
                states.forget_turns(self.job, run)
                states.note(self.job, "attempt", run, str(attempt + 1).encode())
                continue
            states.note(self.job, "found", run, finished.pack())
            states.forget_turns(self.job, run)
            return
        raise JobInterrupted(
            f"the node lost run {run} {MAX_ATTEMPTS} times; job {self.job} can go on: pass job={self.job!r}",
            self.job,
        )

    def _attempt(self, run: int) -> int:
        noted = self._session._states.noted(self.job, "attempt", run)
        return 0 if noted is None else int(noted)

    def _attempted(self, run: int, attempt: int) -> Finished:
        session, state, operation = self._session, self._state, self._operation
        info = token_hash(state.request).encode() + self._input + b"/%d/%d" % (run, attempt)
        party = self._party(run, self._params, Rng.derive(state.seed, info=info))
        binding = Binding(
            hash_of(session._token), operation.id, self._params, operation.consumer, operation.provider
        )
        runner = Runner(party, binding, leads=True, job=state.job, run=run)
        opening = session._opening(state, self._sizes)
        link = Link(session._channel, session._states, opening, state.job, run)
        found = session._retry(state.job, lambda: drive(runner, link.exchange))
        assert runner.answer is not None and found.mask is not None
        return Finished(runner.answer, runner.cost, len(found.mask), np.packbits(found.mask).tobytes())


def _sum(finished: Sequence[Finished]) -> Cost:
    return Cost(
        sum(one.cost.turns for one in finished),
        sum(one.cost.bytes_sent for one in finished),
        sum(one.cost.bytes_received for one in finished),
    )


def _raise_first(tasks: list[Future[Any]]) -> None:
    """The first error, after all have ended; one that says no rather than one that a broken line explains."""
    errors = [error for task in tasks if (error := task.exception()) is not None]
    for error in errors:
        if isinstance(error, TrustcomputeError) and not isinstance(error, JobInterrupted):
            raise error
    if errors:
        raise errors[0]
