"""NumPy's plain sum: what an aggregate costs without any protection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.system import Call, Job, System

SYSTEM = System(
    name="numpy", module="benchmarks.peers.addition", protocols={"add": ("plain",), "star": ("plain",)}
)
PARTIES = {"add": 1, "star": 100}


def version() -> str:
    return f"numpy {np.__version__}"


@contextmanager
def party(job: Job) -> Iterator[Call]:
    rng = np.random.default_rng(1)
    vectors = [rng.integers(-(2**30), 2**30, job.rows) for _ in range(min(PARTIES[job.task], 10))]
    total = np.zeros(job.rows, dtype=np.int64)

    def add() -> int:
        for at in range(PARTIES[job.task]):
            np.add(total, vectors[at % len(vectors)], out=total)
        return len(total)

    yield add
