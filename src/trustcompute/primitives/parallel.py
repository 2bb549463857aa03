"""Spread a kernel over the rows of a batch, or start one ahead, on any ``concurrent.futures.Executor``.

Called by ``ristretto255`` and ``oprf``, and by whoever hashes a table. Threads suit the compiled kernels,
which release the GIL; the reference needs processes. Only pure functions over rows go out, never a party of
a protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trustcompute.errors import ParameterError
from trustcompute.kernels import InvalidPoint, InvalidScalar

T = TypeVar("T")

CHUNK = 512
"""Rows a task: 20 ms of native scalar multiplications, beside which handing one over (0.1 ms) is nothing."""


def map_rows(
    function: Callable[..., NDArray[Any]],
    *arrays: NDArray[Any],
    executor: Executor | None,
    chunk: int = CHUNK,
) -> NDArray[Any]:
    """``function(*arrays)`` computed in chunks of rows, joined in order.

    function: takes one array per argument, all with the same rows, and returns one row for each; picklable
    if the executor has processes. arrays: equally long. chunk: rows a task. Without an executor, the
    same chunks one after the other, which stay in a cache. ``InvalidPoint`` and ``InvalidScalar`` come back with
    the row counted in the whole batch; the first failing chunk is the one reported, and what was not started is
    cancelled.
    """
    return rows_ahead(function, *arrays, executor=executor, chunk=chunk)()


def rows_ahead(
    function: Callable[..., NDArray[Any]],
    *arrays: NDArray[Any],
    executor: Executor | None,
    chunk: int = CHUNK,
) -> Callable[[], NDArray[Any]]:
    """Begin ``map_rows`` now and return what waits for its result: to be called once.

    What a party starts before it waits for its peer is done by the time the peer has answered. Without an executor
    it is computed when its result is asked for.
    """
    count = len(arrays[0])
    if any(len(array) != count for array in arrays):
        raise ParameterError(f"arrays must be equally long, not {[len(array) for array in arrays]} rows")
    if chunk < 1:
        raise ParameterError(f"chunk must be at least 1, not {chunk}")
    pieces = [tuple(a[start : start + chunk] for a in arrays) for start in range(0, count, chunk)]
    if len(pieces) <= 1:
        return partial(function, *arrays)
    tasks = None if executor is None else [executor.submit(function, *piece) for piece in pieces]

    def joined() -> NDArray[Any]:
        results = (function(*piece) for piece in pieces) if tasks is None else (t.result() for t in tasks)
        try:
            return _joined(results, count, chunk)
        finally:
            for task in tasks or ():
                task.cancel()

    return joined


def _joined(results: Iterator[NDArray[Any]], count: int, chunk: int) -> NDArray[Any]:
    whole: NDArray[Any] | None = None
    for start in range(0, count, chunk):
        try:
            part = next(results)
        except (InvalidPoint, InvalidScalar) as error:
            raise type(error).at(start + error.index) from error
        if whole is None:
            whole = np.empty((count, *part.shape[1:]), part.dtype)
        if len(part) != min(chunk, count - start):
            raise ParameterError("the function must return one row for each row of its arguments")
        whole[start : start + len(part)] = part
    assert whole is not None
    return whole


def ahead(executor: Executor | None, function: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """Begin ``function(*arguments)`` now and return what waits for its result: to be called once.

    What a party starts before it waits for its peer is done by the time the peer has answered. function: pure, uses no
    executor itself (it might wait for the thread it runs on), picklable if the executor has processes. Without an
    executor it is computed when its result is asked for.
    """
    if executor is None:
        return partial(function, *arguments)
    return executor.submit(function, *arguments).result
