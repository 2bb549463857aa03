"""The regulator's role: reads a node's log, its rules and statements over the network, and nothing else.

A node names its regulators by the name in their certificates (``Node(regulators=…)``, ``regulators`` in its file). They
hold no grant and can ask for no computation. What they get is the log whole and in order, which ``Inspection`` checks
against the node's signed checkpoint before it believes any of it: a node that shows them another log than others is
found by comparing checkpoints, as with any copy. Entries hold no plaintext of what could name a person (``log``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import Field

from trustcompute.broker import log, rules, tiles
from trustcompute.broker.log import Entry, StoredEntry
from trustcompute.broker.rules import MAX_RULES, Rules
from trustcompute.errors import AuditError, Refused, RemoteProtocolError
from trustcompute.node.documents import Count, Document
from trustcompute.primitives import canonical, checkpoint, merkle
from trustcompute.primitives.checkpoint import MAX_NOTE, NoteKey
from trustcompute.transport import Channel

if TYPE_CHECKING:
    from trustcompute.node.server import Node

PAGE_BYTES: Final = 256 * 1024  # of entries in one answer, and one entry more
PAGE_ENTRIES: Final = 1024

Body = Annotated[str, Field(max_length=log.MAX_ENTRY)]


class PageRequest(Document):
    start: Count


class Page(Document):
    """Entries from ``start`` on, as many as fit, and the newest checkpoint."""

    checkpoint: Annotated[str, Field(max_length=MAX_NOTE)]
    entries: Annotated[list[Body], Field(max_length=PAGE_ENTRIES)]


class StatementRequest(Document):
    start: Count
    end: Count


class RulesInForce(Document):
    """tokens: of the deny-lists and policies in force, one a page. more: whether there are others behind ``start``."""

    token: Annotated[str, Field(max_length=MAX_RULES)] | None
    more: bool


def page(node: Node, peer: str, body: bytes) -> bytes:
    _regulator(node, peer)
    note, bodies = node.broker.page(PageRequest.parse(body).start, PAGE_ENTRIES, PAGE_BYTES)
    return Page(checkpoint=note, entries=[each.decode() for each in bodies]).encode()


def statement(node: Node, peer: str, body: bytes) -> bytes:
    _regulator(node, peer)
    asked = StatementRequest.parse(body)
    return canonical.dumps(node.broker.statement(asked.start, asked.end).to_document())


def rules_in_force(node: Node, peer: str, body: bytes) -> bytes:
    _regulator(node, peer)
    place = PageRequest.parse(body).start
    held = node.broker.rules()
    found = [
        each for reference, _ in held[place : place + 1] for each in node.broker.evidence(reference.hash)
    ]
    return RulesInForce(token=found[0].token if found else None, more=place + 1 < len(held)).encode()


def _regulator(node: Node, peer: str) -> None:
    if peer not in node.regulators:
        node.broker.count_failure(peer)
        raise Refused(
            "the record is shown to the node's regulators",
            rule="regulator",
            field="peer",
            owner=node.identity.name,
            fix="ask the node's operator to name you, or for an exported log",
        )


class Inspection:
    """A regulator's session with one node. key: of its log, from a certificate that the regulator trusts."""

    def __init__(self, channel: Channel, key: NoteKey) -> None:
        self._channel, self._key = channel, key

    def export(self, directory: Path) -> int:
        """Fetch the whole log, check it against its signed checkpoint, write it as tiles; returns its size.

        ``audit.audit(directory, key)`` then replays it. Raises ``VerificationError`` for a log that is not what was
        signed, ``StoreError``, ``InputError``.
        """
        note, bodies, tree = self._fetch()
        stored = (StoredEntry(index, merkle.leaf_hash(body), body) for index, body in enumerate(bodies))
        tiles.write(directory, stored, tree, note)
        return len(bodies)

    def entries(self) -> list[Entry]:
        """The log, checked against its signed checkpoint, and parsed."""
        _, bodies, _ = self._fetch()
        return [log.decode(index, body) for index, body in enumerate(bodies)]

    def rules(self) -> list[Rules]:
        """The deny-lists and policies in force, as their issuers signed them."""
        return [rules.read(token) for token in self._rules()]

    def statement(self, start: int, end: int) -> Any:
        """What the node says is owed for start <= time < end, as a document: hold it against the log's own."""
        body = StatementRequest(start=start, end=end).encode()
        return canonical.loads(self._channel.action("inspect.statement", body), limit=16 * 1024 * 1024)

    def _rules(self) -> Iterator[str]:
        for place in itertools.count():
            found = RulesInForce.parse(
                self._channel.action("inspect.rules", PageRequest(start=place).encode())
            )
            if found.token is not None:
                yield found.token
            if not found.more:
                return

    def _fetch(self) -> tuple[str, list[bytes], merkle.Tree]:
        """The first answer's checkpoint, verified, all the entries that it covers, and their tree."""
        first = self._page(0)
        signed = checkpoint.verify(first.checkpoint, self._key)
        size = signed.size
        bodies = [each.encode() for each in first.entries]
        while len(bodies) < size:
            more = self._page(len(bodies)).entries
            if not more:
                raise RemoteProtocolError("the node signed more entries than it shows")
            bodies += [each.encode() for each in more]
        tree = merkle.Tree(merkle.leaf_hash(body) for body in bodies[:size])
        if tree.root() != signed.root:
            raise AuditError("the node's entries are not those that its checkpoint signed")
        return first.checkpoint, bodies[:size], tree

    def _page(self, start: int) -> Page:
        return Page.parse(self._channel.action("inspect.log", PageRequest(start=start).encode()))
