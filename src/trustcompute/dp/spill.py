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
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute.dp.bounding import CHUNK, KEY_BYTES, encode
from trustcompute.tables import Table

MOST_ROWS: Final = 2**25
"""Rows that are released from memory: at 8 bytes a column and 40 beside them, 1.6 GB with one column."""
PART_ROWS: Final = 2**23
MAX_PARTS: Final = 512  # files open at a time

Read = Callable[[], pa.Table]


@contextmanager
def parts(table: Table, columns: Sequence[str], unit: str | None, rows: int) -> Iterator[list[Read]]:
    """What gives a table's first ``rows`` rows, in parts that have all rows of a unit. unit: its column."""
    count = min(-(-rows // PART_ROWS), MAX_PARTS)
    scan = table.scan(list(columns))
    if rows <= MOST_ROWS:
        whole = pa.Table.from_batches(list(scan.batches), schema=scan.schema)[:rows]
        yield [lambda: whole]
        return
    with tempfile.TemporaryDirectory(prefix="trustcompute-release-") as folder:
        paths = [Path(folder, f"{at}.arrow") for at in range(count)]
        schema = pa.schema([field.with_type(_plain(field.type)) for field in scan.schema])
        with ExitStack() as open_files:
            files = [open_files.enter_context(pa.ipc.new_stream(str(path), schema)) for path in paths]
            seen, key = 0, os.urandom(KEY_BYTES)
            for chunk in _chunks(scan.batches, schema, rows):
                place = _places(chunk, unit, seen, count, key)
                order = np.argsort(place, kind="stable")
                ends = np.searchsorted(place[order], np.arange(count + 1))
                ordered = chunk.take(pa.array(order))
                for at in np.flatnonzero(np.diff(ends)):
                    files[at].write_table(ordered[int(ends[at]) : int(ends[at + 1])])
                seen += chunk.num_rows
        yield [partial(_read, path) for path in paths]


def _plain(kind: pa.DataType) -> pa.DataType:
    """Without dictionaries and views, which each batch has its own of."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    return pa.large_string() if pa.types.is_string_view(kind) else kind


def _chunks(batches: Iterable[pa.RecordBatch], schema: pa.Schema, rows: int) -> Iterator[pa.Table]:
    """The first ``rows`` rows, about ``CHUNK`` at a time."""
    waiting: list[pa.RecordBatch] = []
    ready = 0
    for batch in batches:
        taken = batch[:rows]
        rows -= taken.num_rows
        ready += taken.num_rows
        waiting.append(taken)
        if ready >= CHUNK:
            yield pa.Table.from_batches(waiting).cast(schema)
            waiting, ready = [], 0
    if ready:
        yield pa.Table.from_batches(waiting).cast(schema)


def _places(chunk: pa.Table, unit: str | None, seen: int, count: int, key: bytes) -> npt.NDArray[np.uint16]:
    """Of each row its part; rows without a unit, which do not count, anywhere."""
    if unit is None:
        return ((seen + np.arange(chunk.num_rows)) % count).astype(np.uint16)
    codes = encode(chunk[unit], key)
    place = np.append(codes.hashes % np.uint64(count), np.uint64(0)).astype(np.uint16)
    return place[codes.code]


def _read(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()
