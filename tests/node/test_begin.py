"""How a job begins, with its first turn or ahead of it, and how it ends, acknowledged when its answer is there."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace

import numpy as np
import pytest
from world import AIRLINE, FLIGHTS, MATCHED, PLANES, REGISTRY, RIVAL

from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import Bounds
from trustcompute.errors import (
    GrantError,
    JobInterrupted,
    ParameterError,
    Refused,
    RemoteProtocolError,
    TransportError,
)
from trustcompute.node import Dataset, Node, Session, client
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.documents import TurnDescriptor
from trustcompute.node.metered import Metered
from trustcompute.primitives import canonical
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.message import Address, Message, encode, parse_header

pytestmark = pytest.mark.fault


class Taped:
    """A channel that remembers the calls that were made."""

    def __init__(self, channel):
        self._channel, self.peer, self.calls = channel, channel.peer, []

    def action(self, name, body):
        self.calls.append((name, body))
        return self._channel.action(name, body)

    def exchange(self, descriptor, frames):
        self.calls.append((descriptor, frames))
        return self._channel.exchange(descriptor, frames)

    def close(self):
        pass


@pytest.fixture
def taped(world):
    session = world.session()
    session.catalog()
    session._channel = session.channel = Taped(world.channel())
    return session


def names(session):
    return [name if isinstance(name, str) else "turn" for name, _ in session.channel.calls]


def first_turn(session):
    """The descriptor and frames of a question that was asked."""
    return next(
        (TurnDescriptor.parse(body), frames) for body, frames in session.channel.calls if type(body) is bytes
    )


def test_a_question_of_one_turn_is_one_call_and_its_acknowledgement(world, taped):
    assert world.intersect(taped, protocol="psi.ecdh.v1").left_rows.tolist() == MATCHED
    assert names(taped) == ["turn", "countersign"]


def test_who_brings_many_rows_asks_before_the_first_turn_is_made(world, taped, monkeypatch):
    monkeypatch.setattr(client, "MANY_ROWS", 2)
    made = []
    monkeypatch.setattr(client, "Runner", lambda *_, **__: made.append(1))
    world.broker.revoke(hash_of(world), "test")
    with pytest.raises(Refused, match="revoked"):
        world.intersect(taped, protocol="psi.ecdh.v1")
    assert names(taped) == ["open"] and not made


def test_a_first_turn_that_comes_twice_is_answered_with_the_same_bytes_and_charged_once(world, taped):
    world.intersect(taped, protocol="psi.ecdh.v1")
    turn, frames = first_turn(taped)
    answers = [received(world.channel().exchange(turn.encode(), frames)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert world.types().count("job.posted") == 1
    assert world.used() == 1
    with pytest.raises(RemoteProtocolError, match="other bytes"):
        received(world.channel().exchange(turn.encode(), frames[:-1]))


def received(incoming):
    return [(one.header, bytes(one.body(parse_header(one.header).body_size))) for one in incoming]


def test_a_first_turn_served_after_a_restart_needs_no_data(world, taped, monkeypatch):
    """The answer lies in the outbox: also where the dataset has changed meanwhile."""
    monkeypatch.setattr(client.Client, "_countersign", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.intersect(taped, protocol="psi.ecdh.v1")
    turn, frames = first_turn(taped)
    before = received(world.channel().exchange(turn.encode(), frames))
    world.restart()
    monkeypatch.setattr(HeldDataset, "keys", lambda *_: 1 / 0)
    assert received(world.channel().exchange(turn.encode(), frames)) == before


@pytest.mark.parametrize(
    ("spoil", "error", "words"),
    [
        (lambda turn: {"opening": None}, RemoteProtocolError, "brings the signed request"),
        (lambda turn: {"turn": 1}, RemoteProtocolError, "brings the signed request"),
        (lambda turn: {"job": "0" * 32}, RemoteProtocolError, "another job"),
        (lambda turn: opening(turn, request="x.y.z"), GrantError, None),
        (
            lambda turn: opening(turn, grant="x" * 200_000),
            RemoteProtocolError,
            "TurnDescriptor.opening.grant",
        ),
        (lambda turn: opening(turn, rows=41), ParameterError, "another size"),
    ],
)
def test_what_a_first_turn_may_not_bring_is_refused_and_costs_nothing(world, taped, spoil, error, words):
    with pytest.MonkeyPatch.context() as patched:  # taped, not sent
        patched.setattr(Taped, "exchange", lambda self, *call: self.calls.append(call) or lost())
        with pytest.raises(JobInterrupted):
            world.intersect(taped, protocol="psi.ecdh.v1")
    turn, frames = first_turn(taped)
    descriptor = canonical.dumps(turn.model_dump(mode="json") | spoil(turn))
    with pytest.raises(error, match=words):
        received(world.channel().exchange(descriptor, frames))
    assert world.used() == 0
    assert not world.node._jobs
    with pytest.raises(GrantError):  # nor may somebody else bring it
        received(world.channel(RIVAL).exchange(turn.encode(), frames))
    assert world.used() == 0


def opening(turn, **changes):
    return {"opening": turn.opening.model_dump(mode="json") | changes}


def lost():
    raise TransportError("the line broke")


def hash_of(world):
    return token_hash(world.grant)


@pytest.fixture
def lookups(world, tmp_path):
    """The same world, its dataset with an evaluated table; a question of one turn, charged without being armed."""
    world.stop()
    world.broker = Broker.open(tmp_path / "book", REGISTRY, clock=world.clock)
    dataset = Dataset("planes", PLANES, version="2013", keys=["tailnum"], evaluated=tmp_path / "tables")
    world.node = Node(REGISTRY, world.broker, [dataset])
    world.grant = world.issue(operations={"psi.lookup.v1": Bounds()})
    return world


@pytest.mark.parametrize(
    ("kind", "points"), [("blinded", 41), ("blinded", 10**6), ("other", 1), ("blinded", 0)]
)
def test_a_first_message_that_is_not_due_or_too_big_costs_nothing(lookups, kind, points):
    """Refused by its header, before its body is read."""
    session = lookups.session()
    real = client.Runner.give

    def give(runner):
        turn = real(runner)
        columns = {"point": np.zeros((points, 32), np.uint8)}
        address = Address(runner._job, 0, 0, "consumer")
        frame = encode(Message(kind, columns), address, last=True, releases=False)
        return replace(turn, frames=(frame,))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(client.Runner, "give", give)
        with pytest.raises(RemoteProtocolError):
            session.lookup("planes", FLIGHTS, on={"tail": "tailnum"})
    assert lookups.types()[-1] == "incident"
    lookups.clock.advance(2 * 86400)
    lookups.node.sweep()
    assert "job.posted" not in lookups.types()
    assert "job.forfeited" not in lookups.types()


class Slow(Taped):
    """Acknowledgements wait at a gate; ``spoil`` makes something of their answers."""

    def __init__(self, channel, spoil=lambda receipt: receipt):
        super().__init__(channel)
        self.gate, self._spoil = threading.Event(), spoil

    def action(self, name, body):
        if name == "countersign":
            assert self.gate.wait(30)
            return self._spoil(super().action(name, body))
        return super().action(name, body)


def ask(session, **options):
    return session.intersect("planes", FLIGHTS, on={"tail": "tailnum"}, protocol="psi.ecdh.v1", **options)


def slow(world, *spoil, state=None):
    return Session(Slow(world.channel(), *spoil), identity=AIRLINE, grant=world.grant, state=state)


def test_an_answer_does_not_wait_for_its_acknowledgement(world):
    session = slow(world)
    found, second = ask(session), ask(session)
    assert found.left_rows.tolist() == second.left_rows.tolist() == MATCHED
    assert "job.countersigned" not in world.types()
    session._channel.gate.set()
    assert found.receipt.verify(world.broker.log_key).fields["job"] == found.job
    session.close()
    assert world.types().count("job.countersigned") == 2
    kept = pickle.dumps(Metered(job=found.job, acknowledged=found.acknowledged))
    assert pickle.loads(kept).receipt == found.receipt


def test_a_wrong_receipt_is_told_by_the_result_the_next_verb_and_the_end(world):
    session = slow(world, lambda receipt: world.broker.receipt(first.job).to_json())
    first = world.intersect(protocol="psi.ecdh.v1")
    session._channel.gate.set()
    found = ask(session)
    with pytest.raises(RemoteProtocolError, match="another job"):
        _ = found.receipt
    with pytest.raises(RemoteProtocolError, match="another job"):
        ask(session)
    ask(session)
    with pytest.raises(RemoteProtocolError, match="another job"):
        session.close()
    with pytest.raises(KeyError), slow(world, lambda receipt: b"") as session:
        session._channel.gate.set()
        ask(session)
        raise KeyError("the caller's own error is not hidden")


@pytest.mark.parametrize("restart", [False, True])
def test_who_vanishes_between_answer_and_acknowledgement_has_the_same_answer_later(world, tmp_path, restart):
    session = slow(world, lambda receipt: lost(), state=tmp_path / "jobs")
    session._channel.gate.set()
    found = ask(session)
    with pytest.raises(JobInterrupted) as interrupted:
        _ = found.receipt
    assert interrupted.value.job == found.job
    if restart:
        world.restart()
    again = world.intersect(world.session(state=tmp_path / "jobs"), protocol="psi.ecdh.v1", job=found.job)
    assert again.left_rows.tolist() == MATCHED
    assert again.receipt.verify(world.broker.log_key).fields["job"] == found.job
    assert world.types().count("job.posted") == world.types().count("job.countersigned") == 1
    assert world.used() == 1
