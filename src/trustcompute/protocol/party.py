"""A party is one role in one run, written as a generator that yields what it sends and what it wants to receive.

    def sender(table: Table, p: Params) -> Party[None]:
        got = yield from receive("blinded", point=points(p.receiver_rows))
        yield from send("evaluated", releases=True, point=evaluate(table.key, got["point"]))

The other side says the same of what it waits for: ``receive("evaluated", releases=True, …)``.

A party does no IO, reads no clock and opens no file: its inputs, its randomness and what it receives decide
everything it does, so a run can be replayed, and tested without a network.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from trustcompute.protocol.message import Array, Column, Message


@dataclass(frozen=True, slots=True)
class Send:
    """``releases`` marks the first message after which the peer could compute any bit of its output."""

    message: Message
    releases: bool


@dataclass(frozen=True, slots=True)
class Receive:
    """``releases``: the protocol says that this is the message by which the peer releases our output."""

    kind: str
    columns: dict[str, Column]
    releases: bool


T = TypeVar("T")
Party: TypeAlias = Generator[Send | Receive, Message | None, T]


def send(kind: str, /, *, releases: bool = False, **columns: Array) -> Party[None]:
    """Send one message. Consecutive sends leave together, as one turn."""
    yield Send(Message(kind, columns), releases)


def receive(kind: str, /, *, releases: bool = False, **columns: Column) -> Party[Message]:
    """Wait for one message of this kind with exactly these columns; the driver refuses anything else."""
    message = yield Receive(kind, columns, releases)
    if message is None:
        raise TypeError("a driver answers a Receive with a Message")
    return message
