"""Two parties driven by hand, so that a test can read, change or repeat every message that flies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trustcompute import kernels
from trustcompute.errors import KernelError, RemoteProtocolError
from trustcompute.kernels import dispatch
from trustcompute.protocol.message import Message
from trustcompute.protocol.party import Send
from trustcompute.protocol.run import Runner, in_memory


def digests(numbers):
    """Distinct key digests, uint8[n, 32]."""
    rows = np.zeros((len(numbers), 32), np.uint8)
    rows[:, :8] = np.asarray(numbers, dtype=np.uint64).reshape(-1, 1).view(np.uint8)
    return rows


LEFT, RIGHT = digests([1, 2, 3, 4, 5]), digests([4, 5, 6])


def fly(sides, change=lambda number, message: message):
    """Run (consumer's party, provider's party); every message in the order it flies, and both results."""
    sides, flown, results = list(sides), [], [None, None]
    pending = [next(side) for side in sides]
    while pending != [None, None]:
        mine = 0 if isinstance(pending[0], Send) else 1
        message = change(len(flown), pending[mine].message)
        flown.append(message)
        for side, value in ((1 - mine, message), (mine, None)):
            try:
                pending[side] = sides[side].send(value)
            except StopIteration as stop:
                pending[side], results[side] = None, stop.value
    return flown, results


def corrupted(number, column, place=-1, bit=1):
    """A change for ``fly``: one bit of one byte of one column of message ``number``."""

    def change(at, message):
        if at != number:
            return message
        values = message[column].copy()
        values.reshape(-1)[place] ^= bit
        return Message(message.kind, dict(message.columns) | {column: values})

    return change


def columns_of(sides):
    """Every (message number, column) of a run, to be corrupted one by one."""
    flown, _ = fly(sides)
    return [(number, name) for number, message in enumerate(flown) for name in message.columns]


def with_kernels(names, sides, monkeypatch):
    """Both parties, each computing on the kernels of that name. Skips where one is not there."""
    try:
        loaded = [dispatch.load(name) for name in names]
    except KernelError as error:
        pytest.skip(str(error))
    turn = [0]
    monkeypatch.setattr(kernels, "chosen", lambda: loaded[turn[0]])

    def under(side, party):
        value = None
        while True:
            turn[0] = side
            try:
                want = party.send(value)
            except StopIteration as stop:
                return stop.value
            value = yield want

    return [under(side, party) for side, party in enumerate(sides)]


def repeat_last_turn(sides, binding, turns):
    """Drive ``turns`` turns, then repeat the consumer's next one: the same bytes get the same answer, others none."""
    consumer, provider = Runner(sides[0], binding, leads=True), Runner(sides[1], binding, leads=False)
    for turn in range(turns):
        provider.take(turn, in_memory(consumer.give().frames))
        consumer.take(turn, in_memory(provider.give().frames))
    asked = consumer.give()
    provider.take(turns, in_memory(asked.frames))
    answer = provider.give()
    provider.take(turns, in_memory(asked.frames))
    assert provider.give() is answer, "the same bytes get the same answer"
    body = bytearray(b"".join(asked.frames[0].body))
    body[-1] ^= 1
    spoiled = replace(asked.frames[0], body=(memoryview(bytes(body)),))
    with pytest.raises(RemoteProtocolError, match="other bytes"):
        provider.take(turns, in_memory([spoiled]))
