"""Parquet, Arrow IPC and CSV files as tables.

Called by ``source``. Opening reads the header or footer, scanning only the columns asked for. What pyarrow
says about a damaged Parquet or Arrow file stays attached as the cause; what it says about a CSV may quote the
data and does not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet

from trustcompute.errors import TableError
from trustcompute.tables.forgiving import forgiven, forgiving_type
from trustcompute.tables.table import SCAN_ROWS, Scan, Table, check_buffers, cut, listed, shown

CSV_BLOCK_BYTES = 8 << 20
"""A line of a CSV file, the header included, must fit into one block."""

DAMAGE = (pa.ArrowException, OSError, ValueError)
"""What pyarrow raises at a damaged file, a column name that is not UTF-8 included."""

Types = Mapping[str, pa.DataType]


def open_file(path: Path, types: Types) -> Table:
    """The table in a file. types: for CSV, columns that are not text. Raises ``TableError``."""
    reader = FORMATS.get(path.suffix.lower())
    if path.is_dir():
        raise TableError(
            f"{shown(str(path))} is a directory: pass one file, or read the directory with pyarrow.dataset"
            " and pass dataset(...).scanner().to_reader()"
        )
    if reader is None:
        raise TableError(
            f"{shown(str(path))} is no file of a known kind: its name must end in {', '.join(FORMATS)}; read"
            " any other file with its own library and pass the table"
        )
    if not path.is_file():
        raise TableError(f"{shown(str(path))} does not exist: looked in {shown(str(path.absolute().parent))}")
    if types and reader is not _csv:
        raise TableError(
            f"types= is for CSV files, which have none: the columns of {shown(path.name)} have theirs"
        )
    try:
        return reader(path, types)
    except PermissionError as error:
        raise TableError(f"{shown(str(path))} may not be read: change its permissions") from error


def _damaged(path: Path, form: str) -> TableError:
    return TableError(
        f"{shown(str(path))} is not a readable {form} file: it is damaged, incomplete or of another kind;"
        " write it again"
    )


def _parquet(path: Path, _: Types) -> Table:
    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            with pa.parquet.ParquetFile(path) as file:
                yield from file.iter_batches(batch_size=SCAN_ROWS, columns=list(columns))
        except DAMAGE as error:
            raise _damaged(path, "Parquet") from error

    try:
        with pa.parquet.ParquetFile(path) as file:
            schema, rows = file.schema_arrow, int(file.metadata.num_rows)
        names = tuple(schema.names)
    except PermissionError:
        raise
    except DAMAGE as error:
        raise _damaged(path, "Parquet") from error
    return Table(shown(path.name), names, True, lambda columns: Scan(schema, batches(columns)), lambda: rows)


def _ipc(path: Path, _: Types) -> Table:
    def batches(columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            _, found = _open_ipc(path, [schema.get_field_index(name) for name in columns])
            for batch in found:
                for column in batch.columns:
                    check_buffers(column)
                yield from cut([batch])
        except DAMAGE as error:
            raise _damaged(path, "Arrow") from error

    try:
        schema = _open_ipc(path, None)[0]
        names = tuple(schema.names)
    except PermissionError:
        raise
    except DAMAGE as error:
        raise _damaged(path, "Arrow") from error
    return Table(shown(path.name), names, True, lambda columns: Scan(schema, batches(columns)))


def _open_ipc(path: Path, fields: list[int] | None) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """(schema, batches with the fields at these positions) of an IPC file or, without its magic, a stream."""
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    with path.open("rb") as start:
        is_file = start.read(6) == b"ARROW1"
    source = pa.memory_map(str(path))
    if is_file:
        file = pa.ipc.open_file(source, options=options)
        return file.schema, (file.get_batch(index) for index in range(file.num_record_batches))
    stream = pa.ipc.open_stream(source, options=options)
    return stream.schema, iter(stream)


def _csv(path: Path, types: Types) -> Table:
    def opened(convert: pa.csv.ConvertOptions | None) -> pa.csv.CSVStreamingReader:
        return pa.csv.open_csv(
            path,
            read_options=pa.csv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=convert,
        )

    def batches(columns: Sequence[str], read_as: Types) -> Iterator[pa.RecordBatch]:
        convert = pa.csv.ConvertOptions(
            include_columns=list(columns),
            column_types={name: read_as.get(name, pa.string()) for name in columns},
            null_values=[""],
            strings_can_be_null=False,
        )
        try:
            yield from cut(opened(convert))
        except DAMAGE as error:
            raise _unreadable_csv(path, error, names) from None

    try:
        names = tuple(opened(None).schema.names)
    except PermissionError:
        raise
    except DAMAGE as error:
        raise _unreadable_csv(path, error) from None
    unknown = [name for name in types if name not in names]
    if unknown:
        raise TableError(
            f"types= names columns that {shown(path.name)} does not have: {listed(unknown)}; it has"
            f" {listed(names)}"
        )
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    forgiving = pa.schema([(field.name, forgiving_type(field.type)) for field in schema])

    def read(columns: Sequence[str]) -> Scan:
        return Scan(schema, batches(columns, types))

    def read_forgiving(columns: Sequence[str]) -> Scan:
        found = pa.schema([forgiving.field(name) for name in columns])
        raw = batches(columns, dict.fromkeys(columns, pa.binary()))
        return Scan(found, (_forgiven(batch, schema, found) for batch in raw))

    return Table(shown(path.name), names, True, read, _forgiving=read_forgiving)


def _forgiven(batch: pa.RecordBatch, declared: pa.Schema, found: pa.Schema) -> pa.RecordBatch:
    columns = [forgiven(batch.column(name), declared.field(name).type) for name in found.names]
    return pa.RecordBatch.from_arrays(columns, schema=found)


def _unreadable_csv(path: Path, error: Exception, names: Sequence[str] = ()) -> TableError:
    """What is wrong and in which column, from what pyarrow says, and never what stands there."""
    message = str(error)
    number = re.search(r"column #(\d+)", message)
    where = f" in column {shown(names[int(number[1])])}" if number and int(number[1]) < len(names) else ""
    for sign, fault in CSV_FAULTS.items():
        if sign in message:
            return TableError(f"{shown(str(path))} {fault.format(where=where)}")
    return TableError(
        f"{shown(str(path))} cannot be read as CSV{where}: it must have commas and a header line"
    )


CSV_FAULTS = {
    "Empty CSV": "is empty: a CSV file starts with a header line",
    "straddling": f"has a line longer than {CSV_BLOCK_BYTES >> 20} MiB: close its quotes, or use Parquet",
    "Expected": "has a line with more or fewer fields than its header: quote the fields that hold a comma",
    "UTF8": "is not UTF-8{where}: save it as UTF-8, or read it in another library and pass the table",
    "conversion error": "has a field{where} that is not of the type in types=: correct it or leave it text",
}
"""What pyarrow's messages contain -> what to tell instead."""


FORMATS: dict[str, Callable[[Path, Types], Table]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".arrow": _ipc,
    ".feather": _ipc,
}
