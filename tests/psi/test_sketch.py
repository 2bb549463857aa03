"""Sketches: what they estimate, how often they err, and that they show no key."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.psi import sketch
from trustcompute.psi.sketch import SIZE, difference, read, sampled, similar, sketched

QUICK = kernels.active().name == "native"
LARGE = pytest.mark.skipif(not QUICK, reason="only with the native kernels")
SECRET = b"s" * 32


def digests(numbers):
    rows = np.zeros((len(numbers), 32), np.uint8)
    rows[:, :8] = np.sort(np.asarray(list(numbers), dtype=np.uint64)).reshape(-1, 1).view(np.uint8)
    return rows


def of(numbers, secret=SECRET):
    keys = digests(numbers)
    return sketched(secret, keys, kernels_digest(keys))


def kernels_digest(keys):
    import hashlib

    return hashlib.sha256(keys.tobytes()).hexdigest()


@pytest.mark.property
@given(
    st.sets(st.integers(0, 400), max_size=60), st.sets(st.integers(0, 400), max_size=60), st.integers(0, 60)
)
@settings(max_examples=40, deadline=None)
def test_of_small_sets_it_is_exact(ours, theirs, keys):
    a, b = of(ours), of(theirs)
    assert difference(a, b) == len(ours ^ theirs)
    assert similar(a, b, keys) == (len(ours ^ theirs) <= keys)


@LARGE
@pytest.mark.statistical
@pytest.mark.parametrize("apart", [0, 20, 400, 2000, 10_000])
def test_the_estimate_errs_as_much_as_is_stated(apart):
    """400 independent functions of two sets of 5,000: the mean is off by at most 5 of its standard errors, which
    happens by chance once in 10⁶; nor is the spread larger than what is stated, by a fifth."""
    ours, theirs = range(5000), range(apart // 2, 5000 + apart // 2)
    share = apart / (5000 + apart / 2)  # of the union, in one only
    found = []
    for number in range(400):
        secret = number.to_bytes(32, "big")
        a, b = of(ours, secret), of(theirs, secret)
        m, s = sampled(a, b)
        assert s >= SIZE
        found.append(m / s)
    stated = np.sqrt(share * (1 - share) / SIZE)
    assert abs(np.mean(found) - share) <= 5 * stated / 20 + 1e-12
    assert np.std(found) <= 1.2 * stated + 1e-12


@LARGE
@pytest.mark.statistical
@pytest.mark.parametrize("apart", [2, 100, 1000])
def test_a_similar_set_is_never_taken_for_another_one(apart):
    """1,500 tries at the very limit; each may fail with probability 2⁻²⁰, all of them together with 0.0015."""
    ours, theirs = range(3000), range(apart // 2, 3000 + apart // 2)
    for number in range(500):
        secret = number.to_bytes(32, "big")
        assert similar(of(ours, secret), of(theirs, secret), apart)


@LARGE
def test_sets_that_differ_by_far_more_are_not_similar():
    for number in range(50):
        secret = number.to_bytes(32, "big")
        assert not similar(of(range(5000), secret), of(range(1000, 6000), secret), 100)
        assert not similar(of(range(5000), secret), of(range(5200), secret), 100)  # by their sizes alone
        assert not similar(of(range(5000), secret), of(range(9000, 14000), secret), 3000)


def test_a_set_is_like_itself_whatever_the_limit_and_unlike_another_where_it_is_none():
    a, b = of(range(1000)), of(range(1, 1001))
    assert similar(a, a, 0)
    assert a.input == of(range(1000)).input != b.input
    assert similar(of([]), of([]), 0)
    assert not similar(of([]), of([1]), 0)
    assert similar(of([1]), of([2]), 2)


def test_two_secrets_share_nothing():
    a, b = of(range(100)), of(range(100), b"t" * 32)
    assert not np.intersect1d(a.values, b.values).size
    assert a.input != b.input
    assert a.secret != b.secret


def test_it_is_read_as_it_was_written_and_shows_no_secret():
    a = of(range(1000))
    params = a.to_params()
    again = read(params, 1000)
    assert (again.input, again.secret, again.values.tolist()) == (a.input, a.secret, a.values.tolist())
    assert SECRET.hex() not in repr(a)
    assert len(params["values"]) <= 2731


@pytest.mark.parametrize(
    ("change", "rows", "words"),
    [
        (lambda p: p | {"input": "x"}, 1000, "input of a sketch"),
        (lambda p: p | {"secret": "0" * 63}, 1000, "secret of a sketch"),
        (lambda p: p | {"secret": 5}, 1000, "texts"),
        (lambda p: p | {"values": p["values"] + "!"}, 1000, "base64url"),
        (lambda p: p | {"values": "A" * 10**6}, 1000, "texts"),
        (lambda p: p | {"values": p["values"][:-11] + "A"}, 1000, "values"),
        (lambda p: p | {"values": sketch.b64url(bytes(8 * SIZE))}, 1000, "ascending"),
        (lambda p: p, 10, "10 values"),
        (lambda p: p | {"more": 1}, 1000, "input, secret, values"),
        (lambda p: None, 1000, "input, secret, values"),
    ],
)
def test_what_is_no_sketch_is_refused(change, rows, words):
    with pytest.raises(ParameterError, match=words):
        read(change(of(range(1000)).to_params()), rows)
