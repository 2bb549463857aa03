"""A consumer's exchanges of one job: sent over a channel, kept when they have arrived, replayed after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trustcompute.node.documents import TurnDescriptor
from trustcompute.node.state import StateStore
from trustcompute.protocol.message import Frame
from trustcompute.protocol.run import Incoming, Turn, in_memory
from trustcompute.transport import Channel


class Link:
    """A job's exchanges: turns of the peer that had arrived before are taken from what was kept of them."""

    def __init__(self, channel: Channel, states: StateStore, job: str) -> None:
        self._channel, self._states, self._job = channel, states, job
        self._arrived: list[Frame] | None = None

    def exchange(self, turn: Turn) -> Iterable[Incoming]:
        kept = self._states.kept_turn(self._job, turn.number)
        if kept is not None:
            self._arrived = None
            return in_memory(kept)
        self._arrived = []
        descriptor = TurnDescriptor(job=self._job, run=0, turn=turn.number).encode()
        return self._recorded(self._channel.exchange(descriptor, turn.frames), self._arrived)

    def keep(self, turn: int) -> None:
        """The turn has arrived whole: make it last before it is acknowledged or answered."""
        if self._arrived:
            self._states.keep_turn(self._job, turn, self._arrived)

    @staticmethod
    def _recorded(incoming: Iterable[Incoming], arrived: list[Frame]) -> Iterator[Incoming]:
        for one in incoming:
            recorded = _Recorded(one)
            yield recorded
            if recorded.data is not None:
                arrived.append(Frame(one.header, (recorded.data,), b""))


class _Recorded:
    """An incoming frame that remembers its body."""

    def __init__(self, incoming: Incoming) -> None:
        self.header, self._incoming = incoming.header, incoming
        self.data: memoryview | None = None

    def body(self, size: int) -> memoryview:
        self.data = self._incoming.body(size)
        return self.data
