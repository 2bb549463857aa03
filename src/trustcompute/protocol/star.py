"""Computations of one with many: a coordinator, and a party for every peer, which are ordinary parties.

A coordinator is a generator like a party; it says what goes to whom and waits for all of them at once:

    def adder(peers: Sequence[str]) -> Coordinator[int]:
        yield from scatter({peer: message("ask") for peer in peers})
        got = yield from gather("number", peers, at_least=2, value=Column("i8", (1,)))
        return sum(int(one["value"][0]) for one in got.values())

``gather`` returns what came; who is absent has dropped out. A ``Hub`` couples the coordinator with one *leg* for
each peer: a leg is a party too, so whatever drives a party drives a leg (``Runner``, a session of a node) on a
thread of its own. ``run_star`` runs all of them in one process, every message checked as if it came from a peer.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar

from trustcompute.errors import LocalProtocolError, ProtocolError, TrustcomputeError
from trustcompute.protocol.message import Array, Column, Message
from trustcompute.protocol.party import Party, Receive, Send
from trustcompute.protocol.run import Cost, Runner, Turn, drive, in_memory
from trustcompute.protocol.transcript import Binding

T = TypeVar("T")
PATIENCE: Final = 600.0  # seconds for everyone to answer one message

Take = Callable[[str, Message], Any]


@dataclass(frozen=True, slots=True)
class Scatter:
    """One message to each peer that is named."""

    messages: Mapping[str, Message]


@dataclass(frozen=True, slots=True)
class Gather:
    """Wait for one message of each peer. take: what to keep of it, called as it arrives."""

    receive: Receive
    peers: tuple[str, ...]
    at_least: int
    take: Take


Coordinator: TypeAlias = Generator[Scatter | Gather, Mapping[str, Any] | None, T]


class TooFew(ProtocolError):
    """Fewer peers answered than the protocol needs. By peer: ``reasons``, in words, and ``errors``."""

    code = "protocol.too_few"

    def __init__(self, message: str, reasons: Mapping[str, str], errors: Mapping[str, BaseException]) -> None:
        super().__init__(message)
        self.reasons, self.errors = dict(reasons), dict(errors)


class Stopped(ProtocolError):
    """The computation goes on without this peer, or has failed as a whole."""

    code = "protocol.stopped"


def message(kind: str, /, **columns: Array) -> Message:
    """A message as ``send`` makes it."""
    return Message(kind, columns)


def scatter(messages: Mapping[str, Message]) -> Coordinator[None]:
    """Send each peer its message; it leaves when something is gathered, or at the end."""
    yield Scatter(messages)


def gather(
    kind: str,
    peers: Iterable[str],
    /,
    *,
    at_least: int,
    take: Take = lambda _, got: got,
    releases: bool = False,
    **columns: Column,
) -> Coordinator[Mapping[str, Any]]:
    """Wait for a message of this kind from every peer; by peer, in the order given, what ``take`` made of it.

    Raises ``TooFew`` when fewer than ``at_least`` are left.
    """
    got = yield Gather(Receive(kind, columns, releases), tuple(peers), at_least, take)
    if got is None:
        raise TypeError("a hub answers a Gather with a mapping")
    return got


def in_step(parties: Mapping[str, Party[T]]) -> Coordinator[dict[str, T]]:
    """Run an ordinary party with every peer, all of one protocol and one size: they send and wait at the same points.

    What each of them returned, by peer. All peers must answer.
    """
    pending: dict[str, Send | Receive] = {}
    results: dict[str, T] = {}

    def advance(peer: str, answer: Message | None) -> None:
        try:
            pending[peer] = parties[peer].send(answer)
        except StopIteration as stop:
            pending.pop(peer, None)
            results[peer] = stop.value

    for peer in parties:
        advance(peer, None)
    while pending:
        sends = {peer: step.message for peer, step in pending.items() if isinstance(step, Send)}
        waits = [step for step in pending.values() if isinstance(step, Receive)]
        if sends:
            yield from scatter(sends)
            for peer in sends:
                advance(peer, None)
            continue
        if any(step != waits[0] for step in waits):
            raise LocalProtocolError("parties that are run in step must wait for messages of one form")
        peers = tuple(pending)
        got = yield Gather(waits[0], peers, len(peers), lambda _, one: one)
        if got is None:
            raise TypeError("a hub answers a Gather with a mapping")
        for peer in peers:
            advance(peer, got[peer])
    return results


class Hub(Generic[T]):
    """Couples a coordinator with the legs of its peers. ``run`` in one thread, each leg in another.

    patience: seconds that everyone has to answer; whoever takes longer has dropped out.
    ``reasons``: by peer that dropped out, why, in words.
    """

    def __init__(self, peers: Sequence[str], *, patience: float = PATIENCE) -> None:
        if len(set(peers)) < len(peers):
            raise LocalProtocolError("a star's peers have different names")
        self.reasons: dict[str, str] = {}
        self.errors: dict[str, BaseException] = {}
        self._patience = patience
        self._steps: dict[str, queue.SimpleQueue[Send | Receive | Stopped | None]] = {
            peer: queue.SimpleQueue() for peer in peers
        }
        self._answers: queue.SimpleQueue[tuple[str, Message | BaseException]] = queue.SimpleQueue()

    def leg(self, peer: str) -> Party[None]:
        """This side's party of one peer: does what the coordinator says."""
        while (step := self._steps[peer].get()) is not None:
            if isinstance(step, Stopped):
                raise step
            answer = yield step
            if isinstance(step, Receive):
                if answer is None:
                    raise TypeError("a driver answers a Receive with a Message")
                self._answers.put((peer, answer))
                del answer  # a vector need not outlive its being added

    def failed(self, peer: str, error: BaseException) -> None:
        """Whoever drives a leg says so when it cannot go on."""
        self._answers.put((peer, error))

    def run(self, coordinator: Coordinator[T]) -> T:
        """Drive the coordinator to its end; every leg ends, whatever happens."""
        try:
            step = next(coordinator)
            while True:
                step = coordinator.send(self._do(step))
        except StopIteration as stop:
            result: T = stop.value
            self._end(None)
            return result
        except BaseException as error:
            coordinator.close()
            self._end(Stopped(f"the computation stopped: {_told(error)}"))
            raise

    def _do(self, step: Scatter | Gather) -> Mapping[str, Any] | None:
        if isinstance(step, Scatter):
            for peer, one in step.messages.items():
                self._steps[peer].put(Send(one, False))
            return None
        return self._gather(step)

    def _gather(self, step: Gather) -> dict[str, Any]:
        waiting = {peer for peer in step.peers if peer not in self.reasons}
        for peer in waiting:
            self._steps[peer].put(step.receive)
        got: dict[str, Any] = {}
        deadline = time.monotonic() + self._patience
        while waiting:
            try:
                peer, answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                for late in waiting:
                    self._drop(late, f"no answer within {self._patience:g} seconds")
                break
            if isinstance(answer, TrustcomputeError):
                self._drop(peer, _told(answer), answer)
            elif isinstance(answer, BaseException):
                raise answer  # a bug of ours: nobody dropped out
            elif peer in waiting:
                try:
                    got[peer] = step.take(peer, answer)
                except ProtocolError as error:
                    self._drop(peer, _told(error), error)
            waiting.discard(peer)
        if len(got) < step.at_least:
            raise TooFew(
                f"{len(got)} of {len(step.peers)} answered with {step.receive.kind!r}, and {step.at_least} are needed: "
                + "; ".join(
                    why if why.startswith(f"{peer}:") else f"{peer}: {why}"
                    for peer, why in self.reasons.items()
                ),
                self.reasons,
                self.errors,
            )
        return {peer: got[peer] for peer in step.peers if peer in got}

    def _drop(self, peer: str, why: str, error: BaseException | None = None) -> None:
        if peer in self.reasons:
            return
        self.reasons[peer] = why
        if error is not None:
            self.errors[peer] = error
        self._steps[peer].put(Stopped(f"the computation goes on without {peer}: {why}"))

    def _end(self, last: Stopped | None) -> None:
        for peer, steps in self._steps.items():
            if peer not in self.reasons:
                steps.put(last)


def _told(error: BaseException) -> str:
    """An error as others may read it: ours in words, a foreign one by its kind alone."""
    return str(error) if isinstance(error, TrustcomputeError) else f"an error ({type(error).__name__})"


@dataclass(frozen=True, slots=True)
class StarRun(Generic[T]):
    """result: the coordinator's; outputs: of the parties that ran to their end; reasons, errors: why the others did
    not."""

    result: T
    outputs: Mapping[str, Any]
    reasons: Mapping[str, str]
    errors: Mapping[str, BaseException]
    costs: Mapping[str, Cost]


def run_star(
    coordinator: Coordinator[T],
    parties: Mapping[str, Party[Any]],
    binding: Binding,
    *,
    patience: float = PATIENCE,
    threads: int | None = None,
) -> StarRun[T]:
    """Run all in this process. parties: by name, each the follower of its own exchange with the coordinator."""
    hub: Hub[T] = Hub(list(parties), patience=patience)
    outputs: dict[str, Any] = {}
    costs: dict[str, Cost] = {}

    def leg(peer: str, party: Party[Any]) -> None:
        follower = Runner(party, binding, leads=False)
        leader = Runner(hub.leg(peer), binding, leads=True)
        try:
            drive(leader, partial(_exchange, follower))
            outputs[peer] = follower.result
        except BaseException as error:
            party.close()
            hub.failed(peer, error)
        costs[peer] = leader.cost

    with ThreadPoolExecutor(threads or max(len(parties), 1)) as pool:
        for peer, party in parties.items():
            pool.submit(leg, peer, party)
        result = hub.run(coordinator)
    return StarRun(result, outputs, dict(hub.reasons), dict(hub.errors), costs)


def _exchange(follower: Runner[Any], turn: Turn) -> list[Any]:
    follower.take(turn.number, in_memory(turn.frames))
    return in_memory(follower.give().frames)
