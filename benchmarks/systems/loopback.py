"""A run over a bare loopback socket, without TLS, grant or meter: a protocol's own time, between two processes.

Frames cross as they are: the numbers of frames, then each header and body after their lengths.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Incoming, Runner, Turn, drive
from trustcompute.protocol.transcript import Binding

_LENGTHS = struct.Struct("<QQ")
_PATIENCE = 60


@dataclass(frozen=True)
class _Frame:
    header: bytes
    data: memoryview

    def body(self, size: int) -> memoryview:
        assert len(self.data) == size
        return self.data


def lead(connection: socket.socket, party: Party, binding: Binding) -> object:
    """Run the consumer's party."""

    def exchange(turn: Turn) -> list[Incoming]:
        _send(connection, turn)
        return list(_received(connection))

    return drive(Runner(party, binding, leads=True), exchange)


def follow(connection: socket.socket, party: Party, binding: Binding) -> object:
    """Run the provider's party."""
    runner, number = Runner(party, binding, leads=False), 0
    while True:
        runner.take(number, list(_received(connection)))
        _send(connection, runner.give())
        if runner.done:
            return runner.result
        number += 1


def listen(port: int) -> socket.socket:
    """A connection that the other side opened."""
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(_PATIENCE)
        return _prepared(server.accept()[0])


def reach(port: int) -> socket.socket:
    """A connection to the other side, once it listens."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return _prepared(socket.create_connection(("127.0.0.1", port)))
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)


def _prepared(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(None)
    return connection


def _send(connection: socket.socket, turn: Turn) -> None:
    connection.sendall(struct.pack("<Q", len(turn.frames)))
    for frame in turn.frames:
        connection.sendall(
            _LENGTHS.pack(len(frame.header), sum(part.nbytes for part in frame.body)) + frame.header
        )
        for part in frame.body:
            connection.sendall(part)


def _received(connection: socket.socket) -> Iterator[_Frame]:
    for _ in range(struct.unpack("<Q", _exactly(connection, 8))[0]):
        header, body = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
        yield _Frame(bytes(_exactly(connection, header)), _exactly(connection, body))


def _exactly(connection: socket.socket, size: int) -> memoryview:
    whole = memoryview(bytearray(size))
    done = 0
    while done < size:
        done += connection.recv_into(whole[done:])
    return whole
