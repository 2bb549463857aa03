"""Secure query verification.

kernel: a query over a table of so many records: a matrix of signed bytes times a vector of words; rows are records
hint: the product that is made once a version, over a table of so many records
build: decide, evaluate and lay out so many records, from a file into a directory, on all processors
bucket: answer so many keys in requests of 64, the holder's function without metering, on all processors
private, batch: a question (1,000 of them) about a table of so many records, whole: a node and a session over TLS on
    the loopback, metered; `cold` prepares its query within the time, `prepared` before. `batch` is the holder's part
check: what the asking side does to verify one answer
statistics: a table of counts and sums by two columns over so many rows, both sides in one process
consent: so many tokens of subjects, 128 at a time, on one processor: the holder takes them (`redeem`) or issues them

What tables of other sizes take is worked out by ``python -m benchmarks.systems.verification_model``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.layers.layer import Layer
from benchmarks.peers import memory, numpy
from benchmarks.systems import trustcompute_verification


def prepare(folder: Path, task: str, rows: int) -> None:
    """A table for whole questions, made once; for the rest each process draws its inputs before the clock starts."""
    if task == "private":
        print(
            f"private: a table of {rows:,} random evaluations, of the shape and cost of real ones",
            file=sys.stderr,
        )
        trustcompute_verification.make_table(folder / "table", rows)


LAYER = Layer(
    name="verification",
    tasks={
        "kernel": (10**7,),
        "hint": (10**7,),
        "build": (10**6,),
        "bucket": (2**12,),
        "private": (10**6, 10**7),
        "batch": (10**7,),
        "check": (10**7,),
        "statistics": (10**6,),
        "consent": (2**10,),
    },
    roles=("process",),
    ours=trustcompute_verification.SYSTEM,
    peers=(memory.SYSTEM, numpy.SYSTEM),
    prepare=prepare,
)
