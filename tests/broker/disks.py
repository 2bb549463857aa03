"""A small disk of a test's own, which it fills, empties, and makes read-only: a file system in memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096  # bytes, of tmpfs
FILLER = "filler"


@dataclass(frozen=True)
class Disk:
    path: Path

    def fill(self, free: int = 0) -> None:
        """Leave so many blocks and no more."""
        self.empty()
        with (self.path / FILLER).open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        os.truncate(self.path / FILLER, max((self.path / FILLER).stat().st_size // BLOCK - free, 0) * BLOCK)

    def empty(self) -> None:
        (self.path / FILLER).unlink(missing_ok=True)

    def read_only(self) -> None:
        """Nobody may have a file open for writing."""
        _run("mount", "-o", "remount,ro", str(self.path))

    def writable(self) -> None:
        _run("mount", "-o", "remount,rw", str(self.path))


def why_not(path: Path) -> str:
    """Why no disk can be mounted there, or nothing."""
    if os.geteuid() != 0:
        return "only root can mount a disk"
    with contextlib.suppress(OSError, subprocess.CalledProcessError), disk(path):
        return ""
    return "this machine lets nobody mount a disk"


@contextlib.contextmanager
def disk(path: Path, size: str = "4m") -> Iterator[Disk]:
    path.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(path))
    try:
        yield Disk(path)
    finally:
        _run("umount", "--lazy", str(path))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
