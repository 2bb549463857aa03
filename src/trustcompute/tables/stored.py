"""Distinct keys of a table larger than memory: digested in a stream, put in order on disk, read by ranges.

Called by ``psi.files`` and the node. What ``keys`` holds in memory lies here in a directory:

    digests        distinct digests, 32 bytes each, ascending
    rows           for each row with a key, by key and then by row: 2 · row + (1 where a key begins), 8 bytes
    manifest.json  sizes, key specification, SHA-256 of both files, what they were made of; written last

Rows are first spread over 256 files by the first byte of their digests (``spread``), 40 bytes a row; each is sorted in
memory, and appended to the two that stay. In memory are a buffer, and a 256th of the rows at a time. Digests are not
encrypted: anybody who can read them can test guesses, so the files are readable by their owner alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import StoreError, TableError
from trustcompute.tables import parts
from trustcompute.tables.distinct import sort_digests
from trustcompute.tables.keys import I64, U8, Mask, digested, ordered
from trustcompute.tables.progress import Callback, Phase
from trustcompute.tables.source import opened
from trustcompute.tables.spec import KeySpec
from trustcompute.tables.spread import SPREAD, Spread

VERSION: Final = "tc-stored-keys/1"
RECORD: Final = 40  # bytes: a digest and its row
PIECE: Final = 8 << 20  # bytes read at a time to check a file


@dataclass(frozen=True, eq=False)
class StoredKeys:
    """Distinct keys in a directory. Made by ``store`` and ``load``; safe to share between threads.

    spec: the form of the keys; digest: SHA-256 (hex) of all digests, as ``Keys.digest``; rows: of the table; nulls:
    rows without a key. starts: of each 256th by the first byte of the digests, its first key and first entry of
    ``rows``: int64[257, 2].
    """

    directory: Path
    spec: KeySpec
    digest: str
    rows: int
    nulls: int
    starts: I64

    def __len__(self) -> int:
        return int(self.starts[-1, 0])

    def __repr__(self) -> str:
        return f"StoredKeys(distinct={len(self)}, rows={self.rows}, nulls={self.nulls}, spec={self.spec.to_json()})"

    @property
    def duplicates(self) -> int:
        """Rows whose key an earlier row has."""
        return self.rows - self.nulls - len(self)

    @property
    def digests(self) -> U8:
        """All of them, uint8[d, 32], read now."""
        return self._read(0, len(self))

    def part(self, number: int, of: int) -> tuple[int, U8]:
        """(first, uint8[n, 32]): one of ``of`` parts of equal digest ranges (``tables.parts``), and where it begins."""
        first, end = parts.bounds(number, of, len(self), self._top)
        return first, self._read(first, end)

    def chosen(self, distinct_mask: Mask) -> Mask:
        """Whether each row's key is selected: bool[d] -> bool[rows]."""
        mask = np.asarray(distinct_mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise TableError(f"the mask must be a bool array with one element a distinct key, {len(self)}")
        rows = np.zeros(self.rows, np.bool_)
        for (key, entry), (_, end) in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            entries = np.fromfile(self.directory / "rows", "<i8", end - entry, offset=8 * entry)
            codes = np.cumsum(entries & 1)
            codes += key - 1
            rows[entries[mask[codes]] >> 1] = True
        return rows

    def rows_of(self, distinct_mask: Mask) -> I64:
        """Positions of every row whose key is selected: bool[d] -> int64[k], ascending."""
        return np.flatnonzero(self.chosen(distinct_mask))

    def groups(self) -> tuple[I64, I64]:
        """(rows int64[rows - nulls], starts int64[d + 1]): ``rows[starts[i] : starts[i + 1]]`` have key i."""
        entries = np.fromfile(self.directory / "rows", "<i8")
        return entries >> 1, np.append(np.flatnonzero(entries & 1), len(entries))

    @cached_property
    def _file(self) -> Any:
        return (self.directory / "digests").open("rb")

    def _top(self, position: int) -> int:
        return int.from_bytes(os.pread(self._file.fileno(), 8, 32 * position), "big")

    def _read(self, first: int, end: int) -> U8:
        found = np.fromfile(self.directory / "digests", np.uint8, 32 * (end - first), offset=32 * first)
        if len(found) < 32 * (end - first):
            raise StoreError(f"{self.directory} has lost keys: remove it, and digest the table again")
        return found.reshape(-1, 32)


def store(
    source: object,
    on: str | Sequence[str],
    directory: Path,
    *,
    casefold: bool | str | Collection[str] = False,
    spec: KeySpec | None = None,
    executor: Executor | None = None,
    progress: Callback | None = None,
    stop: threading.Event | None = None,
) -> StoredKeys:
    """Digest a table's keys into a directory of their own; what it held before is removed.

    The rest is as for ``keys``. progress: told of the phases ``digest`` (rows) and ``sort`` (parts). stop: when set,
    ``JobInterrupted`` is raised. Raises ``StoreError`` where the directory cannot be written, ``TableError`` for the
    table.
    """
    made_of = _made_of(source, on, casefold, spec)
    form, batches = digested(source, on, casefold=casefold, spec=spec, executor=executor)
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        spread = Spread(directory / "spread", RECORD)
        rows = matchable = 0
        phase = Phase("digest", _known_rows(source), progress, stop=stop)
        for found, valid in batches:
            spread.append(_records(found, rows + np.flatnonzero(valid)))
            rows, matchable = rows + len(valid), matchable + len(found)
            phase.advance(len(valid))
        starts, hashes = _sort(spread, directory, executor, Phase("sort", SPREAD, progress, stop=stop))
        document = {
            "version": VERSION,
            "made_of": made_of,
            "spec": form.to_json(),
            "rows": rows,
            "nulls": rows - matchable,
            "starts": starts.tolist(),
            "sha256": hashes,
        }
        temporary = directory / "manifest.tmp"
        temporary.write_text(json.dumps(document | {"whole": _whole(document)}))
        temporary.replace(directory / "manifest.json")
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)  # so that a full disk is not left full
        raise StoreError(f"cannot keep keys in {directory}: {error.strerror}; free space") from error
    return StoredKeys(directory, form, hashes["digests"], rows, rows - matchable, starts)


def load(
    source: object,
    on: str | Sequence[str],
    directory: Path,
    *,
    casefold: bool | str | Collection[str] = False,
    spec: KeySpec | None = None,
) -> StoredKeys | None:
    """The keys that ``store`` put there, read through once to check them; None where they are not (all) there, or are
    not those of the file as it is now. Only what was made of a file is found again."""
    made_of = _made_of(source, on, casefold, spec)
    try:
        document = _manifest(directory)
        if made_of is None or (document["version"], document["made_of"]) != (VERSION, made_of):
            return None
        if {name: _hash_of(directory / name) for name in ("digests", "rows")} != document["sha256"]:
            return None
        return _of(directory, document)
    except (OSError, ValueError, KeyError, TypeError, TableError):
        return None


def load_unchecked(directory: Path) -> StoredKeys:
    """The keys that a caller has just stored or checked, for a worker elsewhere. Raises ``StoreError``."""
    try:
        return _of(directory, _manifest(directory))
    except (OSError, ValueError, KeyError, TypeError, TableError) as error:
        raise StoreError(
            f"there are no stored keys in {directory}: the worker must see the same files"
        ) from error


def _manifest(directory: Path) -> dict[str, Any]:
    """Raises ``ValueError`` for a manifest that is not as it was written."""
    document: dict[str, Any] = json.loads((directory / "manifest.json").read_bytes())
    if document.pop("whole") != _whole(document):
        raise ValueError("the manifest was changed")
    return document


def _whole(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _of(directory: Path, document: dict[str, Any]) -> StoredKeys:
    return StoredKeys(
        directory,
        KeySpec.from_json(document["spec"]),
        document["sha256"]["digests"],
        document["rows"],
        document["nulls"],
        np.array(document["starts"], np.int64),
    )


def _made_of(
    source: object, on: str | Sequence[str], casefold: object, spec: KeySpec | None
) -> list[Any] | None:
    """What makes stored keys those of a file: name, size and time of change of the file, and how it was read."""
    if not isinstance(source, str | Path):
        return None
    path = Path(source).absolute()
    try:
        status = path.stat()
    except OSError:
        return None  # opening it will say what is wrong
    names = [on] if isinstance(on, str) else list(on)
    folded = casefold if isinstance(casefold, bool | str) else sorted(casefold)  # type: ignore[call-overload]
    form = None if spec is None else spec.to_json()
    return [str(path), status.st_size, status.st_mtime_ns, names, folded, form]


def _known_rows(source: object) -> int | None:
    """Where they are told without reading: anything but CSV and Arrow files."""
    table = opened(source) if isinstance(source, str | Path) else None
    return None if table is None or table._count is None else table.count()


def _records(digests: U8, rows: I64) -> U8:
    records = np.empty((len(digests), RECORD), np.uint8)
    records[:, :32] = digests
    records[:, 32:] = rows.astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    return records


def _sort(
    spread: Spread, directory: Path, executor: Executor | None, phase: Phase
) -> tuple[I64, dict[str, str]]:
    """Write both files; where each 256th begins, and the files' SHA-256."""
    starts = np.zeros((SPREAD + 1, 2), np.int64)
    of_digests, of_rows = hashlib.sha256(), hashlib.sha256()
    with _created(directory / "digests") as digests, _created(directory / "rows") as rows:
        for number, (distinct, entries) in enumerate(ordered(_sorted, spread.parts(), executor)):
            for file, digest, array in ((digests, of_digests, distinct), (rows, of_rows, entries)):
                data = memoryview(array).cast("B") if array.size else memoryview(b"")
                file.write(data)
                digest.update(data)
            starts[number + 1] = starts[number] + (len(distinct), len(entries))
            phase.advance(1)
    return starts, {"digests": of_digests.hexdigest(), "rows": of_rows.hexdigest()}


def _sorted(records: U8) -> tuple[U8, npt.NDArray[np.int64]]:
    """(distinct digests, ascending; entries of ``rows``) of one file's records."""
    digests = np.ascontiguousarray(records[:, :32])
    entries = np.ascontiguousarray(records[:, 32:]).view("<i8").ravel() << 1
    order, starts = sort_digests(digests)
    entries = entries[order]
    entries[starts] |= 1
    return np.take(digests, order[starts], axis=0), entries


def _created(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()
