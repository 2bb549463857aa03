"""Peers that vanish or lie at each turn, and nodes that are killed at each write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import world as worlds
from killing import killed_at
from world import MATCHED, THREE_TURNS

from trustcompute.broker import outbox
from trustcompute.broker.job import Fault, JobState
from trustcompute.broker.outbox import Outbox
from trustcompute.errors import JobForfeited, JobInterrupted, Refused, RemoteProtocolError, TrustcomputeError
from trustcompute.node.state import StateStore
from trustcompute.protocol.operation import Sizes
from trustcompute.testing import asker

pytestmark = pytest.mark.fault
NUMBERS = np.arange(5, dtype=np.int64)


def add(session, job=None, **options):
    """The toy protocol of three turns: nothing, nothing, then an answer; and thanks."""

    def party(params, rng):
        return asker(NUMBERS)

    done = session.compute(
        THREE_TURNS, "planes", {}, Sizes(5, 0), party, input_digest=b"n" * 32, job=job, **options
    )
    assert done.receipt
    return done


def states(world):
    return {job.state for job in all_jobs(world)}


def all_jobs(world):
    with world.broker._writer.view() as (reader, _):
        return list(reader.all_jobs())


def test_the_toy_protocol_is_armed_at_its_first_turn_and_posted_at_its_second(world):
    seen = []
    session = world.session(before=lambda number: seen.append(states(world)))
    assert add(session).output == 10
    assert seen == [set(), {JobState.ARMED}, {JobState.POSTED}]
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize(
    ("turn", "vanished", "ends", "used"),
    [
        (0, "lose request", None, 0),
        (0, "lose answer", JobState.FORFEITED, 1),
        (1, "lose request", JobState.FORFEITED, 1),
        (1, "lose answer", JobState.POSTED, 1),
        (2, "lose request", JobState.POSTED, 1),
        (2, "lose answer", JobState.POSTED, 1),
    ],
)
def test_a_peer_that_vanishes_costs_nothing_before_armed_and_is_forfeited_after(
    world, turn, vanished, ends, used
):
    session = world.session(plan=dict.fromkeys(range(turn, turn + 9), vanished))
    if turn == 2:  # the answer has arrived and is acknowledged: what is lost is only our thanks
        assert add(session).output == 10
    else:
        with pytest.raises(JobInterrupted):
            add(session)
    world.clock.advance(2 * 86400)
    world.node.sweep()
    assert states(world) == ({ends} if ends else set())
    if turn != 1 or ends is not JobState.POSTED:  # a posted job is waited for until it is countersigned
        assert bool(world.node._jobs) == (ends is JobState.POSTED)
    assert world.used() == used
    world.check()


@pytest.mark.parametrize("turn", [0, 1, 2])
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "repeat"])
def test_an_interruption_at_any_turn_is_overcome_and_charged_once(world, turn, fault):
    done = add(world.session(plan={turn: fault}))
    assert done.output == 10
    assert world.types().count("job.posted") == 1
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize("turn", [0, 1])
@pytest.mark.parametrize("fault", ["lose request", "lose answer"])
@pytest.mark.parametrize("kept", ["in memory", "in files"])
def test_a_job_interrupted_at_any_turn_goes_on_there(world, tmp_path, turn, fault, kept):
    """Another session, as another process would: turns that had arrived are replayed from what was kept."""
    state = tmp_path / "jobs" if kept == "in files" else None
    first = world.session(plan=dict.fromkeys(range(turn, turn + 9), fault), state=state)
    with pytest.raises(JobInterrupted) as interrupted:
        add(first)
    second = world.session(state=state)
    if state is None:
        second._states = first._states
    done = add(second, job=interrupted.value.job)
    assert done.output == 10
    assert world.types().count("job.posted") == 1
    assert "incident" not in world.types()
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize("restart", [False, True])
def test_an_answer_that_was_acknowledged_is_not_lost_with_its_process(world, tmp_path, monkeypatch, restart):
    """Killed between the countersignature, after which the node forgets the answer, and the end."""
    monkeypatch.setattr(StateStore, "finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.intersect(world.session(state=tmp_path / "jobs"))
    monkeypatch.undo()
    assert "job.countersigned" in world.types()
    if restart:
        world.restart()
    job = next((tmp_path / "jobs").glob("*.job.json")).name[:32]
    found = world.intersect(world.session(state=tmp_path / "jobs"), job=job)
    assert found.left_rows.tolist() == MATCHED
    assert not [path for path in (tmp_path / "jobs").iterdir() if "turn" in path.name]


def test_what_both_learn_survives_a_node_that_restarts_before_our_last_turn(world):
    def restart(number):
        if number == 1:
            world.restart()
            session.channel.channel = world.channel()

    session = world.session(before=restart)
    found = world.intersect(session, reveal="both")
    assert found.left_rows.tolist() == MATCHED
    assert world.results == []
    world.check()


@pytest.mark.parametrize("turn", [0, 1])
def test_a_message_cut_out_is_refused_and_forfeits_what_was_armed(world, turn):
    with pytest.raises(RemoteProtocolError):
        add(world.session(plan={turn: "cut request"}))
    assert "incident" in world.types()
    assert states(world) == {JobState.ARMED if turn else JobState.FORFEITED}  # an empty turn may come again
    world.clock.advance(2 * 86400)
    world.node.sweep()
    assert states(world) == {JobState.FORFEITED}
    assert "job.posted" not in world.types()
    world.check()


def test_a_node_that_restarts_half_way_forfeits_and_says_so(world):
    def restart(number):
        if number == 1:
            world.restart()
            session.channel.channel = world.channel()

    session = world.session(before=restart)
    with pytest.raises(JobForfeited):
        add(session)
    report = world.check()
    assert report.jobs == {"forfeited": 1}
    statement = world.broker.statement(0, world.clock.now() + 1)
    assert statement.rows == (), "the provider's own fault is not billed"


def test_a_party_that_fails_inside_the_node_is_the_providers_fault(world, monkeypatch):
    monkeypatch.setattr("trustcompute.psi.ecdh.oprf.evaluate", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        world.intersect(protocol="psi.ecdh.v1")
    assert states(world) == {JobState.FORFEITED}
    assert world.used() == 1
    assert world.broker.statement(0, world.clock.now() + 1).lines == ()
    world.check()


def test_a_full_disk_at_the_outbox_releases_nothing_and_the_turn_can_be_tried_again(world, monkeypatch):
    monkeypatch.setattr(outbox, "SMALL", 0)
    writes = []
    real = Outbox.write

    def write(self, *arguments):
        writes.append(arguments)
        if len(writes) == 1:
            raise worlds_store_error()
        return real(self, *arguments)

    monkeypatch.setattr(Outbox, "write", write)
    session = world.session()
    with pytest.raises(TrustcomputeError, match="disk is full"):
        world.intersect(session)
    assert "job.posted" not in world.types()
    assert states(world) == {JobState.ARMED}
    job = next(iter(session._states._memory))
    found = world.intersect(session, job=job)
    assert found.left_rows.tolist() == MATCHED
    assert world.used() == 1
    world.check()


def worlds_store_error():
    from trustcompute.errors import StoreError

    return StoreError("the disk is full")


def begin(directory: Path) -> Callable[[], object]:
    """A world in a child, its grant left for the test, and one intersection."""
    made = worlds.World(directory)
    (directory / "grant").write_text(made.grant)
    return lambda: made.intersect(made.session(state=directory / "jobs"))


@pytest.mark.parametrize("small", [outbox.SMALL, 0])
def test_both_sides_killed_at_every_write_leave_log_and_meter_in_agreement(tmp_path, monkeypatch, small):
    """Every boundary before and after each write of the node and of the consumer, until the run gets through."""
    monkeypatch.setattr(outbox, "SMALL", small)
    for boundary in range(1, 100):
        directory = tmp_path / str(boundary)
        directory.mkdir()
        if not killed_at(boundary, partial(begin, directory)):
            assert boundary > 12
            return
        world = worlds.World.reopened(directory)
        resume_and_check(world)
        world.stop()
    raise AssertionError("the child never finished")


def resume_and_check(world):
    kept = [path.name[:32] for path in (world.directory / "jobs").glob("*.job.json")]
    before = [(job.state, job.id) for job in all_jobs(world)]
    assert all(state not in (JobState.RESERVED, JobState.ARMED) for state, _ in before), (
        "recovery settles all"
    )
    for job in kept:
        try:
            found = world.intersect(world.session(state=world.directory / "jobs"), job=job)
            assert found.left_rows.tolist() == MATCHED
        except TrustcomputeError:
            assert world.broker.job(job).state in (JobState.FORFEITED, JobState.VOIDED)
    report = world.check()
    assert world.types().count("job.posted") <= 1
    assert world.used() == report.jobs.get("posted", 0) + report.jobs.get("forfeited", 0)
    for name in world.broker.outbox.names():
        assert world.broker.job(name[:32]).state is JobState.POSTED, "nothing is kept that was not charged"


def test_jobs_that_ended_in_the_book_are_forgotten_by_the_node(world):
    """Revoked after opening, refused at arming: nothing of it stays behind and fills the node."""
    session = world.session(before=lambda number: world.broker.revoke(hash_of(world), "test"))
    with pytest.raises(Refused, match="revoked"):
        add(session, ahead=True)
    assert not world.node._jobs
    grant = world.grant = world.issue(limits={})
    with pytest.raises(JobInterrupted) as interrupted:
        add(world.session(plan=dict.fromkeys(range(9), "lose answer"), grant=grant))
    world.broker.abandon(interrupted.value.job, "test", Fault.PEER)
    assert world.node._jobs
    world.node.sweep()
    assert not world.node._jobs


def hash_of(world):
    from trustcompute.primitives.signing import token_hash

    return token_hash(world.grant)


def test_a_charge_beyond_the_reservation_is_the_providers_fault_and_ends_the_job(world, monkeypatch):
    from trustcompute.errors import LocalProtocolError

    monkeypatch.setattr(
        world.broker, "post", lambda *_, **__: (_ for _ in ()).throw(LocalProtocolError("too much"))
    )
    with pytest.raises(LocalProtocolError):
        world.intersect()
    assert states(world) == {JobState.FORFEITED}
    assert world.broker.statement(0, world.clock.now() + 1).rows == ()
