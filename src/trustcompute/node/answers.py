"""A released answer as it lies in the outbox: the turn's number, what was taken before it, its frames to the byte.

First a canonical JSON description, then header and body of each frame. Kept until the consumer countersigns, so
that a retry after any crash gets the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trustcompute.primitives import canonical
from trustcompute.protocol.message import Frame, frame_digest
from trustcompute.protocol.run import Taken, Turn

MAX_DESCRIPTION: Final = 1024 * 1024


@dataclass(frozen=True)
class StoredAnswer:
    """source: what the party's data were, as ``HeldDataset`` names them; empty where that does not matter."""

    turn: int
    taken: tuple[Taken, ...]
    frames: tuple[Frame, ...]
    source: str = ""


def pack(turn: Turn, taken: Sequence[Taken], source: str = "") -> list[list[bytes | memoryview]]:
    """What to store for a turn that answers the frames in ``taken``."""
    description = {
        "source": source,
        "turn": turn.number,
        "taken": [[frame.header.decode(), frame.digest.hex()] for frame in taken],
    }
    stored: list[list[bytes | memoryview]] = [[canonical.dumps(description)]]
    stored += [[frame.header, *frame.body] for frame in turn.frames]
    return stored


def unpack(stored: Sequence[Sequence[bytes]]) -> StoredAnswer:
    """The inverse of ``pack``."""
    description = canonical.loads(stored[0][0], limit=MAX_DESCRIPTION)
    taken = tuple(Taken(header.encode(), bytes.fromhex(digest)) for header, digest in description["taken"])
    frames = []
    for header, *parts in stored[1:]:
        body = tuple(memoryview(part) for part in parts)
        frames.append(Frame(header, body, frame_digest(header, body)))
    return StoredAnswer(description["turn"], taken, tuple(frames), description.get("source", ""))
