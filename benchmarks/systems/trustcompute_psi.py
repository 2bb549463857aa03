"""Ours: a node and a session over Flight, with everything a metered computation has.

Identities, the book and the grant are made before the clock starts. The timed call starts the node (which
reads and digests its dataset), connects, intersects, and takes the receipt; the consumer digests its own file
while the node starts. A ``lookup`` is timed alone: the node runs,
the session is open and has the evaluated table. A ``protocol`` is timed alone as well: digests of the keys are in
memory, the frames cross a bare socket, and a run before it is not timed.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.system import Call, Job, System
from benchmarks.systems import trustcompute_star
from benchmarks.systems.rendezvous import awaited, publish
from benchmarks.systems.version import version

__all__ = ["SYSTEM", "party", "version"]

PROTOCOLS = ("psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1", "psi.vole-malicious.v1", "auto")
OPERATIONS = PROTOCOLS[:-1]
WORKERS = ("process", "processes", "threads", "dask")  # one, or two of them
SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_psi",
    protocols={
        "intersect": PROTOCOLS,
        "parquet": PROTOCOLS,
        "files": ("psi.vole.v1", "auto"),
        "cardinality": PROTOCOLS[:1],
        "sum": ("psi.sum.v1",),
        "workers": WORKERS,
        "lookup": ("psi.lookup.v1",),
        "labels": ("psi.vole.v1",),
        "protocol": OPERATIONS,
        "star": ("psi.star.v1",),
    },
)
DATASET = "keys"
NODE, CONSUMER = "node.example", "consumer.example"


@contextmanager
def party(job: Job) -> Iterator[Call]:
    with ExitStack() as stack:
        if job.task == "workers":
            yield _nothing if job.role == "provider" else _workers(job, stack)
            return
        executor = stack.enter_context(ThreadPoolExecutor(os.cpu_count()))
        side = _provider if job.role == "provider" else _consumer
        if job.task == "star":
            side = trustcompute_star.provider if job.role == "provider" else trustcompute_star.consumer
        if job.task == "protocol":
            side = _bare
        yield side(job, stack, executor)


def _provider(job: Job, stack: ExitStack, executor: ThreadPoolExecutor) -> Call:
    from trustcompute import psi
    from trustcompute.broker.broker import Broker
    from trustcompute.broker.grant import AssetClaim, new_grant
    from trustcompute.node import Dataset, Node, Summable
    from trustcompute.primitives.identity import CertificateAuthority
    from trustcompute.protocol.operation import OutputForm

    authority = CertificateAuthority.create("benchmark")
    node, consumer = authority.issue(NODE), authority.issue(CONSUMER)
    broker = stack.enter_context(Broker.open(job.path("book"), node))
    consumer.save(job.path("identity"))
    grant = new_grant(
        issuer=node.thumbprint,
        audience=NODE,
        subject=CONSUMER,
        subject_key=consumer.thumbprint,
        asset=AssetClaim(id=DATASET, classification="general", grade="general", personal=False),
        operations=[*OPERATIONS, "psi.lookup.v1", "psi.sum.v1"],
        purposes=["benchmark"],
        outputs=[
            OutputForm.MATCHED_IDS,
            OutputForm.MATCHED_LABELS,
            OutputForm.COUNT,
            OutputForm.AGGREGATE,
        ],
        contingency="0" * 64,
        now=int(time.time()),
    )
    publish(job.path("grant"), broker.issue(grant))

    def serve() -> None:
        evaluated = job.path("tables") if job.task == "lookup" else None
        dataset = Dataset(
            DATASET,
            job.input("provider.parquet") if job.task == "sum" else _file(job),
            version="1",
            keys=["id"],
            sums=Summable({"value": psi.Bounds(0, 10**6)}) if job.task == "sum" else None,
            evaluated=evaluated,
            stored=job.path("digests") if job.task == "files" else None,
            labels={"label": 64} if job.task == "labels" else {},
        )
        served = stack.enter_context(Node(node, broker, [dataset], executor=executor))
        server = stack.enter_context(served.serve("127.0.0.1", job.ports[0]))
        publish(job.path("url"), server.url)

    if job.task == "lookup":
        serve()
        return lambda: None
    return serve


def _file(job: Job) -> Path:
    return job.input(f"{job.role}.{'parquet' if job.task == 'parquet' else 'csv'}")


def _nothing() -> None:
    """Of the provider, where both parties run in the workers that the consumer's process starts."""


def _workers(job: Job, stack: ExitStack) -> Call:
    """Both files here, every bucket's two parties in one worker. Workers are started before the clock."""
    from trustcompute import psi

    count = 1 if job.protocol == "process" else 2
    if job.protocol == "threads":
        executor = stack.enter_context(ThreadPoolExecutor(count))
    elif job.protocol == "dask":
        import distributed

        cluster = distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=40
        )
        executor = stack.enter_context(distributed.Client(stack.enter_context(cluster))).get_executor()
    else:
        context = multiprocessing.get_context("forkserver")
        executor = stack.enter_context(ProcessPoolExecutor(count, mp_context=context))
    list(executor.map(psi.plan, range(8), range(8)))  # has every worker import what it will need
    left, right = job.input("consumer.csv"), job.input("provider.csv")
    return lambda: (
        psi.intersect_files(
            left,
            right,
            on="id",
            out=job.path("matched.csv"),
            protocol="psi.vole.v1",
            runs=8,
            executor=executor,
            directory=job.path("shared"),
            progress=_tell,
        ).count
    )


def _consumer(job: Job, stack: ExitStack, executor: ThreadPoolExecutor) -> Call:
    from trustcompute import tables
    from trustcompute.node import connect
    from trustcompute.primitives.identity import Identity

    grant = awaited(job.path("grant"))
    identity = Identity.load(job.path("identity"))
    output = "count" if job.task == "cardinality" else "rows"
    file = _file(job)

    if job.task == "lookup":
        session = stack.enter_context(
            connect(awaited(job.path("url")), identity=identity, grant=grant, executor=executor)
        )
        session.lookup(DATASET, {"id": ["none such"]}, on="id")  # receives the table
        return lambda: session.lookup(DATASET, job.input("consumer.csv"), on="id").count

    def intersect() -> int | None:
        table = None if job.task == "files" else tables.prepared(file, "id", executor=executor)
        url = awaited(job.path("url"))
        state = job.path("jobs") if job.task == "files" else None
        session = stack.enter_context(
            connect(url, identity=identity, grant=grant, state=state, executor=executor)
        )
        if job.task == "sum":
            summed = session.intersect_sum(DATASET, table, on="id", values=["value"])
            assert summed.sum("value") == int(job.input("sum.txt").read_text()), "another sum"
            return summed.count
        if table is None:
            return session.intersect_file(
                DATASET,
                file,
                on="id",
                out=job.path("matched.csv"),
                protocol=job.protocol,
                progress=_tell,
            ).count
        found = session.intersect(
            DATASET,
            table,
            on="id",
            output=output,
            protocol=job.protocol,
            labels=["label"] if job.task == "labels" else [],
        )
        if job.task == "labels":
            _check_labels(found.table())
        if job.task == "parquet":
            pyarrow.parquet.write_table(found.table(), job.path("matched.parquet"))
        elif output == "rows":
            pyarrow.csv.write_csv(found.table(), job.path("matched.csv"))
        return found.count

    return intersect


def _check_labels(matched: pa.Table) -> None:
    wrong = sum(
        label != (key * 4)[:64]
        for key, label in zip(matched["id"].to_pylist(), matched["label"].to_pylist(), strict=True)
    )
    if wrong:
        raise AssertionError(f"{wrong} labels are not those of their keys")


def _bare(job: Job, stack: ExitStack, executor: ThreadPoolExecutor) -> Call:
    import numpy as np

    from benchmarks.systems import loopback
    from trustcompute import tables
    from trustcompute.primitives.rng import Rng
    from trustcompute.protocol.operation import Sizes
    from trustcompute.protocol.transcript import Binding
    from trustcompute.psi import operation, parties

    keys = tables.keys(tables.open_table(job.input(f"{job.role}.csv")), ["id"], executor=executor)
    sizes, digests = Sizes(job.rows, job.rows), np.ascontiguousarray(keys.digests)
    op = operation.named(job.protocol)
    params = op.check({"columns": ["id"], "keys": keys.spec.digest}, sizes)
    binding = Binding("", op.id, params, op.consumer, op.provider)
    connect, role, run = {
        "provider": (loopback.listen, parties.provider, loopback.follow),
        "consumer": (loopback.reach, parties.consumer, loopback.lead),
    }[job.role]
    connection = stack.enter_context(connect(job.ports[0]))

    def call() -> int | None:
        found = run(
            connection, role(op.id, params, sizes, digests, Rng.from_os(), executor=executor), binding
        )
        return None if found is None else found.count

    call()  # what serves many runs has its memory from the system: 0.5 s of page faults where that is slow
    time.sleep(0.2)  # until all of it is sent: bytes are counted from here
    return call


def _tell(one: object) -> None:
    """What a long run has done, on stderr, now and then."""
    if one.done == one.total or (one.phase == "match" and one.done % 8 == 0):
        print(f"{one.phase} {one.done:,} in {one.seconds:.1f} s", file=sys.stderr, flush=True)
