"""Chosen rows of a table into a file, in a stream: Parquet, CSV or Arrow, whole or not at all.

Called by whatever computes on files. pyarrow selects and writes; the source is read once.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from trustcompute.errors import ParameterError, StoreError, TableError
from trustcompute.tables.keys import Mask
from trustcompute.tables.progress import Phase
from trustcompute.tables.source import opened
from trustcompute.tables.table import shown, without_views

GROUP_ROWS: Final = 1 << 18  # rows gathered before they are written: a Parquet row group

WRITERS: Final[dict[str, Callable[[Any, pa.Schema], Any]]] = {
    ".parquet": pa.parquet.ParquetWriter,
    ".csv": pa.csv.CSVWriter,
    ".arrow": pa.ipc.new_file,
}


def check_writable(source: object, out: Path) -> None:
    """Raise, before anything is spent, where ``write_rows`` could not: a place or a kind of file that does not do."""
    try:
        write_rows(source, None, out, keep=False)
    except StoreError as error:
        raise ParameterError(str(error)) from error


def write_rows(
    source: object,
    chosen: Mask | None,
    out: Path,
    *,
    columns: Sequence[str] | None = None,
    phase: Phase | None = None,
    keep: bool = True,
) -> int:
    """Write the chosen rows, in their order; returns how many.

    chosen: bool[rows], None for none; out: its name ends in .parquet, .csv or .arrow; keep: put the file in its place.
    Raises ``TableError`` where the source has another number of rows or the file cannot hold a column,
    ``StoreError`` where it cannot be written.
    """
    if out.suffix not in WRITERS:
        raise TableError(f"a result is written to a file ending in {', '.join(WRITERS)}, not {out.suffix!r}")
    temporary = out.with_name(out.name + ".tmp")
    try:
        written = _write(source, chosen, temporary, columns, phase)
        if keep:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(out)
        return written
    except pa.ArrowException as error:
        raise TableError(
            f"{out.suffix} cannot hold this table ({type(error).__name__}): name other columns"
        ) from None
    except OSError as error:
        raise StoreError(f"cannot write {out}: {os.strerror(error.errno or errno.EIO)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(
    source: object, chosen: Mask | None, path: Path, columns: Sequence[str] | None, phase: Phase | None
) -> int:
    table = opened(source)
    scan = table.scan(columns)
    schema = pa.schema([field.with_type(without_views(field.type)) for field in scan.schema])
    seen = written = held = 0
    waiting: list[pa.RecordBatch] = []
    with WRITERS[path.with_suffix("").suffix](str(path), schema) as writer:
        for batch in scan.batches if chosen is not None else ():
            assert chosen is not None
            mask = chosen[seen : seen + batch.num_rows]
            seen += batch.num_rows
            if len(mask) == batch.num_rows and mask.any():
                waiting.append(batch.filter(pa.array(mask)).cast(schema))
                held += waiting[-1].num_rows
            if held >= GROUP_ROWS:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                written, held, waiting = written + held, 0, []
            if phase is not None:
                phase.advance(batch.num_rows)
        if held:
            writer.write_table(pa.Table.from_batches(waiting, schema))
    if chosen is not None and seen != len(chosen):
        raise TableError(f"{shown(table.origin)} has changed: it has {seen} rows, and had {len(chosen)}")
    return written + held
