"""Whatever a caller has, opened as a table; and rows taken back out of it by position.

Called by ``keys``, ``catalogue`` and the compute layers. Streams come in through the Arrow PyCapsule
interface (``__arrow_c_stream__``), files through pyarrow. pandas, polars and DuckDB are recognised only where
the caller has imported them.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute.errors import TableError
from trustcompute.tables.files import FORMATS, open_file
from trustcompute.tables.table import CONVERSION_ERRORS, SCAN_ROWS, Scan, Table, cut, shown, without_views

I64 = npt.NDArray[np.int64]


def open_table(source: object, *, types: Mapping[str, pa.DataType] | None = None) -> Table:
    """Open anything tabular so that it can be scanned more than once.

    source: a pandas or polars DataFrame, a pyarrow Table, RecordBatch or RecordBatchReader, a DuckDB relation
    or result, anything with ``__arrow_c_stream__``, a mapping of column to sequence, the path of a .parquet,
    .csv, .arrow or .feather file, or a Table (returned as it is). A stream or a query is read now, once, into
    memory; a file whenever it is scanned. types: for a CSV file, the columns that are not text.

    Raises ``TableError`` if it is none of these, or cannot be read.
    """
    table = opened(source, types=types)
    if table.reusable:
        return table
    scan = table.scan()
    return _in_memory(pa.Table.from_batches(list(scan.batches), schema=scan.schema), table.origin)


def opened(source: object, *, types: Mapping[str, pa.DataType] | None = None) -> Table:
    """``open_table`` without keeping a stream's rows: a single-use source can be scanned once."""
    if isinstance(source, str | Path):
        return open_file(Path(source), types or {})
    if types:
        raise TableError(
            "types= is for CSV files, which have none: cast the columns of any other table before"
        )
    if isinstance(source, Table):
        return source
    for recognise in (_arrow, _pandas, _polars, _duckdb, _mapping, _stream):
        table = recognise(source)
        if table is not None:
            return table
    hint = ": call .collect() first" if type(source).__name__ == "LazyFrame" else ""
    raise TableError(
        f"a {_type_name(source)} is not a table{hint}; pass a pandas or polars DataFrame, a pyarrow table or"
        " reader, a DuckDB relation, anything with __arrow_c_stream__, a mapping of column to sequence, or"
        f" the path of a file ending in {', '.join(FORMATS)}"
    )


def take(source: object, rows: npt.ArrayLike, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows at these positions, counted from 0, in the order given; repeats allowed.

    rows: integers [k]; columns: those to keep, all by default. Reads the source once, up to the last
    position. String and binary views come back as large_string and large_binary. Raises ``TableError`` for a
    position outside the table.
    """
    positions = np.asarray(rows)
    if positions.ndim != 1 or (positions.size and not np.issubdtype(positions.dtype, np.integer)):
        raise TableError(
            "row positions must be a flat array of integers; for a mask pass numpy.flatnonzero(mask)"
        )
    distinct, inverse = np.unique(positions.astype(np.int64), return_inverse=True)
    table = opened(source)
    if distinct.size and distinct[0] < 0:
        raise TableError(f"row positions count from 0 and none is negative: {table.origin}")
    scan = table.scan(columns)
    schema = pa.schema([field.with_type(without_views(field.type)) for field in scan.schema])
    try:
        kept, seen = _pick((batch.cast(schema) for batch in scan.batches), distinct)
    except pa.ArrowNotImplementedError:
        raise TableError(
            f"rows of {table.origin} cannot be taken: it has a column of a type that pyarrow cannot select"
            " from; name the columns to keep"
        ) from None
    if distinct.size and distinct[-1] >= seen:
        raise TableError(f"a row position lies outside {table.origin}, which has {seen} rows, counted from 0")
    found = pa.Table.from_batches(kept, schema=schema)
    if np.array_equal(inverse, np.arange(len(distinct))):
        return found
    return found.unify_dictionaries().combine_chunks().take(pa.array(inverse))


def _pick(batches: Iterator[pa.RecordBatch], distinct: I64) -> tuple[list[pa.RecordBatch], int]:
    """(the rows at the ascending positions, rows seen); reads no further than the last position."""
    kept: list[pa.RecordBatch] = []
    start = done = 0
    for batch in batches:
        stop = int(np.searchsorted(distinct, start + batch.num_rows))
        if stop > done:
            kept.append(batch.take(pa.array(distinct[done:stop] - start)))
        start, done = start + batch.num_rows, stop
        if done == len(distinct):
            break
    return kept, start


def row_count(source: object) -> int:
    """Number of rows. A Parquet file tells from its footer, a table in memory knows; a stream is used up."""
    return opened(source).count()


def _in_memory(table: pa.Table, origin: str) -> Table:
    def read(columns: Sequence[str]) -> Scan:
        chosen = table.select(list(columns))
        return Scan(chosen.schema, iter(chosen.to_batches(max_chunksize=SCAN_ROWS)))

    return Table(origin, tuple(table.column_names), True, read, lambda: int(table.num_rows))


def _single_use(reader: pa.RecordBatchReader, origin: str) -> Table:
    unread = [reader]

    def read(_: Sequence[str]) -> Scan:
        if not unread:
            raise TableError(
                f"{origin} can be read once, and was: pass open_table(...) of it, which keeps the rows"
            )
        only = unread.pop()
        return Scan(only.schema, cut(only))

    return Table(origin, tuple(reader.schema.names), False, read)


def _arrow(source: object) -> Table | None:
    if isinstance(source, pa.RecordBatchReader):
        return _single_use(source, "the record batch reader")
    if isinstance(source, pa.RecordBatch):
        source = pa.Table.from_batches([source])
    return _in_memory(source, "the Arrow table") if isinstance(source, pa.Table) else None


def _stream(source: object) -> Table | None:
    """Whatever exports the Arrow PyCapsule interface; its stream is taken now, once."""
    try:
        if hasattr(source, "__arrow_c_stream__"):
            return _single_use(pa.RecordBatchReader.from_stream(source), f"the {_type_name(source)}")
        if hasattr(source, "__arrow_c_array__"):
            return _arrow(pa.record_batch(source))
    except CONVERSION_ERRORS as error:
        raise TableError(
            f"the {_type_name(source)} cannot be read as a table ({type(error).__name__}): pass a table with"
            " named columns that Arrow can hold, not a single column"
        ) from None
    return None


def _pandas(source: object) -> Table | None:
    pandas: Any = sys.modules.get("pandas")
    if pandas is None or not isinstance(source, pandas.DataFrame):
        return None
    frame: Any = source
    levels = [level for level in frame.index.names if level is not None and level not in frame.columns]
    labels = {str(label): label for label in [*frame.columns, *levels]}

    def values(name: str) -> Any:
        label = labels[name]
        return frame.index.get_level_values(label) if label in levels else frame[label]

    names = tuple(str(label) for label in [*frame.columns, *levels])
    return _columns("the pandas DataFrame", names, values, len(frame))


def _polars(source: object) -> Table | None:
    polars: Any = sys.modules.get("polars")
    if polars is None or not isinstance(source, polars.DataFrame):
        return None
    frame: Any = source

    def read(columns: Sequence[str]) -> Scan:
        for name in columns:
            _refuse_addresses(frame[name], name)
        reader = pa.RecordBatchReader.from_stream(frame.select(list(columns)))
        return Scan(reader.schema, cut(reader))

    return Table("the polars DataFrame", tuple(frame.columns), True, read, lambda: len(frame))


def _refuse_addresses(values: Any, name: str) -> None:
    """A polars column of Python objects becomes their addresses in Arrow."""
    polars: Any = sys.modules.get("polars")
    if polars is not None and isinstance(values, polars.Series) and values.dtype == polars.Object:
        raise TableError(f"column {shown(name)} holds Python objects: cast it to a polars type")


def _duckdb(source: object) -> Table | None:
    duckdb: Any = sys.modules.get("duckdb")
    if duckdb is None or not isinstance(source, duckdb.DuckDBPyRelation | duckdb.DuckDBPyConnection):
        return None
    query: Any = source
    if isinstance(query, duckdb.DuckDBPyConnection):
        try:
            reader = getattr(query, "to_arrow_reader", None) or query.fetch_record_batch
            return _single_use(reader(SCAN_ROWS), "the DuckDB result")
        except duckdb.Error as error:
            raise TableError(
                f"the DuckDB connection has no result to read ({type(error).__name__}): execute a query and"
                " pass what it returns"
            ) from None

    def read(columns: Sequence[str]) -> Scan:
        quoted = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
        try:
            reader = pa.RecordBatchReader.from_stream(query.project(quoted))
        except duckdb.Error as error:
            raise TableError(
                f"the DuckDB relation cannot be read ({type(error).__name__}): run it in DuckDB"
            ) from None
        return Scan(reader.schema, cut(reader))

    # Not reusable: a query may give its rows in another order the next time.
    return Table("the DuckDB relation", tuple(query.columns), False, read)


def _mapping(source: object) -> Table | None:
    if not isinstance(source, Mapping):
        return None
    columns: Mapping[Any, Any] = source
    for name, values in columns.items():
        if not isinstance(name, str):
            raise TableError(f"column names must be strings, not {_type_name(name)}")
        if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
            raise TableError(f"column {shown(name)} must be a sequence of values, not {_type_name(values)}")
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        raise TableError(f"the columns of a mapping must be equally long, not {sorted(lengths)} rows")
    return _columns("the mapping", tuple(columns), columns.__getitem__, max(lengths, default=0))


def _columns(origin: str, names: tuple[str, ...], values: Any, rows: int) -> Table:
    """A table of separate columns, each converted when it is asked for. values: the sequence of a name."""

    def read(wanted: Sequence[str]) -> Scan:
        table = pa.table([_column(values(name), name) for name in wanted], names=list(wanted))
        return Scan(table.schema, iter(table.to_batches(max_chunksize=SCAN_ROWS)))

    return Table(origin, names, True, read, lambda: rows)


def _column(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    """A sequence as an Arrow array; None, NaN and NaT are missing values."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    _refuse_addresses(values, name)
    try:
        array = pa.array(values, from_pandas=True)
    except CONVERSION_ERRORS as error:
        raise TableError(
            f"column {shown(name)} cannot become an Arrow column ({type(error).__name__}): it mixes types, or"
            " holds a value that no Arrow type can; cast it to one type"
        ) from None
    if getattr(values, "dtype", None) in (None, np.dtype(object)) and _mixed(values, array.type):
        raise TableError(
            f"column {shown(name)} mixes types (text and bytes, dates and timestamps, or timestamps with and"
            " without a time zone): cast it to one type"
        )
    return array


def _mixed(values: Any, kind: pa.DataType) -> bool:
    """Whether Python objects of several types were made one without a word, changing some of them."""
    if pa.types.is_binary(kind):
        return any(issubclass(found, str) for found in set(map(type, values)))
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        # Only NaT, a missing value, is not equal to itself.
        stamps = [value for value in values if isinstance(value, datetime.datetime) and value == value]  # noqa: PLR0124
        naive = {stamp.tzinfo is None for stamp in stamps}
        return bool(stamps) and (pa.types.is_date(kind) or len(naive) > 1)
    return False


def _type_name(value: object) -> str:
    kind = type(value)
    return (
        kind.__name__
        if kind.__module__ == "builtins"
        else f"{kind.__module__.partition('.')[0]} {kind.__name__}"
    )
