"""The floor of any durable meter: as many commits a job as ours takes, each of one small row.

Write-ahead log and ``synchronous=FULL``, as in our book. What a job costs above this is verification, policy,
the log and its signatures.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from benchmarks.system import Call, Job, System

COMMITS = 2  # arm, with the reservation; post
GROUP = 256  # jobs that share them
SYSTEM = System(
    name="sqlite",
    module="benchmarks.peers.sqlite",
    protocols=dict.fromkeys(("job", "job-verified"), (f"{COMMITS}-commits",))
    | dict.fromkeys(("group", "group-verified"), (f"{COMMITS}-commits",)),
)


def version() -> str:
    return sqlite3.sqlite_version


@contextmanager
def party(job: Job) -> Iterator[Call]:
    with closing(sqlite3.connect(job.path("floor.sqlite"), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE rows (job INTEGER, step INTEGER)")

        def commit_all() -> int:
            for row in range(0, job.rows, GROUP if "group" in job.task else 1):
                for step in range(COMMITS):
                    connection.execute("BEGIN IMMEDIATE")
                    connection.execute("INSERT INTO rows VALUES (?, ?)", (row, step))
                    connection.execute("COMMIT")
            return job.rows

        yield commit_all
