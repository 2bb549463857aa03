"""Lines in a file, each durable before what it is about happens: what must not be done twice, or told apart.

Called by whoever remembers what was opened, told, spent or brought. A line is there whole or not at all: what a stop
or a full disk cut off was never said to be kept, and is taken away. Callers hold a lock; one process writes a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from trustcompute.errors import StoreError


def lines(path: Path) -> list[bytes]:
    """All that were appended; none where there is no file. Raises ``StoreError``."""
    try:
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(path, whole)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    return data[:whole].splitlines()


def append(path: Path, line: bytes) -> None:
    """Raises ``StoreError`` where the line cannot be made durable: the file is as it was, and nothing may follow."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            before = os.fstat(handle).st_size
            try:
                _write(handle, line + b"\n")
            except OSError:
                os.ftruncate(handle, before)
                raise
        finally:
            os.close(handle)
        if not before:
            _sync_name(path)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}; nothing was kept, free space") from error


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:  # a disk that is nearly full takes a part
        left = left[os.write(handle, left) :]
    os.fsync(handle)


def _sync_name(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
