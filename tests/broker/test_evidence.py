"""The tokens of a book are verified, and what the log says of them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.broker.conftest import AUTHORITY
from trustcompute.broker import delegation
from trustcompute.broker.evidence import EvidenceReport, audit_evidence
from trustcompute.broker.store.sqlite import BOOK_FILE
from trustcompute.errors import AuditError, Refused
from trustcompute.primitives.checkpoint import NoteKey

AGENT = AUTHORITY.issue("agent.example")


@pytest.fixture
def busy(world: Any) -> tuple[Path, NoteKey]:
    """A posted and countersigned job, one under a delegated grant, one refused, one still reserved."""
    broker = world.broker()
    grant = broker.issue(world.claims(depth=1))
    token = world.request(grant).sign(world.bank.key)
    verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
    job = broker.reserve(verified, world.operation)
    broker.arm(job.id)
    job = broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    broker.countersign(world.countersigned(token, job))
    child = delegation.delegate(
        grant,
        issuer=world.bank.key.public,
        subject=AGENT.name,
        subject_key=AGENT.thumbprint,
        now=world.clock.time,
    )
    chain = delegation.extend(grant, child, world.bank.key)
    asked = world.request(chain, key=AGENT.key, san=AGENT.name).sign(AGENT.key)
    broker.reserve(broker.verify_request(asked, peer=AGENT.name, grant=chain), world.operation)
    with pytest.raises(Refused):
        broker.reserve(world.verified(broker, grant, purpose="marketing"), world.operation)
    key = broker.log_key
    broker.close()
    return world.directory, key


def test_all_tokens_are_verified(busy: tuple[Path, NoteKey]) -> None:
    assert audit_evidence(*busy) == EvidenceReport(grants=2, requests=3, countersignatures=1)


def test_an_open_broker_checks_itself(world: Any) -> None:
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims()))
    assert broker.audit_evidence() == EvidenceReport(1, 1, 0)


def test_an_issuer_whose_key_is_not_given_is_named(world: Any) -> None:
    from trustcompute.broker import grant as grants

    broker = world.open(trusted=[AGENT.key.public])
    broker.register(world.asset())
    token = grants.sign(world.claims(issuer=AGENT.thumbprint), AGENT.key)
    world.posted(broker, token)
    assert broker.audit_evidence() == EvidenceReport(1, 1, 0)
    key = broker.log_key
    broker.close()
    assert audit_evidence(world.directory, key) == EvidenceReport(1, 1, 0, (AGENT.thumbprint,))
    assert audit_evidence(world.directory, key, trusted=[AGENT.key.public]).unknown == ()


SWAPPED = "(SELECT e.token FROM evidence AS e WHERE e.kind = 'request' AND e.job <> evidence.job LIMIT 1)"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM evidence WHERE kind = 'request'", "lacks the request"),
        (f"UPDATE evidence SET token = {SWAPPED} WHERE kind = 'request'", "another in its place"),
        ("DELETE FROM evidence WHERE kind = 'countersignature'", "lacks the countersignature"),
        ("UPDATE evidence SET token = token || 'A' WHERE kind = 'countersignature'", "another in its place"),
        ("UPDATE grants SET token = token || 'A'", "another in its place"),
        ("UPDATE jobs SET request = 'x' || substr(request, 2)", "another in its place"),
        ("DELETE FROM grants", "lacks the token of grant"),
    ],
)
def test_a_missing_or_exchanged_token_is_named(
    busy: tuple[Path, NoteKey], statement: str, message: str
) -> None:
    with sqlite3.connect(busy[0] / BOOK_FILE) as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(AuditError, match=message):
        audit_evidence(*busy)


def test_a_log_that_says_otherwise_of_a_grant_is_caught(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that logs a higher limit than it granted: its log is sound in itself, the token tells."""
    from trustcompute.broker import granting

    honest = granting.grant_fields

    def lie(grant: Any) -> dict[str, Any]:
        return honest(grant) | {"limits": {"calls": {"total": 10**6}}}

    monkeypatch.setattr(granting, "grant_fields", lie)
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims()))
    monkeypatch.undo()
    broker.audit()
    with pytest.raises(AuditError, match=r"other terms of grant .* than its token: limits"):
        broker.audit_evidence()


def test_a_log_that_says_otherwise_of_a_request_is_caught(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trustcompute.broker import commands

    honest = commands._job_fields
    monkeypatch.setattr(commands, "_job_fields", lambda job: honest(job) | {"payer": "A" * 43})
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims()))
    monkeypatch.undo()
    with pytest.raises(AuditError, match=r"otherwise of job .* than its request: payer"):
        broker.audit_evidence()


def test_a_charge_beyond_its_limit_per_call_is_caught(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a node would log it that charges more a call than it granted."""
    from trustcompute.broker import deciding
    from trustcompute.broker.grant import Limit

    monkeypatch.setattr(deciding, "quota_reasons", lambda *_: [])
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims(limits={"rows": Limit(per_call=99)})))
    with pytest.raises(AuditError, match="beyond its limit of rows"):
        broker.audit()
