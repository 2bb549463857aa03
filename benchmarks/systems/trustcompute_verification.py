"""Our verification: kernels, tables, both modes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.memory import shape
from benchmarks.system import Call, Job, System
from benchmarks.systems.version import version

__all__ = ["SYSTEM", "party", "version"]

KERNELS = ("native", "two threads", "portable", "reference")
SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_verification",
    protocols={
        "kernel": KERNELS,
        "hint": ("two threads", "native"),
        "build": ("two threads",),
        "bucket": ("two threads", "one request"),
        "private": ("prepared", "cold"),
        "batch": ("two threads",),
        "check": ("simplepir",),
        "statistics": ("two ways",),
        "consent": ("redeem", "issue"),
    },
)
BATCH = 1000
REQUEST = 64


@contextmanager
def party(job: Job) -> Iterator[Call]:
    if job.protocol in ("portable", "reference"):
        os.environ["TRUSTCOMPUTE_KERNELS"] = job.protocol
    threads = ThreadPoolExecutor(2 if job.protocol == "two threads" else 1)
    with ExitStack() as stack, threads as executor:
        makers = {
            "kernel": _kernel, "hint": _hint, "build": _build, "bucket": _bucket, "private": _private,
            "batch": _batch, "check": _check, "statistics": _statistics, "consent": _consent,
        }  # fmt: skip
        yield makers[job.task](job, executor, stack)


def _database(records: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    return np.random.default_rng(1).integers(-128, 128, shape(records), dtype=np.int8)


def _kernel(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    from trustcompute.verification import pir

    database = _database(job.rows)
    query = np.random.default_rng(2).integers(0, 2**32, (1, database.shape[1]), dtype=np.uint32)
    pir.answer(database, query, executor=executor)

    def answer() -> None:
        pir.answer(database, query, executor=executor if job.protocol == "two threads" else None)

    return answer


def _batch(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    from trustcompute.verification import pir

    database = _database(job.rows)
    queries = np.random.default_rng(2).integers(0, 2**32, (BATCH, database.shape[1]), dtype=np.uint32)

    def answer() -> int:
        return len(pir.answer(database, queries, executor=executor))

    return answer


def _hint(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    from trustcompute.verification import pir

    database = _database(job.rows)

    def make() -> None:
        pir.make_hint(database, bytes(32), executor=executor)

    return make


def make_table(place: Path, records: int) -> None:
    """A table of the shape that so many records have, in a directory. Its evaluations are random bytes: what is asked
    of it is proven to be absent, at the cost of any answer."""
    from trustcompute.primitives.signing import SigningKey
    from trustcompute.verification import building, evaluated, table, truth
    from trustcompute.verification.layout import PIECE
    from trustcompute.verification.predicate import parse
    from trustcompute.verification.shelf import Shelf

    rng, predicate = np.random.default_rng(3), parse("value >= 500")
    spec = truth.decide(_held(1), ("id",), predicate).spec
    keys = rng.integers(0, 256, (records, 32), dtype=np.uint8)
    many = truth.Truth(spec, keys, np.ones(records, dtype=bool), None, None, 0)
    about = table.About(dataset="held", version="1", subject=("id",), predicate=predicate, place=bytes(32))
    shelf = Shelf(place.with_name(f"{place.name}.part"))
    rows = shelf.rows("rows", evaluated.ROW)
    for start in range(0, records, PIECE):
        rows.append(rng.integers(0, 256, (min(PIECE, records - start), evaluated.ROW), dtype=np.uint8))
    with ThreadPoolExecutor(2) as executor:
        making = building.Making(about, many, _key(), SigningKey.generate(), shelf, executor)
        masked = building.from_rows(making, rows.array(), bytes(32), least=64)
        building.keep(making, masked, rows.array(), place)
    shelf.remove()


def _key() -> Any:
    from trustcompute.primitives import oprf
    from trustcompute.primitives.oprf import Mode

    return oprf.derive_key(bytes(32), b"benchmark", Mode.VOPRF)


def _check(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    from trustcompute.primitives.rng import Rng
    from trustcompute.primitives.signing import SigningKey
    from trustcompute.verification import pir, proof

    database = _database(job.rows)
    check = proof.issue("0" * 64, database, Rng.from_os(), SigningKey.generate())
    asked = np.random.default_rng(2).integers(0, 2**32, (1, database.shape[1]), dtype=np.uint32)
    got = pir.answer(database, asked)

    def verify() -> None:
        check.verify(asked[0], got[0])

    verify()
    return verify


def _held(records: int) -> Any:
    import pyarrow as pa

    return pa.table({"id": np.arange(records), "value": np.arange(records) % 1000})


def _build(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    """As a node builds it: rows from a file, everything else in a directory."""
    import pyarrow.parquet as pq

    from trustcompute.verification.shelf import Shelf

    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=job.scratch)))
    pq.write_table(_held(job.rows), directory / "held.parquet")

    def build() -> int:
        made = _table(directory / "held.parquet", executor, Shelf(directory / "truth"), directory / "tables")
        return int(made.descriptor.records)

    return build


def _table(held: Any, executor: ThreadPoolExecutor, shelf: Any = None, directory: Path | None = None) -> Any:
    from trustcompute.primitives.signing import SigningKey
    from trustcompute.verification import building, table, truth
    from trustcompute.verification.predicate import parse
    from trustcompute.verification.shelf import IN_MEMORY

    predicate = parse("value >= 500")
    about = table.About(dataset="held", version="1", subject=("id",), predicate=predicate, place=bytes(32))
    decided = truth.decide(held, ("id",), predicate, executor=executor, shelf=shelf or IN_MEMORY)
    return building.build(
        about, decided, b"s" * 32, SigningKey.generate(), directory=directory, executor=executor
    )


def _bucket(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    from trustcompute.primitives.rng import Rng
    from trustcompute.primitives.signing import SigningKey
    from trustcompute.protocol.message import Message
    from trustcompute.verification import answer, bucket
    from trustcompute.verification.answer import Questions

    made = _table(_held(10**5), executor)
    made.masked.bucket_tree.root()
    signer, rng = SigningKey.generate(), Rng.from_os()
    requests = 1 if job.protocol == "one request" else job.rows // REQUEST
    blinded = answer.blind(Questions(rng.array(32 * REQUEST).reshape(-1, 32)), rng).elements
    numbers = np.arange(REQUEST, dtype=np.uint32) % made.descriptor.buckets.columns

    def one(_: int) -> int:
        provider = bucket.provider(made, REQUEST, rng, signer)
        next(provider)
        sent = provider.send(Message("asked", {"point": blinded, "bucket": numbers}))
        return len(sent.message["column"])  # type: ignore[union-attr]

    one(0)

    def serve() -> int:
        return sum(executor.map(one, range(requests)))

    return serve


def _statistics(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    """Counts and sums by 12 towns and 8 branches, of heavy-tailed amounts: read, suppressed, told and checked."""
    import pyarrow as pa

    from trustcompute import verification

    rng = np.random.default_rng(4)
    held = pa.table(
        {
            "town": rng.integers(0, 12, job.rows),
            "branch": rng.zipf(1.8, job.rows) % 8,
            "amount": rng.pareto(1.5, job.rows).astype(np.int64) * 10 + 1,
        }
    )

    def tell() -> int:
        return len(verification.statistics(held, "amount", by=["town", "branch"]).cells)

    return tell


def _consent(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    """The holder's part for so many tokens, 128 at a time: signing them blindly, or taking them, durably."""
    from trustcompute.primitives.rng import Rng
    from trustcompute.verification import consent

    rng, now = Rng.from_os(), 1_000_000
    about = consent.About("held", "value >= 500", now + 86400)
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=job.scratch)))
    holder = consent.Consents(bytes(32), "held", directory / "consents")
    requests = max(1, job.rows // consent.MAX_TOKENS)
    wishes = [consent.wish(about, consent.MAX_TOKENS, rng) for _ in range(requests)]
    if job.protocol == "issue":
        return lambda: sum(len(holder.issue(about, wish.blinded, rng, now=now).evaluated) for wish in wishes)
    tokens = [
        [str(token) for token in wish.finish(holder.issue(about, wish.blinded, rng, now=now))]
        for wish in wishes
    ]

    def redeem() -> int:
        for number, texts in enumerate(tokens):
            holder.redeem(texts, about.predicate, len(texts), job=str(number), now=now)
        return requests * consent.MAX_TOKENS

    return redeem


def _private(job: Job, executor: ThreadPoolExecutor, stack: ExitStack) -> Call:
    """A whole question over TLS, about a key that is proven to be absent."""
    import trustcompute as tc
    from trustcompute.broker import grant as grants
    from trustcompute.broker.broker import Broker
    from trustcompute.broker.grant import AssetClaim
    from trustcompute.node.verification import Tables
    from trustcompute.primitives import oprf
    from trustcompute.primitives.identity import CertificateAuthority
    from trustcompute.primitives.rng import Rng
    from trustcompute.protocol.operation import OutputForm
    from trustcompute.verification import proof, table

    pool = stack.enter_context(ThreadPoolExecutor(2))
    authority = CertificateAuthority.create("benchmark")
    holder, asker = authority.issue("holder.example"), authority.issue("asker.example")
    kept = table.load(job.input("table"))
    said = kept.descriptor.model_copy(update={"public": oprf.public_key(key := _key()).hex()})
    made = table.Table(replace(kept, descriptor=said, token=said.sign(holder.key)), key)
    check = proof.issue(made.id, made.masked.database, Rng.from_os(), asker.key)
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    broker = stack.enter_context(Broker.open(directory / "book", holder))
    dataset = tc.Dataset("held", _held(10), version="1", keys=["id"])
    node = stack.enter_context(tc.Node(holder, broker, [dataset], executor=pool))
    node._datasets["held"].verification = Tables({made.id: made}, holder.key)
    server = stack.enter_context(node.serve())
    claims = grants.new_grant(
        issuer=holder.thumbprint,
        audience=holder.name,
        subject=asker.name,
        subject_key=asker.thumbprint,
        asset=AssetClaim(id="held", classification="general", grade="general", personal=False),
        operations=["verify.private.v1"],
        purposes=["benchmark"],
        outputs=list(OutputForm),
        contingency="0" * 64,
        now=int(time.time()),
    )
    session = stack.enter_context(
        tc.connect(server.url, identity=asker, grant=grants.sign(claims, holder.key), executor=pool)
    )
    made.masked.bucket_tree.root()
    session.verify("held", "value >= 500", keys=[5], check=check)  # receives the hint

    def ask() -> int:
        found = session.verify("held", "value >= 500", keys=[5], check=check)
        return found.cost.bytes_sent + found.cost.bytes_received

    ask()
    if job.protocol == "prepared":
        session.prepare_verification("held", "value >= 500", count=1)
    return ask
