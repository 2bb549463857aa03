"""Rows spread over executors: same result, same order, rows of errors counted in the whole."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.kernels import InvalidPoint, InvalidScalar
from trustcompute.primitives.parallel import map_rows


def doubled(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return 2 * rows


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 100])
def test_rows_come_back_in_order(count: int) -> None:
    rows = np.arange(count)
    with ThreadPoolExecutor(3) as executor:
        for chosen in (None, executor):
            assert np.array_equal(map_rows(doubled, rows, executor=chosen, chunk=10), 2 * rows)


def test_several_arrays_are_cut_alike() -> None:
    a, b = np.arange(25).reshape(25, 1), np.arange(25)[:, None] * 100
    with ThreadPoolExecutor(2) as executor:
        assert np.array_equal(map_rows(np.add, a, b, executor=executor, chunk=4), a + b)


def test_chunks_run_on_the_executor() -> None:
    threads = set()

    def note(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        threads.add(threading.get_ident())
        return rows

    with ThreadPoolExecutor(1) as executor:
        map_rows(note, np.arange(30), executor=executor, chunk=10)
    assert threading.get_ident() not in threads


def test_kernels_go_to_other_processes() -> None:
    scalars = np.zeros((6, 32), np.uint8)
    scalars[:, 0] = range(6)
    points = kernels.ristretto255_mul_base(scalars)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        found = map_rows(
            partial(kernels.ristretto255_mul, scalars=scalars[2:3]), points, executor=executor, chunk=3
        )
        assert np.array_equal(found, kernels.ristretto255_mul(points, scalars[2:3]))
        points[5] = 255
        with pytest.raises(InvalidPoint, match="row 5 ") as caught:
            map_rows(
                partial(kernels.ristretto255_mul, scalars=scalars[2:3]), points, executor=executor, chunk=3
            )
        assert caught.value.index == 5


@pytest.mark.parametrize(("kernel", "error"), [("ristretto255_mul", InvalidPoint), ("scalar255_mul", None)])
def test_errors_name_the_row_of_the_whole(kernel: str, error: type[InvalidPoint] | None) -> None:
    rows = np.zeros((20, 32), np.uint8)
    rows[[13, 17]] = 255
    with ThreadPoolExecutor(2) as executor:
        if error is None:  # every scalar is fine, but zero has no inverse
            rows[:, 0] |= 1
            rows[11] = 0
            with pytest.raises(InvalidScalar, match="row 11 "):
                map_rows(kernels.scalar255_invert, rows, executor=executor, chunk=4)
        else:
            with pytest.raises(error, match="row 13 ") as caught:
                map_rows(kernels.ristretto255_mul, rows, rows, executor=executor, chunk=4)
            assert caught.value.index == 13


def test_what_has_not_started_is_cancelled() -> None:
    begun, gate = [], threading.Event()

    def fail(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        begun.append(int(rows[0]))
        if rows[0] == 0:
            raise ValueError("the first")
        gate.wait(10)
        return rows

    with ThreadPoolExecutor(1) as executor:
        threading.Timer(0.2, gate.set).start()
        with pytest.raises(ValueError, match="the first"):
            map_rows(fail, np.arange(100), executor=executor, chunk=10)
    assert len(begun) < 10


def test_wrong_arguments() -> None:
    with pytest.raises(ParameterError, match="equally long"):
        map_rows(np.add, np.arange(3), np.arange(4), executor=None)
    with pytest.raises(ParameterError, match="at least 1"):
        map_rows(doubled, np.arange(3), executor=None, chunk=0)
