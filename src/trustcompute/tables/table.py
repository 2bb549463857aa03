"""An open table: named columns, read in record batches, only the columns asked for.

Made by ``source`` and ``files``; read by ``keys``, ``catalogue`` and the compute layers. No error repeats a
value of the data: where the message of the library behind a table may quote one, the cause is cut off.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from trustcompute.errors import TableError

SCAN_ROWS = 1 << 16
"""Rows in a batch at most: at 16 to 64 bytes a row, what is made of a batch stays in a processor's caches."""

CONVERSION_ERRORS = (pa.ArrowException, ValueError, TypeError, OverflowError, OSError)
"""What a library raises when its table cannot become Arrow, pyarrow's exceptions included."""


@dataclass(frozen=True)
class Scan:
    """One pass over a table: its schema, and its batches in row order."""

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Table:
    """A table that can be scanned.

    origin: what it is, for messages; names: its columns in order, all different; reusable: whether it can be
    scanned again, with its rows in the same order.
    """

    origin: str
    names: tuple[str, ...]
    reusable: bool
    _read: Callable[[Sequence[str]], Scan] = field(repr=False)
    _count: Callable[[], int] | None = field(default=None, repr=False)
    _forgiving: Callable[[Sequence[str]], Scan] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise TableError(
                f"{self.origin} has several columns named {listed(repeated)}: rename all but one of each"
            )

    def scan(self, columns: Sequence[str] | None = None) -> Scan:
        """Read the named columns (all by default), in that order.

        Raises ``TableError``, also while batches are read.
        """
        return self._scan(columns, self._read)

    def scan_forgiving(self, columns: Sequence[str] | None = None) -> Scan:
        """The same, but text in a file that is no value of its declared type is missing, where ``scan`` raises."""
        return self._scan(columns, self._forgiving or self._read)

    def _scan(self, columns: Sequence[str] | None, read: Callable[[Sequence[str]], Scan]) -> Scan:
        wanted = list(self.names if columns is None else columns)
        self.check_columns(wanted)
        try:
            scan = read(wanted)
        except CONVERSION_ERRORS as error:
            raise self._failure(error) from None
        batches = (batch.select(wanted) for batch in self._guarded(scan.batches))
        return Scan(pa.schema([scan.schema.field(name) for name in wanted]), batches)

    def check_columns(self, columns: Iterable[str]) -> None:
        """Raise ``TableError`` with the nearest names if a column is not there."""
        for name in columns:
            if name not in self.names:
                near = self._nearest(str(name))
                raise TableError(
                    f"{self.origin} has no column {shown(name)}{near}; it has {listed(self.names)}"
                )

    def count(self) -> int:
        """Number of rows. Reads a column where nothing else tells."""
        if self._count is not None:
            return self._count()
        return sum(batch.num_rows for batch in self.scan(self.names[:1]).batches)

    def _nearest(self, name: str) -> str:
        folded = {known.casefold(): known for known in self.names}
        near = [folded[match] for match in difflib.get_close_matches(name.casefold(), folded, n=3)]
        return f" (nearest: {listed(near)})" if near else ""

    def _guarded(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except CONVERSION_ERRORS as error:
                raise self._failure(error) from None
            yield batch

    def _failure(self, error: Exception) -> TableError:
        return TableError(
            f"{self.origin} failed while it was read ({type(error).__name__}): read it with the library it"
            " comes from to see why; the reason is left out here because it may quote the data"
        )


def cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most ``SCAN_ROWS``, without copying."""
    for batch in batches:
        for start in range(0, batch.num_rows, SCAN_ROWS):
            yield batch.slice(start, SCAN_ROWS)


def without_views(type_: pa.DataType) -> pa.DataType:
    """String and binary views as ordinary strings and bytes, since few compute functions take views."""
    if pa.types.is_string_view(type_):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(type_) else type_


def check_buffers(array: pa.Array) -> None:
    """Raise ``pa.ArrowException`` if offsets, indices or lengths contradict each other; reads all of them.

    Whether text is UTF-8 is not looked at: its bytes can be anything without harm.
    """
    if isinstance(array, pa.DictionaryArray):
        array.validate()
        pa.DictionaryArray.from_arrays(array.indices, pa.nulls(len(array.dictionary))).validate(full=True)
        check_buffers(array.dictionary)
        return
    bare = next((bare for belongs, bare in BARE if belongs(array.type)), None)
    (array if bare is None else array.view(bare)).validate(full=True)


BARE: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType], ...] = (
    (pa.types.is_string, pa.binary()),
    (pa.types.is_large_string, pa.large_binary()),
    (pa.types.is_string_view, pa.binary_view()),
    (pa.types.is_date64, pa.int64()),
)
"""Types whose values can be wrong in sound buffers, and a type of the same buffers that allows any value."""


def shown(name: object) -> str:
    """A column's name for a message."""
    text = repr(name)
    return text if len(text) <= 80 else text[:77] + "..."


def listed(names: Sequence[object]) -> str:
    """Columns' names for a message, the first twenty."""
    text = ", ".join(shown(name) for name in names[:20])
    return f"{text} and {len(names) - 20} more" if len(names) > 20 else text or "no columns"
