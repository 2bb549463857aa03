"""Where answers go (``--out``): found out to be writable before anything is spent, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from trustcompute import tables
from trustcompute.errors import ParameterError


def _write_parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path)


def _write_csv(table: pa.Table, path: Path) -> None:
    pa_csv.write_csv(table, path)


WRITERS = {".parquet": _write_parquet, ".csv": _write_csv}


def check_out(path: Path | None) -> None:
    """Refuse what an answer of columns not known yet cannot be written to."""
    if path is None:
        return
    _check_suffix(path)
    temporary = _temporary(path)
    try:
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise ParameterError(f"cannot write {path}: {error.strerror}") from error


def try_to_write(table: Path, path: Path, ids: str | None = None) -> None:
    """Find out whether matched rows of a table can be written: its columns, without its rows."""
    if ids is not None and ids in tables.open_table(table).names:
        raise ParameterError(f"the table has a column {ids!r} already: call --ids otherwise")
    _check_suffix(path)
    write(tables.take(table, []), path)


def write(answer: pa.Table, path: Path) -> None:
    """Write whole or not at all. Raises ``ParameterError``."""
    temporary = _temporary(path)
    try:
        WRITERS[path.suffix](answer, temporary)
        temporary.replace(path)
    except OSError as error:
        raise ParameterError(f"cannot write {path}: {error.strerror}") from error
    except pa.ArrowException as error:
        temporary.unlink(missing_ok=True)
        raise ParameterError(f"{path.suffix} cannot hold this table: {error}") from error


def _check_suffix(path: Path) -> None:
    if path.suffix not in WRITERS:
        raise ParameterError(f"--out must end in {' or '.join(WRITERS)}, not {path.suffix!r}")


def _temporary(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")
