"""Anything tabular opens, is read once, only where needed, and fails with a message that says what to do."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet
import pytest

from trustcompute import tables
from trustcompute.errors import TableError

# DuckDB advises relations instead of results, which are tested all the same.
pytestmark = pytest.mark.filterwarnings("ignore:Arrow output on a DB-API result")

SECRET = "Zaphod"
IDS = ["b", "a", None, "b", "ünï"]
AMOUNTS = [1, 2, 3, 4, 5]
ARROW = pa.table({"id": IDS, "amount": AMOUNTS})


class Exported:
    """Some library's table: offers the PyCapsule interface, nothing else, and counts how often it is read."""

    def __init__(self, table: pa.Table) -> None:
        self.table, self.reads = table, 0

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        self.reads += 1
        return self.table.__arrow_c_stream__(requested_schema)


def write(path: Path, table: pa.Table = ARROW) -> Path:
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=2)
    elif path.suffix == ".feather":
        pa.feather.write_feather(table, str(path), chunksize=2)
    elif path.suffix == ".csv":
        pa.csv.write_csv(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    return path


SOURCES = {
    "arrow": lambda _: ARROW,
    "batch": lambda _: ARROW.to_batches()[0],
    "reader": lambda _: ARROW.to_reader(max_chunksize=2),
    "capsule": lambda _: Exported(ARROW),
    "pandas": lambda _: pd.DataFrame({"id": IDS, "amount": AMOUNTS}),
    "pandas-objects": lambda _: pd.DataFrame({"id": pd.Series(IDS, dtype=object), "amount": AMOUNTS}),
    "pandas-index": lambda _: pd.DataFrame({"amount": AMOUNTS}, index=pd.Index(IDS, name="id")),
    "pandas-odd-index": lambda _: pd.DataFrame({"id": IDS, "amount": AMOUNTS}, index=[9, 9, "x", None, 1]),
    "polars": lambda _: pl.DataFrame({"id": IDS, "amount": AMOUNTS}),
    "duckdb-relation": lambda _: duckdb.from_arrow(ARROW),
    "duckdb-result": lambda _: duckdb.connect().execute(
        "SELECT * FROM (VALUES ('b', 1), ('a', 2), (NULL, 3), ('b', 4), ('ünï', 5)) AS t(id, amount)"
        " ORDER BY amount"
    ),
    "mapping": lambda _: {"id": IDS, "amount": np.array(AMOUNTS)},
    "parquet": lambda folder: write(folder / "t.parquet"),
    "feather": lambda folder: str(write(folder / "t.feather")),
    "arrow-stream": lambda folder: write(folder / "t.ARROW".lower()),
    "csv": lambda folder: write(folder / "t.csv"),
}


@pytest.fixture(params=SOURCES, ids=str)
def source(request, tmp_path):
    return SOURCES[request.param](tmp_path)


def test_the_same_keys_from_every_source(source):
    found, wanted = tables.keys(source, "id"), tables.keys(ARROW, "id")
    assert found.spec == wanted.spec
    assert np.array_equal(found.digests, wanted.digests)
    assert np.array_equal(found.codes, wanted.codes)
    assert (found.rows, found.nulls, found.duplicates) == (5, 1, 1)


def test_an_open_table_is_read_as_often_as_needed(source):
    table = tables.open_table(source)
    assert tables.open_table(table) is table
    assert sorted(table.names) == ["amount", "id"]
    assert tables.row_count(table) == 5
    assert len(tables.keys(table, "id")) == len(tables.keys(table, ["id", "amount"])) - 1 == 3
    found = tables.take(table, [4, 0, 4], ["id"])
    assert found.to_pydict() == {"id": ["ünï", "b", "ünï"]}
    assert [str(v) for v in tables.take(table, np.array([3])).to_pydict()["amount"]] == ["4"]


def test_rows_are_counted_from_any_source(source):
    assert tables.row_count(source) == 5


def test_a_stream_is_taken_once_and_not_kept():
    exported = Exported(ARROW)
    assert tables.keys(exported, "id").rows == 5
    assert exported.reads == 1
    reader = ARROW.to_reader()
    table = tables.open_table(reader)
    assert table.scan().batches is not table.scan().batches
    assert tables.keys(reader, "id").rows == 0  # open_table used it up


def test_a_single_use_table_says_so_the_second_time():
    from trustcompute.tables.source import opened

    table = opened(Exported(ARROW))
    assert tables.keys(table, "id").rows == 5
    with pytest.raises(TableError, match="once, and was: pass open_table"):
        tables.keys(table, "id")


def test_a_long_stream_is_never_held_as_a_whole():
    alive = Counter()

    def batches():
        for number in range(40):
            alive["made"] += 1
            yield pa.record_batch({"id": [number] * 1000})
            alive["most"] = max(alive["most"], pa.total_allocated_bytes())

    schema = pa.schema({"id": pa.int64()})
    before = pa.total_allocated_bytes()
    found = tables.keys(pa.RecordBatchReader.from_batches(schema, batches()), "id")
    assert (found.rows, len(found), alive["made"]) == (40_000, 40, 40)
    assert alive["most"] - before < 10 * 8_000


def test_only_the_key_columns_are_converted_or_read(tmp_path):
    mixed = pd.DataFrame({"id": IDS, "mess": [1, "x", object(), None, b""]})
    assert tables.keys(mixed, "id").rows == 5
    assert tables.keys({"id": IDS, "mess": [1, "x", [], None, 2]}, "id").rows == 5
    frame = pl.DataFrame({"id": IDS, "mess": pl.Series([object()] * 5, dtype=pl.Object)})
    assert tables.keys(frame, "id").rows == 5

    path = write(tmp_path / "t.parquet", ARROW.append_column("big", pa.array(["x" * 100_000] * 5)))
    before = pa.total_allocated_bytes()
    peaks = [pa.total_allocated_bytes() for _ in tables.open_table(path).scan(["id"]).batches]
    assert max(peaks) - before < 100_000


def test_column_names_are_taken_literally(tmp_path):
    awkward = pa.table({'a"b': ["x"], "s.t": ["y"], "select": ["z"], "": ["w"]})
    for source in (awkward, duckdb.from_arrow(awkward), write(tmp_path / "t.parquet", awkward)):
        assert len(tables.keys(source, ['a"b', "s.t", "select"])) == 1
    nested = pa.table({"s": [{"t": "inner"}], "s.t": ["outer"]})
    found = tables.keys(write(tmp_path / "n.parquet", nested), "s.t")
    assert np.array_equal(found.digests, tables.keys({"k": ["outer"]}, "k").digests)


def test_pandas_labels_and_index_levels():
    frame = pd.DataFrame(
        {1: ["a", "b"], ("x", "y"): [1, 2]}, index=pd.MultiIndex.from_tuples([(1, 2), (3, 4)])
    )
    assert tables.open_table(frame).names == ("1", "('x', 'y')")
    assert tables.keys(frame, "1").rows == 2
    named = pd.DataFrame(
        {"v": [1, 2]}, index=pd.MultiIndex.from_tuples([("p", 1), ("q", 2)], names=["id", None])
    )
    assert tables.keys(named, ["id", "v"]).rows == 2
    assert tables.take(named, [1]).to_pylist() == [{"v": 2, "id": "q"}]
    ranged = pd.DataFrame({"v": ["x", "y"]}, index=pd.RangeIndex(2, name="row"))
    assert tables.take(ranged, [1]).to_pylist() == [{"v": "y", "row": 1}]


def test_empty_tables(tmp_path):
    empty = ARROW.slice(0, 0)
    for source in (
        empty,
        empty.to_reader(),
        pl.DataFrame(empty),
        pd.DataFrame({"id": pd.Series([], dtype="str")}),
        {"id": []},
        duckdb.from_arrow(empty),
        *(write(tmp_path / f"e{suffix}", empty) for suffix in (".parquet", ".feather", ".arrow", ".csv")),
    ):
        found = tables.keys(tables.open_table(source), "id")
        assert (found.rows, found.nulls, len(found), found.duplicates) == (0, 0, 0, 0)
        assert found.digests.shape == (0, 32)
        assert (
            tables.take(source if not isinstance(source, pa.RecordBatchReader) else empty, []).num_rows == 0
        )


# Errors


def message(source: object, on: object = "id", **options: object) -> str:
    with pytest.raises(TableError) as caught:
        tables.keys(tables.open_table(source, **options), on)
    text = str(caught.value)
    assert SECRET not in f"{text} {caught.value.__cause__}"
    assert "Traceback" not in text
    return text


def test_a_missing_column_lists_the_nearest_and_all(source):
    text = message(source, "Idd")
    assert "no column 'Idd' (nearest: 'id')" in text
    assert "'amount'" in text


def test_a_table_of_many_columns_lists_some():
    text = message({f"column_{n}": [1] for n in range(200)}, "zzz")
    assert "and 180 more" in text
    assert len(text) < 1000


def test_repeated_column_names_are_refused(tmp_path):
    repeated = pa.table([["a"], ["b"]], ["id", "id"])
    (tmp_path / "t.csv").write_text("id,id\n1,2\n")
    for source in (
        repeated,
        repeated.to_reader(),
        pd.DataFrame([[1, 2]], columns=["id", "id"]),
        duckdb.sql("SELECT 1 AS id, 2 AS id"),
        tmp_path / "t.csv",
    ):
        assert "several columns named 'id': rename" in message(source)


def test_the_key_itself_is_checked():
    for on, fault in (
        ([], "1 to 16 columns"),
        (["id", "id"], "twice"),
        ([f"c{i}" for i in range(17)], "1 to 16"),
    ):
        assert fault in message(ARROW, on)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        (42, "a int is not a table"),
        ([{"id": 1}], "a list is not a table"),
        (None, "is not a table"),
        (np.zeros((2, 2)), "a numpy ndarray is not a table"),
        (pl.DataFrame({"id": [1]}).lazy(), "call .collect() first"),
        (pl.Series("id", [1]), "not a single column"),
        (
            pd.Series([1], name="id"),
            "a pandas Series is not a table" if pd.__version__ < "3" else "not a single column",
        ),
        (pa.chunked_array([[1]]), "not a single column"),
        (pa.array([1]), "not a single column"),
        ({"id": [1, 2], "b": [1]}, "equally long, not [1, 2]"),
        ({"id": "abc"}, "must be a sequence of values, not str"),
        ({"id": 7}, "must be a sequence of values, not int"),
        ({1: [7]}, "column names must be strings, not int"),
        ({"id": np.zeros((2, 2))}, "cannot become an Arrow column"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_table(source, fault):
    assert fault in message(source)


def test_files_that_are_not_there_or_not_tables(tmp_path):
    assert "does not exist" in message(tmp_path / "none.parquet")
    assert "is a directory: pass one file" in message(tmp_path)
    (tmp_path / "d.parquet").mkdir()
    assert "is a directory" in message(tmp_path / "d.parquet")
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    assert "must end in .parquet, .csv, .arrow, .feather" in message(tmp_path / "t.xlsx")
    assert "must end in" in message("customers")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"PAR1" * 40, b"ARROW1\0\0" * 20, SECRET.encode() * 9], ids=range(5)
)
def test_damaged_files(tmp_path, suffix, content):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(content)
    assert "it is damaged, incomplete or of another kind; write it again" in message(path)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".feather"])
def test_a_file_cut_short_or_altered_is_an_error_or_a_table_and_never_a_crash(tmp_path, suffix):
    whole = write(tmp_path / f"t{suffix}", pa.table({"id": [f"value {n}" for n in range(20)]})).read_bytes()
    path = tmp_path / f"altered{suffix}"
    refused = 0
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        for content in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :],
        ):
            path.write_bytes(content)
            try:
                tables.keys(path, "id")
                tables.take(path, [0])
            except TableError:
                refused += 1
    assert refused > 60


def test_a_file_whose_permissions_forbid_reading(tmp_path, monkeypatch):
    path = write(tmp_path / "t.parquet")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(pa.parquet, "ParquetFile", refuse)
    assert "change its permissions" in message(path)


def test_a_stream_that_breaks_off():
    def batches():
        yield ARROW.to_batches()[0]
        raise ValueError(SECRET)

    text = message(pa.RecordBatchReader.from_batches(ARROW.schema, batches()))
    assert "the record batch reader failed while it was read" in text


def test_a_query_that_fails():
    relation = duckdb.sql(f"SELECT CAST(x AS INTEGER) AS id FROM (VALUES ('1'), ('{SECRET}')) AS t(x)")
    assert "the DuckDB relation" in message(relation)
    connection = duckdb.connect()
    assert "execute a query" in message(connection)


# CSV


def csv(folder: Path, content: str | bytes) -> Path:
    path = folder / "t.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_every_csv_column_is_text(tmp_path):
    path = csv(tmp_path, "id,n\n00123,NA\n123,null\n1e3,1\n,\n")
    found = tables.keys(path, "id")
    assert (found.rows, len(found), found.nulls) == (4, 3, 1)
    assert np.array_equal(found.digests, tables.keys({"k": ["00123", "123", "1e3"]}, "k").digests)
    assert tables.take(path, [0, 1]).to_pylist() == [{"id": "00123", "n": "NA"}, {"id": "123", "n": "null"}]


def test_csv_columns_can_be_given_types(tmp_path):
    path = csv(tmp_path, "id,day\n007,2024-01-31\n,\n-1,2024-02-01\n")
    table = tables.open_table(path, types={"id": pa.int64(), "day": pa.date32()})
    wanted = {"id": [7, None, -1], "day": [datetime.date(2024, 1, 31), None, datetime.date(2024, 2, 1)]}
    assert np.array_equal(tables.keys(table, ["id", "day"]).codes, tables.keys(wanted, ["id", "day"]).codes)
    assert tables.take(table, [0, 1, 2]).to_pydict() == wanted


def test_csv_quoting_line_ends_and_byte_order_mark(tmp_path):
    path = csv(tmp_path, b'\xef\xbb\xbfid,"a ""name"""\r\n"x, y",1\r\n"two\nlines",2\r\n')
    assert tables.open_table(path).names == ("id", 'a "name"')
    assert tables.take(path, [0, 1]).to_pydict()["id"] == ["x, y", "two\nlines"]


def test_csv_with_only_a_header(tmp_path):
    assert tables.keys(csv(tmp_path, "id,n\n"), "id").rows == 0


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "is empty: a CSV file starts with a header line"),
        (f"id,n\n1,2\n{SECRET}\n", "more or fewer fields than its header"),
        (b"id,n\n1,2\nZaphod\xff,3\n", "is not UTF-8 in column 'id'"),
        (b"id,\xff\n1,2\n", "cannot be read as CSV"),
        ("id,n\n1,2\n" + "x" * (17 << 20) + ",1\n", "has a line longer than 8 MiB"),
        ('id,n\n1,2\n"open,' + "1,2\\n" * (5 << 20), "has a line longer than 8 MiB"),
        ("id;n\n1;2\n", "it has 'id;n'"),
    ],
    ids=["empty", "ragged", "not-utf8", "name-not-utf8", "long-line", "open-quote", "semicolons"],
)
def test_csv_that_cannot_be_read(tmp_path, content, fault):
    assert fault in message(csv(tmp_path, content))


def test_csv_types_that_do_not_fit(tmp_path):
    path = csv(tmp_path, f"id,n\n1,2\n{SECRET},2\n")
    text = message(path, types={"id": pa.int64()})
    assert "has a field in column 'id' that is not of the type in types=" in text
    assert "does not have: 'x'; it has 'id', 'n'" in message(path, types={"x": pa.int64()})


def test_types_are_for_csv_alone(tmp_path):
    for source in (ARROW, write(tmp_path / "t.parquet")):
        assert "types= is for CSV files" in message(source, types={"id": pa.int64()})


# Taking rows back


def test_take_keeps_order_repeats_and_types(source):
    wide = {"rows": [3, 0, 3, 2], "ids": ["b", "b", "b", None]}
    found = tables.take(source, wide["rows"])
    assert found.column("id").to_pylist()[:3] == wide["ids"][:3]
    assert found.num_rows == 4


def test_take_across_batches_dictionaries_and_views():
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["c", None, "a"]).dictionary_encode()]
    table = pa.table({"d": pa.chunked_array(chunks), "v": pa.array(list("vwxyz"), pa.string_view())})
    found = tables.take(table, [4, 2, 0, 3])
    assert found.to_pydict() == {"d": ["a", "c", "a", None], "v": ["z", "x", "v", "y"]}
    many = pa.table({"n": np.arange(200_000)})
    rows = np.random.default_rng(5).integers(0, 200_000, 1000)
    assert tables.take(many, rows)["n"].to_pylist() == rows.tolist()


def test_take_stops_at_the_last_row_it_needs():
    def batches():
        yield pa.record_batch({"n": [0, 1]})
        yield pa.record_batch({"n": [2, 3]})
        raise AssertionError("read too far")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), batches())
    assert tables.take(reader, [3, 1]).to_pydict() == {"n": [3, 1]}


@pytest.mark.parametrize("rows", [[5], [-1], [0, 99], [2**40]])
def test_take_outside_the_table(rows):
    with pytest.raises(TableError, match="row position"):
        tables.take(ARROW, rows)


@pytest.mark.parametrize("rows", [[0.5], [True, False], [[0]], ["0"]])
def test_take_needs_positions(rows):
    with pytest.raises(TableError, match="flat array of integers"):
        tables.take(ARROW, rows)


def test_no_data_frame_library_is_needed(tmp_path):
    """pyarrow itself imports pandas where it finds it, so they are made impossible to import."""
    path = write(tmp_path / "t.parquet")
    program = f"""
import sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name in ("pandas", "polars", "duckdb"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent)
import pyarrow as pa
from trustcompute import tables
for source in ({{"id": ["b", None]}}, pa.table({{"id": ["b", None]}}), {str(path)!r}):
    assert tables.keys(source, "id").nulls == 1
    assert tables.take(source, [0], ["id"]).to_pydict() == {{"id": ["b"]}}
print("done")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")
