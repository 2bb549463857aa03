"""The book that a node's configuration names, for commands that work on it."""

from __future__ import annotations

from trustcompute.broker.broker import Broker
from trustcompute.cli.settings import NodeSettings
from trustcompute.primitives.identity import Identity


def open_book(settings: NodeSettings, *, read_only: bool = False) -> Broker:
    """Open it. read_only: also while the node runs; what would change the book is then refused."""
    return Broker.open(
        settings.path(settings.book),
        Identity.load(settings.path(settings.identity)),
        database=settings.database,
        trusted=settings.trusted_keys(),
        read_only=read_only,
    )
