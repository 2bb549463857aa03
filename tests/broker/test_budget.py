"""Budgets of a dataset: by epoch of the data, by recipient over all its grants, and for all time."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from tests.broker.conftest import AUTHORITY
from trustcompute.broker.audit import audit
from trustcompute.broker.audit.accounts import LEASES
from trustcompute.broker.budget import Form, Line
from trustcompute.broker.grant import Limit
from trustcompute.broker.store.sqlite import BOOK_FILE
from trustcompute.errors import AuditError, ParameterError, Refused

OTHER = AUTHORITY.issue("other.example")
THREE = {"calls": Limit(total=3)}


def calls(broker: Any, account: str) -> tuple[int, int | None]:
    """(posted, limit) of the calls of an account."""
    (line,) = [each for each in broker.budget("companies") if (each.account, each.unit) == (account, "calls")]
    return line.posted, line.limit


def other(world: Any, broker: Any, grant: str) -> Any:
    token = world.request(grant, key=OTHER.key, san=OTHER.name).sign(OTHER.key)
    job = broker.reserve(broker.verify_request(token, peer=OTHER.name, grant=grant), world.operation)
    return broker.post(job.id, release=world.release(job.id), usage=job.reserved)


def test_only_a_new_epoch_of_the_data_refreshes_a_budget(world: Any) -> None:
    broker = world.broker(epoch="2025", limits=THREE)
    grant = broker.issue(world.claims(limits={}))
    for _ in range(3):
        world.posted(broker, grant)
    broker.register(world.asset(epoch="2025", limits=THREE, rows=6000, version="2025-07"))
    with pytest.raises(Refused, match="the dataset's own budget of calls"):
        world.posted(broker, grant)
    broker.register(world.asset(epoch="2026", limits=THREE))
    for _ in range(3):
        world.posted(broker, grant)
    with pytest.raises(Refused):
        world.posted(broker, grant)
    assert calls(broker, "dataset:companies#2025") == calls(broker, "dataset:companies#2026") == (3, 3)
    assert calls(broker, "dataset:companies") == (6, None), "the lifetime's total is shown, and not limited"
    broker.register(world.asset(epoch="2025", limits=THREE))
    with pytest.raises(Refused):
        world.posted(broker, grant)
    assert broker.audit().jobs == {"posted": 6, "denied": 3}


def test_a_recipient_has_one_budget_over_all_its_grants(world: Any) -> None:
    broker = world.broker(per_recipient=THREE)
    first, second = (broker.issue(world.claims(limits={})) for _ in range(2))
    theirs = broker.issue(world.claims(limits={}, subject=OTHER.name, subject_key=OTHER.thumbprint))
    for grant in (first, second, first):
        world.posted(broker, grant)
    for grant in (first, second):
        with pytest.raises(Refused, match="this recipient's budget of calls") as refused:
            world.posted(broker, grant)
        assert (refused.value.rule, refused.value.field) == ("quota", "limits.calls.total")
    other(world, broker, theirs)
    assert calls(broker, f"recipient:companies@{world.bank.thumbprint}") == (3, 3)
    assert calls(broker, f"recipient:companies@{OTHER.thumbprint}") == (1, 3)
    assert calls(broker, "dataset:companies") == (4, None)
    broker.audit()


def test_epochs_refresh_recipients_too(world: Any) -> None:
    broker = world.broker(epoch="1", per_recipient=THREE)
    grant = broker.issue(world.claims(limits={}))
    for _ in range(3):
        world.posted(broker, grant)
    broker.register(world.asset(epoch="2", per_recipient=THREE))
    world.posted(broker, grant)
    lines = {
        (each.account, each.posted, each.left) for each in broker.budget("companies") if each.unit == "calls"
    }
    who = world.bank.thumbprint
    assert lines == {
        ("dataset:companies", 4, None),
        ("dataset:companies#1", 3, None),
        ("dataset:companies#2", 1, None),
        (f"recipient:companies#1@{who}", 3, 0),
        (f"recipient:companies#2@{who}", 1, 2),
    }
    assert broker.budget("another") == []


def test_a_job_reserved_before_a_new_epoch_is_charged_to_the_old(world: Any) -> None:
    broker = world.broker(epoch="1", limits=THREE)
    grant = broker.issue(world.claims(limits={}))
    job = broker.reserve(world.verified(broker, grant), world.operation)
    broker.arm(job.id)
    broker.register(world.asset(epoch="2", limits=THREE))
    world.clock.time += 3600
    broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    world.posted(broker, grant)
    assert calls(broker, "dataset:companies#1")[0] == calls(broker, "dataset:companies#2")[0] == 1
    broker.audit()


def test_balances_survive_a_restart(world: Any) -> None:
    broker = world.broker(epoch="1", per_recipient=THREE, limits=THREE)
    grant = broker.issue(world.claims(limits={}))
    for _ in range(2):
        world.posted(broker, grant)
    before = broker.budget("companies")
    broker.close()
    again = world.open()
    assert again.budget("companies") == before
    world.posted(again, grant)
    with pytest.raises(Refused):
        world.posted(again, grant)


@pytest.mark.parametrize("shift", [0, LEASES + 1])
def test_an_audit_knows_until_when_an_old_epoch_may_be_debited(
    world: Any, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    """A node that goes on debiting the old epoch, whose budget others have used up, is caught."""
    from trustcompute.broker import budget

    broker = world.broker(epoch="1")
    grant = broker.issue(world.claims(limits={}))
    broker.register(world.asset(epoch="2"))
    world.clock.time += shift
    monkeypatch.setattr(budget.Form, "of", classmethod(lambda cls, asset: cls(asset.id, "1")))
    world.posted(broker, grant)
    monkeypatch.undo()
    if shift:
        with pytest.raises(AuditError, match="not debited to"):
            broker.audit()
    else:
        broker.audit()


def test_a_charge_beyond_a_recipients_budget_is_caught_from_the_tiles(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    from trustcompute.broker import deciding

    monkeypatch.setattr(deciding, "quota_reasons", lambda *_: [])
    broker = world.broker(epoch="1", per_recipient=THREE)
    grant = broker.issue(world.claims(limits={}))
    if world.database is None:  # the database itself refuses what the code would have let through
        broker._store._connection.execute("PRAGMA ignore_check_constraints = ON")
    for _ in range(4):
        world.posted(broker, grant)
    broker.export(tmp_path / "tiles")
    with pytest.raises(
        AuditError, match=r"entry 6: it takes recipient:companies#1@.* beyond its limit of calls"
    ):
        audit(tmp_path / "tiles", broker.log_key)


@pytest.mark.parametrize("epoch", ["a#b", "a@b", "é", " ", "x" * 65, "-a"])
def test_epochs_have_plain_names(world: Any, epoch: str) -> None:
    with pytest.raises(ParameterError, match="data epoch"):
        world.asset(epoch=epoch)


def test_units_of_recipients_are_known(world: Any) -> None:
    with pytest.raises(ParameterError, match="limits are of units"):
        world.asset(per_recipient={"joy": Limit(total=1)})


def test_accounts_of_different_datasets_never_meet() -> None:
    names = [
        name
        for dataset in ("a", "a:b", "a/b", "recipient:a")
        for epoch in ("", "a", "b")
        for recipient in ("A" * 43, "B" * 43)
        for name in Form(dataset, epoch, by_recipient=True).names(recipient)
    ]
    by_meaning = 4 * (1 + 2) + 4 * 3 * 2  # whole, two epochs; each recipient in each
    assert len(set(names)) == by_meaning


def test_what_is_left() -> None:
    assert Line("x", "rho", 5, 3, 10).left == 2 and Line("x", "rho", 5, 3, None).left is None


def test_a_dataset_of_an_older_book_has_neither(world: Any) -> None:
    broker = world.broker()
    broker.close()
    with sqlite3.connect(world.directory / BOOK_FILE) as connection:
        (document,) = connection.execute("SELECT document FROM assets").fetchone()
    connection.close()
    assert "epoch" not in document and "per_recipient" not in document
