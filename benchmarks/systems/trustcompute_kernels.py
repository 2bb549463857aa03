"""Our kernels, one thread: the extension with everything the processor has, without, and the reference."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.system import Call, Job, System
from benchmarks.systems.version import version

__all__ = ["SYSTEM", "party", "version"]

TASKS = (
    "scalar-mult",
    "scalar-mult-base",
    "hash-to-group",
    "hash-mult",
    "hash-blind",
    "unblind",
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


@contextmanager
def party(job: Job) -> Iterator[Call]:
    os.environ["TRUSTCOMPUTE_KERNELS"] = job.protocol
    from trustcompute import kernels

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
    points = kernels.ristretto255_mul_base(scalars) if task in ("scalar-mult", "unblind") else scalars
    ends = np.arange(rows + 1, dtype=np.int64) * 18
    column = kernels.VariableColumn(1, ends, messages.ravel()[: rows * 18])
    calls: dict[str, Callable[[], Any]] = {
        "scalar-mult": lambda: kernels.ristretto255_mul(points, one),
        "scalar-mult-base": lambda: kernels.ristretto255_mul_base(scalars),
        "hash-to-group": lambda: kernels.ristretto255_hash(messages, DST),
        "hash-mult": lambda: kernels.ristretto255_hash_mul(messages, DST, one),
        "hash-blind": lambda: kernels.ristretto255_hash_blind(messages, DST, scalars),
        "unblind": lambda: kernels.ristretto255_unblind(points, points[:1], scalars),
        "oprf-finalize": lambda: kernels.oprf_finalize(messages, scalars),
        "scalar-invert": lambda: kernels.scalar255_invert(scalars),
        "digest": lambda: kernels.digest_columns(bytes(64), [column]),
    }
    return calls[task]
