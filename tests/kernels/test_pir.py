"""The kernels of verification: compiled, with and without instruction sets, they give what the reference gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels
from trustcompute.errors import KernelError, ParameterError
from trustcompute.kernels.dispatch import load
from trustcompute.kernels.reference import pir


@pytest.fixture(scope="module", params=["native", "portable"])
def compiled(request):
    try:
        return load(request.param)[1]
    except KernelError as error:
        pytest.skip(str(error))


def drawn(seed: int, rows: int, columns: int, width: int):
    rng = np.random.default_rng(seed)
    database = rng.integers(-128, 128, (rows, columns)).astype(np.int8)
    database[rng.random((rows, columns)) < 0.2] = -128
    matrix = rng.integers(0, 2**32, (columns, width), dtype=np.uint32)
    matrix[rng.random((columns, width)) < 0.2] = 0x8000_8000  # the halves' extremes
    return database, matrix


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 15), st.integers(1, 600), st.integers(1, 30))
def test_products_are_those_of_the_reference(compiled, seed, rows, columns, width):
    database, matrix = drawn(seed, rows, columns, width)
    assert np.array_equal(compiled.pir_multiply(database, matrix), pir.pir_multiply(database, matrix))
    words = np.ascontiguousarray(matrix.T)
    for queries in (words[:1], words):
        assert np.array_equal(compiled.pir_answer(database, queries), pir.pir_answer(database, queries))
    query = words[0]
    assert np.array_equal(compiled.word_product(words, query), pir.word_product(words, query))


def test_blocks_of_every_kind_are_crossed(compiled):
    database, matrix = drawn(1, 7, 515, 711)  # more than one block each way, and none of them full
    expected = pir.pir_multiply(database, matrix)
    assert np.array_equal(compiled.pir_multiply(database, matrix), expected)
    assert np.array_equal(compiled.pir_answer(database, np.ascontiguousarray(matrix.T)), expected)


@pytest.mark.property
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 5), st.integers(1, 40))
def test_an_expanded_matrix_is_that_of_the_reference(compiled, seed, count, rows, quarter):
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 256, (count, 16)).astype(np.uint8)
    secret = rng.integers(0, 2**32, 4 * quarter, dtype=np.uint32)
    assert np.array_equal(compiled.lwe_product(keys, rows, secret), pir.lwe_product(keys, rows, secret))


def test_the_reference_is_arithmetic_modulo_two_to_the_32():
    database, matrix = drawn(3, 4, 50, 3)
    exact = database.astype(object) @ matrix.astype(object) % 2**32
    assert np.array_equal(pir.pir_multiply(database, matrix), exact.astype(np.uint32))


def test_words_at_any_address_are_taken():
    database, matrix = drawn(4, 5, 40, 1)
    raw = np.zeros(161, np.uint8)
    query = np.frombuffer(raw.data[1:], dtype=np.uint32).reshape(1, -1)
    raw[1:] = matrix[:, 0].view(np.uint8)
    assert not query.flags.aligned
    expected = pir.pir_answer(database, np.ascontiguousarray(matrix.T))
    assert np.array_equal(kernels.pir_answer(database, query), expected)


def test_arrays_that_do_not_fit_are_refused():
    database, query = np.zeros((3, 4), np.int8), np.zeros(4, np.uint32)
    for call in (
        lambda: kernels.pir_answer(database.view(np.uint8), query[None]),
        lambda: kernels.pir_answer(database, query),
        lambda: kernels.pir_answer(database, query[None, :3]),
        lambda: kernels.pir_answer(database, np.zeros((0, 4), np.uint32)),
        lambda: kernels.pir_answer(database, query[None].astype(np.uint64)),
        lambda: kernels.pir_multiply(database, np.zeros((4, 0), np.uint32)),
        lambda: kernels.word_product(np.zeros((2, 5), np.uint32), query),
        lambda: kernels.lwe_product(np.zeros((1, 16), np.uint8), 1, np.zeros(6, np.uint32)),
        lambda: kernels.lwe_product(np.zeros((1, 16), np.uint8), 0, query),
    ):
        with pytest.raises(ParameterError):
            call()
