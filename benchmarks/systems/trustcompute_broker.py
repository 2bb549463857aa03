"""Our broker, on a new book. A row is a job; requests are signed before the clock starts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

from benchmarks.system import Call, Job, System
from benchmarks.systems import clearing, log
from benchmarks.systems.version import version
from trustcompute.broker import meter
from trustcompute.broker.audit import audit
from trustcompute.broker.batch import Asked, check
from trustcompute.broker.broker import Answer, Broker, Work
from trustcompute.broker.commands import RESERVED_LEASE, Reserve
from trustcompute.broker.grant import AssetClaim, new_grant
from trustcompute.broker.job import Release
from trustcompute.broker.policy import Asset
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.request import VerifiedRequest, countersign, new_job, new_request
from trustcompute.broker.store import Evidence, Touched
from trustcompute.broker.writer import Book
from trustcompute.errors import GrantError
from trustcompute.primitives.identity import CertificateAuthority, Identity
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Usage

__all__ = ["SYSTEM", "party", "version"]

TASKS = (
    "job",
    "job-verified",
    "job-answered",
    "job-threads",
    "group",
    "group-verified",
    "grown",
    "latency",
    "job-clients",
    "sweep",
    "audit",
    "audit-tiles",
    *clearing.TASKS,
)
THREADS = 64
CLIENTS = 8
GROWN_JOBS = 2048
TIMED_JOBS = 1000
FILLED_AT_ONCE = 4096
SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_broker",
    protocols=dict.fromkeys(TASKS, ("sqlite",)) | {"job-clients": ("postgres", "sqlite")},
)

OPERATION = Operation(
    id="benchmark.count.v1",
    check=lambda params, sizes: dict(params),
    output=lambda params: OutputForm.COUNT,
    bound=lambda params, sizes: Usage(calls=1, rows=sizes.consumer),
    leakage=lambda params: Leakage("the count", "nothing"),
    consumer="consumer",
    provider="provider",
)
ANSWER = bytes(1024)
USED = Usage(calls=1, rows=1000)
TURN = hashlib.sha256(ANSWER).hexdigest()


MEASURED = {
    "grown": GROWN_JOBS,
    "latency": TIMED_JOBS,
    "sweep": 1,
}  # jobs, where rows say how full the book is


class Bench:
    """A broker with one dataset and one grant, and jobs asked for under it."""

    def __init__(self, folder: Path, jobs: int, database: str | None = None) -> None:
        authority = CertificateAuthority.create("benchmark")
        node, self.consumer = authority.issue("node.example"), authority.issue("consumer.example")
        self.broker = Broker.open(folder, node, database=database)
        asset = Asset("d", "1", "0" * 64, "general", "general", personal=False, rows=1000)
        self.broker.register(asset)
        self.grant = self._grant(node)
        self.tokens = [self._request() for _ in range(jobs)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.broker.close()

    def _grant(self, node: Identity) -> str:
        claims = new_grant(
            issuer=node.thumbprint,
            audience=node.name,
            subject=self.consumer.name,
            subject_key=self.consumer.thumbprint,
            asset=AssetClaim(id="d", classification="general", grade="general", personal=False),
            operations=[OPERATION.id],
            purposes=["benchmark"],
            outputs=[OutputForm.COUNT],
            contingency="0" * 64,
            now=int(time.time()),
        )
        return self.broker.issue(claims)

    def _request(self) -> str:
        request = new_request(
            grant=self.grant,
            operation=OPERATION.id,
            dataset="d",
            params={},
            rows=1000,
            purpose="benchmark",
            audience="node.example",
            san=self.consumer.name,
            key=self.consumer.key.public,
        )
        return request.sign(self.consumer.key)

    def run(self, token: str) -> str:
        """The signature check, reserve, two durable transactions (arm, post), the receipt. Returns the job."""
        verified = self.broker.verify_request(token, peer=self.consumer.name, grant=self.grant)
        self.broker.reserve(verified, OPERATION)
        self.broker.arm(verified.job)
        self._post(verified.job, verified.job)
        self.broker.receipt(verified.job)
        return verified.job

    def run_answered(self, token: str) -> str:
        """The same, with an answer of 1 KiB made durable before the charge, and countersigned after."""
        verified = self.broker.verify_request(token, peer=self.consumer.name, grant=self.grant)
        self.broker.reserve(verified, OPERATION)
        self.broker.arm(verified.job)
        self._post(verified.job, self.broker.outbox.write(verified.job, 0, 0, [[ANSWER]]))
        self.broker.countersign(
            countersign(job=verified.job, request=token, answers=[TURN], key=self.consumer.key)
        )
        return verified.job

    def _post(self, job: str, outbox: str) -> None:
        release = Release(run=0, turn=0, frames_hash=TURN, transcript="0" * 64, outbox=outbox)
        self.broker.post(job, release=release, usage=USED)

    def verified(self, executor: Executor | None = None) -> Iterator[VerifiedRequest | GrantError]:
        asked = [Asked(token, self.consumer.name, self.grant) for token in self.tokens]
        return self.broker.verify_requests(asked, executor)

    def run_verified(self, verified: VerifiedRequest) -> str:
        """Reserve, arm, post, and the receipt, of a request whose signature was checked before the clock starts."""
        self.broker.reserve(verified, OPERATION)
        self.broker.arm(verified.job)
        self._post(verified.job, verified.job)
        self.broker.receipt(verified.job)
        return verified.job

    def imagined(self, count: int) -> Iterator[VerifiedRequest]:
        """Requests that nobody signed and checked, to fill a book with jobs that are not measured."""
        grant = self.broker.verify(self.grant)
        model = next(each for each in self.verified() if isinstance(each, VerifiedRequest))
        for _ in range(count):
            claims = model.claims.model_copy(update={"jti": new_job()})
            token = f"{claims.jti}{model.token[len(claims.jti) :]}"
            yield VerifiedRequest(claims, token, token_hash(token), grant, model.key)

    def run_many(self, verified: Iterable[VerifiedRequest | GrantError]) -> int:
        """The same in groups of 256."""
        work = (Work(each, OPERATION) for each in verified)
        found = self.broker.run_many(work, lambda job: Answer(_release(job.id), USED))
        return sum(isinstance(each, Receipt) for each in found)


def _release(job: str) -> Release:
    return Release(run=0, turn=0, frames_hash=TURN, transcript="0" * 64, outbox=job)


@contextmanager
def _verifier(task: str) -> Iterator[Executor | None]:
    """A process that verifies signatures, started and warm."""
    if task != "group":
        yield None
        return
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        pool.submit(check, ((), "", 0)).result()
        yield pool


@contextmanager
def party(job: Job) -> Iterator[Call]:
    folder = job.path("book")
    if job.task == "audit-tiles":
        log.write(folder, job.rows)
        yield lambda: audit(folder, log.NAME).size
        return
    if job.task in clearing.TASKS:
        with clearing.party(job) as call:
            yield call
        return
    count = CLIENTS if job.task == "job-clients" else THREADS
    verified: list[VerifiedRequest] = []
    with (
        _database(job.protocol) as database,
        Bench(folder, MEASURED.get(job.task, job.rows), database) as bench,
        ThreadPoolExecutor(count) as threads,
        _verifier(job.task) as pool,
    ):
        if job.task in ("job-verified", "group-verified", "grown"):
            verified += (each for each in bench.verified() if isinstance(each, VerifiedRequest))
        calls: dict[str, Call] = {
            "job": Timed(bench.run, bench.tokens),
            "job-verified": Timed(bench.run_verified, verified),
            "job-answered": Timed(bench.run_answered, bench.tokens),
            "job-clients": Timed(bench.run, bench.tokens, threads.map),
            "job-threads": lambda: len(set(threads.map(bench.run, bench.tokens))),
            "group": lambda: bench.run_many(bench.verified(pool)),
            "group-verified": lambda: bench.run_many(verified),
            "grown": lambda: bench.run_many(verified) and job.rows,
            "latency": Timed(bench.run, bench.tokens, output=job.rows),
            "sweep": lambda: len(bench.broker.sweep()),
            "audit": lambda: audit(folder, bench.broker.log_key).jobs["posted"],
        }
        if job.task == "audit":
            calls["group"]()
        if job.task == "sweep":
            orphan(bench, job.rows)
        if job.task in ("grown", "latency"):
            fill(bench, job.rows)
        yield calls[job.task]


@contextmanager
def _database(protocol: str) -> Iterator[str | None]:
    """A server of our own, durable, from the system's binaries."""
    if protocol != "postgres":
        yield None
        return
    from tests.broker.postgresql import server, why_not

    if missing := why_not():
        raise RuntimeError(missing)
    with server(durable=True) as started:
        yield started.new_schema()


class Timed:
    """Runs all jobs, and keeps what single ones took: ``milliseconds``. output: what the call returns."""

    def __init__(
        self,
        run: Callable[[Any], str],
        jobs: Sequence[Any],
        mapped: Callable[..., Iterable[float]] = map,
        output: int | None = None,
    ) -> None:
        self._run, self._jobs, self._mapped, self._output = run, jobs, mapped, output
        self.milliseconds: dict[str, float] = {}

    def __call__(self) -> int:
        took = sorted(self._mapped(self._time, self._jobs))
        self.milliseconds = {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100]}
        return len(took) if self._output is None else self._output

    def _time(self, job: Any) -> float:
        started = time.perf_counter()
        self._run(job)
        return (time.perf_counter() - started) * 1000


def orphan(bench: Bench, count: int) -> None:
    """Reserve so many jobs, and move the clock past their leases."""
    clock = Later()
    bench.broker._writer._clock = clock
    bench.broker._writer.commit_all([Reserve(each, OPERATION) for each in bench.imagined(count)])
    clock.ahead = RESERVED_LEASE + 1


class Later:
    """The machine's clock, moved ahead."""

    ahead = 0

    def now(self) -> int:
        return int(time.time()) + self.ahead


def fill(bench: Bench, count: int) -> None:
    """Charged jobs that are not measured, thousands in a transaction: as the model, but for their ids."""
    model = next(bench.imagined(1))
    bench.run_many([model])
    for start in range(0, count, FILLED_AT_ONCE):
        bench.broker._writer.commit_one(Filled(model, min(FILLED_AT_ONCE, count - start)))


@dataclass(frozen=True)
class Filled:
    """So many charged jobs, each with its request, its entry and what it takes of the balances."""

    model: VerifiedRequest
    count: int

    @property
    def touched(self) -> Touched:
        return Touched((self.model.job,), (self.model.grant.hash,), (self.model.claims.dataset,))

    def apply(self, book: Book) -> None:
        model = book.jobs[self.model.job]
        accounts = [meter.Account(name, {}, "") for name in model.accounts]
        all_used = Usage(calls=USED.calls * self.count, rows=USED.rows * self.count)
        book.put_balances(meter.hold(meter.places(accounts, all_used, book.day), book.balances))
        book.put_balances(meter.settle(model.accounts, all_used, all_used, book.day, book.balances))
        fields = dict(next(iter(book.entries(model.entry or 0))).fields)
        for _ in range(self.count):
            job = new_job()
            hash_ = hashlib.sha256(job.encode()).hexdigest()
            entry = book.record("job.posted", fields | {"job": job, "request": hash_})
            book.keep(Evidence(hash_, "request", job, self.model.token))
            book.put_job(model.but(id=job, request=hash_, entry=entry))
