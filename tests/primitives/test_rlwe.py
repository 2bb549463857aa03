"""Additive encryption from ring-LWE: exact sums, noise within its bound, bytes that are checked before they are
used."""

from __future__ import annotations

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.primitives import ring, rlwe
from trustcompute.primitives.rng import Rng

SMALL = rlwe.SUITES["rlwe-2048"]
LARGE = rlwe.SUITES["rlwe-4096"]
RNG = Rng.from_os()
SECRETS = {suite.name: rlwe.keygen(suite, RNG) for suite in (SMALL, LARGE)}
PUBLICS = {name: rlwe.public_key(secret, RNG) for name, secret in SECRETS.items()}


def values(seed, count, most):
    return np.random.default_rng(seed).integers(-most, most + 1, count)


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(["rlwe-2048", "rlwe-4096"]),
    public=st.lists(st.booleans(), min_size=1, max_size=6),
    count=st.integers(0, 9000),
    seed=st.integers(0, 2**32),
)
def test_sums_are_exact_whichever_key_encrypted(name, public, count, seed):
    suite = rlwe.SUITES[name]
    parts = [values(seed + at, count, suite.limit // len(public)) for at in range(len(public))]
    keys = [PUBLICS[name] if one else SECRETS[name] for one in public]
    sealed = [rlwe.encrypt(key, part, RNG) for key, part in zip(keys, parts, strict=True)]
    sealed = [rlwe.unpack(one.pack(), suite, count, seeded=isinstance(one.other, bytes)) for one in sealed]
    assert np.array_equal(rlwe.decrypt(SECRETS[name], rlwe.add(sealed)), sum(parts))
    assert np.array_equal(rlwe.decrypt(SECRETS[name], sealed[0]), parts[0])


@pytest.mark.parametrize("suite", [SMALL, LARGE])
def test_payload_and_bytes_are_those_promised(suite):
    assert suite.payload_bits == (33 if suite is SMALL else 32)
    variance = suite.parties * (2 * suite.size * 10.5 * 2 / 3 + 10.5)  # of the noise of a full sum
    assert 2 ** (2 * suite.shift - 2) / (2 * variance) > 81 * log(2)  # beyond it lies 2^-80
    extremes = np.array([suite.limit, -suite.limit])
    opened = rlwe.decrypt(SECRETS[suite.name], rlwe.encrypt(PUBLICS[suite.name], extremes, RNG))
    assert np.array_equal(opened, extremes)
    count = 8 * suite.size
    secret = rlwe.encrypt(SECRETS[suite.name], np.zeros(count, dtype=np.int64), RNG)
    public = rlwe.encrypt(PUBLICS[suite.name], np.zeros(count, dtype=np.int64), RNG)
    assert len(secret.pack()) == count * 6.25 + 32
    assert len(public.pack()) == count * 12.5
    assert len(secret.pack()) == rlwe.packed_size(suite, count, seeded=True)


def test_the_security_that_is_stated():
    """core-SVP bits, as the page says; N=4096 keeps 128 bits against quantum computers."""
    assert 100 <= rlwe.core_svp(2048) <= 125
    assert rlwe.core_svp(4096, quantum=True) > 128
    assert rlwe.core_svp(2048, 27) > rlwe.core_svp(2048, 50) > rlwe.core_svp(2048, 53)


@pytest.mark.statistical
def test_noise_has_its_variance_and_stays_within_the_suite():
    """False alarm below 10^-6: the variance of 65,536 samples within 5 standard errors."""
    sealed = rlwe.encrypt(PUBLICS[SMALL.name], np.zeros(2**16, dtype=np.int64), RNG)
    key = SECRETS[SMALL.name]
    from trustcompute import kernels

    product = kernels.ntt_mul(kernels.ntt(sealed.other, rlwe.MODULUS), key.transformed, rlwe.MODULUS)
    rest = ring.minus(sealed.body, kernels.ntt(product, rlwe.MODULUS, inverse=True), rlwe.MODULUS).view(
        np.int64
    )
    noise = np.where(rest > rlwe.MODULUS // 2, rest - rlwe.MODULUS, rest)
    weight = 2048 * 10.5 * 2 / 3 * 2 + 10.5
    assert abs(noise.var() / weight - 1) < 0.1  # the secret's and the public key's own weight vary
    assert np.abs(noise).max() < 8 * weight**0.5
    worst = np.abs(noise).max() * SMALL.parties**0.5
    assert worst < 2 ** (SMALL.shift - 1)


def test_encryption_is_randomised_and_hides_the_length_up_to_a_polynomial():
    for key in (SECRETS[SMALL.name], PUBLICS[SMALL.name]):
        first, second = (rlwe.encrypt(key, np.ones(5, dtype=np.int64), RNG).pack() for _ in range(2))
        assert first != second
        assert len(first) == len(rlwe.encrypt(key, np.full(2048, 9), RNG).pack())


def test_another_key_opens_nothing():
    sealed = rlwe.encrypt(PUBLICS[SMALL.name], np.arange(2048), RNG)
    other = rlwe.decrypt(rlwe.keygen(SMALL, RNG), sealed)
    assert np.count_nonzero(other == np.arange(2048)) < 5


def test_public_keys_travel():
    public = PUBLICS[SMALL.name]
    again = rlwe.PublicKey.from_bytes(public.to_bytes(), SMALL)
    assert again.digest == public.digest
    sealed = rlwe.encrypt(again, np.arange(100), RNG)
    assert np.array_equal(rlwe.decrypt(SECRETS[SMALL.name], sealed), np.arange(100))
    assert "[" not in repr(SECRETS[SMALL.name])


def test_malformed_bytes_are_refused_before_arithmetic():
    packed = rlwe.encrypt(PUBLICS[SMALL.name], np.arange(100), RNG).pack()
    for data, count in ((packed[:-1], 100), (packed + b"x", 100), (packed, 3000), (b"", 100), (packed, -1)):
        with pytest.raises(RemoteProtocolError):
            rlwe.unpack(data, SMALL, count)
    with pytest.raises(RemoteProtocolError, match="beyond the modulus"):
        rlwe.unpack(b"\xff" * len(packed), SMALL, 100)
    with pytest.raises(RemoteProtocolError, match="too many"):
        rlwe.unpack(packed, SMALL, 100, added=SMALL.parties + 1)
    with pytest.raises(RemoteProtocolError):
        rlwe.PublicKey.from_bytes(b"\xff" * len(PUBLICS[SMALL.name].to_bytes()), SMALL)
    with pytest.raises(RemoteProtocolError):
        rlwe.PublicKey.from_bytes(b"x", SMALL)


def test_misuse_is_refused():
    secret = SECRETS[SMALL.name]
    with pytest.raises(ParameterError, match="beyond"):
        rlwe.encrypt(secret, np.array([SMALL.limit + 1]), RNG)
    with pytest.raises(ParameterError, match="int64"):
        rlwe.encrypt(secret, np.array([0.5]), RNG)
    small, large = (
        rlwe.encrypt(secret, np.arange(3), RNG),
        rlwe.encrypt(SECRETS[LARGE.name], np.arange(3), RNG),
    )
    with pytest.raises(ParameterError, match="one suite"):
        rlwe.add([small, large])
    with pytest.raises(ParameterError, match="another suite"):
        rlwe.decrypt(secret, large)
    few = rlwe.Suite("few", 2048, parties=2)
    one = rlwe.encrypt(rlwe.keygen(few, RNG), np.arange(3), RNG)
    with pytest.raises(ParameterError, match="adds up to 2"):
        rlwe.add([one, one, one])


@pytest.mark.parametrize("count", [0, 1, 2048, 5000, 70_000])
@pytest.mark.parametrize("public", [False, True])
def test_what_is_packed_as_it_is_made_is_what_is_packed_afterwards(count, public):
    suite = rlwe.SUITES["rlwe-2048"]
    secret = rlwe.keygen(suite, Rng.from_os())
    key = rlwe.public_key(secret, Rng.from_os()) if public else secret
    values = np.random.default_rng(count).integers(-1000, 1000, count)
    made = [
        rlwe.encrypt(key, values, Rng.derive(b"s" * 32, info=b"test")).pack(),
        rlwe.encrypt_packed(key, values, Rng.derive(b"s" * 32, info=b"test")).tobytes(),
    ]
    assert made[0] == made[1]
    read = rlwe.unpack(made[1], suite, count, seeded=not public)
    assert np.array_equal(rlwe.decrypt(secret, read), values)
