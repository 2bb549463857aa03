"""Vectors too long to hold several of: made as they are read, added up in one process or by nodes over loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.system import Call, Job

REACH = 1000
STEP = 2**20


def values(start: int, stop: int, of: int) -> Any:
    """Part of the vector of one contributor: any numbers, the same every time."""
    return (np.arange(start, stop) * (2 * of + 3) + of) % (2 * REACH + 1) - REACH


class Made:
    """A vector that is nowhere."""

    def __init__(self, length: int, of: int) -> None:
        self.shape, self._of = (length,), of

    def __getitem__(self, part: slice) -> Any:
        return values(part.start, part.stop, self._of)


def _spec(job: Job) -> Any:
    from trustcompute.aggregation import Bounds, Spec

    return Spec(columns={"value": Bounds(-REACH, REACH)}, length=job.rows, max_parties=8)


def _right(sums: Any, count: int) -> int:
    """How many of the sums are those of the vectors."""
    parts = [(start, min(start + STEP, len(sums))) for start in range(0, len(sums), STEP)]
    return sum(
        int(np.sum(sums[start:stop] == sum(values(start, stop, at) for at in range(count))))
        for start, stop in parts
    )


def in_process(job: Job) -> Call:
    """The sums alone take 8 bytes a value; the rest is pieces."""
    from trustcompute import aggregation

    count, spec = int(job.protocol.split()[0]), _spec(job)

    def run() -> int:
        given = {f"p{at}": Made(job.rows, at) for at in range(count)}
        return _right(aggregation.aggregate(given, spec).sums, count)

    return run


def over_nodes(job: Job, stack: ExitStack) -> Call:
    """Nodes with a file each, in this process, behind mutual TLS."""
    import trustcompute as tc
    from trustcompute.broker import grant as grants
    from trustcompute.broker.grant import AssetClaim
    from trustcompute.primitives.identity import CertificateAuthority
    from trustcompute.protocol.operation import OutputForm

    count, spec = int(job.protocol.split()[0]), _spec(job)
    authority = CertificateAuthority.create("benchmark")
    asker, sessions = authority.issue("asker.example"), []
    for at in range(count):
        holder = authority.issue(f"holder{at}.example")
        broker = stack.enter_context(tc.Broker.open(job.path(f"book-{at}"), holder))
        dataset = tc.Dataset(
            "held", _written(job.path(f"{at}.arrow"), job.rows, at), version="1", vector="value"
        )
        node = stack.enter_context(tc.Node(holder, broker, [dataset]))
        server = stack.enter_context(node.serve())
        claims = grants.new_grant(
            issuer=holder.thumbprint, audience=holder.name, subject=asker.name, subject_key=asker.thumbprint,
            asset=AssetClaim(id="held", classification="general", grade="general", personal=False),
            operations=["aggregation.masked.v1"], purposes=["benchmark"], outputs=list(OutputForm),
            contingency="0" * 64, now=int(time.time()),
        )  # fmt: skip
        grant = grants.sign(claims, holder.key)
        sessions.append(stack.enter_context(tc.connect(server.url, identity=asker, grant=grant)))
    return lambda: _right(tc.aggregate(sessions, spec).sums, count)


def _written(path: Path, rows: int, of: int) -> Path:
    import pyarrow as pa

    schema = pa.schema([("value", pa.int64())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in _batches(rows, of, schema):
            writer.write_batch(batch)
    return path


def _batches(rows: int, of: int, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    for start in range(0, rows, STEP):
        yield pa.record_batch([pa.array(values(start, min(start + STEP, rows), of))], schema=schema)
