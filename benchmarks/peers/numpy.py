"""NumPy's product of 32-bit words, over a table widened to them beforehand: the obvious way to do the kernel's work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.peers.memory import shape
from benchmarks.system import Call, Job, System

SYSTEM = System(name="numpy", module="benchmarks.peers.numpy", protocols={"kernel": ("uint32",)})


def version() -> str:
    return f"numpy {np.__version__}"


@contextmanager
def party(job: Job) -> Iterator[Call]:
    length, columns = shape(job.rows)
    rng = np.random.default_rng(1)
    database = rng.integers(-128, 128, (length, columns), dtype=np.int32).view(np.uint32)
    query = rng.integers(0, 2**32, columns, dtype=np.uint32)
    database[:8] @ query

    def product() -> None:
        database @ query

    yield product
