"""Orders about grants: who may give them, what they do to open jobs, and what the log says of them."""

from __future__ import annotations

from typing import Any

import pytest

from trustcompute.broker import delegation
from trustcompute.broker.grant import hash_of
from trustcompute.broker.job import Fault, JobState
from trustcompute.broker.order import new_order
from trustcompute.errors import Conflict, GrantError, ParameterError, Refused
from trustcompute.primitives.signing import SigningKey

BOTH_STORES = True
HQ = SigningKey.generate()


def chain_of(world: Any, broker: Any) -> tuple[str, str]:
    """A root for a headquarters, and what it delegated to the bank."""
    root = broker.issue(world.claims(subject="hq.example", subject_key=HQ.thumbprint, depth=1))
    child = delegation.delegate(
        root,
        issuer=HQ.public,
        subject="bank.example",
        subject_key=world.bank.thumbprint,
        now=world.clock.time,
    )
    return root, delegation.extend(root, child, HQ)


def types(broker: Any) -> list[str]:
    return [entry.type for entry in broker.entries()]


def reserve(world: Any, broker: Any, grant: str) -> Any:
    return broker.reserve(world.verified(broker, grant), world.operation)


def test_suspension_lets_open_jobs_end_and_new_ones_wait(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = reserve(world, broker, grant)
    broker.order(world.order("suspend", grant, reason="strange questions"), grant)
    with pytest.raises(Refused) as caught:
        reserve(world, broker, grant)
    assert caught.value.rule == "suspended"
    broker.arm(job.id)
    assert broker.post(job.id, release=world.release(job.id), usage=job.reserved).state is JobState.POSTED
    with pytest.raises(Refused, match="suspended"):
        broker.admit(broker.verify(grant))
    with pytest.raises(Conflict, match="suspended already"):
        broker.order(world.order("suspend", grant), grant)
    broker.order(world.order("resume", grant), grant)
    world.posted(broker, grant)
    with pytest.raises(Conflict, match="not suspended"):
        broker.order(world.order("resume", grant), grant)
    assert [name for name in types(broker) if name.startswith("grant.")][1:] == [
        "grant.suspended",
        "grant.resumed",
    ]
    entry = next(entry for entry in broker.entries() if entry.type == "grant.suspended")
    assert "strange" not in str(entry.body) and broker.openings(entry.index)[0].value == b"strange questions"
    broker.audit()


def test_exit_drains_open_jobs_and_then_ends(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    kept, given_up = reserve(world, broker, grant), reserve(world, broker, grant)
    broker.order(world.order("exit", grant, key=world.bank.key), grant)  # by the grantee
    with pytest.raises(Refused) as caught:
        reserve(world, broker, grant)
    assert caught.value.rule == "exited"
    broker.sweep()
    assert "grant.ended" not in types(broker)
    broker.arm(kept.id)
    broker.post(kept.id, release=world.release(kept.id), usage=kept.reserved)
    broker.sweep()
    assert "grant.ended" not in types(broker)
    broker.abandon(given_up.id, "cancelled", Fault.PEER)
    broker.sweep()
    broker.sweep()
    assert types(broker)[-1] == "grant.ended"
    for do in ("suspend", "resume", "exit"):
        with pytest.raises(Conflict, match="given up for good"):
            broker.order(world.order(do, grant), grant)
    assert broker.standing(broker.verify(grant)).exited
    broker.audit()
    broker.close()
    with pytest.raises(Refused, match="given up"):
        reserve(world, world.open(), grant)


def test_exit_without_open_jobs_ends_at_once(world: Any) -> None:
    broker = world.broker()
    root, chain = chain_of(world, broker)
    broker.order(world.order("exit", root, key=HQ), root)
    assert types(broker)[-2:] == ["grant.ending", "grant.ended"]
    with pytest.raises(Refused, match="given up"):
        reserve(world, broker, chain)


def test_an_order_reaches_what_is_below_the_link_and_nothing_above(world: Any) -> None:
    broker = world.broker()
    root, chain = chain_of(world, broker)
    broker.order(world.order("suspend", root), chain)
    with pytest.raises(Refused, match="suspended"):
        reserve(world, broker, chain)
    broker.order(world.order("resume", root), root)
    broker.order(world.order("revoke", chain, key=HQ, reason="left"), chain)  # by the link's own issuer
    with pytest.raises(Refused, match="revoked"):
        reserve(world, broker, chain)
    broker.admit(broker.verify(root))
    broker.order(world.order("revoke", chain, key=HQ), chain)
    assert types(broker).count("grant.revoked") == 1


def test_revocation_stops_an_armed_job(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = reserve(world, broker, grant)
    broker.arm(job.id)
    broker.order(world.order("revoke", grant), grant)
    with pytest.raises(Refused, match="revoked"):
        broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    assert broker.job(job.id).state is JobState.FORFEITED
    for do in ("suspend", "exit"):
        with pytest.raises(Conflict, match="revoked"):
            broker.order(world.order(do, grant), grant)
    broker.audit()


def test_only_those_above_may_order(world: Any) -> None:
    broker = world.broker()
    root, chain = chain_of(world, broker)
    size = len(broker.entries())
    for do, grant, key in (
        ("suspend", chain, world.bank.key),  # a grantee gives up, and nothing else
        ("revoke", chain, world.bank.key),
        ("suspend", root, HQ),  # a delegator rules what it delegated, not what it was granted
        ("exit", root, world.bank.key),
        ("revoke", chain, SigningKey.generate()),
    ):
        with pytest.raises(GrantError) as caught:
            broker.order(world.order(do, grant, key=key), chain)
        assert caught.value.field == "iss"
    assert len(broker.entries()) == size


def test_who_was_suspended_from_above_is_resumed_from_above(world: Any) -> None:
    broker = world.broker()
    _, chain = chain_of(world, broker)
    broker.order(world.order("suspend", chain), chain)  # by the operator
    with pytest.raises(GrantError, match="somebody above"):
        broker.order(world.order("resume", chain, key=HQ), chain)
    broker.order(world.order("resume", chain), chain)
    broker.order(world.order("suspend", chain, key=HQ), chain)
    broker.order(world.order("resume", chain), chain)
    world.posted(broker, chain)


def test_an_order_cannot_be_repeated_later(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    resume_later = world.order("suspend", grant)
    broker.order(resume_later, grant)
    broker.order(resume_later, grant)  # the same again does nothing
    resumed = world.order("resume", grant)
    broker.order(resumed, grant)
    broker.order(world.order("suspend", grant), grant)
    for old in (resume_later, resumed):
        with pytest.raises(GrantError, match="newer order") as caught:
            broker.order(old, grant)
        assert caught.value.field == "number"
    assert broker.standing(broker.verify(grant)).suspended


def test_an_order_is_for_this_node_this_grant_and_this_week(world: Any) -> None:
    broker = world.broker()
    grant, other = broker.issue(world.claims()), broker.issue(world.claims())
    number = world.clock.time * 1000
    good = world.order("suspend", grant)
    for token, field in (
        (world.order("suspend", grant, audience="other.example"), "aud"),
        (world.order("suspend", other), "grant"),
        (world.order("suspend", grant, number=number - 8 * 86400 * 1000), "number"),
        (world.order("suspend", grant, number=number + 3600 * 1000), "number"),
        (world.order("suspend", grant, next_review=world.clock.time + 5), "next"),
        (world.order("review", grant), "next"),
        (good[:-4] + ("AAAA" if good[-4:] != "AAAA" else "BBBB"), "signature"),
        (grant, "header"),
    ):
        with pytest.raises(GrantError) as caught:
            broker.order(token, grant)
        assert caught.value.field == field, field
    with pytest.raises(ParameterError, match="grant"):
        new_order("suspend", "nonsense", audience="bureau.example", key=world.bureau.key)
    assert not broker.standing(broker.verify(grant)).suspended


def test_a_grant_whose_review_is_overdue_waits_for_it(world: Any) -> None:
    broker = world.broker()
    start = world.clock.time
    grant = broker.issue(world.claims(review=start + 100))
    world.posted(broker, grant)
    world.clock.time = start + 100
    with pytest.raises(Refused) as caught:
        reserve(world, broker, grant)
    assert caught.value.rule == "review"
    with pytest.raises(GrantError, match="due before the grant ends"):
        broker.order(world.order("review", grant, next_review=start + 99), grant)
    broker.order(world.order("review", grant, next_review=start + 500), grant)
    world.posted(broker, grant)
    with pytest.raises(GrantError, match="puts a date later"):
        broker.order(world.order("review", grant, next_review=start + 400), grant)
    world.clock.time = start + 500
    with pytest.raises(Refused, match="review"):
        reserve(world, broker, grant)
    broker.audit()


def test_a_review_of_the_parent_is_a_review_of_what_inherits_its_date(world: Any) -> None:
    broker = world.broker()
    start = world.clock.time
    root = broker.issue(
        world.claims(subject="hq.example", subject_key=HQ.thumbprint, depth=1, review=start + 100)
    )
    child = delegation.delegate(
        root, issuer=HQ.public, subject="bank.example", subject_key=world.bank.thumbprint, now=start
    )
    chain = delegation.extend(root, child, HQ)
    world.clock.time = start + 100
    broker.order(world.order("review", root, next_review=start + 500), root)
    world.posted(broker, chain)
    assert hash_of(chain)
