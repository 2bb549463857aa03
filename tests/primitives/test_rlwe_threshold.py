"""Sums under a key nobody has: exact, all needed, flooded, and nothing malformed is read."""

from __future__ import annotations

from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.primitives import ring
from trustcompute.primitives import rlwe_threshold as rlwe
from trustcompute.primitives.rng import Rng

RNG = Rng.from_os()


def joint(suite):
    a = rlwe.common(bytes(32), suite)
    made = [rlwe.key_share(suite, a, RNG) for _ in range(suite.parties)]
    return [secret for secret, _ in made], rlwe.public_key(suite, a, [shown for _, shown in made])


def add_up(suite, rows):
    secrets, key = joint(suite)
    total = rlwe.add([rlwe.encrypt(key, row, RNG) for row in rows])
    return rlwe.combine(total, [rlwe.decryption_share(one, total, RNG) for one in secrets])


@pytest.mark.property
@settings(max_examples=8, deadline=None)
@given(
    parties=st.integers(2, 6),
    count=st.sampled_from([1, 100, 4096, 9000]),
    share=st.floats(0, 1),
    seed=st.integers(0),
)
def test_sums_are_those_of_integers_at_every_size_and_sign(parties, count, share, seed):
    most = int(2 ** (47 * share))
    suite, drawn = rlwe.choose(parties, count, most), np.random.default_rng(seed)
    rows = drawn.integers(-(most // parties), most // parties, (parties, count), endpoint=True)
    rows[:, 0] = drawn.choice([-1, 1]) * (most // parties)
    assert add_up(suite, rows).tolist() == rows.sum(axis=0).tolist()


@pytest.mark.parametrize("shape", rlwe.SHAPES)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_of_every_shape_do_not_wrap(shape, sign):
    suite = rlwe.Suite(*shape, 3, 2)
    third = sign * (suite.limit // 3)
    assert add_up(suite, np.full((3, 2), third)).tolist() == [3 * third] * 2
    _, key = joint(suite)
    with pytest.raises(ParameterError, match="beyond"):
        rlwe.encrypt(key, np.array([suite.limit + 1, 0]), RNG)


@pytest.mark.parametrize(("parties", "count"), [(3, 1), (16, 10**6), (255, 10**8)])
def test_a_share_hides_the_noise_to_forty_bits_and_more(parties, count):
    suite = rlwe.choose(parties, count, 2**40)
    coefficients = suite.polynomials * suite.size
    assert 2 ** (suite.flood_bits + 1) >= coefficients * suite.noise_bound * 2**40
    assert 40 <= suite.statistical_bits < 41.1
    assert suite.noise_bound + parties * 2**suite.flood_bits < 2 ** (suite.shift - 2)
    assert suite.core_svp > 105


def test_the_smallest_modulus_is_taken_and_none_where_no_one_fits():
    assert (rlwe.choose(3, 10, 1000).size, rlwe.choose(3, 10, 2**40).size) == (4096, 8192)
    with pytest.raises(ParameterError, match="no room"):
        rlwe.choose(3, 10, 2**60)


def centred(element, suite):
    """A share as integers, by the first two primes."""
    p, q = suite.moduli
    low, high = element[0].astype(object), element[1].astype(object)
    found = low + p * ((high - low) * pow(p, -1, q) % q)
    return np.where(found > p * q // 2, found - p * q, found)


def test_the_noise_of_a_sum_keeps_the_bound_and_the_flood_is_uniform():
    """What is left of a ciphertext of zeros without floods, and how a share is distributed for a key of zeros."""
    suite = rlwe.Suite(4096, 2, 4, 4096)
    secrets, key = joint(suite)
    total = rlwe.add([rlwe.encrypt(key, np.zeros(4096, dtype=np.int64), RNG) for _ in range(4)])
    rest = total.body.copy()
    for secret in secrets:
        for at, q in enumerate(suite.moduli):
            rest[at] = ring.minus(rest[at], ring.product(total.other[at], secret.transformed[at], q), q)
    noise = centred(rest, suite).astype(float)
    assert np.abs(noise).max() < suite.noise_bound
    variance = 4 * (2 * 4096 * 4 * 10.5 * 2 / 3 + 10.5)
    assert abs(noise.var() / variance - 1) < 0.15
    nothing = rlwe.SecretShare(suite, np.zeros_like(secrets[0].transformed))
    flood = centred(rlwe.decryption_share(nothing, total, RNG), suite).astype(float) / 2.0**suite.flood_bits
    assert -1 <= flood.min() < -0.99
    assert 0.99 < flood.max() <= 1
    assert abs(flood.mean()) < 0.05
    assert abs(flood.var() - 1 / 3) < 0.03


def test_without_one_share_nothing_is_opened():
    suite = rlwe.Suite(4096, 2, 3, 100)
    secrets, key = joint(suite)
    total = rlwe.add([rlwe.encrypt(key, np.arange(100), RNG) for _ in range(3)])
    shares = [rlwe.decryption_share(one, total, RNG) for one in secrets]
    assert rlwe.combine(total, shares).tolist() == list(range(0, 300, 3))
    wrong = rlwe.combine(total, shares[:2])
    assert np.abs(wrong - np.arange(0, 300, 3)).min() > 2 ** (log2(suite.limit) - 20)


def test_malformed_elements_are_refused_before_anything_is_computed():
    suite = rlwe.Suite(4096, 2, 3, 5)
    _, key = joint(suite)
    sealed = rlwe.encrypt(key, np.arange(5), RNG).pack()
    assert len(sealed) == 2 * suite.element_bytes
    for bad in (sealed[:-1], np.full_like(sealed, 255), np.empty(0, dtype=np.uint8)):
        with pytest.raises(RemoteProtocolError):
            rlwe.unpack_ciphertext(bad, suite)
    one = rlwe.unpack_ciphertext(sealed, suite)
    with pytest.raises(ParameterError, match="at most 3"):
        rlwe.add([one] * 4)
    assert "uint64" not in repr(joint(suite)[0][0])
