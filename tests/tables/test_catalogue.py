"""What a table tells others: its columns, which can be keys, and one hash whichever library holds it."""

from __future__ import annotations

import datetime
import hashlib

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
import rfc8785

from trustcompute import tables
from trustcompute.tables import Kind

COLUMNS = {
    "id": ["a", None],
    "n": [1, 2],
    "x": [0.5, None],
    "day": [datetime.date(2024, 1, 1), None],
    "at": [datetime.datetime(2024, 1, 1), None],
    "ok": [True, False],
}
WANTED = [
    ["id", "text"],
    ["n", "integer"],
    ["x", "float"],
    ["day", "date"],
    ["at", "timestamp"],
    ["ok", "boolean"],
]


def hash_of(columns: list) -> str:
    return hashlib.sha256(rfc8785.dumps({"columns": columns, "version": "tc-schema/1"})).hexdigest()


def test_one_table_hashes_alike_from_every_library(tmp_path):
    arrow = pa.table(COLUMNS)
    pa.parquet.write_table(arrow, tmp_path / "t.parquet", use_dictionary=True)
    categories = arrow.set_column(0, "id", arrow["id"].dictionary_encode())
    for source in (
        arrow,
        arrow.schema,
        COLUMNS,
        pd.DataFrame(COLUMNS | {"day": pd.Series(COLUMNS["day"], dtype=object)}),
        pl.DataFrame(COLUMNS),
        duckdb.from_arrow(arrow),
        tmp_path / "t.parquet",
        categories,
    ):
        assert tables.schema_hash(source) == hash_of(WANTED)


def test_names_types_and_order_count():
    base = tables.schema_hash(pa.schema({"a": pa.string(), "b": pa.int64()}))
    for other in (
        {"b": pa.int64(), "a": pa.string()},
        {"a": pa.string(), "c": pa.int64()},
        {"a": pa.string(), "b": pa.float64()},
        {"a": pa.string()},
        {},
    ):
        assert tables.schema_hash(pa.schema(other)) != base
    assert tables.schema_hash(pa.schema({"a": pa.large_string(), "b": pa.uint8()})) == base


@pytest.mark.parametrize(
    ("type_", "logical"),
    [
        (pa.binary(16), "binary"),
        (pa.uuid(), "binary"),
        (pa.timestamp("ns", "Asia/Shanghai"), "timestamp_utc"),
        (pa.decimal256(50, 3), "decimal"),
        (pa.null(), "null"),
        (pa.time32("s"), "time"),
        (pa.duration("ms"), "duration"),
        (pa.list_(pa.large_string()), {"list": "text"}),
        (pa.large_list(pa.list_(pa.int8(), 3)), {"list": {"list": "integer"}}),
        (pa.list_view(pa.int8()), {"list": "integer"}),
        (pa.struct({"ä\n": pa.float16()}), {"struct": [["ä\n", "float"]]}),
        (pa.map_(pa.string(), pa.int32()), {"map": ["text", "integer"]}),
        (pa.json_(), {"extension": "arrow.json"}),
        (pa.month_day_nano_interval(), {"arrow": "month_day_nano_interval"}),
        (pa.run_end_encoded(pa.int32(), pa.float32()), "float"),
    ],
    ids=str,
)
def test_logical_types_as_the_page_tells(type_, logical):
    assert tables.schema_hash(pa.schema({"名": type_})) == hash_of([["名", logical]])


def test_describe():
    table = pa.table(COLUMNS).append_column("tags", pa.array([["t"], None]))
    found = tables.describe(table)
    assert [[column.name, column.type] for column in found] == [*WANTED, ["tags", '{"list":"text"}']]
    assert [column.kind for column in found] == [
        Kind.TEXT,
        Kind.INTEGER,
        Kind.INTEGER,
        Kind.DATE,
        Kind.TIMESTAMP,
        Kind.BOOLEAN,
        None,
    ]


def test_describe_reads_no_row():
    def batches():
        raise AssertionError("read")
        yield

    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int8()}), batches())
    assert tables.describe(reader)[0].kind is Kind.INTEGER
