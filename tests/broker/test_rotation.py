"""A log gets a new key: what was signed before stays good, what a thief signs afterwards does not count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.broker.conftest import AUTHORITY
from trustcompute.broker import grant as grants
from trustcompute.broker.audit import audit
from trustcompute.broker.broker import Broker
from trustcompute.broker.log import log_key
from trustcompute.broker.order import new_order
from trustcompute.errors import (
    AuditError,
    Conflict,
    GrantError,
    ParameterError,
    Refused,
    StoreError,
    VerificationError,
)

BOTH_STORES = True


def rotate(world: Any, **options: Any) -> Any:
    """A world under a new key of the same name."""
    new = AUTHORITY.issue(world.bureau.name)
    Broker.rotate(world.directory, world.bureau, new, clock=world.clock, database=world.database, **options)
    return replace(world, bureau=new, opened=world.opened)


def test_old_receipts_verify_and_new_ones_under_the_new_key(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    first = world.posted(broker, grant)
    receipt, old = broker.receipt(first.id), broker.log_key
    broker.close()
    later = rotate(world)
    with pytest.raises(StoreError, match="belongs to the log"):
        world.open()
    broker = later.open()
    assert receipt.verify(old).fields["job"] == first.id
    again = broker.receipt(first.id)
    assert again.verify(broker.log_key).fields["job"] == first.id  # the same entry, under the new key
    with pytest.raises(VerificationError):
        again.verify(old)
    second = later.posted(broker, grant)  # what the retired key granted goes on
    assert broker.receipt(second.id).verify(broker.log_key)
    assert [entry.type for entry in broker.entries() if entry.type.startswith("key.")] == [
        "key.rotated",
        "key.confirmed",
    ]
    report = broker.audit()
    assert report.jobs == {"posted": 2}


def test_the_audit_follows_the_keys_forwards_and_backwards(world: Any) -> None:
    if world.database is not None:
        pytest.skip("a book in PostgreSQL is audited through its broker")
    broker = world.broker()
    grant = broker.issue(world.claims())
    world.posted(broker, grant)
    note, first = broker.checkpoint(), broker.log_key
    broker.close()
    middle = rotate(world)
    last = rotate(middle)
    broker = last.open()
    last.posted(broker, grant)
    newest = broker.log_key
    broker.export(world.directory.parent / "export")
    broker.close()
    for key in (first, log_key("bureau.example", middle.bureau.key.public), newest):
        assert audit(world.directory, key, known=[note]).jobs == {"posted": 2}
    assert audit(world.directory.parent / "export", newest, known=[note]).jobs == {"posted": 2}
    stranger = log_key("bureau.example", AUTHORITY.issue("bureau.example").key.public)
    with pytest.raises((AuditError, VerificationError)):
        audit(world.directory, stranger)
    with pytest.raises(VerificationError):
        audit(world.directory.parent / "export", first)


def test_of_a_compromised_key_only_what_the_log_knew_counts(world: Any) -> None:
    broker = world.broker()
    known = broker.issue(world.claims())
    unseen = grants.sign(world.claims(), world.bureau.key)
    world.posted(broker, known)
    broker.close()
    later = rotate(world, compromised=True)
    broker = later.open()
    later.posted(broker, known)
    with pytest.raises(GrantError, match="compromised") as caught:
        broker.verify(unseen)
    assert caught.value.field == "iss"
    order = new_order(
        "revoke",
        grants.hash_of(known),
        audience="bureau.example",
        key=world.bureau.key,
        number=world.clock.time * 1000,
    )
    with pytest.raises(GrantError, match="compromised"):
        broker.order(order, known)
    later.posted(broker, known)
    for token in (world.denylist(version=9, purposes=["credit"]), world.policy(version=9)):
        with pytest.raises(GrantError) as caught:
            broker.publish(token)
        assert caught.value.field == "iss"
    assert broker.audit().jobs == {"posted": 3}


def test_rules_of_the_old_key_hold_until_the_new_one_lays_down_others(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    broker.publish(world.denylist(version=7, purposes=["credit"]))
    broker.order(world.order("suspend", grant), grant)
    broker.close()
    later = rotate(world)
    broker = later.open()
    with pytest.raises(Refused, match="denylist"):
        broker.reserve(later.verified(broker, grant), later.operation)
    broker.publish(later.denylist(version=1))
    assert [reference.version for reference, _ in broker.rules()] == [1]
    with pytest.raises(Refused, match="suspended"):
        broker.reserve(later.verified(broker, grant), later.operation)
    later.orders = 50
    broker.order(later.order("resume", grant), grant)  # by the same operator, with its new key
    later.posted(broker, grant)
    broker.audit()
    broker.close()
    assert len(later.open().rules()) == 1


def test_a_key_comes_once_and_the_name_stays(world: Any) -> None:
    world.broker().close()
    with pytest.raises(ParameterError, match="keeps its name"):
        Broker.rotate(world.directory, world.bureau, world.bank, clock=world.clock, database=world.database)
    with pytest.raises(ParameterError, match="old one"):
        Broker.rotate(world.directory, world.bureau, world.bureau, clock=world.clock, database=world.database)
    later = rotate(world)
    with pytest.raises(Conflict, match="this log's before"):
        Broker.rotate(world.directory, later.bureau, world.bureau, clock=world.clock, database=world.database)
    later.open().audit()


def test_a_rotation_that_was_cut_short_is_confirmed_at_the_next_start(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trustcompute.broker import rotation

    world.broker().close()
    new = AUTHORITY.issue(world.bureau.name)

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rotation.Confirm, "apply", dies)
        with pytest.raises(KeyboardInterrupt):
            Broker.rotate(world.directory, world.bureau, new, clock=world.clock, database=world.database)
    broker = replace(world, bureau=new).open()
    assert broker.entries()[-1].type == "key.confirmed"
    broker.audit()


def test_nobody_hands_a_log_to_a_key_that_did_not_agree(world: Any) -> None:
    from trustcompute.broker import rotation
    from trustcompute.broker.log import Entry

    broker = world.broker()
    broker.close()
    later = rotate(world)
    broker = later.open()
    entry = next(entry for entry in broker.entries() if entry.type == "key.rotated")
    assert rotation.read(entry, "bureau.example/trustcompute").new == later.bureau.key.public
    for change in (
        {"new": AUTHORITY.issue("bureau.example").key.public.x},
        {"compromised": True},
        {"compromised": 0},
        {"agreed": "x"},
        {"old": later.bureau.key.public.x},
    ):
        with pytest.raises(AuditError, match="did not agree"):
            rotation.read(Entry(entry.index, b"", {**entry.fields, **change}), "bureau.example/trustcompute")
    with pytest.raises(AuditError):
        rotation.read(entry, "other.example/trustcompute")
