"""Certificates: their life in the log, verified offline, recognised elsewhere, filed from the log alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.clearing.conftest import Ledger
from trustcompute.broker import register
from trustcompute.broker.broker import Broker
from trustcompute.broker.certificate import Dossier, State
from trustcompute.broker.clearing import Period
from trustcompute.broker.grant import AssetClaim
from trustcompute.errors import AuditError, GrantError, ParameterError, VerificationError
from trustcompute.primitives.identity import CertificateAuthority
from trustcompute.primitives.signing import SigningKey, token_hash

ASSET = AssetClaim(id="companies", classification="enterprise", grade="important", personal=False)


@pytest.fixture
def issued(world: Any) -> tuple[Any, Any, str]:
    """A register in which the bank holds a certificate."""
    broker = world.broker()
    token = broker.certificates.issue(
        holder=world.bank.thumbprint, asset=ASSET, right="hold", source="registry", days=30
    )
    return world, broker, token_hash(token)


def ordered(world: Any, broker: Any, name: str, key: SigningKey | None = None, **what: str) -> str:
    terms = {"node": "bureau.example", "key": key or world.bank.key, "now": world.clock.time}
    return register.order(broker.certificates.standing(name), **terms, **what)


def test_a_life_from_issue_to_cancellation(issued: Any) -> None:
    world, broker, name = issued
    other = SigningKey.generate()
    house = broker.certificates
    token = ordered(world, broker, name, use="loan 17")
    assert house.carry_out(token).uses == ("loan 17",)
    with pytest.raises(GrantError, match="earlier state"):
        house.carry_out(token)  # not a second time
    assert house.carry_out(ordered(world, broker, name, to=other.thumbprint)).holder == other.thumbprint
    with pytest.raises(GrantError, match="only its holder"):
        house.carry_out(ordered(world, broker, name, use="loan 18"))
    changed = token_hash(house.change(name, source="registry, corrected"))
    old, new = house.standing(name), house.standing(changed)
    assert (old.state, old.replaced_by, new.holder) == (State.CHANGED, changed, other.thumbprint)
    assert house.cancel(changed).state is State.CANCELLED
    for ended in (name, changed):
        with pytest.raises(ParameterError, match="nothing more"):
            house.cancel(ended)
    assert [each.certificate for each in house.standings()] == [name, changed]
    assert broker.audit().entries["certificate.circulated"] == 1
    world.opened.pop().close()
    assert world.open().certificates.standing(changed).state is State.CANCELLED  # from the log alone
    filed = register.filings(world.opened[-1].entries(), Period(0, 2**40)).to_pylist()
    assert [row["event"] for row in filed] == [
        "issued",
        "applied",
        "circulated",
        "changed",
        "issued",
        "cancelled",
    ]
    assert filed[1]["detail"] == "loan 17" and filed[3]["detail"] == changed


def test_a_dossier_verifies_offline_and_nothing_in_it_can_be_left_out_or_altered(issued: Any) -> None:
    world, broker, name = issued
    broker.certificates.carry_out(ordered(world, broker, name, use="a"))
    broker.certificates.carry_out(ordered(world, broker, name, use="b"))
    dossier = Dossier.from_json(broker.certificates.dossier(name).to_json())
    found = dossier.verify(broker.log_key)
    assert found.standing.uses == ("a", "b") and found.as_of == len(broker.entries())
    first, second, third = dossier.receipts
    for receipts in [(first, third), (second, third), (first, third, second), (), (first, second, second)]:
        with pytest.raises(VerificationError):
            replace(dossier, receipts=receipts).verify(broker.log_key)
    assert replace(dossier, receipts=(first, second)).verify(broker.log_key).standing.uses == ("a",)
    body = dossier.token
    altered = body[:60] + ("A" if body[60] != "A" else "B") + body[61:]
    with pytest.raises(VerificationError):
        replace(dossier, token=altered).verify(broker.log_key)
    document = json.loads(dossier.to_json())
    for wrong in ({}, document | {"v": 2}, document | {"more": 1}, document | {"receipts": [1]}, []):
        with pytest.raises(VerificationError):
            Dossier.from_json(json.dumps(wrong).encode()).verify(broker.log_key)


def test_another_broker_recognises_it_and_learns_of_its_end(issued: Any, tmp_path: Any) -> None:
    world, broker, name = issued
    early = broker.certificates.dossier(name)
    node = CertificateAuthority.create("elsewhere").issue("exchange.example")
    with Broker.open(tmp_path / "other", node, clock=world.clock) as other:
        other.certificates.recognise(early, broker.log_key)
        other.certificates.recognise(early, broker.log_key)
        broker.certificates.cancel(name)
        late = broker.certificates.dossier(name)
        other.certificates.recognise(late, broker.log_key)
        (known,) = other.certificates.recognised()
        assert (known["state"], known["origin"]) == ("cancelled", "bureau.example/trustcompute")
        with pytest.raises(ParameterError, match="later state"):
            other.certificates.recognise(early, broker.log_key)
        with pytest.raises(VerificationError):
            other.certificates.recognise(early, other.log_key)
        assert other.audit().entries["certificate.recognised"] == 2
    with pytest.raises(ParameterError, match="own"):
        broker.certificates.recognise(late, broker.log_key)


def test_what_the_rules_do_not_allow_is_refused(issued: Any) -> None:
    world, broker, name = issued
    house = broker.certificates
    with pytest.raises(ParameterError, match="with this holder already"):
        house.carry_out(ordered(world, broker, name, to=world.bank.thumbprint))
    with pytest.raises(ParameterError, match="or applies it"):
        ordered(world, broker, name)
    with pytest.raises(GrantError, match="only its holder"):
        house.carry_out(ordered(world, broker, name, SigningKey.generate(), use="x"))
    for action in (house.cancel, house.dossier, house.token):
        with pytest.raises(ParameterError, match="no such certificate"):
            action("ab" * 32)
    with pytest.raises(ParameterError, match="right"):
        house.issue(holder=world.bank.thumbprint, asset=ASSET, right="own", source="x")
    world.clock.time += 31 * 86_400
    with pytest.raises(ParameterError, match="has expired"):
        house.carry_out(ordered(world, broker, name, use="late"))
    assert house.cancel(name).state is State.CANCELLED


def test_a_log_whose_certificates_do_not_follow_is_refused() -> None:
    terms = {"certificate": "aa" * 32, "asset": "d", "right": "hold", "holder": "h", "end": None}
    for kind, fields in [
        ("issued", terms),
        ("issued", terms | {"certificate": "bb" * 32, "replaces": "aa" * 32}),
        ("applied", {"certificate": "aa" * 32, "previous": 7, "use": "x"}),
        ("cancelled", {"certificate": "cc" * 32, "previous": 0}),
    ]:
        book = Ledger()
        book.record("certificate.issued", terms)
        book.record(f"certificate.{kind}", fields)
        with pytest.raises(AuditError, match="entry 1"):
            book.clearing()
