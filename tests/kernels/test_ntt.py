"""The transform is the one of the definition, and the same on every backend; packed integers come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels
from trustcompute.errors import KernelError, ParameterError
from trustcompute.kernels.arrays import NTT_MODULI, ntt_table
from trustcompute.kernels.dispatch import NAMES, load


def backends():
    found = []
    for name in NAMES:
        try:
            found.append((name, load(name)[1]))
        except KernelError:
            continue
    return found


BACKENDS = backends()
each_backend = pytest.mark.parametrize(
    "backend", [one for _, one in BACKENDS], ids=[name for name, _ in BACKENDS]
)
each_modulus = pytest.mark.parametrize("modulus", NTT_MODULI)
each_size = pytest.mark.parametrize("size", [1024, 2048, 4096])


def residues(seed, modulus, size, rows=3):
    drawn = np.random.default_rng(seed).integers(0, modulus, (rows, size), dtype=np.uint64)
    drawn[0, :8] = [0, 1, modulus - 1, modulus // 2, modulus // 2 + 1, 0, modulus - 1, 1]
    return drawn


@each_backend
@each_modulus
@each_size
def test_forward_evaluates_at_the_odd_powers_of_the_root(backend, modulus, size):
    """By Horner at a few places, with Python integers."""
    rows = residues(1, modulus, size, rows=1)
    values = backend.ntt(rows, modulus, False)
    psi = int(ntt_table(size, modulus).roots[size // 2])  # bit-reversed one
    bits = size.bit_length() - 1
    for place in (0, 1, 5, size - 1):
        point = pow(psi, 2 * int(f"{place:0{bits}b}"[::-1], 2) + 1, modulus)
        expected = 0
        for coefficient in rows[0, ::-1].tolist():
            expected = (expected * point + coefficient) % modulus
        assert int(values[0, place]) == expected


@each_backend
@pytest.mark.parametrize("inverse", [False, True])
def test_no_rows_are_no_rows(backend, inverse):
    empty = np.empty((0, 2048), dtype=np.uint64)
    assert backend.ntt(empty, NTT_MODULI[0], inverse).shape == (0, 2048)


@each_backend
@each_modulus
@each_size
def test_inverse_undoes_forward_and_products_are_negacyclic(backend, modulus, size):
    a = residues(2, modulus, size)
    assert np.array_equal(backend.ntt(backend.ntt(a, modulus, False), modulus, True), a)
    x = np.zeros((1, size), dtype=np.uint64)
    x[0, 1] = 1  # multiplication by x turns, and changes the sign of what comes round
    product = backend.ntt_mul(backend.ntt(a, modulus, False), backend.ntt(x, modulus, False), modulus)
    turned = np.roll(a, 1, axis=1)
    turned[:, 0] = (modulus - turned[:, 0]) % modulus
    assert np.array_equal(backend.ntt(product, modulus, True), turned)


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    modulus=st.sampled_from(NTT_MODULI),
    size=st.sampled_from([1024, 2048, 8192]),
    extreme=st.booleans(),
)
def test_backends_agree(seed, modulus, size, extreme):
    a, b = residues(seed, modulus, size), residues(seed + 1, modulus, size)
    if extreme:
        a, b = (np.where(one % 2 == 0, np.uint64(modulus - 1), np.uint64(modulus // 2)) for one in (a, b))
    first = BACKENDS[0][1]
    for _, other in BACKENDS[1:]:
        assert np.array_equal(first.ntt(a, modulus, False), other.ntt(a, modulus, False))
        assert np.array_equal(first.ntt(a, modulus, True), other.ntt(a, modulus, True))
        assert np.array_equal(first.ntt_mul(a, b, modulus), other.ntt_mul(a, b, modulus))
        assert np.array_equal(first.ntt_mul(a, b[:1], modulus), other.ntt_mul(a, b[:1], modulus))


@each_backend
def test_products_are_exact(backend):
    modulus = NTT_MODULI[0]
    a, b = residues(5, modulus, 1024), residues(6, modulus, 1024)
    expected = [
        [x * y % modulus for x, y in zip(r, s, strict=True)]
        for r, s in zip(a.tolist(), b.tolist(), strict=True)
    ]
    assert backend.ntt_mul(a, b, modulus).tolist() == expected


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 63), count=st.integers(0, 70), seed=st.integers(0, 2**32))
def test_packed_integers_come_back_and_are_the_definition(width, count, seed):
    values = np.random.default_rng(seed).integers(0, 2**width, count, dtype=np.uint64)
    whole = sum(value << (width * at) for at, value in enumerate(values.tolist()))
    expected = whole.to_bytes(-(-count * width // 8), "little")
    for _, backend in BACKENDS:
        packed = backend.bits_pack(values, width)
        assert packed.tobytes() == expected
        assert np.array_equal(backend.bits_unpack(packed, count, width), values)


def test_wrong_arguments_are_refused():
    q = NTT_MODULI[0]
    good = np.zeros((1, 1024), dtype=np.uint64)
    for call in (
        lambda: kernels.ntt(good, q + 2),
        lambda: kernels.ntt(good.astype(np.int64), q),
        lambda: kernels.ntt(np.zeros((1, 1000), dtype=np.uint64), q),
        lambda: kernels.ntt(np.full((1, 1024), q, dtype=np.uint64), q),
        lambda: kernels.ntt_mul(
            np.zeros((3, 1024), dtype=np.uint64), np.zeros((2, 1024), dtype=np.uint64), q
        ),
        lambda: kernels.ntt_mul(good, np.zeros((1, 2048), dtype=np.uint64), q),
        lambda: kernels.bits_pack(np.full(2, 4, dtype=np.uint64), 2),
        lambda: kernels.bits_pack(np.zeros(2, dtype=np.uint64), 64),
        lambda: kernels.bits_unpack(np.zeros(2, dtype=np.uint8), 3, 8),
        lambda: kernels.bits_unpack(np.zeros(2, dtype=np.uint8), -1, 8),
    ):
        with pytest.raises(ParameterError):
            call()
