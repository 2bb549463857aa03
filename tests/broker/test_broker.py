"""The life of jobs, through the facade."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import Fault, JobState
from trustcompute.broker.outbox import SMALL
from trustcompute.errors import (
    Conflict,
    GrantError,
    JobForfeited,
    LocalProtocolError,
    ParameterError,
    Refused,
    StoreError,
)
from trustcompute.primitives.signing import SigningKey, token_hash
from trustcompute.protocol.operation import Sizes, Usage

BOUND = Usage(calls=1, rows=100, bytes=32 * 5100)

BOTH_STORES = True


def types(broker: Broker) -> list[str]:
    return [entry.type for entry in broker.entries()]


def test_a_job_from_request_to_receipt(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    request = world.request(grant)
    token = request.sign(world.bank.key)
    verified = broker.verify_request(token, peer=world.bank.name, grant=grant)

    job = broker.reserve(verified, world.operation)
    assert (job.state, job.reserved, job.id) == (JobState.RESERVED, BOUND, request.jti)
    assert world.balances(broker)["grant", "rows"] == (0, 100)
    assert world.balances(broker)["dataset", "rows"] == (0, 100)

    assert broker.arm(job.id).state is JobState.ARMED
    used = replace(BOUND, bytes=4000)
    posted = broker.post(job.id, release=world.release(job.id), usage=used)
    assert (posted.state, posted.charged) == (JobState.POSTED, used)
    assert world.balances(broker) == {
        (account, unit): (amount, 0)
        for account in ("grant", "dataset")
        for unit, amount in used.items()
        if amount
    }

    receipt = broker.countersign(world.countersigned(token, posted))
    entry = receipt.verify(broker.log_key)
    assert entry.type == "job.posted"
    assert entry.fields["usage"] == {"calls": 1, "rows": 100, "bytes": 4000}
    assert entry.fields["request"] == verified.hash and entry.fields["grant"] == token_hash(grant)
    assert entry.fields["frames"] == "aa" * 32 and entry.fields["transcript"] == "bb" * 32
    assert types(broker) == [
        "log.opened",
        "asset.registered",
        "grant.issued",
        "job.posted",
        "job.countersigned",
    ]
    assert broker.audit().jobs == {"posted": 1}


def test_the_same_request_gives_the_same_job_whatever_its_state(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    verified = world.verified(broker, grant)
    job = broker.reserve(verified, world.operation)
    assert broker.reserve(verified, world.operation) == job
    broker.arm(job.id)
    assert broker.reserve(verified, world.operation).state is JobState.ARMED
    assert broker.arm(job.id) == broker.arm(job.id)
    posted = broker.post(job.id, release=world.release(job.id), usage=BOUND)
    assert broker.reserve(verified, world.operation) == posted
    assert broker.post(job.id, release=world.release(job.id), usage=BOUND) == posted
    assert world.balances(broker)["grant", "calls"] == (1, 0)
    assert types(broker).count("job.posted") == 1


def test_a_job_id_serves_for_one_request(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = world.posted(broker, grant)
    for change in ({"rows": 101}, {"now": world.clock.time - 1}, {"params": {"output": "rows"}}):
        with pytest.raises(Conflict, match="used for another request"):
            broker.reserve(world.verified(broker, grant, job=job.id, **change), world.operation)
    assert world.balances(broker)["grant", "calls"] == (1, 0)


def test_other_bytes_of_the_same_turn_are_a_conflict(world: Any) -> None:
    broker = world.broker()
    job = world.posted(broker, broker.issue(world.claims()))
    for other in (
        world.release(job.id, content="cc"),
        replace(world.release(job.id), transcript="cc" * 32),
    ):
        with pytest.raises(Conflict, match="other bytes"):
            broker.post(job.id, release=other, usage=BOUND)
    assert broker.job(job.id) == job


def test_further_releases_of_a_job_are_recorded_without_a_charge(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    token = world.request(grant).sign(world.bank.key)
    verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
    job = broker.reserve(verified, world.operation)
    broker.post(job.id, release=world.release(job.id), usage=BOUND)
    more = broker.post(job.id, release=world.release(job.id, run=1, content="cc"), usage=BOUND)
    again = broker.post(job.id, release=world.release(job.id, run=1, content="cc"), usage=BOUND)
    assert more == again and [each.run for each in more.releases] == [0, 1]
    assert world.balances(broker)["grant", "calls"] == (1, 0)
    assert types(broker)[-2:] == ["job.posted", "job.released"]
    with pytest.raises(GrantError, match="not those that were released") as caught:
        broker.countersign(world.countersigned(token, more.but(releases=more.releases[:1])))
    assert caught.value.field == "answers"
    broker.countersign(world.countersigned(token, more))
    broker.revoke(token_hash(grant), "over")
    with pytest.raises(Refused) as refused:
        broker.post(job.id, release=world.release(job.id, run=2), usage=BOUND)
    assert refused.value.rule == "revoked"
    assert broker.job(job.id).state is JobState.POSTED  # what was charged stays charged
    broker.audit()


def test_what_was_not_used_is_free_again_and_more_than_reserved_is_a_bug(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = broker.reserve(world.verified(broker, grant), world.operation)
    with pytest.raises(LocalProtocolError, match="used 101 rows, but reserved 100"):
        broker.post(job.id, release=world.release(job.id), usage=Usage(calls=1, rows=101))
    with pytest.raises(LocalProtocolError, match="used 1 epsilon"):
        broker.post(job.id, release=world.release(job.id), usage=Usage(calls=1, epsilon=1))
    assert broker.job(job.id) == job
    broker.post(job.id, release=world.release(job.id), usage=Usage(rows=7))
    assert world.balances(broker)["grant", "calls"] == (0, 0)
    assert world.balances(broker)["grant", "rows"] == (7, 0)


@pytest.mark.parametrize(
    "change",
    [{"frames_hash": "aa"}, {"transcript": "x" * 64}, {"run": -1}, {"turn": 10**7}, {"outbox": "x" * 256}],
)
def test_a_malformed_release_is_the_callers_mistake(world: Any, change: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError, match="release"):
        replace(world.release("0" * 32), **change)


def test_a_closed_broker_says_so(world: Any) -> None:
    broker = world.broker()
    broker.close()
    broker.close()
    with pytest.raises(StoreError, match="closed"):
        broker.job("0" * 32)


def test_voiding_gives_everything_back_and_forfeiting_nothing(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    first = broker.reserve(world.verified(broker, grant), world.operation)
    assert broker.abandon(first.id, "cancelled", Fault.PEER).state is JobState.VOIDED
    assert broker.abandon(first.id, "cancelled", Fault.PEER).state is JobState.VOIDED
    assert world.balances(broker)["grant", "rows"] == (0, 0)
    second = broker.reserve(world.verified(broker, grant), world.operation)
    broker.arm(second.id)
    lost = broker.abandon(second.id, "gone", Fault.PEER)
    assert (lost.state, lost.charged, lost.fault) == (JobState.FORFEITED, BOUND, Fault.PEER)
    assert broker.abandon(second.id, "again", Fault.PROVIDER) == lost
    assert world.balances(broker)["grant", "rows"] == (100, 0)
    with pytest.raises(JobForfeited) as caught:
        broker.post(second.id, release=world.release(second.id), usage=BOUND)
    assert caught.value.job == second.id
    with pytest.raises(JobForfeited):
        broker.arm(second.id)
    with pytest.raises(Conflict, match="is voided"):
        broker.post(first.id, release=world.release(first.id), usage=BOUND)
    assert types(broker)[-2:] == ["job.voided", "job.forfeited"]
    broker.audit()


def test_abandoning_does_what_the_state_demands(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    reserved = broker.reserve(world.verified(broker, grant), world.operation)
    armed = broker.reserve(world.verified(broker, grant), world.operation)
    broker.arm(armed.id)
    posted = world.posted(broker, grant)
    assert broker.abandon(reserved.id, "failed", Fault.PROVIDER).state is JobState.VOIDED
    assert broker.abandon(armed.id, "failed", Fault.PROVIDER).state is JobState.FORFEITED
    assert broker.abandon(posted.id, "failed", Fault.PROVIDER) == posted


def test_jobs_nobody_knows_are_the_callers_mistake(world: Any) -> None:
    broker = world.broker()
    for call in (
        lambda: broker.arm("0" * 32),
        lambda: broker.abandon("0" * 32, "", Fault.PEER),
        lambda: broker.post("0" * 32, release=world.release("0" * 32), usage=BOUND),
        lambda: broker.receipt("0" * 32),
    ):
        with pytest.raises(LocalProtocolError):
            call()
    assert broker.job("0" * 32) is None


# Refusals


def test_a_refusal_is_logged_once_with_its_reasons(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    verified = world.verified(broker, grant, purpose="marketing", rows=2000)
    for _ in range(2):
        with pytest.raises(Refused) as caught:
            broker.reserve(verified, world.operation)
        assert (caught.value.rule, caught.value.field) == ("purpose", "purpose")
        assert caught.value.owner == world.bureau.thumbprint and "credit" in caught.value.fix
        assert "also refused by: quota" in str(caught.value)
    assert types(broker)[-2:] == ["grant.issued", "job.denied"]
    entry = broker.entries()[-1]
    assert [reason["rule"] for reason in entry.fields["reasons"]] == ["purpose", "quota"]
    assert entry.fields["versions"] == {
        "policy": "tc-policy/2",
        "operation": "psi.test.v1",
        "asset": "2025-06",
    }
    assert b"marketing" not in entry.body  # the peer's own words enter as a commitment
    assert broker.receipt(verified.job).verify(broker.log_key).type == "job.denied"
    assert all(posted == pending == 0 for posted, pending in world.balances(broker).values())
    assert broker.job(verified.job).state is JobState.DENIED


def test_explaining_spends_and_records_nothing(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    before = (types(broker), world.balances(broker))
    decision = world.explain(broker, grant, purpose="marketing", rows=6000)
    assert not decision.allowed
    assert [reason.rule for reason in decision.reasons] == ["purpose", "quota", "quota"]
    assert world.explain(broker, grant).allowed
    assert (types(broker), world.balances(broker)) == before


def test_what_fails_before_the_key_is_proved_is_only_counted(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    stranger = SigningKey.generate()
    before = types(broker)
    token = world.request(grant, key=stranger).sign(stranger)
    for _ in range(3):
        with pytest.raises(GrantError) as caught:
            broker.verify_request(token, peer="bank.example", grant=grant)
        assert caught.value.field == "key"
    world.clock.time += 3600
    with pytest.raises(GrantError):
        broker.verify_request(token, peer="bank.example", grant="nonsense")
    hour = world.clock.time // 3600
    assert broker.failures() == {("bank.example", hour - 1): 3, ("bank.example", hour): 1}
    assert types(broker) == before


def test_parameters_the_operation_does_not_take_leave_no_trace(world: Any) -> None:
    broker = world.broker()
    verified = world.verified(broker, broker.issue(world.claims()), params={"colour": "red"})
    before = types(broker)
    with pytest.raises(ParameterError, match="colour"):
        broker.reserve(verified, world.operation)
    with pytest.raises(ParameterError, match="colour"):
        world.explained(broker, verified)
    assert types(broker) == before and broker.job(verified.job) is None


# Quota


def test_limits_per_call_per_day_and_in_total(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())  # calls: 10, 5 a day; rows: 5000, 1000 a call
    with pytest.raises(Refused, match=r"needs 1001 rows, 1000 are left"):
        broker.reserve(world.verified(broker, grant, rows=1001), world.operation)
    for _ in range(5):
        world.posted(broker, grant)
    with pytest.raises(Refused, match="wait until tomorrow") as caught:
        world.posted(broker, grant)
    assert (caught.value.rule, caught.value.field) == ("quota", "limits.calls.per_day")
    world.clock.time += 86400
    for _ in range(5):
        world.posted(broker, grant)
    world.clock.time += 86400
    with pytest.raises(Refused) as caught:
        world.posted(broker, grant)
    assert caught.value.field == "limits.calls.total"
    assert world.balances(broker)["grant", "calls"] == (10, 0)
    broker.audit()


def test_a_job_is_charged_to_the_day_it_was_reserved_on(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = broker.reserve(world.verified(broker, grant), world.operation)
    broker.arm(job.id)
    world.clock.time += 43200 + 60
    broker.post(job.id, release=world.release(job.id), usage=BOUND)
    for _ in range(5):  # the new day's limit is whole
        world.posted(broker, grant)
    with pytest.raises(Refused):
        world.posted(broker, grant)
    broker.audit()


def test_a_dataset_has_a_budget_across_grantees_whose_figures_are_not_told(world: Any) -> None:
    broker = world.broker(limits={"calls": Limit(total=3)})
    one, two = broker.issue(world.claims()), broker.issue(world.claims())
    world.posted(broker, one)
    world.posted(broker, one)
    world.posted(broker, two)
    with pytest.raises(Refused) as caught:
        world.posted(broker, two)
    assert (caught.value.rule, caught.value.owner) == ("quota", "bureau.example")
    assert not any(character.isdigit() for character in caught.value.fix)
    broker.register(world.asset(limits={"calls": Limit(total=4)}, version="2025-07"))
    world.posted(broker, two)
    broker.register(world.asset(limits={"calls": Limit(total=2)}))  # lower than what was used
    with pytest.raises(Refused):
        world.posted(broker, one)
    broker.audit()


def test_pending_reservations_count_against_a_limit(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"rows": Limit(total=250)}))
    first = broker.reserve(world.verified(broker, grant), world.operation)
    broker.reserve(world.verified(broker, grant), world.operation)
    with pytest.raises(Refused, match="50 are left"):
        broker.reserve(world.verified(broker, grant), world.operation)
    broker.abandon(first.id, "cancelled", Fault.PEER)
    broker.reserve(world.verified(broker, grant), world.operation)


def test_amounts_beyond_int64_are_refused_not_wrapped(world: Any) -> None:
    huge = 2**62
    wide = replace(world.operation, bound=lambda params, sizes: Usage(calls=1, delta=huge))
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    broker.reserve(world.verified(broker, grant), wide)
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant), wide)
    assert caught.value.field == "limits.delta.per_day"
    assert world.balances(broker)["grant", "delta"] == (0, huge)


@pytest.mark.parametrize("threads", [8])
def test_threads_racing_for_a_limit_post_exactly_that_many(world: Any, threads: int) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"calls": Limit(total=20)}))
    requests = [world.verified(broker, grant) for _ in range(64)]
    outcomes: Counter[str] = Counter()

    def run(mine: list[Any]) -> None:
        for verified in mine:
            try:
                job = broker.reserve(verified, world.operation)
                broker.arm(job.id)
                broker.post(job.id, release=world.release(job.id), usage=job.reserved)
                outcomes["posted"] += 1
            except Refused:
                outcomes["refused"] += 1

    workers = [threading.Thread(target=run, args=(requests[i::threads],)) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert outcomes == {"posted": 20, "refused": 44}
    assert world.balances(broker)["grant", "calls"] == (20, 0)
    assert broker.audit().jobs == {"posted": 20, "denied": 44}


def test_threads_with_the_same_request_charge_once(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    verified = world.verified(broker, grant)
    records: list[Any] = []

    def run() -> None:
        job = broker.reserve(verified, world.operation)
        records.append(broker.post(job.id, release=world.release(job.id), usage=job.reserved))

    workers = [threading.Thread(target=run) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(records) == 8 and len(set(records)) == 1
    assert world.balances(broker)["grant", "calls"] == (1, 0)


# Revocation


def test_revocation_is_seen_by_the_next_transaction_at_every_step(world: Any) -> None:
    broker = world.broker()
    grants = [broker.issue(world.claims()) for _ in range(3)]
    reserved = broker.reserve(world.verified(broker, grants[0]), world.operation)
    armed = broker.reserve(world.verified(broker, grants[1]), world.operation)
    broker.arm(armed.id)
    direct = broker.reserve(world.verified(broker, grants[2]), world.operation)
    for grant in grants:
        broker.revoke(token_hash(grant), "the contract ended")
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grants[0]), world.operation)
    assert caught.value.rule == "revoked"
    with pytest.raises(Refused) as caught:
        broker.arm(reserved.id)
    assert (caught.value.rule, caught.value.owner) == ("revoked", world.bureau.thumbprint)
    for job in (armed, direct):
        with pytest.raises(Refused, match="nothing is released"):
            broker.post(job.id, release=world.release(job.id), usage=BOUND)
    states = [broker.job(job.id).state for job in (reserved, armed, direct)]
    assert states == [JobState.VOIDED, JobState.FORFEITED, JobState.VOIDED]
    assert broker.job(armed.id).fault is Fault.UNCLEAR  # burnt, but nobody pays
    assert "job.posted" not in types(broker)
    broker.audit()


def test_revocation_is_for_good_and_its_reason_is_not_in_the_log(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    broker.revoke(token_hash(grant), "Mr Smith has left")
    broker.revoke(token_hash(grant), "once more")
    assert types(broker).count("grant.revoked") == 1
    assert not any(b"Smith" in entry.body for entry in broker.entries())
    with pytest.raises(ParameterError, match="by its hash"):
        broker.revoke(grant, "the token is not the hash")
    broker.close()
    with pytest.raises(Refused):
        again = world.open()
        again.reserve(world.verified(again, grant), world.operation)


def test_a_grant_can_be_revoked_before_it_was_ever_seen(world: Any) -> None:
    ally = SigningKey.generate()
    broker = world.open(trusted=[ally.public])
    broker.register(world.asset())
    from trustcompute.broker import grant as grants

    token = grants.sign(world.claims(issuer=ally.thumbprint), ally)
    broker.revoke(token_hash(token), "by agreement")
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, token), world.operation)
    assert (caught.value.rule, caught.value.owner) == ("revoked", ally.thumbprint)
    assert types(broker)[-3:] == ["grant.revoked", "grant.accepted", "job.denied"]
    broker.audit()


def test_a_trusted_issuers_grant_is_entered_at_its_first_use(world: Any) -> None:
    ally = SigningKey.generate()
    broker = world.open(trusted=[ally.public])
    broker.register(world.asset())
    from trustcompute.broker import grant as grants

    token = grants.sign(world.claims(issuer=ally.thumbprint), ally)
    world.posted(broker, token)
    world.posted(broker, token)
    assert types(broker)[2:] == ["grant.accepted", "job.posted", "job.posted"]
    fields = broker.entries()[2].fields
    assert fields["issuer"] == ally.thumbprint and fields["limits"]["calls"] == {"total": 10, "per_day": 5}
    broker.audit()


# Leases and restarts


def test_leases_that_run_out(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(days=30))
    reserved, late = (broker.reserve(world.verified(broker, grant), world.operation) for _ in range(2))
    armed = broker.reserve(world.verified(broker, grant), world.operation)
    broker.arm(armed.id)
    assert broker.sweep() == []
    world.clock.time += 3601
    with pytest.raises(Refused) as caught:
        broker.arm(late.id)
    assert (caught.value.rule, caught.value.field) == ("lease", "job")
    assert [job.id for job in broker.sweep()] == [reserved.id]
    world.clock.time += 86400
    assert [job.id for job in broker.sweep()] == [armed.id]
    states = [broker.job(job.id).state for job in (reserved, late, armed)]
    assert states == [JobState.EXPIRED, JobState.EXPIRED, JobState.FORFEITED]
    assert world.balances(broker)["grant", "rows"] == (100, 0)
    broker.audit()


def test_a_restart_voids_forfeits_and_serves_again(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    reserved = broker.reserve(world.verified(broker, grant), world.operation)
    armed, posted = (broker.reserve(world.verified(broker, grant), world.operation) for _ in range(2))
    for job in (armed, posted):
        broker.arm(job.id)
        broker.outbox.write(job.id, 0, 1, [[b"header", b"body of " + job.id.encode()]])
    broker.post(posted.id, release=world.release(posted.id), usage=BOUND)
    broker.close()

    broker = world.open()
    states = [broker.job(job.id).state for job in (reserved, armed, posted)]
    assert states == [JobState.VOIDED, JobState.FORFEITED, JobState.POSTED]
    assert broker.job(armed.id).fault is Fault.PROVIDER
    assert broker.outbox.read(posted.id, 0, 1) == [[b"header", b"body of " + posted.id.encode()]]
    with pytest.raises(StoreError, match="no longer kept"):
        broker.outbox.read(armed.id, 0, 1)
    assert broker.recover() == []
    broker.audit()


def test_answers_are_kept_until_countersigned_or_seven_days(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    tokens = [world.request(grant).sign(world.bank.key) for _ in range(2)]
    jobs = []
    for token in tokens:
        verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
        job = broker.reserve(verified, world.operation)
        broker.outbox.write(job.id, 0, 1, [[b"frame"]])
        jobs.append(broker.post(job.id, release=world.release(job.id), usage=BOUND))
    broker.countersign(world.countersigned(tokens[0], jobs[0]))
    assert {name[:32] for name in broker.outbox.names()} == {jobs[1].id}
    world.clock.time += 7 * 86400
    broker.sweep()
    assert broker.outbox.read(jobs[1].id, 0, 1) == [[b"frame"]]
    world.clock.time += 1
    broker.sweep()
    assert broker.outbox.names() == set()


def test_a_small_answer_is_kept_with_its_charge_and_a_large_one_in_a_file(world: Any) -> None:
    small, large = [[b"header", b"body"]], [[b"header", memoryview(bytes(SMALL))]]
    broker = world.broker()
    grant = broker.issue(world.claims())
    tokens = [world.request(grant).sign(world.bank.key) for _ in range(3)]
    jobs = []
    for token, answer in zip(tokens, (small, large, small), strict=True):
        verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
        job = broker.reserve(verified, world.operation)
        for _ in range(2):  # again changes nothing
            job = broker.post(job.id, release=world.release(job.id), usage=BOUND, answer=answer)
        jobs.append(job)
    assert broker.outbox.names() == {f"{jobs[1].id}-0-1"}
    broker.close()
    broker = world.open()
    assert broker.answer(jobs[0].id, 0, 1) == small
    assert broker.answer(jobs[1].id, 0, 1) == [[b"header", bytes(SMALL)]]
    for token, job in zip(tokens[:2], jobs, strict=False):
        broker.countersign(world.countersigned(token, job))
        with pytest.raises(StoreError, match="no longer kept"):
            broker.answer(job.id, 0, 1)
    assert broker.outbox.names() == set()
    world.clock.time += 7 * 86400
    broker.sweep()
    assert broker.answer(jobs[2].id, 0, 1) == small
    world.clock.time += 1
    broker.sweep()
    with pytest.raises(StoreError, match="no longer kept"):
        broker.answer(jobs[2].id, 0, 1)
    broker.audit()


def test_sweeping_leaves_answers_of_running_jobs_alone(world: Any) -> None:
    broker = world.broker()
    job = broker.reserve(world.verified(broker, broker.issue(world.claims())), world.operation)
    broker.outbox.write(job.id, 0, 1, [[b"written, not yet charged"]])
    broker.sweep()
    assert broker.outbox.names() == {f"{job.id}-0-1"}


def test_time_in_the_log_never_runs_backwards(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    world.clock.time -= 5000
    world.posted(broker, grant, now=world.clock.time)
    times = [entry.time for entry in broker.entries()]
    assert times == sorted(times) and times[-1] == world.clock.time + 5000


# Countersignatures


def test_countersigning_is_idempotent_and_only_the_requests_key_can(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    token = world.request(grant).sign(world.bank.key)
    verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
    job = broker.reserve(verified, world.operation)
    with pytest.raises(Conflict, match="no answer"):
        broker.countersign(world.countersigned(token, job.but(releases=(world.release(job.id),))))
    posted = broker.post(job.id, release=world.release(job.id), usage=BOUND)
    good = world.countersigned(token, posted)
    cases = {
        "signature": lambda: _signed_by(SigningKey.generate(), world, token, posted),
        "request": lambda: world.countersigned(token + "x", posted),
        "answers": lambda: world.countersigned(
            token, posted.but(releases=(world.release(job.id, content="cc"),))
        ),
        "job": lambda: world.countersigned(token, posted.but(id="0" * 32)),
        "header": lambda: token,
    }
    for field, make in cases.items():
        with pytest.raises(GrantError) as caught:
            broker.countersign(make())
        assert caught.value.field == field
    first = broker.countersign(good)
    assert broker.countersign(good).entry == first.entry
    assert types(broker).count("job.countersigned") == 1


def _signed_by(key: SigningKey, world: Any, token: str, record: Any) -> str:
    from trustcompute.broker.request import countersign

    return countersign(
        job=record.id, request=token, answers=[each.frames_hash for each in record.releases], key=key
    )


# The rest


def test_a_quote_says_what_a_job_may_cost_and_what_is_left(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    world.posted(broker, grant)
    quote = broker.quote(broker.verify(grant), world.operation, {}, Sizes(consumer=100, provider=5000))
    assert (quote.usage, quote.price, quote.currency) == (BOUND, Fraction(400, 3), "CNY")
    assert quote.to_document() == {
        "usage": {"calls": 1, "rows": 100, "bytes": 163200},
        "price": "400/3",
        "currency": "CNY",
        "left": {"calls": {"per_day": "4", "total": "9"}, "rows": {"per_call": "1000", "total": "4900"}},
    }
    with pytest.raises(ParameterError):
        broker.quote(broker.verify(grant), world.operation, {"colour": 1}, Sizes(consumer=1, provider=1))


def test_incidents_are_logged_without_naming_the_peer(world: Any) -> None:
    broker = world.broker()
    index = broker.incident("turn.altered", "bank.example", job="0" * 32, detail="run 0 turn 2")
    entry = broker.entries()[index]
    assert entry.fields["kind"] == "turn.altered" and entry.fields["job"] == "0" * 32
    assert b"bank" not in entry.body
    from trustcompute.primitives import commitment

    with broker._writer.view() as (reader, _):
        (opening,) = reader.openings(index)
    commitment.verify(bytes.fromhex(entry.fields["peer"]), "peer", opening.value, opening.salt)
    assert opening.value == b"bank.example" and "bank" not in repr(opening)


def test_describing_a_dataset_again_without_a_change_is_not_logged(world: Any) -> None:
    broker = world.broker()
    broker.register(world.asset())
    assert types(broker).count("asset.registered") == 1
    broker.register(world.asset(version="2025-07"))
    assert types(broker).count("asset.registered") == 2


def test_the_signed_tokens_behind_a_job_are_kept_as_evidence(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    token = world.request(grant).sign(world.bank.key)
    job = broker.reserve(broker.verify_request(token, peer="bank.example", grant=grant), world.operation)
    posted = broker.post(job.id, release=world.release(job.id), usage=BOUND)
    acknowledgement = world.countersigned(token, posted)
    broker.countersign(acknowledgement)
    kept = {each.kind: each.token for each in broker.evidence(job.id)}
    assert kept == {"request": token, "countersignature": acknowledgement}


def test_grants_are_issued_in_the_nodes_own_name_only(world: Any) -> None:
    broker = world.broker()
    with pytest.raises(ParameterError, match="names issuer"):
        broker.issue(world.claims(issuer=world.bank.thumbprint))
    assert "grant.issued" not in types(broker)


def test_nothing_that_identifies_or_repeats_a_value_is_in_the_log(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    token = world.request(grant, params={"on": ["credit_code_of_smith"]}).sign(world.bank.key)
    verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
    job = broker.reserve(verified, world.operation)
    posted = broker.post(job.id, release=world.release(job.id), usage=BOUND)
    broker.countersign(world.countersigned(token, posted))
    broker.incident("x", world.bank.name)
    for entry in broker.entries():
        for secret in (b"smith", b"bank.example", token.encode(), grant.encode()):
            assert secret not in entry.body
