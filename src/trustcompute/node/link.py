"""A consumer's exchanges of one run: sent over a channel, kept when they have arrived, replayed after a restart.

A turn that has arrived is kept before it is answered or acknowledged: until then the node has it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

from trustcompute.errors import JobInterrupted
from trustcompute.node.documents import Opening, TurnDescriptor
from trustcompute.node.state import StateStore
from trustcompute.protocol.message import Frame
from trustcompute.protocol.run import Incoming, Turn, in_memory
from trustcompute.transport import Channel


class RunLost(Exception):
    """The node no longer has this run half way: it was restarted. The run begins again, under fresh secrets."""


class Link:
    """A run's exchanges: turns of the peer that had arrived before are taken from what was kept of them.

    opening: what the first turn brings; keeps: whether turns are kept; a party that lives with others in one process
    cannot go on in another.
    """

    def __init__(
        self,
        channel: Channel,
        states: StateStore,
        opening: Opening,
        job: str,
        run: int = 0,
        *,
        keeps: bool = True,
    ) -> None:
        self._channel, self._states, self._opening, self._job, self._run = channel, states, opening, job, run
        self._keeps = keeps
        self._turn = 0
        self._arrived: list[Frame] = []  # of this turn, not kept yet
        self._keeping = threading.Lock()

    def exchange(self, turn: Turn) -> Iterable[Incoming]:
        """The peer's answer to a turn. The one before it has been taken whole."""
        if turn.number > 0:
            self.keep(turn.number - 1)
        with self._keeping:
            self._turn, self._arrived = turn.number, []
        kept = self._states.kept_turn(self._job, self._run, turn.number)
        return self._sent(turn) if kept is None else in_memory(kept)

    def keep(self, turn: int) -> None:
        """Make a turn last that has arrived whole. Any thread may call it, again too."""
        with self._keeping:
            if self._turn == turn and self._arrived:
                self._states.keep_turn(self._job, self._run, turn, self._arrived)
                self._arrived = []

    def _sent(self, turn: Turn) -> Iterator[Incoming]:
        opening = self._opening if turn.number == 0 else None
        descriptor = TurnDescriptor(job=self._job, run=self._run, turn=turn.number, opening=opening).encode()
        try:
            for one in self._channel.exchange(descriptor, turn.frames):
                recorded = _Recorded(one)
                yield recorded
                if recorded.data is not None and self._keeps:
                    self._arrived.append(Frame(one.header, (recorded.data,), b""))
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
