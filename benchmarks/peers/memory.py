"""The processor's memory: reading as many bytes as ``verification``'s kernel does, once, on one thread, and no more.

NumPy's sum over 64-bit words, the fastest reduction that reads every byte. What a kernel that reads everything can
reach at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.system import Call, Job, System

SYSTEM = System(name="memory", module="benchmarks.peers.memory", protocols={"kernel": ("read",)})


def version() -> str:
    return f"numpy {np.__version__}"


def shape(records: int) -> tuple[int, int]:
    """(bytes of a column, columns) of the table that ``verification`` makes of so many records."""
    from trustcompute.verification import layout

    columns = layout.columns_for(records)
    capacity = -(-records // columns)
    return layout.Shape(columns, capacity + -(-capacity // 20)).length, columns


@contextmanager
def party(job: Job) -> Iterator[Call]:
    length, columns = shape(job.rows)
    words = np.random.default_rng(1).integers(0, 2**62, length * columns // 8)
    np.bitwise_xor.reduce(words)

    def read() -> None:
        np.bitwise_xor.reduce(words)

    yield read
