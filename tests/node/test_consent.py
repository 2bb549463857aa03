"""Consents over a node: a question about a person takes a token of that person's; spent before anything is charged."""

from __future__ import annotations

import pytest
from world import PLANES, REGISTRY, World

from trustcompute.broker.grant import Bounds
from trustcompute.errors import JobInterrupted, ParameterError, Refused
from trustcompute.node import Dataset, Node, Published
from trustcompute.primitives.rng import Rng
from trustcompute.verification import consent
from trustcompute.verification.consent import About

BUCKET = "verify.bucket.v1"
ASKED = ["N3", "N25"]


class ConsentWorld(World):
    takes = True

    def start(self):
        super().start()
        self.node.close()
        verified = Published(["seats >= 20", "present"], "tailnum", self.directory / "v", consent=self.takes)
        self.node = Node(
            REGISTRY,
            self.broker,
            [Dataset("planes", PLANES, version="2013", keys=["tailnum"], verified=verified)],
        )

    def tokens(self, count=2, predicate="seats >= 20"):
        holder = self.node._datasets["planes"].verification.consents
        about = About("planes", predicate, self.clock.now() + 3600)
        wish = consent.wish(about, count, Rng.from_os())
        return list(
            map(str, wish.finish(holder.issue(about, wish.blinded, Rng.from_os(), now=self.clock.now())))
        )

    def ask(self, tokens, session=None, **options):
        session = session or self.session()
        return session.verify("planes", "seats >= 20", keys=ASKED, consent=tokens, **options)


@pytest.fixture
def world(tmp_path):
    made = ConsentWorld(tmp_path, operations={BUCKET: Bounds(), "psi.ecdh.v1": Bounds()})
    yield made
    made.stop()


def test_a_question_takes_a_token_and_a_token_one_question(world):
    tokens = world.tokens()
    assert world.session().entry("planes").predicates[0].consent
    assert world.ask(tokens).codes == ["mismatch", "match"]
    assert world.used() == 1
    for wrong in (tokens, [tokens[0], *world.tokens(1)], [], world.tokens(1), world.tokens(2, "present")):
        with pytest.raises(Refused) as refused:
            world.ask(wrong)
        assert refused.value.rule == "consent"
    world.restart()
    with pytest.raises(Refused):
        world.ask(tokens)
    assert world.used() == 1
    world.check()


def test_an_expired_token_is_refused_for_nothing(world):
    tokens = world.tokens()
    world.clock.advance(3600)
    with pytest.raises(Refused, match="expired"):
        world.ask(tokens)
    with pytest.raises(ParameterError, match="86 characters"):
        world.ask(["x"])
    assert world.used() == 0


@pytest.mark.fault
def test_an_interrupted_job_goes_on_with_its_tokens(world, tmp_path):
    tokens, plan = world.tokens(), dict.fromkeys(range(9), "lose answer")
    with pytest.raises(JobInterrupted) as stopped:
        world.ask(tokens, world.session(plan=plan, state=tmp_path / "state"))
    found = world.ask(tokens, world.session(state=tmp_path / "state"), job=stopped.value.job)
    assert found.codes == ["mismatch", "match"]
    assert world.used() == 1


def test_who_takes_no_consents_says_so(world, monkeypatch):
    tokens = world.tokens()
    monkeypatch.setattr(ConsentWorld, "takes", False)
    world.restart()
    with pytest.raises(ParameterError, match="takes no consents"):
        world.ask(tokens)
    assert world.ask([]).codes == ["mismatch", "match"]
