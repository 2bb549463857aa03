"""Intersections of files are plain joins, on any executor; what they leave behind is the result."""

from __future__ import annotations

import multiprocessing
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import campaign_febrl
import campaign_population

from trustcompute import psi, tables
from trustcompute.errors import JobInterrupted, ParameterError, TableError
from trustcompute.psi import files

LEFT = pa.table(
    {"id": [f"Ä{i % 400}" if i % 7 else None for i in range(1000)], "row": range(1000), "text": ["x"] * 1000}
)
RIGHT = pa.table({"key": [f"Ä{i}" for i in range(300, 900)] + ["Ä350", None], "other": range(602)})
EXPECTED = [i for i in range(1000) if i % 7 and i % 400 >= 300]


@pytest.fixture
def pair(tmp_path):
    pq.write_table(LEFT, tmp_path / "left.parquet", row_group_size=90)
    pyarrow.csv.write_csv(RIGHT, tmp_path / "right.csv")
    return tmp_path


def intersect(pair, out="out.parquet", **options):
    return psi.intersect_files(
        pair / "left.parquet", pair / "right.csv", on={"id": "key"}, out=pair / out, **options
    )


@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("protocol", ["auto", "psi.dh.v1", "psi.vole.v1"])
def test_equal_to_a_join(pair, runs, protocol):
    found = intersect(pair, runs=runs, protocol=protocol)
    joined = duckdb.sql(
        f"SELECT row FROM '{pair}/left.parquet' WHERE id IN (SELECT key FROM '{pair}/right.csv') ORDER BY row"
    ).fetchall()
    assert [row for (row,) in joined] == EXPECTED
    assert pq.read_table(found.out)["row"].to_pylist() == EXPECTED
    assert (found.rows, found.runs) == (len(EXPECTED), runs)
    assert found.count == len({LEFT["id"][i].as_py() for i in EXPECTED})
    assert found.cost.bytes_sent > 0
    assert sorted(path.name for path in pair.iterdir()) == ["left.parquet", "out.parquet", "right.csv"]


@contextmanager
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@contextmanager
def processes():
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("forkserver")) as pool:
        yield pool


@contextmanager
def dask():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [threads, processes, dask])
def test_any_executor_gives_the_same(pair, workers):
    with workers() as executor:
        found = intersect(pair, runs=3, protocol="psi.dh.v1", executor=executor, directory=pair / "shared")
    assert pq.read_table(found.out)["row"].to_pylist() == EXPECTED
    assert not list((pair / "shared").iterdir())


def test_columns_and_form_of_the_result(pair):
    found = intersect(pair, out="out.csv", columns=["row"])
    assert tables.take(found.out, [0, 1]).to_pylist() == [{"row": str(row)} for row in EXPECTED[:2]]


def test_progress_says_what_is_left_and_stops(pair):
    seen = []
    intersect(pair, runs=4, protocol="psi.dh.v1", progress=seen.append)
    assert list(dict.fromkeys(one.phase for one in seen)) == ["digest", "sort", "match", "write"]
    matched = [one for one in seen if one.phase == "match"]
    assert [one.done for one in matched] == [0, 1, 2, 3, 4]
    assert matched[0].left is None
    assert matched[-1].left == 0
    stop = threading.Event()
    with pytest.raises(JobInterrupted, match="match"):
        intersect(
            pair,
            runs=4,
            protocol="psi.dh.v1",
            stop=stop,
            progress=lambda one: stop.set() if (one.phase, one.done) == ("match", 2) else None,
        )


def test_what_cannot_be_done_is_said_first(pair):
    with pytest.raises(TableError, match="ending in"):
        intersect(pair, out="out.txt")
    with pytest.raises(ParameterError, match="runs"):
        intersect(pair, runs=0)
    with pytest.raises(TableError, match="no column"):
        psi.intersect_files(pair / "left.parquet", pair / "right.csv", on="id", out=pair / "o.csv")
    with pytest.raises(TableError, match="cast"):
        psi.intersect_files(pair / "left.parquet", pair / "right.csv", on={"row": "key"}, out=pair / "o.csv")
    assert not (pair / "o.csv").exists()


def test_empty_files(tmp_path):
    pq.write_table(LEFT.slice(0, 0), tmp_path / "none.parquet")
    pq.write_table(LEFT, tmp_path / "some.parquet")
    for left, right in (("none", "some"), ("some", "none"), ("none", "none")):
        found = psi.intersect_files(
            tmp_path / f"{left}.parquet", tmp_path / f"{right}.parquet", on="id", out=tmp_path / "out.csv"
        )
        assert (found.count, found.rows) == (0, 0)


def test_packing_is_undone(pair):
    mask = tables.keys(LEFT, "id").digests[:, 0] > 100
    assert (files.unpacked(files.packed(mask), len(mask)) == mask).all()


def test_a_population_with_slips_matches_as_in_duckdb(tmp_path):
    """A small run of the campaign: duplicates, nulls, blanks, composed and decomposed letters, four key columns."""
    matched, _ = campaign_population.compare(tmp_path, 1500, runs=3, protocol="psi.dh.v1")
    assert 600 < matched < 800


def test_records_in_febrl_form_match_as_in_duckdb(tmp_path):
    """A small run of the campaign, made here: four keys, typing errors, nulls and blanks."""
    found = campaign_febrl.campaign(*campaign_febrl.make(tmp_path, 300, seed=1), tmp_path)
    assert all(30 < rows < 290 for rows in found.values()), found
