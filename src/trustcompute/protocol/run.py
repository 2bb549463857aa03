"""Drivers: they advance a party, turn its messages into frames, and check every frame that comes in.

``run_local`` runs two parties in one process. A ``Runner`` runs one: ``give`` returns the turn to send, ``take``
feeds it the peer's. Both are idempotent: the same turn with the same bytes changes nothing and is answered with
the same frames; the same turn with other bytes is refused (else a peer would get free evaluations, or a second
use of one secret).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar, cast

from trustcompute.errors import LocalProtocolError, RemoteProtocolError
from trustcompute.protocol.message import (
    Address,
    Frame,
    Header,
    Message,
    decode,
    encode,
    frame_digest,
    parse_header,
)
from trustcompute.protocol.party import Party, Receive, Send
from trustcompute.protocol.transcript import Binding, Transcript

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")

LOCAL_JOB: Final = "0" * 32


class Incoming(Protocol):
    """One frame as a channel delivers it: the header first, the body once its size has been agreed to."""

    @property
    def header(self) -> bytes: ...

    def body(self, size: int) -> memoryview:
        """Exactly ``size`` bytes; raises ``RemoteProtocolError`` where the peer sends fewer or more."""
        ...


@dataclass(frozen=True, slots=True)
class Taken:
    """What is kept of a frame that was taken: enough to recognise it when it comes again."""

    header: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """Consecutive messages of one party, as frames. ``transcript`` is its state after these frames."""

    number: int
    frames: tuple[Frame, ...]
    releases: bool
    transcript: str

    @property
    def size(self) -> int:
        return sum(frame.size for frame in self.frames)

    @property
    def digest(self) -> str:
        return turn_digest(self.frames)


def turn_digest(frames: Sequence[Frame | Taken]) -> str:
    """SHA-256 (hex) over the digests of a turn's frames, in order: what receipts call the hash of an answer."""
    return hashlib.sha256(b"".join(frame.digest for frame in frames)).hexdigest()


def take_again(taken: Sequence[Taken], frames: Iterable[Incoming]) -> None:
    """Read a turn that was taken before; raises ``RemoteProtocolError`` unless it is the same to the byte."""
    frames = iter(frames)
    _repeat(taken, frames)
    if next(frames, None) is not None:
        raise _other_bytes()


def _repeat(taken: Sequence[Taken], frames: Iterator[Incoming]) -> None:
    for known in taken:
        incoming = next(frames, None)
        if incoming is None or incoming.header != known.header:
            raise _other_bytes()
        body = incoming.body(parse_header(known.header).body_size)
        if frame_digest(known.header, [body]) != known.digest:
            raise _other_bytes()


def _other_bytes() -> RemoteProtocolError:
    return RemoteProtocolError("the same turn came again with other bytes: a turn is answered once")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a consumer acknowledges: the digest (hex) of the turn that released its output, and the transcript then."""

    digest: str
    transcript: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run took: exchanges of one turn each way, and bytes of frames each way."""

    turns: int
    bytes_sent: int
    bytes_received: int


class Runner(Generic[T]):
    """Runs one party turn by turn.

    role, peer:  names of this party's role and of the other's, as in the binding.
    leads:       whether this side takes the first turn: the consumer does, and that turn may be empty.
    before_start: called before the party starts to work, when the peer has taken or may take its first turn: the
                 node arms here.
    before_send: called with each turn before its frames leave; the node charges here. What it raises leaves the
                 turn unsent, and the next ``give`` calls it again with the same frames.

    Not thread-safe: the caller holds a lock.
    """

    def __init__(
        self,
        party: Party[T],
        binding: Binding,
        *,
        leads: bool,
        job: str = LOCAL_JOB,
        run: int = 0,
        before_start: Callable[[], object] | None = None,
        before_send: Callable[[Turn], object] | None = None,
    ) -> None:
        self._party = party
        self._role, self._peer = binding.consumer, binding.provider
        if not leads:
            self._role, self._peer = self._peer, self._role
        self._leads, self._job, self._run = leads, job, run
        self._before_start, self._before_send = before_start, before_send
        self._transcript = Transcript(binding)
        self._pending: Send | Receive | None = None
        self._message: Message | None = None  # received, not yet given to the party
        self._state: str = "new"  # new, running, done, failed
        self._result: T | None = None
        self._turn: Turn | None = None  # the latest turn of this side
        self._sent = True
        self._given = 0
        self.taken: list[Taken] = []  # frames of the peer's latest turn, complete or not
        self._releasing = False  # the turn being taken holds the message that releases
        self.answer: Answer | None = None  # the peer's turn that released output
        self._taken_turn = 0
        self._turns_taken = 0
        self._bytes_sent = self._bytes_received = 0

    @property
    def done(self) -> bool:
        """The party has returned; its last turn may still have to be given."""
        return self._state == "done"

    @property
    def failed(self) -> bool:
        """The party raised, or the peer left it without the message it waits for: the run cannot go on."""
        return self._state == "failed"

    @property
    def result(self) -> T:
        if not self.done:
            raise LocalProtocolError("the run is not finished: it has no result yet")
        return cast(T, self._result)

    @property
    def cost(self) -> Cost:
        return Cost(self._turns_taken, self._bytes_sent, self._bytes_received)

    @property
    def transcript(self) -> str:
        """Hex digest over the binding and all frames so far; both sides hold the same after the same turn."""
        return self._transcript.hexdigest()

    def give(self) -> Turn:
        """The turn this side has to send: the same one until the peer's answer has been taken."""
        due = self._given == self._turns_taken if self._leads else self._given < self._turns_taken
        if due:
            self._turn, self._sent = self._collect(), False
            self._given += 1
        if self._turn is None:
            raise LocalProtocolError("the other side takes the first turn")
        if not self._sent:
            if self._before_send is not None:
                self._before_send(self._turn)
            self._sent = True
            self._bytes_sent += self._turn.size
        return self._turn

    def take(self, number: int, frames: Iterable[Incoming]) -> None:
        """Take the peer's turn ``number``; raises ``RemoteProtocolError`` for what the party does not wait for.

        A turn that was cut off half way may be sent again from its start. The party works on the turn's last
        message when its own turn is asked for, so that a caller can acknowledge an answer before it is checked.
        """
        waiting = self._given == self._turns_taken + self._leads
        if number == self._turns_taken - 1:
            take_again(self.taken, frames)
            return
        if number != self._turns_taken or not waiting:
            raise RemoteProtocolError(f"turn {number} came out of order: turn {self._turns_taken} is next")
        if self._taken_turn != number:
            self.taken, self._taken_turn, self._releasing = [], number, False
        self._take_fresh(number, iter(frames))

    def _take_fresh(self, number: int, frames: Iterator[Incoming]) -> None:
        _repeat(self.taken, frames)
        header = parse_header(self.taken[-1].header) if self.taken else None
        for incoming in frames:
            if header is not None and header.last:
                raise RemoteProtocolError(f"a message came after the end of turn {number}")
            header = self._addressed(number, incoming.header)
            self._resume()
            self._expect(header)
            body = incoming.body(header.body_size)
            taken = Taken(incoming.header, frame_digest(incoming.header, [body]))
            self.taken.append(taken)
            self._transcript.add(taken.digest)
            self._bytes_received += len(incoming.header) + body.nbytes
            self._message = decode(header, body)
        if not (header.last if header is not None else self._may_be_empty(number)):
            raise RemoteProtocolError(f"the peer's turn {number} was cut off")
        if header is not None and header.releases != self._releasing:
            raise RemoteProtocolError(
                f"the peer says of turn {number} that it releases output, or not, wrongly"
            )
        self._turns_taken += 1
        if self.answer is None and self._releasing:
            self.answer = Answer(turn_digest(self.taken), self.transcript)

    def _may_be_empty(self, number: int) -> bool:
        """The leader's first turn may be empty, and the answer to a last turn."""
        return self.done if self._leads else number == 0

    def _addressed(self, number: int, raw: bytes) -> Header:
        header = parse_header(raw)
        if header.address != Address(self._job, self._run, number, self._peer):
            raise RemoteProtocolError(
                f"the message {header.kind!r} belongs to another job, run, turn or role"
            )
        return header

    def _expect(self, header: Header) -> None:
        want = self._pending
        if not isinstance(want, Receive):
            raise RemoteProtocolError(f"a message {header.kind!r} came where none is due")
        if header.kind != want.kind or [name for name, _, _ in header.columns] != list(want.columns):
            raise RemoteProtocolError(f"a message {header.kind!r} came where {want.kind!r} is due")
        for name, dtype, shape in header.columns:
            if not want.columns[name].admits(dtype, shape):
                raise RemoteProtocolError(
                    f"column {name!r} of {header.kind!r} has dtype {dtype} and shape {list(shape)}; "
                    f"the declared sizes allow {want.columns[name]}"
                )
        self._releasing |= want.releases

    def _collect(self) -> Turn:
        self._resume()
        sends = []
        while isinstance(self._pending, Send):
            sends.append(self._pending)
            self._advance(None)
        if not sends and not self.done and (self._given or not self._leads):
            self._state = "failed"
            raise RemoteProtocolError("the peer's turn ended before the message that is due")
        releases = any(send.releases for send in sends)
        address = Address(self._job, self._run, self._given, self._role)
        frames = tuple(
            encode(send.message, address, last=send is sends[-1], releases=releases) for send in sends
        )
        for frame in frames:
            self._transcript.add(frame.digest)
        return Turn(self._given, frames, releases, self._transcript.hexdigest())

    def _resume(self) -> None:
        """Let the party work on what it has received last: not before the next frame, or the answer, asks for it."""
        if self._state == "failed":
            raise LocalProtocolError("the run failed before: it cannot go on")
        if self._state == "new":
            if self._before_start is not None:
                self._before_start()
            self._state = "running"
            self._advance(None)
        elif self._message is not None:
            message, self._message = self._message, None
            self._advance(message)

    def _advance(self, message: Message | None) -> None:
        try:
            self._pending = self._party.send(message)
        except StopIteration as stop:
            self._pending, self._result, self._state = None, stop.value, "done"
        except BaseException:
            self._pending, self._state = None, "failed"
            raise


Exchange = Callable[[Turn], Iterable[Incoming]]


def drive(
    runner: Runner[T],
    exchange: Exchange,
    *,
    released: Callable[[Answer], object] | None = None,
) -> T:
    """Run the leading side to its end: each turn is handed to ``exchange``, which returns the peer's answer.

    released: called with the answer once output was released, before this side looks into it, and perhaps again.
    After an error of the channel, ``drive`` may be called again and goes on where it stopped.
    """
    while True:
        if released is not None and runner.answer is not None:
            released(runner.answer)
        turn = runner.give()
        if runner.done and not turn.frames:
            return runner.result
        runner.take(turn.number, exchange(turn))


@dataclass(frozen=True, slots=True)
class LocalRun(Generic[A, B]):
    """Results of two parties run in one process, and what their messages would have cost on a wire."""

    consumer: A
    provider: B
    cost: Cost
    transcript: str


class _InMemory:
    def __init__(self, frame: Frame) -> None:
        self.header = frame.header
        self._frame = frame

    def body(self, size: int) -> memoryview:
        parts = self._frame.body
        whole = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        if whole.nbytes != size:
            raise RemoteProtocolError(f"a body of {whole.nbytes} bytes came where {size} were announced")
        return whole


def in_memory(frames: Iterable[Frame]) -> list[Incoming]:
    """Frames as the other side would receive them, without a copy where a message has one column."""
    return [_InMemory(frame) for frame in frames]


def run_local(consumer: Party[A], provider: Party[B], binding: Binding) -> LocalRun[A, B]:
    """Run both parties in this process, every message checked as if it came from a peer."""
    leader = Runner(consumer, binding, leads=True)
    follower = Runner(provider, binding, leads=False)

    def exchange(turn: Turn) -> list[Incoming]:
        follower.take(turn.number, in_memory(turn.frames))
        return in_memory(follower.give().frames)

    result = drive(leader, exchange)
    return LocalRun(result, follower.result, leader.cost, leader.transcript)
