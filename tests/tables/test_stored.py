"""Keys on disk are those in memory, whatever the buffer; files made of something else are not taken for them."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trustcompute import tables
from trustcompute.errors import JobInterrupted, ParameterError, StoreError, TableError
from trustcompute.tables import spread, stored
from trustcompute.tables.writing import check_writable, write_rows

NAMES = [f"k{i % 700}" for i in range(2000)] + [None, "", " k1 ", "Ünïcode", "é"]
TABLE = pa.table({"id": NAMES, "row": range(len(NAMES))})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "table.parquet"
    pq.write_table(TABLE, path, row_group_size=300)
    return path


@pytest.mark.parametrize("buffer", [spread.BUFFER, 2000])
def test_equal_to_keys_in_memory(file, tmp_path, buffer, monkeypatch):
    monkeypatch.setattr(spread, "BUFFER", buffer)
    held = tables.keys(file, "id")
    kept = stored.store(file, "id", tmp_path / "keys")
    assert (kept.spec, kept.digest, len(kept)) == (held.spec, held.digest, len(held))
    assert (kept.rows, kept.nulls, kept.duplicates) == (held.rows, held.nulls, held.duplicates)
    assert np.array_equal(kept.digests, held.digests)
    mask = np.arange(len(held)) % 3 == 0
    assert np.array_equal(kept.rows_of(mask), held.rows_of(mask))
    for of in (1, 2, 7):
        for number in range(of):
            first, digests = kept.part(number, of)
            expected_first, expected = held.part(number, of)
            assert first == expected_first
            assert np.array_equal(digests, expected)
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["digests", "manifest.json", "rows"]


def test_a_mask_of_another_length_is_refused(file, tmp_path):
    with pytest.raises(TableError, match="one element"):
        stored.store(file, "id", tmp_path / "keys").chosen(np.ones(3, np.bool_))


def test_found_again_only_for_the_same_file_read_in_the_same_way(file, tmp_path):
    kept = stored.store(file, "id", tmp_path / "keys")
    again = stored.load(file, "id", tmp_path / "keys")
    assert again is not None
    assert again.digest == kept.digest
    assert stored.load(file, "row", tmp_path / "keys") is None
    assert stored.load(file, "id", tmp_path / "keys", casefold=True) is None
    assert stored.load(file, "id", tmp_path / "elsewhere") is None
    assert stored.load(TABLE, "id", tmp_path / "keys") is None
    pq.write_table(TABLE.slice(1), file)
    assert stored.load(file, "id", tmp_path / "keys") is None


@pytest.mark.fault
@pytest.mark.parametrize("name", ["digests", "rows", "manifest.json"])
def test_damaged_files_are_not_taken(file, tmp_path, name):
    stored.store(file, "id", tmp_path / "keys")
    path = tmp_path / "keys" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert stored.load(file, "id", tmp_path / "keys") is None
    path.write_bytes(data[:100])
    assert stored.load(file, "id", tmp_path / "keys") is None


@pytest.mark.fault
def test_a_full_disk_says_so_and_leaves_nothing(file, tmp_path, monkeypatch):
    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spread, "BUFFER", 2000)
    monkeypatch.setattr(spread.Spread, "_flush", full)
    with pytest.raises(StoreError, match="No space left"):
        stored.store(file, "id", tmp_path / "keys")
    assert not (tmp_path / "keys").exists()


def test_progress_counts_rows_and_parts_and_can_stop(file, tmp_path):
    seen = []
    stored.store(file, "id", tmp_path / "keys", progress=seen.append)
    phases = {one.phase: one for one in seen}
    assert (phases["digest"].done, phases["digest"].total) == (len(NAMES), len(NAMES))
    assert (phases["sort"].done, phases["sort"].total, phases["sort"].left) == (256, 256, 0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(JobInterrupted, match="digest"):
        stored.store(file, "id", tmp_path / "keys", stop=stop)
    assert stored.load(file, "id", tmp_path / "keys") is None


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".arrow"])
def test_chosen_rows_are_written_in_order(file, tmp_path, suffix, monkeypatch):
    from trustcompute.tables import writing

    monkeypatch.setattr(writing, "GROUP_ROWS", 100)
    out = tmp_path / f"out{suffix}"
    chosen = np.arange(len(NAMES)) % 5 == 1
    assert write_rows(file, chosen, out) == chosen.sum()
    found = tables.take(out, range(int(chosen.sum())))
    expected = TABLE.filter(pa.array(chosen))
    assert [str(v) for v in found["row"].to_pylist()] == [str(v) for v in expected["row"].to_pylist()]
    assert not list(tmp_path.glob("*.tmp"))


def test_what_cannot_be_written_is_found_before(file, tmp_path):
    with pytest.raises(TableError, match="ending in"):
        check_writable(file, tmp_path / "out.xlsx")
    with pytest.raises(ParameterError, match="cannot write"):
        check_writable(file, tmp_path / "none" / "out.csv")
    nested = tmp_path / "nested.parquet"
    pq.write_table(pa.table({"id": ["a"], "list": [[1]]}), nested)
    with pytest.raises(TableError, match="cannot hold"):
        check_writable(nested, tmp_path / "out.csv")
    check_writable(file, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_file_that_has_changed_is_not_written_from(file, tmp_path):
    for rows in (10, 10**4):
        with pytest.raises(TableError, match="has changed"):
            write_rows(file, np.ones(rows, np.bool_), tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
