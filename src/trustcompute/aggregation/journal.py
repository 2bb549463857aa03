"""Lines that must not be forgotten, each durable before what it is about happens.

Called by ``cohorts``, ``rowsets`` and ``threshold``. In memory where there is no path.
"""

from __future__ import annotations

from pathlib import Path

from trustcompute.primitives import journal


class Journal:
    """lines: all that were added, here and in earlier processes. The caller holds a lock."""

    def __init__(self, path: Path | None) -> None:
        """Raises ``StoreError`` where the file cannot be read."""
        self._path = path
        self.lines: list[bytes] = [] if path is None else journal.lines(path)

    def add(self, line: bytes) -> None:
        """Raises ``StoreError`` where it cannot be made durable: then nothing may follow."""
        if self._path is not None:
            journal.append(self._path, line)
        self.lines.append(line)
