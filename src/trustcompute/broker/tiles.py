"""The log as files: Merkle tiles, bundles of entries, a checkpoint. C2SP tlog-tiles.

Whoever has the folder (or the web server that serves it) can check receipts, follow the log and audit it, with no
database. Written by ``Broker.export``, read by ``audit`` and ``mirror``; the layout and every byte are those of
https://c2sp.org/tlog-tiles, so tools of others read it too:

    checkpoint                     the newest signed checkpoint
    tile/<level>/<number>[.p/<w>]  256 hashes of 32 bytes, roots of subtrees of 256^level entries; or w < 256 of them
    tile/entries/<number>[.p/<w>]  256 entries, or w, each behind its length (two bytes, big-endian)

A file that is full never changes. The checkpoint is written last, so a reader never meets one that is ahead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trustcompute.broker.log import MAX_ENTRY, StoredEntry
from trustcompute.errors import AuditError, InputError, VerificationError
from trustcompute.primitives import checkpoint, merkle
from trustcompute.primitives.checkpoint import MAX_NOTE, Checkpoint, NoteKey
from trustcompute.primitives.merkle import HASH_BYTES, Tree

CHECKPOINT_FILE: Final = "checkpoint"
WIDTH: Final = 256  # hashes of a tile, entries of a bundle
HEIGHT: Final = 8  # levels of the tree that a level of tiles spans
SPAN: Final = 16  # bundles that one call of an executor reads
MAX_TILES_ENTRIES: Final = 2**40  # what a reader believes of a checkpoint's size before it looks at the files


class TileError(AuditError):
    """A byte of an exported log is wrong. file: relative to its folder; offset: of the first wrong byte, or of the
    entry or hash that begins before it; index: of the entry, where it is one."""

    def __init__(self, message: str, file: str, offset: int, index: int | None = None) -> None:
        place = f"{file}, byte {offset}" + ("" if index is None else f", entry {index}")
        super().__init__(f"{place}: {message}")
        self.file, self.offset, self.index = file, offset, index
        self._message = message

    def __reduce__(self) -> tuple[type[TileError], tuple[str, str, int, int | None]]:
        return TileError, (self._message, self.file, self.offset, self.index)  # executors send it back


@dataclass(frozen=True, slots=True)
class Bundle:
    """The entries of one bundle's file. offsets: where each entry's length stands in it."""

    file: str
    first: int
    entries: tuple[bytes, ...]
    offsets: tuple[int, ...]


def tile_path(level: int | None, number: int, width: int = WIDTH) -> str:
    """Where a tile is, relative to the folder. level: ``None`` for bundles of entries."""
    digits = f"{number:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{'entries' if level is None else level}/{name}{partial}"


def shape(size: int) -> Iterator[tuple[int | None, int, int]]:
    """(level, number, width) of every file of a log of ``size`` entries, bundles first, then level by level."""
    yield from ((None, number, width) for number, width in _numbered(size))
    level = 0
    while (count := size >> (HEIGHT * level)) > 0:
        yield from ((level, number, width) for number, width in _numbered(count))
        level += 1


def write(directory: Path, entries: Iterable[StoredEntry], tree: Tree, note: str) -> None:
    """Write the log, or what an earlier export lacks of it. entries: all in order. Raises ``InputError``."""
    try:
        for first, bodies in _bundles(entries):
            _put(directory / tile_path(None, first // WIDTH, len(bodies)), encode_bundle(bodies))
        for level, number, width in shape(len(tree)):
            if level is not None:
                data = tree.hashes(HEIGHT * level, number * WIDTH, number * WIDTH + width)
                _put(directory / tile_path(level, number, width), data)
        _put(directory / CHECKPOINT_FILE, note.encode(), replace=True)
    except OSError as error:
        raise InputError(f"cannot write to {directory}: {error.strerror}") from error


def read_checkpoint(directory: Path, key: NoteKey) -> tuple[str, Checkpoint]:
    """The checkpoint of an exported log, verified. Raises ``InputError``, ``VerificationError``."""
    try:
        data = _read(directory, CHECKPOINT_FILE, MAX_NOTE)
        note = data.decode()
        signed = checkpoint.verify(note, key)
    except UnicodeDecodeError as error:
        raise VerificationError(f"{CHECKPOINT_FILE}: it is not text in UTF-8") from error
    except VerificationError as error:
        raise VerificationError(f"{CHECKPOINT_FILE}: {error}") from error
    if signed.size > MAX_TILES_ENTRIES:
        raise VerificationError(f"a log of more than {MAX_TILES_ENTRIES} entries is not read from files")
    return note, signed


def encode_bundle(bodies: Iterable[bytes]) -> bytes:
    """A bundle's file. An entry has at most 65,535 bytes."""
    return b"".join(len(body).to_bytes(2, "big") + body for body in bodies)


def read_bundle(directory: Path, number: int, width: int) -> Bundle:
    """A bundle and where its entries stand. Raises ``InputError``, ``TileError`` where it cannot be taken apart."""
    bundle, end, length = _take_apart(directory, number, width)
    damaged = _damage(bundle, width, end, length)
    if damaged is not None:
        raise damaged
    return bundle


def _damage(bundle: Bundle, width: int, end: int, length: int) -> TileError | None:
    place = len(bundle.entries)
    if place < width:
        return TileError("the bundle ends in the middle of it", bundle.file, end, bundle.first + place)
    return None if end == length else TileError(f"bytes follow the last of {width}", bundle.file, end)


def _take_apart(directory: Path, number: int, width: int) -> tuple[Bundle, int, int]:
    """As many of a bundle's entries as can be, where the next would begin, and the file's size."""
    file = tile_path(None, number, width)
    data = _read(directory, file, WIDTH * (MAX_ENTRY + 2))
    entries: list[bytes] = []
    offsets: list[int] = []
    at = 0
    while len(entries) < width:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if at + 2 > len(data) or end > len(data):
            break
        offsets.append(at)
        entries.append(data[at + 2 : end])
        at = end
    return Bundle(file, number * WIDTH, tuple(entries), tuple(offsets)), at, len(data)


def verify_tree(directory: Path, signed: Checkpoint, executor: Executor | None = None) -> Tree:
    """The tree of an exported log, after every byte of every file was checked against the signed root.

    executor: processes that hash. Raises ``InputError`` for a missing file, ``TileError`` for the first bad byte.
    """
    spans = [(str(directory), signed.size, start) for start in range(0, -(-signed.size // WIDTH), SPAN)]
    results = map(hash_span, spans) if executor is None else executor.map(hash_span, spans)
    tree, damaged = Tree(), None
    for leaves, error in results:
        tree.append_all(leaves)
        damaged = damaged or error
    if damaged is None and tree.root() == signed.root:
        _compare(directory, tree)
        return tree
    raise _located(directory, signed, tree, damaged)


def hash_span(span: tuple[str, int, int]) -> tuple[bytes, TileError | None]:
    """What an executor runs: leaf hashes of up to 16 bundles, zeros for what cannot be taken apart."""
    directory, size, start = span
    leaves = bytearray()
    damaged: TileError | None = None
    for number, width in _numbered(size, start, start + SPAN):
        bundle, end, length = _take_apart(Path(directory), number, width)
        leaves += b"".join(map(merkle.leaf_hash, bundle.entries)).ljust(width * HASH_BYTES, b"\0")
        damaged = damaged or _damage(bundle, width, end, length)
    return bytes(leaves), damaged


def _compare(directory: Path, tree: Tree) -> None:
    """The entries are those that were signed: every tile must follow from them."""
    for level, number, width in shape(len(tree)):
        if level is None:
            continue
        file = tile_path(level, number, width)
        expected = tree.hashes(HEIGHT * level, number * WIDTH, number * WIDTH + width)
        found = _read(directory, file, WIDTH * HASH_BYTES)
        if found != expected:
            raise TileError("the tile does not follow from the entries", file, _differs(found, expected))


def _located(directory: Path, signed: Checkpoint, tree: Tree, damaged: TileError | None) -> AuditError:
    """The entries are not those that were signed: which of them, if the tiles can tell."""
    kept = Tree()
    for number, width in _numbered(signed.size):
        file = tile_path(0, number, width)
        data = _read(directory, file, WIDTH * HASH_BYTES)
        if len(data) != width * HASH_BYTES:
            return TileError(f"a tile of {width} hashes has {width * HASH_BYTES} bytes", file, len(data))
        kept.append_all(data)
    index = next((n for n in range(signed.size) if kept.leaf(n) != tree.leaf(n)), None)
    if index is None:
        return damaged or AuditError(
            f"checkpoint: entries and tiles agree, and are not the {signed.size} entries that were signed"
        )
    number = index // WIDTH
    bundle, end, _ = _take_apart(directory, number, min(WIDTH, signed.size - number * WIDTH))
    offset = [*bundle.offsets, end][min(index - bundle.first, len(bundle.offsets))]
    if kept.root() == signed.root:
        return TileError("these are not the bytes that were logged", bundle.file, offset, index)
    message = "the entry and its hash contradict each other, and more than one of them is not what was signed"
    return TileError(message, bundle.file, offset, index)


def _bundles(entries: Iterable[StoredEntry]) -> Iterator[tuple[int, list[bytes]]]:
    first, bodies = 0, list[bytes]()
    for stored in entries:
        bodies.append(stored.body)
        if len(bodies) == WIDTH:
            yield first, bodies
            first, bodies = stored.index + 1, []
    if bodies:
        yield first, bodies


def _numbered(count: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
    """(number, width) of the tiles that ``count`` things fill."""
    last = -(-count // WIDTH)
    for number in range(start, last if end is None else min(end, last)):
        yield number, min(WIDTH, count - number * WIDTH)


def _put(path: Path, data: bytes, *, replace: bool = False) -> None:
    """A file appears whole. One that is there already stays: its name says what is in it."""
    if path.exists() and not replace and path.stat().st_size == len(data):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(directory: Path, file: str, limit: int) -> bytes:
    try:
        with (directory / file).open("rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot read {directory / file}: {error.strerror}") from error
    if len(data) > limit:
        raise TileError(f"the file has more than the {limit} bytes it may have", file, limit)
    return data


def _differs(found: bytes, expected: bytes) -> int:
    """Offset of the first byte that differs."""
    pairs = enumerate(zip(found, expected, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(found), len(expected)))


def mirror(source: Path, target: Path, key: NoteKey) -> Checkpoint:
    """Take over an exported log, after it was checked, into a copy that only ever grows; returns its checkpoint.

    How one broker's operator, or a regulator, keeps another's log. Raises ``AuditError`` where the log does not
    begin with the entries that the copy has: it was rewritten or cut, and the copy stays as it was.
    """
    note, signed = read_checkpoint(source, key)
    tree = verify_tree(source, signed)
    if (target / CHECKPOINT_FILE).exists():
        _, held = read_checkpoint(target, key)
        if held.size > signed.size or held.root != tree.root(held.size):
            raise AuditError(
                f"the log does not begin with the {held.size} entries of the copy in {target}: "
                "it was rewritten or cut; keep both, they are the proof"
            )
    write(target, _stored(source, signed.size), tree, note)
    return signed


def read_unverified(directory: Path) -> Iterator[StoredEntry]:
    """The entries of an exported log; nobody's signature and no hash is checked."""
    note = _read(directory, CHECKPOINT_FILE, MAX_NOTE).decode(errors="replace")
    return _stored(directory, checkpoint.parse_unverified(note).size)


def _stored(directory: Path, size: int) -> Iterator[StoredEntry]:
    for number, width in _numbered(size):
        bundle = read_bundle(directory, number, width)
        for place, body in enumerate(bundle.entries):
            yield StoredEntry(bundle.first + place, merkle.leaf_hash(body), body)
