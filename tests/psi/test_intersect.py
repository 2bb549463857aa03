"""Intersections in one process equal a plain join, whatever the tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import random_tables

from trustcompute import kernels, psi
from trustcompute.errors import InputError, ParameterError, TableError
from trustcompute.psi import operation

PROTOCOLS = [
    one.id for one in operation.INTERSECTIONS if one.id != "psi.vole-malicious.v1"
]  # those that tell both sides
LARGEST = 3000 if kernels.active().name != "reference" else 120


@pytest.mark.property
@pytest.mark.parametrize("block", range(15))
def test_equal_to_a_plain_join_on_random_tables(block):
    for seed in range(10 * block, 10 * block + 10):
        pair = random_tables.random_pair(seed, LARGEST)
        protocol = PROTOCOLS[seed % len(PROTOCOLS)]
        found = psi.intersect(pair.left, pair.right, on=pair.on, reveal="both", protocol=protocol)
        assert found.count == pair.count, seed
        assert found.left_rows.tolist() == pair.left_rows, seed
        assert found.right_rows.tolist() == pair.right_rows, seed


EACH = [(mode, protocol) for mode, protocols in random_tables.MODES.items() for protocol in protocols]


@pytest.mark.property
@pytest.mark.parametrize("block", range(5))
@pytest.mark.parametrize(
    ("mode", "protocol"),
    [
        (mode, protocol)
        for mode, protocol in EACH
        if mode != "node" and protocol not in ("psi.ecdh.v1", "psi.dh.v1")
    ],
)
def test_every_mode_of_the_others_equals_a_plain_join_too(mode, protocol, block):
    differs = random_tables.RUNNERS[mode](protocol)
    pairs = 10 if LARGEST > 120 else 1
    random_tables.compare(differs, range(1000 + 10 * block, 1000 + 10 * block + pairs), LARGEST)


@pytest.mark.parametrize(
    ("protocol", "output"),
    [
        ("psi.ecdh.v1", "rows"),
        ("psi.ecdh.v1", "count"),
        ("psi.dh.v1", "rows"),
        ("psi.vole.v1", "rows"),
    ],
)
@pytest.mark.parametrize("reveal", ["left", "right", "both"])
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0), (1, 1), (1, 40), (40, 1), (33, 21)])
def test_every_output_for_any_two_sizes(protocol, output, reveal, n, m):
    left, right = {"id": np.arange(n)}, {"id": np.arange(n // 2, n // 2 + m)}
    shared = sorted(set(left["id"].tolist()) & set(right["id"].tolist()))
    found = psi.intersect(left, right, on="id", output=output, reveal=reveal, protocol=protocol)
    assert (found.count, found.protocol) == (len(shared), protocol)
    learns_left, learns_right = output == "rows" and reveal != "right", output == "rows" and reveal != "left"
    assert (found.left_rows is None) == (not learns_left)
    assert (found.right_rows is None) == (not learns_right)
    if learns_left:
        assert found.left_rows.tolist() == shared
    if learns_right:
        assert found.right_rows.tolist() == [value - n // 2 for value in shared]


def test_any_kind_of_table_on_either_side(tmp_path):
    data = {"id": ["a", "b", "b", None], "v": [1, 2, 3, 4]}
    table = pa.table(data)
    parquet, csv = tmp_path / "t.parquet", tmp_path / "t.csv"
    pd.DataFrame(data).to_parquet(parquet)
    pd.DataFrame(data).to_csv(csv, index=False)
    for left in (data, table, pd.DataFrame(data), pl.DataFrame(data), parquet, str(csv)):
        found = psi.intersect(left, pl.DataFrame({"key": ["b", "c"]}), on={"id": "key"})
        assert found.left_rows.tolist() == [1, 2]
        assert [int(value) for value in found.table().column("v").to_pylist()] == [2, 3]


def test_a_join_pairs_every_row_of_a_matched_key():
    left = pd.DataFrame({"id": ["x", "b", None, "a", "b"], "v": [0, 1, 2, 3, 4]})
    right = pd.DataFrame({"id": ["b", "a", "b", None, "y"], "v": [10, 11, 12, 13, 14]})
    joined = psi.intersect(left, right, on="id", reveal="both").join().to_pandas()
    plain = left.dropna().merge(right.dropna(), on="id", suffixes=("", "_right"))
    assert joined[["id", "v", "v_right"]].values.tolist() == plain.values.tolist()
    with pytest.raises(ParameterError, match="both"):
        psi.intersect(left, right, on="id").join()
    with pytest.raises(ParameterError, match="output='rows'"):
        psi.intersect(left, right, on="id", output="count").table()


JOINED = pd.DataFrame({"id": ["x", "b", None, "a", "b", None], "v": [0, 1, 2, 3, 4, 5]})
PARTNERS = pd.DataFrame({"id": ["b", "a", "b", None, "y"], "w": [10, 11, 12, 13, 14]})


@pytest.mark.parametrize("duplicates", ["all", "first"])
@pytest.mark.parametrize("how", ["inner", "left", "difference"])
def test_joins_follow_their_rule_for_duplicates(how, duplicates):
    found = psi.intersect(JOINED, PARTNERS, on="id", reveal="both")
    left, right = JOINED.copy(), PARTNERS.dropna()
    if duplicates == "first":
        left = left[left.id.isna() | ~left.id.duplicated()]
        right = right.drop_duplicates("id")
    matches = left.id.isin(right.id)
    own = {"inner": left[matches], "left": left, "difference": left[~matches]}[how]
    shown = found.table(how, duplicates=duplicates)
    assert shown.column("v").to_pylist() == own.v.tolist()
    if how == "left":
        assert shown.column("matched").to_pylist() == matches.tolist()
    joined = found.join(how, duplicates=duplicates).to_pandas()
    if how == "difference":
        assert joined.v.tolist() == own.v.tolist()
    else:
        plain = left.merge(right, on="id", how=how).sort_values(["v", "w"])
        assert joined.v.tolist() == plain.v.tolist()
        assert joined.w.fillna(-1).tolist() == plain.w.fillna(-1).tolist()


def test_repeated_keys_can_be_refused_on_either_side():
    once = pd.DataFrame({"id": ["b", "a", None, None]})
    found = psi.intersect(once, PARTNERS, on="id", reveal="both")
    assert found.table("left", duplicates="refuse").num_rows == 4
    with pytest.raises(TableError, match="1 rows of the right table repeat a key"):
        found.join(duplicates="refuse")
    with pytest.raises(TableError, match="1 rows of the left table repeat a key"):
        psi.intersect(JOINED, once, on="id").table(duplicates="refuse")
    for wrong in ({"how": "outer"}, {"duplicates": "any"}):
        with pytest.raises(ParameterError, match="must be one of"):
            found.table(**wrong)


def test_an_executor_changes_nothing():
    from concurrent.futures import ThreadPoolExecutor

    left, right = {"id": np.arange(300)}, {"id": np.arange(150, 500)}
    with ThreadPoolExecutor(2) as executor:
        found = psi.intersect(left, right, on="id", executor=executor)
    assert found.left_rows.tolist() == list(range(150, 300))


def test_text_can_be_compared_without_regard_to_case():
    found = psi.intersect({"id": ["Straße", "B"]}, {"id": ["STRASSE", "b"]}, on="id", casefold=True)
    assert found.count == 2


@pytest.mark.parametrize(
    ("left", "right", "on", "message"),
    [
        ({"id": [1]}, {"id": ["1"]}, "id", "integer"),
        ({"id": [1]}, {"id": [1]}, "key", "key"),
        ({"id": [1]}, {"id": [1]}, [], "on must be"),
        ({"id": [1.5]}, {"id": [1]}, "id", "id"),
        ({"id": ["a", 1]}, {"id": ["a"]}, "id", "id"),
        ("missing.parquet", {"id": ["a"]}, "id", "missing.parquet"),
    ],
)
def test_tables_that_cannot_be_matched_say_why(left, right, on, message):
    with pytest.raises(InputError, match=message):
        psi.intersect(left, right, on=on)


@pytest.mark.parametrize("options", [{"output": "pairs"}, {"reveal": "nobody"}, {"protocol": "psi.x"}])
def test_unknown_options_name_the_known_ones(options):
    with pytest.raises(ParameterError, match="must be one of"):
        psi.intersect({"id": [1]}, {"id": [1]}, on="id", **options)


def test_a_stream_is_read_once_and_its_rows_are_still_at_hand():
    stream = pa.RecordBatchReader.from_batches(
        pa.schema([("id", pa.string())]), pa.table({"id": ["a", "b"]}).to_batches()
    )
    found = psi.intersect(stream, {"id": ["b"]}, on="id", reveal="both")
    assert found.table().column("id").to_pylist() == ["b"]
    assert found.join().num_rows == 1
