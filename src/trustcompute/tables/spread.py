"""Rows of bytes spread over files by their first byte: the first half of putting in order what memory does not hold.

Called by ``stored`` and by verification. Rows whose first bytes are spread evenly, as those of digests are, make files
of a 256th of them, and each file is put in order in memory. What is fewer than the buffer holds is never written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

SPREAD: Final = 256  # files; 10⁹ rows of 40 bytes make files of 160 MB
BUFFER: Final = 96 << 20  # bytes of rows held before they are written: 400 kB for each file


class Spread:
    """Rows of equal width on their way into 256 files, many at a time; taken out once, by ``parts``."""

    def __init__(self, directory: Path | None, width: int) -> None:
        """directory: of its own; what it held before is removed. None: nothing is written, all is held in memory."""
        self._directory, self._width = directory, width
        self._waiting: list[list[U8]] = [[] for _ in range(SPREAD)]
        self._held = 0
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700, parents=True)

    def append(self, rows: U8) -> None:
        """uint8[n, width]."""
        first = rows[:, 0]
        ordered = np.take(rows, np.argsort(first, kind="stable"), axis=0)
        stops = np.cumsum(np.bincount(first, minlength=SPREAD)).tolist()
        for waiting, start, end in zip(self._waiting, [0, *stops], stops, strict=False):
            if end > start:
                waiting.append(ordered[start:end])
        self._held += ordered.nbytes
        if self._directory is not None and self._held >= BUFFER:
            self._flush(self._directory)

    def parts(self) -> Iterator[U8]:
        """The rows with each first byte, ascending: uint8[n, width], in the order in which they came."""
        for number, waiting in enumerate(self._waiting):
            path = None if self._directory is None else self._directory / f"{number:02x}"
            if path is not None and path.exists():
                waiting.insert(0, np.fromfile(path, np.uint8).reshape(-1, self._width))
                path.unlink()
            rows = np.concatenate(waiting) if waiting else np.empty((0, self._width), np.uint8)
            waiting.clear()
            yield rows
        if self._directory is not None:
            self._directory.rmdir()

    def _flush(self, directory: Path) -> None:
        for number, waiting in enumerate(self._waiting):
            if waiting:
                with (directory / f"{number:02x}").open("ab") as file:
                    file.write(memoryview(np.concatenate(waiting)).cast("B"))
                waiting.clear()
        self._held = 0
