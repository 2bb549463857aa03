"""The audit: everything a log and its book claim, recomputed from the entries alone.

For operators and regulators; reads a book (also while a node writes it) or an exported log, offline.
Recomputes the tree and every checkpoint, replays every entry against the rules the broker promises to keep,
rebuilds balances and statements, and compares them with the meter's tables. The first thing that is wrong
is named.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from trustcompute.broker import log, rotation, tiles
from trustcompute.broker.audit.compare import compare
from trustcompute.broker.audit.fault import EntryError
from trustcompute.broker.audit.replay import AuditReport, Replay
from trustcompute.broker.log import Entry
from trustcompute.broker.store import Reader
from trustcompute.broker.store.sqlite import BOOK_FILE, SqliteStore
from trustcompute.errors import AuditError
from trustcompute.primitives import merkle
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.signing import VerifyKey

__all__ = ["AuditReport", "EntryError", "audit", "audit_book", "export", "read_log"]

SPAN_ENTRIES: Final = tiles.SPAN * tiles.WIDTH
SPANS_AHEAD: Final = 8  # some 10 MB each, parsed


def audit(source: Path, key: NoteKey, *, known: Sequence[str] = (), processes: int = 1) -> AuditReport:
    """Audit a book's directory or an exported log. Raises ``AuditError`` at the first fault.

    key: of the log (``log.log_key``); known: signed checkpoints that others hold, for example in receipts:
    the log must contain all they cover, or it was cut off or rewritten; processes: that read, hash and parse
    an exported log, this one among them.
    """
    if (source / BOOK_FILE).exists():
        store = SqliteStore.read_only(source)
        try:
            with store.read() as reader:
                return audit_book(reader, key, known=known)
        finally:
            store.close()
    return _audit_tiles(source, key, known, processes)


def _audit_tiles(source: Path, key: NoteKey, known: Sequence[str], processes: int) -> AuditReport:
    """The hashes of all files first, then the replay: decoded by the processes, judged in order by this one."""
    _, signed = tiles.read_checkpoint(source, key)
    with _uncollected(), _executor(processes) as executor:
        tree = tiles.verify_tree(source, signed, executor)
        # For this process alone a bundle at a time: what was parsed is judged while the processor has it at hand.
        length = tiles.WIDTH if executor is None else SPAN_ENTRIES
        spans = [
            (str(source), start, min(start + length, signed.size)) for start in range(0, signed.size, length)
        ]
        replay = Replay(key, tree)
        for first, found, error in _decoded(executor, spans):
            for index, fields in enumerate(found, start=first):
                replay.replay(Entry(index, b"", fields))
            if error is not None:
                raise error
    if not signed.size:
        raise AuditError("the log is empty: it lacks even the entry that opens one")
    replay.hold_against(known, signed.size)
    return replay.report(meter_compared=False, checkpoints=1)


Decoded = tuple[int, list[Mapping[str, Any]], AuditError | None]


def decode_span(span: tuple[str, int, int]) -> Decoded:
    """What an executor runs: index and members of a span's entries, whole bundles, and why the next one is none."""
    directory, start, end = span
    found: list[Mapping[str, Any]] = []
    for first in range(start, end, tiles.WIDTH):
        bundle = tiles.read_bundle(Path(directory), first // tiles.WIDTH, min(tiles.WIDTH, end - first))
        for index, body in enumerate(bundle.entries, start=first):
            try:
                found.append(log.decode(index, body).fields)
            except AuditError as error:
                return start, found, AuditError(str(error))
    return start, found, None


def _decoded(executor: Executor | None, spans: Sequence[tuple[str, int, int]]) -> Iterator[Decoded]:
    """The spans in order; not more of them at once than memory is meant for."""
    if executor is None:
        yield from map(decode_span, spans)
        return
    waiting = iter(spans)
    ahead: deque[_Ahead] = deque()
    while True:
        for span in itertools.islice(waiting, SPANS_AHEAD - len(ahead)):
            ahead.append(_Ahead(executor, span))
        if not ahead:
            return
        while not ahead[0].ready and any(each.take_over() for each in reversed(ahead)):
            pass  # this process decodes too, rather than wait
        yield ahead.popleft().result()


class _Ahead:
    """A span that is being decoded, by another process or by this one."""

    def __init__(self, executor: Executor, span: tuple[str, int, int]) -> None:
        self._span, self._future = span, executor.submit(decode_span, span)
        self._own: Decoded | None = None

    @property
    def ready(self) -> bool:
        return self._own is not None or self._future.done()

    def take_over(self) -> bool:
        """Decode it here, if no other process has begun."""
        if self._own is not None or not self._future.cancel():
            return False
        self._own = decode_span(self._span)
        return True

    def result(self) -> Decoded:
        return self._future.result() if self._own is None else self._own


@contextlib.contextmanager
def _executor(processes: int) -> Iterator[Executor | None]:
    if processes < 2:
        yield None
        return
    with ProcessPoolExecutor(
        processes - 1, mp_context=get_context("forkserver"), initializer=gc.disable
    ) as pool:
        yield pool


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles: none are made, and it would look at millions of objects again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_log(source: Path) -> list[Entry]:
    """The entries of a book's directory (also while a node writes it) or of an exported log, not audited.

    For statements (``clearing.Clearing.of``) and registers. Raises ``AuditError`` for what is no entry,
    ``StoreError`` or ``InputError`` where the source cannot be read.
    """
    if (source / BOOK_FILE).exists():
        store = SqliteStore.read_only(source)
        try:
            with store.read() as reader:
                bodies = [stored.body for stored in reader.entries()]
        finally:
            store.close()
    else:
        bodies = [stored.body for stored in tiles.read_unverified(source)]
    return [log.decode(index, body) for index, body in enumerate(bodies)]


def export(source: Path, target: Path) -> int:
    """Write the log of a book's directory as tiles, also while a node writes it; returns its size.

    Raises ``StoreError``, ``InputError``. What was signed is not verified: ``audit`` of the target does that.
    """
    store = SqliteStore.read_only(source)
    try:
        with store.read() as reader:
            tree = merkle.Tree(reader.leaves())
            tiles.write(target, reader.entries(), tree, reader.last_checkpoint() or "")
            return len(tree)
    finally:
        store.close()


def audit_book(reader: Reader, key: NoteKey, *, known: Sequence[str] = ()) -> AuditReport:
    """As ``audit``, for a view of a book."""
    entries = ((stored.body, stored.leaf) for stored in reader.entries())
    with _uncollected():
        replay = Replay(key, first=_first_key(reader, key)).run(entries, reader.checkpoints(), known)
        compare(replay, reader)
    return replay.report(meter_compared=True)


def _first_key(reader: Reader, key: NoteKey) -> NoteKey:
    """The key that opened the log: the oldest that was rotated, or the one that was given."""
    past = [each for state in rotation.STATES for each in reader.notices_in(state)]
    if not past:
        return key
    return NoteKey(key.name, VerifyKey.from_x(min(past, key=lambda each: each.entry).token))
