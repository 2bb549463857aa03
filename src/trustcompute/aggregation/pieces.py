"""A masked vector on its way to the aggregator, piece by piece: nobody holds another's whole.

Called by ``masked``. The aggregator asks for one piece after the other, of all contributors at once, and adds each to
its place in the total. When somebody vanishes half way, pieces that hold its part are added already: the aggregator
begins again with those who are left, and each contributor sends what it sent before, to the byte. It makes sure of
that, since two vectors under one mask would show how they differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np

from trustcompute.aggregation.encoding import PIECE, Vector
from trustcompute.errors import RemoteProtocolError, TableError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives import masks
from trustcompute.primitives.masks import TAGS, Stream, Tagger
from trustcompute.protocol.message import Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.star import Coordinator, gather, message, scatter

Masks = Callable[[], tuple[list[Stream], list[Stream]]]
"""Streams to add and to take off, from their start."""


def cut(width: int) -> list[tuple[int, int]]:
    """Where pieces begin and end."""
    return [(start, min(start + PIECE, width)) for start in range(0, width, PIECE)]


class Masked:
    """A vector under its masks. tag_key, pad: for tags behind it, where everybody receives the sum."""

    def __init__(self, vector: Vector, streams: Masks, tag_key: bytes, pad: I64) -> None:
        self._vector, self._streams, self._tag_key, self._pad = vector, streams, tag_key, pad
        self.width = len(vector) + (TAGS if tag_key else 0)

    def start(self) -> None:
        """Begin at the first piece."""
        self._added, self._taken = self._streams()
        self._tagger = Tagger(self._tag_key) if self._tag_key else None

    def piece(self, start: int, stop: int) -> I64:
        """The next one, a fresh array."""
        found, count = np.empty(stop - start, dtype=np.int64), max(0, min(stop, len(self._vector)) - start)
        if count:
            found[:count] = self._vector[start : start + count]
        if self._tagger is not None:
            self._tagger.add(found[:count])
            ended = start + count - len(self._vector)  # how many of the tags earlier pieces had
            found[count:] = (self._tagger.tags + self._pad)[ended : ended + len(found) - count]
        masks.apply(found, self._added, self._taken)
        return found


def send_all(masked: Masked, who: str, passes: int) -> Party[None]:
    """A contributor's part, until the aggregator has all. passes: how often it may begin again."""
    parts, sent, at = cut(masked.width), list[bytes](), 0
    while True:
        if at == 0:
            passes -= 1
            masked.start()
        if passes < 0:
            raise RemoteProtocolError("the pieces were asked for more often than parties can drop out")
        piece = masked.piece(*parts[at])
        if len(parts) > 1:
            digest = hashlib.sha256(piece).digest()
            if at == len(sent):
                sent.append(digest)
            if sent[at] != digest:
                raise TableError(f"{who}: rule unchanged: the data are others than when this aggregate began")
        yield from send("masked", value=piece)
        del piece
        if len(parts) == 1:
            return
        asked = int((yield from receive("next", piece=Column("i8", (1,))))["piece"][0])
        if asked == at + 1 == len(parts):
            return
        if asked not in (0, at + 1):
            raise RemoteProtocolError(f"piece {asked} was asked for, and piece {at + 1} is next")
        at = asked


def add_up(total: I64, peers: Iterable[str], at_least: int) -> Coordinator[tuple[str, ...]]:
    """The aggregator's part: add every peer's vector to the total; whose are in it."""
    parts, left, at = cut(len(total)), tuple(peers), 0
    while at < len(parts):
        start, stop = parts[at]
        into = total[start:stop]
        into[:] = 0

        def add(_: str, got: Message, into: I64 = into) -> bool:
            np.add(into, got["value"], out=into)
            return True

        came = yield from gather(
            "masked", left, at_least=at_least, take=add, value=Column("i8", (len(into),))
        )
        at = 0 if at > 0 and len(came) < len(left) else at + 1
        left = tuple(came)
        if len(parts) > 1:
            yield from scatter(dict.fromkeys(left, message("next", piece=np.array([at]))))
    return left
