"""Our kernels, one thread: the extension with everything the processor has, without, and the reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from typing import Any

import numpy as np

from benchmarks.system import Call, Job, System

TASKS = (
    "scalar-mult",
    "scalar-mult-base",
    "hash-to-group",
    "hash-mult",
    "oprf-finalize",
    "scalar-invert",
    "digest",
)
DST = b"trustcompute benchmark"

SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_kernels",
    protocols=dict.fromkeys(TASKS, ("native", "portable", "reference")),
)


def version() -> str:
    return installed("trustcompute")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    os.environ["TRUSTCOMPUTE_KERNELS"] = job.protocol
    from trustcompute import kernels  # noqa: PLC0415 - reads the variable when it is first used

    _call(kernels, job.task, rows=1)()  # loads the library and its tables
    call = _call(kernels, job.task, job.rows)

    def timed() -> None:
        call()

    yield timed


def _call(kernels: Any, task: str, rows: int) -> Callable[[], Any]:
    rng = np.random.default_rng(rows)
    scalars = rng.integers(0, 256, (rows, 32), dtype=np.uint8)
    messages = rng.integers(0, 256, (rows, 32), dtype=np.uint8)
    one = scalars[:1]
    if task == "scalar-mult":
        points = kernels.ristretto255_mul_base(scalars)
        return lambda: kernels.ristretto255_mul(points, one)
    if task == "scalar-mult-base":
        return lambda: kernels.ristretto255_mul_base(scalars)
    if task == "hash-to-group":
        return lambda: kernels.ristretto255_hash(messages, DST)
    if task == "hash-mult":
        return lambda: kernels.ristretto255_hash_mul(messages, DST, one)
    if task == "oprf-finalize":
        return lambda: kernels.oprf_finalize(messages, scalars)
    if task == "scalar-invert":
        return lambda: kernels.scalar255_invert(scalars)
    column = kernels.VariableColumn(1, np.arange(rows + 1, dtype=np.int64) * 18, messages.ravel()[: rows * 18])
    return lambda: kernels.digest_columns(bytes(64), [column])
