"""A Flight server over mutual TLS that hands every call to a ``Handler``, with limits and coded errors."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pyarrow as pa
from pyarrow import flight

from trustcompute.errors import (
    Conflict,
    InputError,
    JobForfeited,
    JobInterrupted,
    Refused,
    RemoteProtocolError,
    StoreError,
    TransportError,
    TrustcomputeError,
    VerificationError,
)
from trustcompute.primitives.identity import Identity
from trustcompute.transport import wire
from trustcompute.transport.channel import Handler

T = TypeVar("T")

MAX_CALLS: Final = 64  # at a time, over all peers: a turn holds its frames in memory
MAX_CALLS_PER_PEER: Final = 16  # so that a peer that stalls cannot keep the others out

TOLD: Final = (  # what a peer can do something about
    InputError,
    VerificationError,
    Refused,
    Conflict,
    RemoteProtocolError,
    JobForfeited,
    JobInterrupted,
    TransportError,
)

log = logging.getLogger(__name__)


class FlightServer:
    """Serves a handler until it is closed. Use as a context manager.

    Only clients with a certificate of the identity's authority are let in; the name in it is the peer's. There is
    no other authentication here: what a peer may do is the handler's to decide.
    """

    def __init__(
        self, handler: Handler, identity: Identity, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        try:
            self._server = _Server(
                f"grpc+tls://{host}:{port}",
                handler,
                tls_certificates=[(identity.certificate, identity.key.to_pem())],
                verify_client=True,
                root_certificates=identity.authority,
            )
        except (pa.ArrowException, OSError) as error:
            raise TransportError(
                f"cannot listen on {host}:{port}: the address may be wrong, in use or not allowed"
            ) from error
        self._host = host
        # The server has been listening since it was made. Its own ``serve`` would only block, and take over SIGTERM.

    @property
    def url(self) -> str:
        return f"grpc+tls://{self._host}:{self._server.port}"

    def close(self) -> None:
        """Stop serving; calls that are running are cut off."""
        self._server.shutdown()

    def __enter__(self) -> FlightServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(flight.FlightServerBase):  # type: ignore[misc]
    def __init__(self, location: str, handler: Handler, **options: Any) -> None:
        super().__init__(location, **options)
        self._handler = handler
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()

    def do_action(self, context: Any, action: Any) -> list[Any]:
        with self._call(context):
            if action.body.size > wire.MAX_ACTION:
                raise wire.to_flight(TransportError(f"a request may have at most {wire.MAX_ACTION} bytes"))
            body = _coded(lambda: self._handler.action(_peer(context), action.type, action.body.to_pybytes()))
            return [flight.Result(pa.py_buffer(body))]

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        with self._call(context):
            command = descriptor.command or b""
            if len(command) > wire.MAX_ACTION:
                raise wire.to_flight(
                    TransportError(f"the descriptor of a turn may have at most {wire.MAX_ACTION} bytes")
                )

            def answer() -> None:
                frames = self._handler.exchange(_peer(context), command, wire.read(reader))
                writer.begin(wire.SCHEMA)
                wire.write(writer, frames)

            _coded(answer)

    def _not_offered(self, *_: Any) -> Any:
        raise wire.to_flight(RemoteProtocolError("a node answers actions and exchanges only"))

    # Left to the base class, these would send a Python traceback to the peer.
    list_flights = get_flight_info = list_actions = do_get = do_put = _not_offered

    def get_schema(self, context: Any, descriptor: Any) -> Any:
        return flight.SchemaResult(pa.schema([]))  # an error from here would carry a traceback

    @contextmanager
    def _call(self, context: Any) -> Iterator[None]:
        peer = _peer(context)
        with self._lock:
            if self._calls[peer] >= MAX_CALLS_PER_PEER or self._calls.total() >= MAX_CALLS:
                raise wire.to_flight(
                    TransportError("the node is serving as many calls as it can: try again later")
                )
            self._calls[peer] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls[peer] -= 1
                self._calls += Counter()  # forgets peers that have none


def _peer(context: Any) -> str:
    name = context.peer_identity().decode("ascii", "replace")
    if not name:
        raise TransportError("the client's certificate has no name")
    return str(name)


def _coded(call: Callable[[], T]) -> T:
    """Errors that are the peer's business cross coded; anything else stays in this side's log."""
    try:
        return call()
    except TOLD as error:
        raise wire.to_flight(error) from None
    except StoreError:
        log.exception("the book could not be read or written")
        raise wire.to_flight(
            TransportError("the node cannot keep its record at the moment: try again later")
        ) from None
    except (flight.FlightError, pa.ArrowException, OSError) as error:
        raise wire.to_flight(TransportError("the stream broke off")) from error
    except Exception:
        log.exception("a call failed inside this node")
        raise wire.to_flight(
            TrustcomputeError("the node failed inside; its operator finds the reason in its log")
        ) from None
