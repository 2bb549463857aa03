"""Where the arrays of a table lie while it is made: in memory, or in files of a directory that are mapped into it.

Called by ``truth``, ``building`` and ``update``, which do the same for both. A file has its name once it is whole, so
that whoever goes on after a stop finds what was finished and makes the rest. Files are readable by their owner alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import StoreError
from trustcompute.kernels.arrays import U8

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shelf:
    """directory: made if it is not there; None keeps everything in memory."""

    directory: Path | None

    def __post_init__(self) -> None:
        if self.directory is not None:
            with self.writing():
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """What the operating system refuses in here is a ``StoreError``."""
        try:
            yield
        except OSError as error:
            where = self.directory or "arrays in memory"
            raise StoreError(
                f"cannot keep {where}: {error.strerror}; free space, or name another directory"
            ) from error

    def path(self, name: str) -> Path | None:
        return None if self.directory is None else self.directory / name

    def made(
        self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...], fill: Callable[[Array], object]
    ) -> Array:
        """The array of that name, zeros that ``fill`` writes into; one that was finished before is not made again.

        Raises ``StoreError``, and what ``fill`` raises.
        """
        path, kind = self.path(name), np.dtype(dtype)
        if path is None or 0 in shape:
            array: Array = np.zeros(shape, kind)
            fill(array)
            return array
        with self.writing():
            if not path.exists():
                new = path.with_name(f"{name}.new")
                with _opened(new, "w+b") as file:
                    os.posix_fallocate(file.fileno(), 0, int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
                    filled = np.memmap(file, kind, "r+", shape=shape)
                    fill(filled)
                    filled.flush()
                    os.fsync(file.fileno())
                new.replace(path)
            return np.memmap(path, kind, "r", shape=shape)

    def rows(self, name: str, width: int) -> Rows:
        """Rows of so many bytes, to be added to those that are there."""
        return Rows(self.path(name), width)

    def below(self, name: str) -> Shelf:
        """A shelf in a directory of this one's."""
        return Shelf(self.path(name))

    def publish(self, name: str, last: bytes, place: Path) -> None:
        """Write a last file, and move the directory to its place, which does not exist. Raises ``StoreError``."""
        assert self.directory is not None
        with self.writing():
            with _opened(self.directory / name, "w+b") as file:
                file.write(last)
                file.flush()
                os.fsync(file.fileno())
            self.directory.rename(place)

    def remove(self) -> None:
        """The directory, and all that is in it."""
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def clear(self) -> None:
        """Remove all that is in the directory."""
        self.remove()
        self.__post_init__()


IN_MEMORY: Final = Shelf(None)


class Rows:
    """Rows of bytes that are appended one piece after the other, each piece durable before the next."""

    def __init__(self, path: Path | None, width: int) -> None:
        self._path, self._width = path, width
        self._pieces: list[U8] = []
        self._count = 0 if path is None or not path.exists() else path.stat().st_size // width

    def __len__(self) -> int:
        return self._count

    def append(self, piece: U8) -> None:
        """uint8[n, width]. Raises ``OSError``."""
        if self._path is None:
            self._pieces.append(piece)
        elif len(piece):
            with _opened(self._path, "r+b") as file:
                file.seek(self._width * self._count)  # a row that was cut off is written over
                file.write(np.ascontiguousarray(piece).data)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        self._count += len(piece)

    def array(self) -> U8:
        """All of them: uint8[n, width]."""
        if self._path is not None and self._count:
            return np.memmap(self._path, np.uint8, "r", shape=(self._count, self._width))
        return np.concatenate([np.zeros((0, self._width), np.uint8), *self._pieces])


def _opened(path: Path, mode: str) -> Any:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), mode)
