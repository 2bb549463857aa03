"""Ours, three parties: two nodes in the provider's process, each with its book and grant, and the hub.

Called by ``trustcompute_psi`` for the task ``star``.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pyarrow.csv

from benchmarks.system import Call, Job
from benchmarks.systems.rendezvous import awaited, publish

NODES = ("first.example", "second.example")
CONSUMER = "consumer.example"
DATASET = "keys"


def provider(job: Job, stack: ExitStack, executor: ThreadPoolExecutor) -> Call:
    from trustcompute.broker.broker import Broker
    from trustcompute.broker.grant import AssetClaim, new_grant
    from trustcompute.node import Dataset, Node
    from trustcompute.primitives.identity import CertificateAuthority
    from trustcompute.protocol.operation import OutputForm

    authority = CertificateAuthority.create("benchmark")
    consumer = authority.issue(CONSUMER)
    consumer.save(job.path("identity"))
    nodes = []
    for name in NODES:
        identity = authority.issue(name)
        broker = stack.enter_context(Broker.open(job.path(f"book-{name}"), identity))
        grant = new_grant(
            issuer=identity.thumbprint,
            audience=name,
            subject=CONSUMER,
            subject_key=consumer.thumbprint,
            asset=AssetClaim(id=DATASET, classification="general", grade="general", personal=False),
            operations=["psi.star.v1"],
            purposes=["benchmark"],
            outputs=[OutputForm.MATCHED_IDS],
            contingency="0" * 64,
            now=int(time.time()),
        )
        publish(job.path(f"grant-{name}"), broker.issue(grant))
        nodes.append((identity, broker))

    def serve() -> None:
        for (identity, broker), file, port in zip(
            nodes, ("provider.csv", "second.csv"), job.ports, strict=True
        ):
            dataset = Dataset(DATASET, job.input(file), version="1", keys=["id"])
            node = stack.enter_context(Node(identity, broker, [dataset], executor=executor))
            server = stack.enter_context(node.serve("127.0.0.1", port))
            publish(job.path(f"url-{identity.name}"), server.url)

    return serve


def consumer(job: Job, stack: ExitStack, executor: ThreadPoolExecutor) -> Call:
    from trustcompute.node import connect, intersect_many
    from trustcompute.primitives.identity import Identity

    grants = [awaited(job.path(f"grant-{name}")) for name in NODES]
    identity = Identity.load(job.path("identity"))

    def intersect() -> int | None:
        sessions = [
            stack.enter_context(connect(awaited(job.path(f"url-{name}")), identity=identity, grant=grant))
            for name, grant in zip(NODES, grants, strict=True)
        ]
        found = intersect_many(sessions, job.input("consumer.csv"), on="id", executor=executor)
        pyarrow.csv.write_csv(found.table(), job.path("matched.csv"))
        return found.count

    return intersect
