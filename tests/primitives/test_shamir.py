"""Shamir sharing over GF(2^128): any threshold recovers, fewer say nothing."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError
from trustcompute.primitives import shamir
from trustcompute.primitives.rng import Rng


@pytest.mark.property
@settings(max_examples=20, deadline=None)
@given(secret=st.binary(min_size=16, max_size=64), data=st.data())
def test_any_threshold_of_the_shares_recovers(secret, data):
    secret = secret[: len(secret) // 16 * 16]
    count = data.draw(st.integers(1, 9))
    threshold = data.draw(st.integers(1, count))
    shares = shamir.split(secret, count, threshold, Rng.from_os())
    holders = data.draw(st.permutations(range(count)))[:threshold]
    assert shamir.Recovery(holders).recover(shares[list(holders)]) == secret


def test_fewer_shares_fit_every_secret():
    """With threshold - 1 shares fixed, each further share value belongs to exactly one secret."""
    shares = shamir.split(bytes(16), 3, 3, Rng.from_os())
    found = set()
    for value in range(50):
        third = np.frombuffer(value.to_bytes(16, "little"), dtype=np.uint8)
        found.add(shamir.Recovery([0, 1, 2]).recover(np.stack([shares[0], shares[1], third])))
    assert len(found) == 50


def test_too_few_or_wrong_shares_give_another_secret():
    secret = b"0123456789abcdef" * 2
    shares = shamir.split(secret, 5, 3, Rng.from_os())
    for pair in combinations(range(5), 2):
        assert shamir.Recovery(pair).recover(shares[list(pair)]) != secret
    assert shamir.Recovery([0, 1, 2]).recover(shares[[0, 1, 3]]) != secret
    assert not np.array_equal(shares, shamir.split(secret, 5, 3, Rng.from_os()))


@pytest.mark.parametrize(
    ("secret", "count", "threshold"), [(b"x" * 15, 3, 2), (b"", 3, 2), (b"x" * 16, 2, 3), (b"x" * 16, 256, 2)]
)
def test_what_cannot_be_shared_is_refused(secret, count, threshold):
    with pytest.raises(ParameterError):
        shamir.split(secret, count, threshold, Rng.from_os())


@pytest.mark.parametrize("holders", [[], [1, 1], [255], [-1]])
def test_holders_are_different_and_in_range(holders):
    with pytest.raises(ParameterError):
        shamir.Recovery(holders)
