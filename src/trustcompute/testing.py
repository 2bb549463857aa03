"""What the tests of an embedding service need: a clock that is told the time, a channel that fails on request, and
a toy protocol of three turns that reveals nothing worth protecting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from trustcompute.errors import TransportError
from trustcompute.protocol.message import Array, AtMost, Column, Frame, parse_header
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.run import Incoming
from trustcompute.transport import Channel


class FakeClock:
    """A clock for ``Broker.open(clock=…)``: seconds since the epoch, moved by hand."""

    def __init__(self, now: int = 1_700_000_000) -> None:
        self.time = now

    def now(self) -> int:
        return self.time

    def advance(self, seconds: int) -> None:
        self.time += seconds


Fault = Literal[
    "lose request", "lose answer", "cut request", "cut answer", "flip request", "flip answer", "repeat"
]


@dataclass
class FaultyChannel:
    """Wraps a channel and spoils the exchanges that ``plan`` names: exchange number -> fault.

    ``lose`` breaks the connection before anything arrives (request) or before anything comes back (answer); ``cut``
    lets only the first frame through; ``flip`` alters one byte of the last body; ``repeat`` sends the turn twice.
    """

    channel: Channel
    plan: dict[int, Fault] = field(default_factory=dict)
    exchanges: int = 0
    before: Callable[[int], None] = lambda number: None

    @property
    def peer(self) -> str:
        return self.channel.peer

    def action(self, name: str, body: bytes) -> bytes:
        return self.channel.action(name, body)

    def close(self) -> None:
        self.channel.close()

    def exchange(self, descriptor: bytes, frames: Sequence[Frame]) -> Iterable[Incoming]:
        number, self.exchanges = self.exchanges, self.exchanges + 1
        self.before(number)
        fault = self.plan.get(number)
        if fault == "lose request":
            raise TransportError("the connection broke before the turn was sent")
        if fault == "cut request":
            frames = frames[:-1]
        if fault == "flip request":
            frames = [*frames[:-1], _flipped(frames[-1])]
        if fault == "repeat":
            list(_read(self.channel.exchange(descriptor, frames)))
        return self._answer(self.channel.exchange(descriptor, frames), fault)

    @staticmethod
    def _answer(incoming: Iterable[Incoming], fault: Fault | None) -> Iterator[Incoming]:
        arrived = list(_read(incoming))
        if fault == "lose answer":
            raise TransportError("the connection broke before the answer came")
        for index, frame in enumerate(arrived):
            last = index == len(arrived) - 1
            if fault == "cut answer" and last:
                raise TransportError("the connection broke within the answer")
            yield _Arrived(frame.header, _flip(frame.data)) if fault == "flip answer" and last else frame


@dataclass(frozen=True)
class _Arrived:
    header: bytes
    data: bytes

    def body(self, size: int) -> memoryview:
        return memoryview(self.data)[:size]


def _read(incoming: Iterable[Incoming]) -> Iterator[_Arrived]:
    for frame in incoming:
        yield _Arrived(frame.header, bytes(frame.body(parse_header(frame.header).body_size)))


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


def _flipped(frame: Frame) -> Frame:
    return replace(frame, body=(memoryview(_flip(b"".join(frame.body))),))


MAX_NUMBERS = 1000


def asker(numbers: Array) -> Party[int]:
    """Three turns: ask with a size, send numbers (int64[n]), get their sum, say thanks."""
    yield from send("ask", size=np.array([len(numbers)], dtype=np.int64))
    yield from receive("ready")
    yield from send("numbers", value=numbers)
    total = int((yield from receive("sum", releases=True, value=Column("i8", (1,))))["value"][0])
    yield from send("thanks")
    return total


def answerer() -> Party[str]:
    """The other side of ``asker``: its second message releases the output."""
    asked = yield from receive("ask", size=Column("i8", (1,)))
    yield from send("ready")
    size = min(max(int(asked["size"][0]), 0), MAX_NUMBERS)
    numbers = (yield from receive("numbers", value=Column("i8", (AtMost(size),))))["value"]
    yield from send("sum", releases=True, value=np.array([numbers.sum()], dtype=np.int64))
    yield from receive("thanks")
    return "thanked"


def _check(params: Params, sizes: Sizes) -> dict[str, object]:
    return dict(params)


THREE_TURNS = Operation(
    id="test.three-turns.v1",
    check=_check,
    output=lambda params: OutputForm.AGGREGATE,
    bound=lambda params, sizes: Usage(calls=1, rows=sizes.consumer),
    leakage=lambda params: Leakage(consumer="the sum", provider="the numbers"),
    consumer="asker",
    provider="answerer",
)
"""The toy protocol as an operation, so that a node can be armed, interrupted and charged in tests."""
