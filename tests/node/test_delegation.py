"""A delegated grant end to end: the airline passes part of its grant on, its partner computes under it."""

from __future__ import annotations

import pytest
from world import AIRLINE, MATCHED, REGISTRY, RIVAL

from trustcompute.broker import delegation
from trustcompute.broker.clearing import Clearing, Period
from trustcompute.broker.grant import Limit, hash_of
from trustcompute.errors import GrantError, ParameterError, Refused

PARTNER = RIVAL  # another name in the same data space


def delegated(world, parent, *, by=AIRLINE, to=PARTNER, **narrower):
    claims = delegation.delegate(
        parent,
        issuer=by.key.public,
        subject=to.name,
        subject_key=to.thumbprint,
        now=world.clock.now(),
        **narrower,
    )
    return delegation.extend(parent, claims, by.key)


def test_a_delegated_grant_computes_and_log_meter_and_statement_agree(world):
    parent = world.issue(depth=1, scenarios=["night"], limits={"calls": Limit(total=3)})
    grant = delegated(world, parent, limits={"calls": Limit(total=2)})
    with world.session(identity=PARTNER, grant=grant) as session:
        assert session.grant.scenarios == ("night",)
        found = world.intersect(session)
        assert found.left_rows.tolist() == MATCHED
        entry = found.receipt.verify(world.broker.log_key)
        assert entry.fields["grant"] == hash_of(grant)
        assert entry.fields["accounts"] == [
            f"grant:{hash_of(grant)}",
            f"grant:{hash_of(parent)}",
            "dataset:planes",
        ]
        assert session.quote("psi.ecdh.v1", "planes", rows=1).left["calls"]["total"] == "1"
    with world.session(grant=parent) as session:  # the delegator's own calls come out of the same three
        world.intersect(session)
        assert session.quote("psi.ecdh.v1", "planes", rows=1).left["calls"]["total"] == "1"
        world.intersect(session)
        with pytest.raises(Refused) as caught:
            world.intersect(session)
        assert caught.value.rule == "quota"
    with world.session(identity=PARTNER, grant=grant) as session, pytest.raises(Refused):
        world.intersect(session)
    report = world.check()
    totals = {key.account: n for key, n in report.balances.items() if (key.window, key.unit) == (-1, "calls")}
    assert totals == {f"grant:{hash_of(parent)}": 3, f"grant:{hash_of(grant)}": 1, "dataset:planes": 3}
    entries = world.broker.entries()
    statement = Clearing.of(entries).statement(Period(0, world.clock.now() + 1))
    assert {row.payer: row.jobs for row in statement.rows} == {AIRLINE.thumbprint: 2, PARTNER.thumbprint: 1}


def test_the_book_knows_a_chain_again_after_a_restart(world):
    parent = world.issue(depth=1, limits={"calls": Limit(total=2)})
    grant = delegated(world, parent)
    with world.session(identity=PARTNER, grant=grant) as session:
        world.intersect(session)
    world.restart()
    with world.session(identity=PARTNER, grant=grant) as session:
        world.intersect(session)
        with pytest.raises(Refused):
            world.intersect(session)
    assert world.types().count("grant.accepted") == 2
    world.check()


def test_the_chain_stops_when_the_delegators_grant_is_revoked(world):
    parent = world.issue(depth=1)
    grant = delegated(world, parent)
    with world.session(identity=PARTNER, grant=grant) as session:
        world.intersect(session)
        world.broker.revoke(hash_of(parent), "over")
        with pytest.raises(Refused) as caught:
            world.intersect(session)
        assert caught.value.rule == "revoked"
        with pytest.raises(Refused):
            session.catalog()
    world.check()


def test_nobody_else_and_no_altered_chain_is_served(world):
    parent = world.issue(depth=1)
    grant = delegated(world, parent)
    with world.session(identity=AIRLINE, grant=grant) as session, pytest.raises(GrantError) as caught:
        session.catalog()
    assert caught.value.field == "sub"
    alone = grant.split("~")[1]
    with world.session(identity=PARTNER, grant=alone) as session, pytest.raises(GrantError) as caught:
        session.catalog()
    assert caught.value.field == "parent"


def test_the_largest_chain_fits_the_wire_and_a_longer_one_is_refused_before_it_is_sent(world):
    chain, holders = world.issue(depth=8), [AIRLINE, PARTNER]
    for number in range(8):
        chain = delegated(world, chain, by=holders[number % 2], to=holders[(number + 1) % 2])
    with world.session(identity=AIRLINE, grant=chain) as session:
        assert world.intersect(session).left_rows.tolist() == MATCHED
    with pytest.raises(GrantError) as caught:
        world.session(identity=AIRLINE, grant=chain + "~" + chain.split("~")[-1])
    assert caught.value.field == "token"
    with pytest.raises(ParameterError):
        delegation.extend(chain, delegation.read(chain), PARTNER.key)
    assert REGISTRY.name == delegation.read(chain).aud
