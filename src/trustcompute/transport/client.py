"""A Flight client over mutual TLS: one connection to one peer, every call with a deadline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Any, Final

import pyarrow as pa
from pyarrow import flight

from trustcompute.errors import RemoteProtocolError, TransportError
from trustcompute.primitives.identity import Identity
from trustcompute.protocol.message import Frame
from trustcompute.protocol.run import Incoming
from trustcompute.transport import wire

ACTION_SECONDS: Final = 30.0
MAX_MESSAGE: Final = 2 * wire.BATCH  # of gRPC: a batch, its metadata, and room
TURN_SECONDS: Final = 3600.0  # the provider computes within its turn


class FlightChannel:
    """A connection to the node at ``url``, whose certificate must name ``peer``."""

    def __init__(
        self,
        url: str,
        identity: Identity,
        *,
        peer: str,
        action_seconds: float = ACTION_SECONDS,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        if not url.startswith("grpc+tls://"):
            raise TransportError(f"a node's address starts with grpc+tls://, not as in {url!r}")
        self.peer = peer
        self._url = url
        self._action_seconds, self._turn_seconds = action_seconds, turn_seconds
        try:
            self._client = flight.FlightClient(
                url,
                tls_root_certs=identity.authority,
                cert_chain=identity.certificate,
                private_key=identity.key.to_pem(),
                override_hostname=peer,
                generic_options=[("grpc.max_receive_message_length", MAX_MESSAGE)],
            )
        except pa.ArrowException as error:
            raise TransportError(f"cannot connect to {url}: the address is not usable") from error

    def action(self, name: str, body: bytes) -> bytes:
        options = flight.FlightCallOptions(timeout=self._action_seconds)
        with self._reached():
            results = list(islice(self._client.do_action(flight.Action(name, body), options), 2))
        if len(results) != 1 or results[0].body.size > wire.MAX_ACTION:
            raise RemoteProtocolError(f"the node answered {name!r} with none, several or too large results")
        return bytes(results[0].body.to_pybytes())

    def exchange(self, descriptor: bytes, frames: Sequence[Frame]) -> Iterable[Incoming]:
        options = flight.FlightCallOptions(timeout=self._turn_seconds)
        with self._reached():
            writer, reader = self._client.do_exchange(
                flight.FlightDescriptor.for_command(descriptor), options
            )
            try:
                writer.begin(wire.SCHEMA)
                wire.write(writer, frames)
                writer.done_writing()
                yield from self._incoming(reader)
            finally:
                reader.cancel()
                writer.close()

    def _incoming(self, reader: Any) -> Iterator[Incoming]:
        for frame in wire.read(reader):
            yield _Guarded(frame, self._reached)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except flight.FlightError as error:
            raise wire.from_flight(error) or self._failure(error) from None
        except (pa.ArrowException, OSError) as error:
            raise self._failure(error) from None

    def _failure(self, error: Exception) -> TransportError:
        if isinstance(error, flight.FlightTimedOutError):
            return TransportError(f"{self._url} did not answer in time")
        return TransportError(
            f"cannot talk to {self._url}: it is not running, not reachable, or has no certificate for {self.peer!r} "
            f"from an authority that both sides trust"
        )


class _Guarded:
    """A frame whose body is asked for later, after the exchange: a line that breaks then is told like any other."""

    def __init__(self, frame: Incoming, reached: Callable[[], AbstractContextManager[None]]) -> None:
        self.header, self._frame, self._reached = frame.header, frame, reached

    def body(self, size: int) -> memoryview:
        with self._reached():
            return self._frame.body(size)
