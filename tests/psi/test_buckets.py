"""Cutting a job into padded buckets: sizes from what is declared, equal keys together, widths of the whole job."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Sizes
from trustcompute.psi import buckets, matching, operation
from trustcompute.psi.operation import INTERSECTIONS

ASKED = {"columns": ["id"], "keys": "0" * 64}


def test_one_run_is_what_is_not_said():
    for op in INTERSECTIONS:
        assert op.check(ASKED, Sizes(5, 5)) == op.check(ASKED | {"runs": 1}, Sizes(5, 5))
    assert operation.named("psi.dh.v1").check(ASKED | {"runs": 7}, Sizes(5, 5))["runs"] == 7


@pytest.mark.parametrize("runs", [0, -1, 257, True, "2", 2.0])
def test_numbers_of_runs_that_are_none(runs):
    with pytest.raises(ParameterError, match="runs"):
        INTERSECTIONS[0].check(ASKED | {"runs": runs}, Sizes(5, 5))


@pytest.mark.parametrize("other", [{"output": "count"}, {"reveal": "both"}, {"reveal": "provider"}])
def test_several_runs_find_rows_for_the_consumer_only(other):
    with pytest.raises(ParameterError, match="runs must be 1"):
        INTERSECTIONS[0].check(ASKED | {"runs": 2} | other, Sizes(5, 5))


@pytest.mark.parametrize("protocol", ["psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1"])
def test_values_of_a_bucket_are_as_wide_as_the_whole_job_demands(protocol):
    sizes = Sizes(10**8, 10**8)
    params = operation.named(protocol).check(ASKED | {"runs": 128}, sizes)
    p = operation.roles(params, sizes)
    assert p.receiver_rows < 2 * 10**8 // 128
    assert p.width == matching.width(10**8, 10**8) == 12
    bound = operation.named(protocol).bound(params, sizes)
    assert (bound.calls, bound.rows) == (1, 10**8)
    assert bound.bytes > 10**8 * 12


def bernstein(mean: Fraction, excess: Fraction) -> float:
    """log2 of the bound the module states."""
    return float(-(excess**2) / (2 * mean + 2 * excess / 3)) / 0.6931471805599453


@given(st.integers(0, 10**9), st.integers(2, 256))
def test_a_bucket_overflows_with_probability_below_two_to_the_minus_forty(rows, runs):
    size = buckets.capacity(rows, runs)
    assert -(-rows // runs) <= size <= rows
    if size < rows:
        mean = Fraction(rows, runs)
        assert bernstein(mean, size + 1 - mean) + np.log2(2 * runs) <= -40
        assert size < 1.3 * mean + 120


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(1, 256))
def test_what_is_reserved_for_more_keys_is_enough_for_fewer(rows, more, runs):
    assert buckets.capacity(rows, runs) <= buckets.capacity(rows + more, runs)


@pytest.mark.parametrize("rows", [0, 1, 2, 1000])
@pytest.mark.parametrize("of", [1, 2, 3, 7, 256])
def test_parts_of_a_table_are_its_keys_once_each_by_digest(rows, of):
    keys = tables.keys({"id": [f"k{i}" for i in range(rows)] * 2}, "id")
    found = []
    for number in range(of):
        first, digests = keys.part(number, of)
        assert first == len(found)
        for digest in digests:
            assert int.from_bytes(digest[:8].tobytes(), "big") * of >> 64 == number
            found.append(digest.tobytes())
    assert found == [digest.tobytes() for digest in keys.digests]
    assert keys.digest == hashlib.sha256(b"".join(found)).hexdigest()


def test_a_bucket_is_filled_up_with_digests_nobody_has():
    digests = np.zeros((3, 32), np.uint8)
    one, other = (buckets.padded(digests, 5, Rng.from_os()) for _ in range(2))
    assert one.shape == (5, 32)
    assert not one[:3].any()
    assert one[3:].tobytes() != other[3:].tobytes()


def test_keys_that_crowd_are_refused():
    with pytest.raises(ParameterError, match="one bucket"):
        buckets.padded(np.zeros((6, 32), np.uint8), 5, Rng.from_os())


def test_runs_keep_buckets_near_their_target():
    assert buckets.plan_runs(Sizes(10, 10)) == 1
    assert buckets.plan_runs(Sizes(10, 2**23)) == 8
    assert buckets.plan_runs(Sizes(10**8, 5)) == 96
    assert buckets.plan_runs(Sizes(10**10, 5)) == buckets.MAX_RUNS
