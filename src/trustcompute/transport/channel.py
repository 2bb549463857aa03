"""What a channel offers and what a server needs, whatever carries the bytes; and a channel within one process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from trustcompute.protocol.message import Frame
from trustcompute.protocol.run import Incoming, in_memory


class Handler(Protocol):
    """The server's side. ``peer`` is the name in the caller's certificate; errors raised reach the caller coded."""

    def action(self, peer: str, name: str, body: bytes) -> bytes:
        """Answer one small request."""
        ...

    def exchange(self, peer: str, descriptor: bytes, incoming: Iterator[Incoming]) -> Sequence[Frame]:
        """Take one turn of frames, answer with one."""
        ...


class Channel(Protocol):
    """The client's side of a connection to one peer, whose certified name is ``peer``."""

    @property
    def peer(self) -> str: ...

    def action(self, name: str, body: bytes) -> bytes: ...

    def exchange(self, descriptor: bytes, frames: Sequence[Frame]) -> Iterable[Incoming]: ...

    def close(self) -> None: ...


class LocalChannel:
    """Calls a handler in this process, under the caller's name: the same code paths without a network."""

    def __init__(self, handler: Handler, *, caller: str, peer: str) -> None:
        self._handler, self._caller = handler, caller
        self.peer = peer

    def action(self, name: str, body: bytes) -> bytes:
        return self._handler.action(self._caller, name, body)

    def exchange(self, descriptor: bytes, frames: Sequence[Frame]) -> Iterable[Incoming]:
        return in_memory(self._handler.exchange(self._caller, descriptor, iter(in_memory(frames))))

    def close(self) -> None:
        """Nothing is held open."""
