"""Lines that must not be forgotten, each durable before what it is about happens.

Called by ``cohorts`` and ``threshold``. In memory where there is no path.
"""

from __future__ import annotations

import os
from pathlib import Path

from trustcompute.errors import StoreError


class Journal:
    """lines: all that were added, here and in earlier processes. The caller holds a lock."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.lines: list[bytes] = []
        if path is not None and path.exists():
            try:
                self.lines = path.read_bytes().splitlines()
            except OSError as error:
                raise StoreError(f"cannot read {path}: {error.strerror}") from error

    def add(self, line: bytes) -> None:
        """Raises ``StoreError`` where it cannot be made durable: then nothing may follow."""
        if self._path is not None:
            try:
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                with os.fdopen(handle, "ab") as file:
                    file.write(line + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StoreError(f"cannot write {self._path}: {error.strerror}") from error
        self.lines.append(line)
