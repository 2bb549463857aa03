"""The regulator's role: sees the whole record, checked; and can do nothing."""

from __future__ import annotations

import pytest
import world as worlds
from world import AIRLINE, AUTHORITY, REGISTRY

from trustcompute.broker.audit import audit
from trustcompute.broker.rules import DenyList
from trustcompute.errors import AuditError, GrantError, Refused, RemoteProtocolError, VerificationError
from trustcompute.node import inspection
from trustcompute.node.inspection import Inspection

REGULATOR = AUTHORITY.issue("regulator.example")


@pytest.fixture
def watched(world):
    world.node.close()
    world.node = worlds.Node(
        REGISTRY,
        world.broker,
        [worlds.Dataset("planes", worlds.PLANES, version="2013", keys=["tailnum"])],
        computations=worlds.ALL,
        regulators=[REGULATOR.name],
    )
    world.intersect()
    return world


def test_a_regulator_fetches_the_log_and_audits_it(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "PAGE_ENTRIES", 2)  # several pages
    inspected = Inspection(watched.channel(REGULATOR), watched.broker.log_key)
    size = inspected.export(tmp_path / "copy")
    assert size == len(watched.broker.entries())
    assert audit(tmp_path / "copy", watched.broker.log_key).jobs == {"posted": 1}
    assert [entry.body for entry in inspected.entries()] == [entry.body for entry in watched.broker.entries()]
    claims = {"iss": REGISTRY.thumbprint, "aud": REGISTRY.name, "version": 1, "iat": 0}
    watched.broker.publish(DenyList(**claims, purposes=["spam"]).sign(REGISTRY.key))
    assert [rules.purposes for rules in inspected.rules()] == [("spam",)]
    end = watched.clock.now() + 1
    assert inspected.statement(0, end) == watched.broker.statement(0, end).to_document()


def test_nobody_else_reads_the_record_and_a_regulator_does_nothing_else(watched):
    for name, body in (
        ("inspect.log", b'{"start":0}'),
        ("inspect.rules", b'{"start":0}'),
        ("inspect.statement", b'{"end":9,"start":0}'),
    ):
        with pytest.raises(Refused) as caught:
            watched.channel(AIRLINE).action(name, body)
        assert caught.value.rule == "regulator"
    before = watched.types()
    with pytest.raises(GrantError), watched.session(identity=REGULATOR) as session:
        session.catalog()
    with pytest.raises(Refused):
        watched.channel(REGULATOR).action("publish", b'{"rules":"x"}')
    with pytest.raises(RemoteProtocolError, match="start"):
        watched.channel(REGULATOR).action("inspect.log", b'{"start":-1}')
    assert watched.types() == before


def test_a_log_that_is_not_what_was_signed_is_not_believed(watched):
    class Lying:
        peer = REGISTRY.name

        def __init__(self, spoil):
            self.spoil = spoil

        def action(self, name, body):
            page = inspection.Page.parse(watched.channel(REGULATOR).action(name, body))
            return self.spoil(page).encode()

    def altered(page):
        return page.model_copy(update={"entries": [page.entries[0].replace("v", "w", 1), *page.entries[1:]]})

    def cut(page):
        return page.model_copy(
            update={"entries": page.entries[:1] if page.entries[0].find("log.opened") > 0 else []}
        )

    with pytest.raises(AuditError, match="not those"):
        Inspection(Lying(altered), watched.broker.log_key).entries()
    with pytest.raises(RemoteProtocolError, match="more entries than it shows"):
        Inspection(Lying(cut), watched.broker.log_key).entries()
    from trustcompute.broker.log import log_key

    with pytest.raises(VerificationError):
        Inspection(watched.channel(REGULATOR), log_key(REGISTRY.name, AIRLINE.key.public)).entries()
