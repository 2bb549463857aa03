"""What the log says of money, kept folded: read once, and then only what is new.

One for each clearing house. Its state is never the truth: it is what the entries so far amount to, and a new one gives
the same. It is brought up to date before a command is queued, in pieces that others' transactions fit between,
so that within the writer's transaction only the last entries are left to read.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable
from threading import Lock
from typing import Final

from trustcompute.broker.clearing.record import Clearing
from trustcompute.broker.clearing.statement import Period
from trustcompute.broker.log import Entry, StoredEntry, decode
from trustcompute.broker.writer import Book, Writer
from trustcompute.errors import ParameterError

PIECE: Final = 4096  # entries that are read while nothing is written: some 10 ms


class Fold:
    """See the module. Locks: the writer's before its own, never the other way round."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._record, self._size = Clearing(), 0

    def catch_up(self, writer: Writer) -> None:
        """Read what is new, in pieces. Raises ``AuditError`` for a log that contradicts itself."""
        while True:
            start = self._size
            with writer.view() as (reader, _):
                found = list(itertools.islice(reader.entries(start), PIECE))
            with self._mutex:
                if start == self._size:  # nobody else was faster
                    self._take(_decoded(found))
            if len(found) < PIECE:
                return

    def now(self, writer: Writer) -> Clearing:
        """What the log says now, to keep: a copy that later entries do not change."""
        self.catch_up(writer)
        with self._mutex:
            return self._record.copy()

    def prepare(self, writer: Writer, period: Period) -> None:
        """Make the statement of a period before its closing gets the writer, who then need not wait for it."""
        self.catch_up(writer)
        with (
            self._mutex,
            contextlib.suppress(ParameterError),
        ):  # why it cannot be closed is the command's to say
            _ = self._record.statement(period).hash

    def at(self, book: Book) -> Clearing:
        """Within a transaction: with what it has added so far. To be read before the next entry only."""
        with self._mutex:
            new = book.committed - self._size
            self._take(itertools.islice(book.entries(self._size), max(0, new)))
            if book.size == book.committed:
                return self._record
            record = self._record.copy()  # what is not committed may never be
        for entry in book.entries(book.committed):
            record.feed(entry)
        return record

    def _take(self, entries: Iterable[Entry]) -> None:
        try:
            for entry in entries:
                self._record.feed(entry)
                self._size += 1
        except BaseException:  # half an entry may have been taken: begin anew, and find the fault again
            self._record, self._size = Clearing(), 0
            raise


def _decoded(found: Iterable[StoredEntry]) -> Iterable[Entry]:
    return (decode(each.index, each.body) for each in found)
