"""Authority over a node: what it explains, orders and rules that reach it while it runs, and what its hooks do."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import world as worlds
from world import AIRLINE, MATCHED, REGISTRY, RIVAL, THREE_TURNS

from trustcompute.broker import delegation
from trustcompute.broker.grant import Bounds, Limit, hash_of
from trustcompute.broker.order import new_order
from trustcompute.broker.request import Parties
from trustcompute.broker.rules import Ceiling, DenyList, Policy
from trustcompute.errors import (
    GrantError,
    ParameterError,
    Refused,
    RemoteProtocolError,
)
from trustcompute.node import authority
from trustcompute.node.contingency import MAX_WAITING, Command, Contingency, Event
from trustcompute.node.documents import Document
from trustcompute.protocol.operation import Sizes
from trustcompute.testing import asker


def order(world, do, grant, key=REGISTRY.key, **more):
    world.orders = getattr(world, "orders", 0) + 1
    number = world.clock.now() * 1000 + world.orders
    return new_order(do, hash_of(grant), audience=REGISTRY.name, key=key, number=number, **more)


def rules(world, kind, version, **terms):
    claims = {"iss": REGISTRY.thumbprint, "aud": REGISTRY.name, "version": version, "iat": world.clock.now()}
    return kind(**claims, **terms).sign(REGISTRY.key)


def refusing(found):
    return [verdict.rule for verdict in found.verdicts if not verdict.allowed]


def test_a_session_asks_for_a_verdict_on_every_rule_and_spends_nothing(world):
    with world.session() as session:
        before = world.types()
        found = session.explain("psi.ecdh.v1", "planes", rows=5)
        assert found.allowed and refusing(found) == []
        assert found.quote.amount == 10 + Fraction(5, 3)
        assert found.quote.left["calls"]["total"] == "10"
        assert refusing(session.explain("psi.ecdh.v1", "planes", rows=5, purpose="other")) == ["purpose"]
        assert refusing(session.explain("psi.vole.v1", "planes", rows=5)) == ["operation"]
        with pytest.raises(ParameterError, match="does not know that operation"):
            session.explain("psi.none.v1", "planes", rows=5)
        with pytest.raises(ParameterError, match="colour"):
            session.explain("psi.ecdh.v1", "planes", rows=5, colour="red")
        assert world.types() == before and world.used() == 0


def test_what_is_explained_is_what_is_decided(world):
    narrow = world.issue(limits={"calls": Limit(total=1)}, operations={"psi.ecdh.v1": Bounds(max_rows=2)})
    with world.session(grant=narrow) as session:
        found = session.explain("psi.ecdh.v1", "planes", rows=4)
        with pytest.raises(Refused) as caught:
            world.intersect(session, protocol="psi.ecdh.v1")
        assert refusing(found) == ["max_rows"] == [caught.value.rule]
        assert (
            next(one for one in found.verdicts if one.rule == "max_rows").reasons[0].fix == caught.value.fix
        )


def test_an_explanation_is_for_the_holder_of_the_grant(world):
    request = world.session()._request("psi.ecdh.v1", "planes", {}, 5, purpose="check", scenario=None)
    with pytest.raises(GrantError, match="not for"):
        authority.ask_explanation(world.channel(RIVAL), world.grant, request)
    assert world.broker.failures()
    body = authority.ExplainRequest(grant=world.grant, request={"op": "psi.ecdh.v1"}).encode()
    with pytest.raises(ParameterError, match="request: claim"):
        world.channel().action("explain", body)


def test_a_suspended_grant_still_explains_itself(world):
    params = {"columns": ["tailnum"], "keys": "0" * 64}
    with world.session() as session:
        session.order(order(world, "suspend", world.grant))
        assert refusing(session.explain("psi.ecdh.v1", "planes", rows=5, **params)) == ["suspended"]
        with pytest.raises(Refused, match="suspended"):
            session.catalog()
        session.order(order(world, "resume", world.grant))
        assert world.intersect(session).left_rows.tolist() == MATCHED


def test_a_delegator_revokes_its_own_link_while_the_node_runs(world):
    parent = world.issue(depth=1)
    claims = delegation.delegate(
        parent,
        issuer=AIRLINE.key.public,
        subject=RIVAL.name,
        subject_key=RIVAL.thumbprint,
        now=world.clock.now(),
    )
    chain = delegation.extend(parent, claims, AIRLINE.key)
    partner = world.session(identity=RIVAL, grant=chain)
    world.intersect(partner)
    with world.session(grant=parent) as session:
        with pytest.raises(GrantError, match="only the node's operator"):
            partner.order(order(world, "revoke", chain, key=RIVAL.key))
        session.order(order(world, "revoke", chain, key=AIRLINE.key), chain)
        with pytest.raises(Refused, match="revoked"):
            world.intersect(partner)
        world.intersect(session)
    world.check()


def test_rules_come_from_the_operator_alone(world):
    token = rules(world, DenyList, 1, names=[AIRLINE.name])
    with pytest.raises(Refused) as caught:
        authority.send_rules(world.channel(), token)
    assert caught.value.rule == "operator"
    assert authority.send_rules(world.channel(REGISTRY), token).version == 1
    with world.session() as session, pytest.raises(Refused) as caught:
        world.intersect(session)
    assert caught.value.rule == "denylist"
    authority.send_rules(world.channel(REGISTRY), rules(world, DenyList, 2))
    authority.send_rules(
        world.channel(REGISTRY), rules(world, Policy, 1, grades={"general": Ceiling(operations=["dp.*"])})
    )
    with world.session() as session, pytest.raises(Refused) as caught:
        world.intersect(session)
    assert caught.value.rule == "policy.operation"
    with pytest.raises(GrantError, match="is in force"):
        authority.send_rules(world.channel(REGISTRY), rules(world, DenyList, 2, purposes=["x"]))


def test_who_pays_and_where_results_are_used_travel_with_every_request(world):
    grant = world.issue(territory=["CN", "EU"], payer=REGISTRY.thumbprint)
    with pytest.raises(ParameterError, match="territory= one of CN, EU"):
        world.session(grant=grant)
    channel = world.channel()
    from trustcompute.node import Session

    parties = Parties(payer=REGISTRY.thumbprint)
    with Session(channel, identity=AIRLINE, grant=grant, territory="EU", parties=parties) as session:
        entry = world.intersect(session).receipt.verify(world.broker.log_key)
        assert (entry.fields["payer"], entry.fields["asker"]) == (REGISTRY.thumbprint, AIRLINE.thumbprint)
    with Session(channel, identity=AIRLINE, grant=grant, territory="US", parties=parties) as session:
        assert refusing(session.explain("psi.ecdh.v1", "planes", rows=1)) == ["territory"]


def strange(world):
    """A job whose peer breaks the protocol: a message is missing."""
    with world.session(plan={0: "cut request"}) as session, pytest.raises(RemoteProtocolError):
        session.compute(
            THREE_TURNS,
            "planes",
            {},
            Sizes(0, 0),
            lambda params, rng: asker(np.arange(3)),
            input_digest=b"x" * 32,
        )


def listening(world, **hooks):
    world.node.close()
    world.node = worlds.Node(
        REGISTRY,
        world.broker,
        [worlds.Dataset("planes", worlds.PLANES, version="2013", keys=["tailnum"])],
        computations=worlds.ALL,
        **hooks,
    )


def test_hooks_are_told_of_orders(world):
    told, came = [], threading.Event()
    listening(world, notify=lambda event: (told.append(event), came.set()))
    with world.session() as session:
        session.order(order(world, "suspend", world.grant))
    assert came.wait(10)
    claims = world.claims()
    expected = Event(
        "grant.suspend", hash_of(world.grant), AIRLINE.name, "planes", claims.contingency, REGISTRY.thumbprint
    )
    assert told == [expected]


def test_an_incident_may_suspend_the_grant(world):
    asked, told = [], []
    done = threading.Event()

    def judge(event):
        asked.append(event)
        return event.detail == "protocol.remote"

    def tell(event):
        told.append(event.kind)
        if len(told) == 2:
            done.set()

    listening(world, notify=tell, suspend=judge)
    strange(world)
    with world.session() as session:
        assert done.wait(10)
        assert sorted(told) == ["grant.suspend", "incident"]
        assert (asked[0].grant, asked[0].by) == (hash_of(world.grant), AIRLINE.name)
        with pytest.raises(Refused, match="suspended"):
            world.intersect(session)
        world.clock.advance(10)
        session.order(order(world, "resume", world.grant))
    world.check()


def test_a_hook_that_raises_stops_nothing(world, caplog):
    def broken(event):
        raise ValueError("no paper in the printer")

    listening(world, notify=broken)
    with world.session() as session:
        session.order(order(world, "suspend", world.grant))
        session.order(order(world, "resume", world.grant))
        world.intersect(session)
    world.node.close()
    assert "a contingency hook failed" in caplog.text


def test_a_program_is_given_the_event_and_its_status_counts(tmp_path):
    event = Event(
        "incident", "ab" * 32, "bank.example", "planes", "0" * 64, "bank.example", "protocol.remote"
    )
    script = "import json, sys; d = json.load(sys.stdin); open(sys.argv[1], 'w').write(d['detail']); "
    script += "sys.exit(d['kind'] != 'incident')"
    command = Command((sys.executable, "-c", script, str(tmp_path / "seen")), timeout=60)
    assert command(event) is True
    assert (tmp_path / "seen").read_text() == "protocol.remote"
    assert command(replace(event, kind="grant.exit")) is False


def test_more_events_than_the_hooks_can_take_are_left_out_and_said(world, caplog):
    gate = threading.Event()
    hooks = Contingency(world.broker, notify=lambda event: gate.wait(30))
    link = world.broker.verify(world.grant)
    from trustcompute.broker.order import verify

    made = verify(
        order(world, "suspend", world.grant),
        grant=link,
        operator=REGISTRY.thumbprint,
        audience=REGISTRY.name,
        now=world.clock.now(),
    )
    for _ in range(MAX_WAITING + 5):
        hooks.ordered(made)
    assert "cannot keep up" in caplog.text
    gate.set()
    hooks.close()


def test_the_documents_name_the_field_that_is_wrong(world):
    for name, body in (
        ("order", b"{}"),
        ("order", authority.OrderRequest(order="x", grant=world.grant).encode()),
        ("publish", b'{"rules":5}'),
        ("explain", b'{"grant":"x"}'),
    ):
        with pytest.raises((RemoteProtocolError, GrantError)) as caught:
            world.channel(REGISTRY).action(name, body)
        assert str(caught.value)
    assert issubclass(authority.Explained, Document)
