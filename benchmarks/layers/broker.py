"""The broker: durable jobs, one process, on a file system where temporary files lie. A row is a job.

job:            one by one: verify the request's signature, decide, reserve, arm, post, receipt
job-verified:   the same with signatures verified before the clock starts
job-answered:   the same with the answer in the outbox before the charge and a countersignature after it
job-threads:    as ``job``, from 64 threads
job-clients:    as ``job``, from 8 threads; protocol postgres (a server is started) or sqlite
group:          as ``job``, in groups of 256, signatures verified in a second process
group-verified: the same with signatures verified before the clock starts
grown:          2048 jobs as ``group-verified`` in such a book: rows are entries
latency:        1000 jobs as ``job`` in a book of that many charged jobs, which are filled in before the clock starts
sweep:          end that many jobs whose leases ran out
audit:          replay a log of that many jobs and compare every balance
audit-tiles:    the same from tiles alone, in one process (two threads of one core gain nothing): rows are entries
clearing:       open a book of that many charges among 1,000 parties, read its log, close the period: rows are lines
netting:        of such a closed period, the payments among all of them

Where jobs are run one by one, the table says what half of them (p50), and all but a hundredth (p99), took at most.
The floor beside them: as many commits of one small row as the task takes, SQLite alone.
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
    tasks=dict.fromkeys(trustcompute_broker.TASKS, (1000,))
    | {"group": (8192,), "group-verified": (8192,), "grown": (1000, 1_000_000), "audit": (10_000,)}
    | {"latency": (1000, 10_000, 100_000, 1_000_000), "sweep": (100_000,), "audit-tiles": (1_000_000,)}
    | {"clearing": (10_000, 1_000_000), "netting": (10_000, 1_000_000)},
    roles=("process",),
    ours=trustcompute_broker.SYSTEM,
    peers=(sqlite.SYSTEM,),
    prepare=prepare,
)
