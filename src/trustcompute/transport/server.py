"""A Flight server over mutual TLS that hands every call to a ``Handler``, with limits and coded errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import pyarrow as pa
from pyarrow import flight

from trustcompute.errors import TransportError, TrustcomputeError
from trustcompute.primitives.identity import Identity
from trustcompute.transport import wire
from trustcompute.transport.channel import Handler

T = TypeVar("T")

MAX_CALLS: Final = 64  # at a time, over all peers: a turn holds its frames in memory
MAX_DESCRIPTOR: Final = 1024

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
                f"cannot listen on {host}:{port}: the port may be in use, or not allowed"
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
        self._calls = threading.BoundedSemaphore(MAX_CALLS)

    def do_action(self, context: Any, action: Any) -> list[Any]:
        with self._call():
            if action.body.size > wire.MAX_ACTION:
                raise wire.to_flight(TransportError(f"a request may have at most {wire.MAX_ACTION} bytes"))
            body = _coded(lambda: self._handler.action(_peer(context), action.type, action.body.to_pybytes()))
            return [flight.Result(pa.py_buffer(body))]

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        with self._call():
            command = descriptor.command or b""
            if len(command) > MAX_DESCRIPTOR:
                raise wire.to_flight(TransportError("the descriptor of a turn is too long"))

            def answer() -> None:
                frames = self._handler.exchange(_peer(context), command, wire.read(reader))
                writer.begin(wire.SCHEMA)
                wire.write(writer, frames)

            _coded(answer)

    @contextmanager
    def _call(self) -> Any:
        if not self._calls.acquire(blocking=False):
            raise wire.to_flight(
                TransportError("the node is serving as many calls as it can: try again later")
            )
        try:
            yield
        finally:
            self._calls.release()


def _peer(context: Any) -> str:
    name = context.peer_identity().decode("ascii", "replace")
    if not name:
        raise TransportError("the client's certificate has no name")
    return str(name)


def _coded(call: Callable[[], T]) -> T:
    """Errors of ours cross coded; anything else crosses as one sentence, and stays in this side's log."""
    try:
        return call()
    except TrustcomputeError as error:
        raise wire.to_flight(error) from None
    except (flight.FlightError, pa.ArrowException, OSError) as error:
        raise wire.to_flight(TransportError("the stream broke off")) from error
    except Exception:
        log.exception("a call failed inside this node")
        raise wire.to_flight(
            TrustcomputeError("the node failed inside; its operator finds the reason in its log")
        ) from None
