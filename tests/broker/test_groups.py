"""Group commit: many callers share a transaction, and nobody notices but by the speed."""

from __future__ import annotations

import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest

from trustcompute.broker.batch import Asked
from trustcompute.broker.broker import Answer, Work
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import Fault, JobRecord
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.store import NOTHING
from trustcompute.errors import (
    Conflict,
    GrantError,
    JobForfeited,
    LocalProtocolError,
    ParameterError,
    Refused,
    StoreError,
)

BOTH_STORES = True


def answer_of(world: Any) -> Any:
    return lambda job: Answer(world.release(job.id), job.reserved)


def test_threads_share_transactions_and_each_gets_its_own_outcome(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"calls": Limit(total=20)}))
    tokens = [world.request(grant, rows=1).sign(world.bank.key) for _ in range(64)]

    def run(token: str) -> str:
        verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
        try:
            job = broker.reserve(verified, world.operation)
        except Refused as error:
            return error.rule
        broker.arm(job.id)
        broker.post(job.id, release=world.release(job.id), usage=job.reserved)
        return (broker.receipt(job.id).verify(broker.log_key).fields["job"] == job.id and "posted") or "?"

    with ThreadPoolExecutor(64) as threads:
        outcomes = list(threads.map(run, tokens))
    assert outcomes.count("posted") == 20 and outcomes.count("quota") == 44
    report = broker.audit()
    assert report.jobs == {"posted": 20, "denied": 44}
    assert report.checkpoints < report.size, "some transactions were shared"


def test_limit_two_six_downloads(world: Any) -> None:
    """A connector once let six consumers at once download what its contract allowed twice."""
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"calls": Limit(total=2)}))
    start = threading.Barrier(6)
    downloads: list[str] = []

    def download() -> None:
        verified = world.verified(broker, grant)
        start.wait()
        try:
            job = broker.reserve(verified, world.operation)
        except Refused:
            return
        broker.arm(job.id)
        downloads.append(broker.post(job.id, release=world.release(job.id), usage=job.reserved).id)

    callers = [threading.Thread(target=download) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(downloads) == 2
    assert world.balances(broker)["grant", "calls"] == (2, 0)


def test_one_callers_mistake_is_not_the_others(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    jobs = [broker.reserve(world.verified(broker, grant, rows=1), world.operation).id for _ in range(6)]
    broken = type(jobs)([jobs[3]])
    real, gate = type(broker._store).transaction, threading.Event()

    def slow(store: Any) -> Any:
        gate.wait(5)  # until all have queued behind the first
        return real(store)

    monkeypatch.setattr(type(broker._store), "transaction", slow)
    outcomes: dict[str, Any] = {}

    class Bug:
        touched = NOTHING

        def apply(self, book: Any) -> Any:
            raise KeyError("a bug")

    def call(job: str) -> None:
        try:
            outcomes[job] = (
                broker._writer.commit_one(Bug())
                if job in broken
                else broker.abandon(job, "over", Fault.PEER).state
            )
        except KeyError as error:
            outcomes[job] = error

    callers = [threading.Thread(target=call, args=(job,)) for job in jobs]
    for caller in callers:
        caller.start()
    gate.set()
    for caller in callers:
        caller.join(10)
    assert isinstance(outcomes.pop(jobs[3]), KeyError)
    assert set(outcomes.values()) == {"voided"} and len(outcomes) == 5


def test_a_disk_that_refuses_a_group_refuses_each_of_it(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.broker()

    def full(store: Any) -> Any:
        raise StoreError("the disk is full")

    monkeypatch.setattr(type(broker._store), "transaction", full)
    with ThreadPoolExecutor(8) as threads:
        failures = [threads.submit(broker.incident, "x", "peer").exception() for _ in range(8)]
    assert all(isinstance(failure, StoreError) for failure in failures)
    monkeypatch.undo()
    assert broker.incident("x", "peer") == 2, "the queue goes on, and nothing of the others was written"


def test_run_many_gives_a_receipt_or_an_error_in_each_place(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"calls": Limit(total=4)}))
    tokens = [world.request(grant, rows=1).sign(world.bank.key) for _ in range(6)]
    asked = [Asked(token, world.bank.name, grant) for token in tokens]
    asked.insert(1, Asked(tokens[0][:-6] + "AAAAAA", world.bank.name, grant))
    asked.insert(2, Asked(tokens[0], world.bank.name, "not a grant"))
    work = [Work(each, world.operation) for each in broker.verify_requests(asked)]

    def answer(job: JobRecord) -> Answer:
        if job.id == work[3].request.job:
            raise ParameterError("cannot be computed")
        return Answer(world.release(job.id), job.reserved)

    found = broker.run_many(work, answer)
    assert [type(each) for each in found] == [
        Receipt, GrantError, GrantError, JobForfeited, Receipt, Receipt, Refused, Refused,
    ]  # fmt: skip
    for place in (0, 4, 5):
        assert found[place].verify(broker.log_key).fields["job"] == work[place].request.job
    assert sum(broker.failures().values()) == 2
    again = broker.run_many(work, answer)
    assert [type(each) for each in again] == [type(each) for each in found], "nothing is charged twice"
    assert world.balances(broker)["grant", "calls"] == (4, 0)
    assert broker.audit().jobs == {"posted": 3, "forfeited": 1, "denied": 2}


def test_run_many_forfeits_the_group_where_the_caller_fails(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    work = [Work(world.verified(broker, grant, rows=1), world.operation) for _ in range(3)]

    def answer(job: JobRecord) -> Answer:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broker.run_many(work, answer)
    assert broker.audit().jobs == {"forfeited": 3}
    assert broker.run_many([], answer) == []


def test_a_wrong_bound_in_a_group_is_that_jobs_error_alone(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    work = [Work(world.verified(broker, grant, rows=row), world.operation) for row in (1, 2)]
    most = world.operation.bound({}, type("S", (), {"consumer": 1, "provider": 5000}))
    first, second = broker.run_many(work, lambda job: Answer(world.release(job.id), most))
    assert isinstance(first, Receipt) and isinstance(second, Receipt)
    (third,) = broker.run_many(
        [Work(world.verified(broker, grant, rows=0), world.operation)],
        lambda job: Answer(world.release(job.id), most),
    )
    assert isinstance(third, LocalProtocolError)


def test_a_job_id_used_for_another_request_conflicts_within_one_group(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    job = "0" * 32
    work = [Work(world.verified(broker, grant, job=job, rows=row), world.operation) for row in (1, 2)]
    first, second = broker.run_many(work, answer_of(world))
    assert isinstance(first, Receipt) and isinstance(second, Conflict)


def test_processes_verify_as_the_broker_does(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    good = [world.request(grant, rows=1).sign(world.bank.key) for _ in range(3)]
    asked = [Asked(token, world.bank.name, grant) for token in [*good, good[0][:-6] + "AAAAAA"]]
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
        found = list(broker.verify_requests(asked, pool))
    here = [broker.verify_request(token, peer=world.bank.name, grant=grant) for token in good]
    assert found[:3] == here
    assert isinstance(found[3], GrantError) and found[3].field == "signature"
