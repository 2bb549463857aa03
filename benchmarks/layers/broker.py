"""The broker: durable jobs, one process, on a file system where temporary files lie. A row is a job.

job:          one by one: verify the request's signature, reserve, arm, post
job-answered: the same with the answer in the outbox before the charge and a countersignature after it
job-threads:  as ``job``, from 64 threads
audit:        replay a log of that many jobs and compare every balance
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.layers.layer import Layer
from benchmarks.peers import sqlite
from benchmarks.systems import trustcompute_broker


def prepare(folder: Path, task: str, rows: int) -> int:
    return rows


LAYER = Layer(
    name="broker",
    tasks=dict.fromkeys(trustcompute_broker.TASKS, (1000,)) | {"audit": (10_000,)},
    roles=("process",),
    ours=trustcompute_broker.SYSTEM,
    peers=(sqlite.SYSTEM,),
    prepare=prepare,
)
