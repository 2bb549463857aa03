"""The group over batches: random scalars, elements from a peer, and the algebra that protocols lean on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.primitives import ristretto255
from trustcompute.primitives.ristretto255 import GENERATOR, ORDER
from trustcompute.primitives.rng import Rng

DST = b"test_ristretto255"


def texts(count: int) -> NDArray[np.uint8]:
    return Rng.derive(bytes(32), info=b"texts").array(20 * count).reshape(count, 20)


def scalar(value: int) -> NDArray[np.uint8]:
    return np.frombuffer((value % ORDER).to_bytes(32, "little"), np.uint8).reshape(1, 32)


def test_constants() -> None:
    generator = np.frombuffer(GENERATOR, np.uint8).reshape(1, 32)
    assert np.array_equal(kernels.ristretto255_mul_base(scalar(1)), generator)
    assert not kernels.ristretto255_mul_base(scalar(ORDER)).any()


def test_random_scalars_are_canonical_and_not_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ristretto255.random_scalars(Rng.from_os(), 100)
    values = [int.from_bytes(row.tobytes(), "little") for row in drawn]
    assert drawn.shape == (100, 32)
    assert all(0 < value < ORDER for value in values)
    assert len(set(values)) == 100
    assert max(values) > ORDER // 2  # fails once in 2^100
    assert ristretto255.random_scalars(Rng.from_os(), 0).shape == (0, 32)

    multiple_of_order = (7 * ORDER).to_bytes(64, "little")
    draws = [multiple_of_order + bytes([3]) + bytes(63), bytes([9]) + bytes(63)]
    monkeypatch.setattr(Rng, "array", lambda _self, _count: np.frombuffer(draws.pop(0), np.uint8))
    again = ristretto255.random_scalars(Rng.from_os(), 2)
    assert np.array_equal(again, np.concatenate([scalar(9), scalar(3)]))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, ORDER - 1), st.integers(1, ORDER - 1))
def test_algebra(a: int, b: int) -> None:
    elements = ristretto255.hash_to_group(texts(1), DST)

    def times(points: NDArray[np.uint8], value: int) -> NDArray[np.uint8]:
        return ristretto255.multiply(points, scalar(value), name="elements")

    assert np.array_equal(times(times(elements, a), b), times(times(elements, b), a))
    assert np.array_equal(times(times(elements, a), pow(a, -1, ORDER)), elements)
    twice = np.concatenate([elements, elements])
    weights = np.concatenate([scalar(a), scalar(b)])
    assert np.array_equal(
        ristretto255.weighted_sum(twice, weights), kernels.ristretto255_mul(elements, scalar(a + b))
    )


def test_an_executor_changes_nothing() -> None:
    count = 1100  # three chunks
    rng = Rng.from_os()
    inputs, scalars = texts(count), ristretto255.random_scalars(rng, count)
    if kernels.active().name == "reference":
        count = 520
        inputs, scalars = inputs[:count], scalars[:count]
    with ThreadPoolExecutor(2) as executor:
        for chosen in (scalars, scalars[:1]):
            fused = ristretto255.hash_and_multiply(inputs, DST, chosen, executor=executor)
            hashed = ristretto255.hash_to_group(inputs, DST, executor=executor)
            products = ristretto255.multiply(hashed, chosen, name="elements", executor=executor)
            assert np.array_equal(fused, products)
            assert np.array_equal(fused[-1:], kernels.ristretto255_mul(hashed[-1:], chosen[-1:]))


def test_a_sum_over_several_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ristretto255, "_SUMMANDS", 4)
    elements = ristretto255.hash_to_group(texts(10), DST)
    weights = ristretto255.random_scalars(Rng.from_os(), 10)
    with ThreadPoolExecutor(2) as executor:
        total = ristretto255.weighted_sum(elements, weights, executor=executor)
    assert np.array_equal(total, kernels.ristretto255_multiscalar_vartime(elements, weights))


@pytest.mark.parametrize("parallel", [False, True])
def test_a_peers_bad_element_is_named(parallel: bool) -> None:
    count = 600
    elements = np.repeat(np.frombuffer(GENERATOR, np.uint8).reshape(1, 32), count, axis=0)
    elements[550] = 255
    with ThreadPoolExecutor(2) as executor:
        chosen = executor if parallel else None
        with pytest.raises(RemoteProtocolError, match="row 550 of the answers is not the canonical"):
            ristretto255.multiply(elements, scalar(2), name="answers", executor=chosen)
        elements[520] = 0
        with pytest.raises(RemoteProtocolError, match="row 520 of the answers is the identity"):
            ristretto255.multiply(elements, scalar(2), name="answers", executor=chosen)
