"""Padded sets match as they are, and tell their padded size alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import psi
from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.party import Receive, Send
from trustcompute.psi import ecdh, operation, padding

LEFT = {"id": ["a", "b", "c", "b", None]}
RIGHT = {"id": ["c", "x", "b", "c"], "score": [7, 8, 9, 10]}


@pytest.mark.parametrize(
    ("rows", "pad_to", "padded"),
    [
        (0, None, 0),
        (5, None, 5),
        (0, "power-of-two", 1),
        (1, "power-of-two", 1),
        (2, "power-of-two", 2),
        (3, "power-of-two", 4),
        (2**20 + 1, "power-of-two", 2**21),
        (3, 3, 3),
        (0, 7, 7),
        (3, 1000, 1000),
    ],
)
def test_what_is_declared(rows, pad_to, padded):
    assert padding.padded_rows(rows, pad_to) == padded


@pytest.mark.parametrize("pad_to", [2, -1, True, 2.0, "ten", 2**41])
def test_what_cannot_be_padded_to(pad_to):
    with pytest.raises(ParameterError, match="pad_to"):
        padding.padded_rows(3, pad_to)


@pytest.mark.parametrize("pad_to", ["power-of-two", 9])
@pytest.mark.parametrize("reveal", ["left", "right", "both"])
@pytest.mark.parametrize(
    ("protocol", "output"),
    [("psi.ecdh.v1", "rows"), ("psi.ecdh.v1", "count"), ("psi.dh.v1", "rows"), ("psi.vole.v1", "rows")],
)
def test_the_same_is_found(pad_to, reveal, protocol, output):
    options = {"reveal": reveal, "protocol": protocol, "output": output}
    plain = psi.intersect(LEFT, RIGHT, on="id", **options)
    found = psi.intersect(LEFT, RIGHT, on="id", pad_to=pad_to, **options)
    assert found.count == plain.count == 2
    for side in ("left_rows", "right_rows"):
        mine, theirs = getattr(found, side), getattr(plain, side)
        assert (mine is None) == (theirs is None)
        assert mine is None or np.array_equal(mine, theirs)
    if reveal == "both" and output == "rows":
        ours = [LEFT["id"][row] for row in found.aligned(duplicates="first")]
        assert ours == [RIGHT["id"][row] for row in found.aligned("right", duplicates="first")]
    for told in (found.leakage.consumer, found.leakage.provider):
        assert "the padded number of distinct keys" in told
    assert "padded" not in plain.leakage.consumer


@pytest.mark.property
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 20), max_size=20), st.lists(st.integers(0, 20), max_size=20))
def test_equal_to_a_join(left, right):
    found = psi.intersect({"id": left}, {"id": right}, on="id", pad_to="power-of-two", protocol="psi.vole.v1")
    assert found.left_rows.tolist() == [row for row, key in enumerate(left) if key in set(right)]


def test_what_is_sent_depends_on_the_padded_sizes_alone():
    costs = {
        psi.intersect(
            {"id": list(range(n))}, {"id": list(range(m))}, on="id", pad_to=16, protocol=protocol
        ).cost
        for n, m in ((0, 16), (9, 3), (16, 0))
        for protocol in ("psi.vole.v1",)
    }
    assert len(costs) == 1


def test_labels_of_padded_sets():
    found = psi.intersect(LEFT, RIGHT, on="id", labels="score", pad_to=8, reveal="both")
    assert found.table()["score"].to_pylist() == [9, 7, 9]


def test_filling_is_fresh_and_a_replay_repeats_it():
    params = operation.named("psi.ecdh.v1").check({"columns": ["id"], "keys": "0" * 64}, Sizes(4, 4))

    def first(rng):
        own = np.zeros((1, 32), np.uint8)
        return next(padding.consumer("psi.ecdh.v1", params, Sizes(4, 4), own, rng)).message["point"]

    one, other = first(Rng.from_os()), first(Rng.from_os())
    assert not (one == other).all(axis=1).any()
    seeded = [first(Rng.derive(b"s" * 32, info=b"job")) for _ in range(2)]
    assert np.array_equal(*seeded)


def test_what_a_peer_says_of_filling_is_dropped():
    """A consumer that claims every row of the table: the provider hears of its own keys, and of no filling."""
    sizes = Sizes(4, 4)
    params = operation.named("psi.ecdh.v1").check(
        {"columns": ["id"], "keys": "0" * 64, "reveal": "both"}, sizes
    )
    own = np.arange(64, dtype=np.uint8).reshape(2, 32)
    provider = padding.provider("psi.ecdh.v1", params, sizes, own, Rng.from_os())
    consumer = padding.consumer("psi.ecdh.v1", params, sizes, own, Rng.from_os())
    assert isinstance(next(provider), Receive)
    table = provider.send(next(consumer).message)
    assert isinstance(table, Send)
    provider.send(None)
    assert isinstance(provider.send(None), Receive)
    with pytest.raises(StopIteration) as stop:
        provider.send(_claim(4))
    found = stop.value.value
    assert isinstance(found, ecdh.Found)
    assert found.mask.tolist() == [True, True]
    assert (found.count, sorted(found.order.tolist())) == (2, [0, 1])


def _claim(rows):
    return Message("matched", {"bits": np.packbits(np.ones(rows, np.bool_))})


@pytest.mark.parametrize("runs", [1, 3])
def test_files(tmp_path, runs):
    pq.write_table(pa.table({"id": [f"k{i}" for i in range(30)]}), tmp_path / "left.parquet")
    pq.write_table(pa.table({"id": [f"k{i}" for i in range(20, 90)]}), tmp_path / "right.parquet")
    costs = set()
    for pad_to in (100, 100, 128):
        found = psi.intersect_files(
            tmp_path / "left.parquet",
            tmp_path / "right.parquet",
            on="id",
            out=tmp_path / "out.parquet",
            runs=runs,
            protocol="psi.dh.v1",
            pad_to=pad_to,
        )
        assert (found.count, found.rows) == (10, 10)
        costs.add(found.cost.bytes_sent)
    assert len(costs) == 2
    assert "padded number" in found.leakage.consumer
