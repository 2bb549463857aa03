"""Matched rows in an order that both sides have, and that nobody chose."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import psi, tables
from trustcompute.errors import ParameterError, TableError
from trustcompute.psi import alignment
from trustcompute.tables import stored

BOTH = ["psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1"]
LEFT = pa.table({"id": ["a", "b", "c", "b", None, "d", "e"], "row": range(7)})
RIGHT = pa.table({"key": ["e", "x", "b", "d", "e"], "other": range(5)})


def intersect(left=LEFT, right=RIGHT, on=None, **options):
    return psi.intersect(left, right, on=on or {"id": "key"}, **({"reveal": "both"} | options))


@pytest.mark.property
@pytest.mark.parametrize("protocol", BOTH)
def test_the_same_place_holds_the_same_key(protocol):
    chance = random.Random(7)

    @settings(max_examples=10, deadline=None)
    @given(st.lists(st.integers(0, 30), max_size=40), st.lists(st.integers(0, 30), max_size=40))
    def check(left, right):
        chance.shuffle(left)
        found = intersect({"id": left}, {"id": right}, on="id", protocol=protocol)
        ours = [left[row] for row in found.aligned(duplicates="first")]
        theirs = [right[row] for row in found.aligned("right", duplicates="first")]
        assert ours == theirs
        assert sorted(ours) == sorted(set(left) & set(right))
        assert found.aligned(duplicates="first").tolist() == [left.index(key) for key in ours]

    check()


@pytest.mark.parametrize("protocol", BOTH)
def test_the_order_is_another_one_in_every_job(protocol):
    keys = {"id": list(range(40))}
    one, other = (intersect(keys, keys, on="id", protocol=protocol).aligned().tolist() for _ in range(2))
    assert one != other, "by chance once in 40!"
    assert sorted(one) == sorted(other) == list(range(40))


def test_the_rule_for_repeated_keys_is_explicit():
    found = intersect()
    with pytest.raises(TableError, match="1 of the matched rows repeat"):
        found.aligned()
    with pytest.raises(TableError, match="duplicates='first'"):
        found.aligned("right")
    first = found.aligned(duplicates="first").tolist()
    assert sorted(first) == [1, 5, 6]
    every = found.aligned(duplicates="all").tolist()
    assert sorted(every) == [1, 3, 5, 6]
    assert every.index(3) == every.index(1) + 1
    with pytest.raises(ParameterError, match="duplicates"):
        found.aligned(duplicates="some")
    with pytest.raises(ParameterError, match="side"):
        found.aligned("middle")


def test_ids_stand_beside_the_rows():
    found = intersect()
    listed = found.table(ids="place").to_pylist()
    first = found.aligned(duplicates="first").tolist()
    for row in listed:
        assert LEFT["id"][first[row["place"]]].as_py() == row["id"]
    assert len(listed) == 4
    others = found.table("difference", ids="place")
    assert others["place"].null_count == others.num_rows == 3
    whole = found.table("left", ids="place")
    assert whole.column_names == ["id", "row", "matched", "place"]
    assert whole["place"].is_valid().equals(whole["matched"])
    with pytest.raises(ParameterError, match="already"):
        found.table(ids="row")


@pytest.mark.parametrize("options", [{"reveal": "left"}, {"reveal": "right"}, {"output": "count"}])
def test_one_side_alone_has_no_common_order(options):
    found = intersect(**options)
    for side in ("left", "right"):
        with pytest.raises(ParameterError, match="reveal='both'"):
            found.aligned(side)
    if found.left_rows is not None:
        with pytest.raises(ParameterError, match="ask for both"):
            found.table(ids="place")


@pytest.mark.parametrize("shared", [0, 1])
def test_none_and_one(shared):
    found = intersect({"id": ["a"]}, {"id": ["a" if shared else "b"]}, on="id")
    assert found.aligned().tolist() == [0] * shared
    assert found.table(ids="place").num_rows == shared


def test_stored_keys_are_grouped_as_those_in_memory(tmp_path):
    pq.write_table(LEFT, tmp_path / "left.parquet")
    held = tables.keys(LEFT, "id")
    kept = stored.store(tmp_path / "left.parquet", "id", tmp_path / "keys")
    for mine, theirs in zip(kept.groups(), held.groups(), strict=True):
        assert np.array_equal(mine, theirs)
    order = np.array([3, 0, 1])
    for rule in ("first", "all"):
        assert np.array_equal(
            alignment.rows_in_order(kept, order, rule), alignment.rows_in_order(held, order, rule)
        )
    none = stored.store(tmp_path / "left.parquet", "row", tmp_path / "rows")
    assert len(none.groups()[1]) == len(none) + 1
