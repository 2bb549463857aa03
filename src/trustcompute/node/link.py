"""A consumer's exchanges of one run: sent over a channel, kept when they have arrived, replayed after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trustcompute.errors import JobInterrupted
from trustcompute.node.documents import TurnDescriptor
from trustcompute.node.state import StateStore
from trustcompute.protocol.message import Frame
from trustcompute.protocol.run import Incoming, Turn, in_memory
from trustcompute.transport import Channel


class RunLost(Exception):
    """The node no longer has this run half way: it was restarted. The run begins again, under fresh secrets."""


class Link:
    """A run's exchanges: turns of the peer that had arrived before are taken from what was kept of them.

    keeps: whether anything is; a party that lives with others in one process cannot go on in another.
    """

    def __init__(
        self, channel: Channel, states: StateStore, job: str, run: int = 0, *, keeps: bool = True
    ) -> None:
        self._channel, self._states, self._job, self._run = channel, states, job, run
        self._keeps = keeps
        self._arrived: list[Frame] | None = None

    def exchange(self, turn: Turn) -> Iterable[Incoming]:
        kept = self._states.kept_turn(self._job, self._run, turn.number)
        if kept is not None:
            self._arrived = None
            return in_memory(kept)
        self._arrived = [] if self._keeps else None
        descriptor = TurnDescriptor(job=self._job, run=self._run, turn=turn.number).encode()
        return self._recorded(turn, descriptor, self._arrived)

    def keep(self, turn: int) -> None:
        """The turn has arrived whole: make it last before it is acknowledged or answered."""
        if self._arrived:
            self._states.keep_turn(self._job, self._run, turn, self._arrived)

    def _recorded(self, turn: Turn, descriptor: bytes, arrived: list[Frame] | None) -> Iterator[Incoming]:
        try:
            for one in self._channel.exchange(descriptor, turn.frames):
                recorded = _Recorded(one)
                yield recorded
                if recorded.data is not None and arrived is not None:
                    arrived.append(Frame(one.header, (recorded.data,), b""))
        except JobInterrupted as error:
            raise RunLost(str(error)) from error


class _Recorded:
    """An incoming frame that remembers its body."""

    def __init__(self, incoming: Incoming) -> None:
        self.header, self._incoming = incoming.header, incoming
        self.data: memoryview | None = None

    def body(self, size: int) -> memoryview:
        self.data = self._incoming.body(size)
        return self.data
