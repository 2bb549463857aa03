"""Tables larger than memory: rows put into files on disk by a hash of their unit, so that parts can be read one by one.

Called by ``answer`` for tables of more than ``MOST_ROWS`` rows. Bounding looks at one unit at a time and totals add up,
so a release of the parts is that of the whole (``bounding``). What is held in memory is a part, and four bytes a row.
The files lie in a directory of their own below ``TMPDIR`` that only this user can read, not encrypted, and are
deleted when the release is done.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute.dp.bounding import CHUNK, KEY_BYTES, encode
from trustcompute.tables import Table

MOST_ROWS: Final = 2**25
"""Rows that are released from memory: at 8 bytes a column and 40 beside them, 1.6 GB with one column."""
PARTS: Final = 128
"""Of a larger table, and files that are open at a time: 2^18 rows in each at least, 2^25 at most."""

Read = Callable[[], pa.Table]


@contextmanager
def parts(table: Table, columns: Sequence[str], unit: str | None, most: int) -> Iterator[list[Read]]:
    """What gives a table's first ``most`` rows, in parts that have all rows of a unit. unit: its column."""
    scan = table.scan_forgiving(list(columns))
    batches = _first(scan.batches, most)
    held = list(_first_batches(batches, MOST_ROWS))
    following = next(batches, None)
    if following is None:
        whole = pa.Table.from_batches(held, schema=scan.schema)
        yield [lambda: whole]
        return
    with tempfile.TemporaryDirectory(prefix="trustcompute-release-") as folder:
        paths = [Path(folder, f"{at}.arrow") for at in range(PARTS)]
        schema = pa.schema([field.with_type(_plain(field.type)) for field in scan.schema])
        with ExitStack() as open_files:
            files = [open_files.enter_context(pa.ipc.new_stream(str(path), schema)) for path in paths]
            seen, key = 0, os.urandom(KEY_BYTES)
            for chunk in _chunks(chain(_emptied(held), [following], batches), schema):
                place = _places(chunk, unit, seen, key)
                order = np.argsort(place, kind="stable")
                ends = np.searchsorted(place[order], np.arange(PARTS + 1))
                ordered = chunk.take(pa.array(order))
                for at in np.flatnonzero(np.diff(ends)):
                    files[at].write_table(ordered[int(ends[at]) : int(ends[at + 1])])
                seen += chunk.num_rows
        yield [partial(_read, path) for path in paths]


def _first(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The first ``rows`` rows."""
    for batch in batches:
        if rows == 0:
            return
        taken = batch[:rows]
        rows -= taken.num_rows
        yield taken


def _first_batches(batches: Iterator[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """Whole batches, until they have as many rows."""
    while rows > 0 and (batch := next(batches, None)) is not None:
        rows -= batch.num_rows
        yield batch


def _emptied(held: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What is in a list, each given up as soon as it is taken."""
    held.reverse()
    while held:
        yield held.pop()


def _chunks(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """About ``CHUNK`` rows at a time."""
    waiting: list[pa.RecordBatch] = []
    ready = 0
    for batch in batches:
        ready += batch.num_rows
        waiting.append(batch)
        if ready >= CHUNK:
            yield pa.Table.from_batches(waiting).cast(schema)
            waiting, ready = [], 0
    if ready:
        yield pa.Table.from_batches(waiting).cast(schema)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Without dictionaries and views, which each batch has its own of."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.large_string() if pa.types.is_string_view(kind) else kind


def _places(chunk: pa.Table, unit: str | None, seen: int, key: bytes) -> npt.NDArray[np.uint16]:
    """Of each row its part; rows without a unit, which do not count, anywhere."""
    if unit is None:
        return ((seen + np.arange(chunk.num_rows)) % PARTS).astype(np.uint16)
    codes = encode(chunk[unit], key)
    place = np.append(codes.hashes % np.uint64(PARTS), np.uint64(0)).astype(np.uint16)
    return place[codes.code]


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()
