"""The outbox: answers that were charged, kept until they are countersigned or seven days old.

A small one (``SMALL``) lies in the book, kept by the transaction that charges it (``Broker.post``), in the form that is
told here. A larger one is written here and fsynced before the charge is committed, and sent after: a crash in between
leaves a file that nobody was charged for (the broker removes it), never a charge without its answer. A retry is served
the same bytes. Written by the node through ``Broker.post``.

A file holds, for each frame, its parts, each behind its length (8 bytes, big-endian), and after each frame
a length of 2^64 - 1; its name is job, run and turn. Files appear whole or not at all (write, fsync, rename,
fsync of the directory) and are readable by their owner alone: they hold what only the consumer may read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from trustcompute.errors import LocalProtocolError, StoreError

RETENTION: Final = 7 * 86400  # seconds
SMALL: Final = (
    64 * 1024
)  # bytes: to write as many into the book takes less than to wait for a file of their own
_END: Final = b"\xff" * 8
_NAME = re.compile(r"[0-9a-f]{32}-[0-9]{1,7}-[0-9]{1,7}\Z")

Buffer = bytes | bytearray | memoryview
Frame = Sequence[Buffer]  # a frame's parts, header first


def file_name(job: str, run: int, turn: int) -> str:
    """The name of the file of one turn. Raises ``LocalProtocolError`` for what is not a job, run and turn."""
    name = f"{job}-{run}-{turn}"
    if not _NAME.match(name):
        raise LocalProtocolError("a job is 32 hex digits, its run and turn are counts below 10^7")
    return name


class Outbox:
    """One directory of answers. Any number of threads may write and read different turns."""

    def __init__(self, directory: Path) -> None:
        """Creates the directory. Raises ``StoreError``."""
        self._directory = directory
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create the outbox {directory}: {error.strerror}") from error

    @property
    def directory(self) -> Path:
        return self._directory

    def write(self, job: str, run: int, turn: int, frames: Iterable[Frame]) -> str:
        """Keep a turn durably; returns SHA-256 (hex) of the file. Writing the same turn again replaces it.

        frames: for each frame its parts, as buffers of bytes. Raises ``StoreError`` when the disk refuses.
        """
        digest = hashlib.sha256()

        def pieces() -> Iterator[Buffer]:
            for piece in _pieces(frames):
                digest.update(piece)
                yield piece

        keep_pieces(self._directory / file_name(job, run, turn), pieces())
        return digest.hexdigest()

    def read(self, job: str, run: int, turn: int) -> list[list[bytes]]:
        """A kept turn: for each frame its parts. Raises ``StoreError`` where it is gone or damaged."""
        path = self._directory / file_name(job, run, turn)
        try:
            data = memoryview(path.read_bytes())
        except FileNotFoundError as error:
            raise StoreError(
                "the answer is no longer kept: it was countersigned, or is over seven days old"
            ) from error
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        return parse(data)

    def names(self) -> set[str]:
        """Files that are there, half-written ones too; each begins with the id of its job."""
        return {path.name for path in self._directory.iterdir()}

    def remove(self, names: Iterable[str]) -> None:
        """Remove these files."""
        for name in names:
            (self._directory / name).unlink(missing_ok=True)


def keep(path: Path, data: bytes) -> None:
    """Put a file in its place, whole and durably, for its owner alone. Raises ``StoreError``."""
    keep_pieces(path, [data])


def keep_pieces(path: Path, pieces: Iterable[Buffer]) -> None:
    """As ``keep``, for what is made piece by piece."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot keep an answer in {path.parent}: {error.strerror}; free space") from error


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def packed(frames: Iterable[Frame]) -> bytes | None:
    """The bytes of a small answer, as a file would hold them; ``None`` for a larger one."""
    pieces: list[Buffer] = []
    size = 0
    for piece in _pieces(frames):
        size += piece.nbytes if isinstance(piece, memoryview) else len(piece)
        if size > SMALL:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _pieces(frames: Iterable[Frame]) -> Iterator[Buffer]:
    for frame in frames:
        for part in frame:
            size = part.nbytes if isinstance(part, memoryview) else len(part)
            yield size.to_bytes(8, "big")
            yield part
        yield _END


def parse(data: memoryview) -> list[list[bytes]]:
    """Frames of an answer, each as its parts. Raises ``StoreError`` where it is damaged."""
    frames: list[list[bytes]] = []
    parts: list[bytes] = []
    position = 0
    while position < len(data):
        size_bytes = bytes(data[position : position + 8])
        position += 8
        if size_bytes == _END:
            frames.append(parts)
            parts = []
            continue
        size = int.from_bytes(size_bytes, "big")
        if position + size > len(data) or len(size_bytes) < 8:
            raise StoreError("an answer in the outbox is damaged: the file ends too early")
        parts.append(bytes(data[position : position + size]))
        position += size
    if parts:
        raise StoreError("an answer in the outbox is damaged: its last frame has no end")
    return frames
