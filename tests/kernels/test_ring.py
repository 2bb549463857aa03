"""Small ring elements: the distributions of the definition, the same on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels
from trustcompute.errors import KernelError, ParameterError
from trustcompute.kernels import NOISE_BITS
from trustcompute.kernels.arrays import NTT_MODULI
from trustcompute.kernels.dispatch import NAMES, load


def backends():
    found = []
    for name in NAMES:
        try:
            found.append(load(name)[1])
        except KernelError:
            continue
    return found


BACKENDS = backends()
EXTREME = [0, 2**64 - 1, 2**63, 2**21 - 1, 2**64 - 2**43, 2**64 // 3, 2**64 // 3 + 1, 2 * 2**64 // 3 + 1, 1]


def drawn(seed, size=1024, rows=2):
    words = np.random.default_rng(seed).integers(0, 2**64, (rows, size), dtype=np.uint64)
    words[0, : len(EXTREME)] = EXTREME
    return words


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("modulus", NTT_MODULI)
def test_elements_are_those_of_the_definition(backend, modulus):
    words = drawn(1)
    rows = np.random.default_rng(2).integers(0, modulus, words.shape, dtype=np.uint64)
    rows[0, :4] = [0, modulus - 1, 20, modulus - 21]
    values = np.random.default_rng(3).integers(-(2**20), 2**20, words.shape)
    values[0, :4] = [0, 2**20 - 1, 1 - 2**20, -1]
    ternary = [[(3 * word >> 64) - 1 for word in row] for row in words.tolist()]
    noise = [
        [(word & (2**NOISE_BITS - 1)).bit_count() - (word >> (64 - NOISE_BITS)).bit_count() for word in row]
        for row in words.tolist()
    ]
    assert backend.ring_ternary(words, modulus).tolist() == [[x % modulus for x in row] for row in ternary]
    blended = backend.ring_blend(rows, words, values, 29, modulus)
    assert (
        blended.tolist()
        == ((rows + np.array(noise, dtype=object) + values.astype(object) * 2**29) % modulus).tolist()
    )
    plain = backend.ring_blend(rows, words, values[:0], 0, modulus)
    assert plain.tolist() == ((rows + np.array(noise, dtype=object)) % modulus).tolist()
    assert (
        backend.ring_add(rows, rows[::-1].copy(), modulus).tolist()
        == ((rows.astype(object) + rows[::-1]) % modulus).tolist()
    )


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), shift=st.integers(0, 49), modulus=st.sampled_from(NTT_MODULI))
def test_backends_agree(seed, shift, modulus):
    words, most = drawn(seed), 2 ** (49 - shift)
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, modulus, words.shape, dtype=np.uint64)
    values = generator.integers(1 - most, most, words.shape)
    first = BACKENDS[0]
    for other in BACKENDS[1:]:
        assert np.array_equal(first.ring_ternary(words, modulus), other.ring_ternary(words, modulus))
        blended = [one.ring_blend(rows, words, values, shift, modulus) for one in (first, other)]
        assert np.array_equal(*blended)
        assert int(blended[0].max()) < modulus


@pytest.mark.statistical
def test_noise_and_ternary_have_their_variance():
    words, q = np.random.default_rng(5).integers(0, 2**64, (64, 4096), dtype=np.uint64), NTT_MODULI[0]
    for made, variance in (
        (kernels.ring_blend(np.zeros_like(words), words, np.empty(0, np.int64), 0, q), NOISE_BITS / 2),
        (kernels.ring_ternary(words, q), 2 / 3),
    ):
        signed = np.where(made > q // 2, made.astype(np.int64) - q, made.astype(np.int64))
        assert abs(signed.mean()) < 5 * (variance / words.size) ** 0.5
        assert abs(signed.var() / variance - 1) < 0.02


def test_arguments_are_checked():
    words, q, none = drawn(1), NTT_MODULI[0], np.empty(0, dtype=np.int64)
    good = words % np.uint64(q)
    for call in (
        lambda: kernels.ring_ternary(words, 12289),
        lambda: kernels.ring_ternary(words[0], q),
        lambda: kernels.ring_blend(words, words, none, 0, q),
        lambda: kernels.ring_blend(good, words[:1], none, 0, q),
        lambda: kernels.ring_blend(good, words, none, 50, q),
        lambda: kernels.ring_blend(good, words, np.full(words.shape, 2**10), 39, q),
        lambda: kernels.ring_blend(good, words, np.zeros(words.shape, dtype=np.int32), 1, q),
        lambda: kernels.ring_add(good, good[:1], q),
        lambda: kernels.ring_add(good, words, q),
    ):
        with pytest.raises(ParameterError):
            call()
