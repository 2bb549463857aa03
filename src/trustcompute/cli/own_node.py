"""Our own node, running or not: a running one is told over the network, of a stopped one the book is opened."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trustcompute.broker.broker import Broker
from trustcompute.cli.settings import NodeSettings
from trustcompute.errors import ParameterError, StoreError
from trustcompute.primitives.identity import Identity
from trustcompute.transport import Channel, FlightChannel

T = TypeVar("T")


def at_own_node(
    config: NodeSettings,
    mine: Identity,
    url: str | None,
    *,
    stopped: Callable[[Broker], T],
    running: Callable[[Channel], T],
) -> T:
    """``stopped`` with the book, where nobody else has it open and no ``url`` was named; otherwise ``running``."""
    if url is None:
        try:
            with open_book(config) as broker:
                return stopped(broker)
        except StoreError as error:
            if "another process" not in str(error):
                raise
    return over_network(url or own_url(config), mine, mine.name, running)


def over_network(url: str, signer: Identity, node: str, tell: Callable[[Channel], T]) -> T:
    """Tell the node of that name at ``url`` something."""
    channel = FlightChannel(url, signer, peer=node)
    try:
        return tell(channel)
    finally:
        channel.close()


def open_book(config: NodeSettings, *, read_only: bool = False) -> Broker:
    """Our book. read_only: also while the node runs; what would change the book is then refused."""
    return Broker.open(
        config.path(config.book),
        Identity.load(config.path(config.identity)),
        database=config.database,
        trusted=config.trusted_keys(),
        read_only=read_only,
    )


def own_url(settings: NodeSettings) -> str:
    """Where a node of these settings listens, seen from its own machine. Raises ``ParameterError``."""
    host, port = settings.address
    if port == 0:
        raise ParameterError("the node runs and listens at a port it chose: say which by --with URL")
    return f"grpc+tls://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not bound
