"""Peers that vanish or lie at each turn, and nodes that are killed at each write."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import world as worlds
from world import MATCHED, THREE_TURNS

from trustcompute.broker.job import JobState
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.writer import Writer
from trustcompute.errors import JobForfeited, JobInterrupted, RemoteProtocolError, TrustcomputeError
from trustcompute.node.state import StateStore
from trustcompute.protocol.operation import Sizes
from trustcompute.testing import asker

pytestmark = pytest.mark.fault
NUMBERS = np.arange(5, dtype=np.int64)


def add(session, job=None):
    """The toy protocol of three turns: nothing, nothing, then an answer; and thanks."""

    def party(params, rng):
        return asker(NUMBERS)

    return session.compute(THREE_TURNS, "planes", {}, Sizes(5, 0), party, input_digest=b"n" * 32, job=job)


def states(world):
    return {job.state for job in all_jobs(world)}


def all_jobs(world):
    with world.broker._writer.view() as (reader, _):
        return reader.jobs_in(frozenset(JobState))


def test_the_toy_protocol_is_armed_at_its_first_turn_and_posted_at_its_second(world):
    seen = []
    session = world.session(before=lambda number: seen.append(states(world)))
    assert add(session).output == 10
    assert seen == [{JobState.RESERVED}, {JobState.ARMED}, {JobState.POSTED}]
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize(
    ("turn", "vanished", "ends", "used"),
    [
        (0, "lose request", JobState.EXPIRED, 0),
        (0, "lose answer", JobState.FORFEITED, 1),
        (1, "lose request", JobState.FORFEITED, 1),
        (1, "lose answer", JobState.POSTED, 1),
        (2, "lose request", JobState.POSTED, 1),
        (2, "lose answer", JobState.POSTED, 1),
    ],
)
def test_a_peer_that_vanishes_is_voided_before_armed_and_forfeited_after(world, turn, vanished, ends, used):
    with pytest.raises(JobInterrupted):
        add(world.session(plan=dict.fromkeys(range(turn, turn + 9), vanished)))
    world.clock.advance(2 * 86400)
    world.node.sweep()
    assert states(world) == {ends}
    world.node.sweep()
    assert not world.node._jobs or turn == 1 or ends is JobState.POSTED
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
def test_a_message_cut_out_is_refused_and_forfeits_what_was_armed(world, turn):
    with pytest.raises(RemoteProtocolError):
        add(world.session(plan={turn: "cut request"}))
    assert "incident" in world.types()
    expected = {JobState.RESERVED, JobState.ARMED, JobState.FORFEITED, JobState.VOIDED}
    assert states(world) <= expected
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
        world.intersect()
    assert states(world) == {JobState.FORFEITED}
    assert world.used() == 1
    assert world.broker.statement(0, world.clock.now() + 1).lines == ()
    world.check()


def test_a_full_disk_at_the_outbox_releases_nothing_and_the_turn_can_be_tried_again(world, monkeypatch):
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


def run_and_die(directory: Path, deadly: int) -> None:
    """In a child: one intersection; die at the ``deadly``-th boundary of a write, as kill -9 would."""
    count = 0

    def boundary():
        nonlocal count
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(kind, name):
        real = getattr(kind, name)

        def wrapped(self, *arguments, **options):
            boundary()
            result = real(self, *arguments, **options)
            boundary()
            return result

        setattr(kind, name, wrapped)

    made = worlds.World(directory)
    (directory / "grant").write_text(made.grant)
    for kind, name in ((Writer, "commit"), (Outbox, "write"), (Outbox, "discard"), (StateStore, "_write")):
        wrap(kind, name)
    made.intersect(made.session(state=directory / "jobs"))
    os._exit(0)


def killed_at(directory: Path, boundary: int) -> bool:
    """Whether the child died there; False when it finished first."""
    child = os.fork()
    if child == 0:
        try:
            run_and_die(directory, boundary)
        finally:
            os._exit(1)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_both_sides_killed_at_every_write_leave_log_and_meter_in_agreement(tmp_path):
    """Every boundary before and after each write of the node and of the consumer, until the run gets through."""
    for boundary in range(1, 100):
        directory = tmp_path / str(boundary)
        directory.mkdir()
        if not killed_at(directory, boundary):
            assert boundary > 12
            return
        world = worlds.World.__new__(worlds.World)
        world.directory, world.clock, world.results = directory, worlds.FakeClock(int(worlds.time.time())), []
        world.grant = (directory / "grant").read_text()
        world.start()
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
        except TrustcomputeError as error:
            state = world.broker.job(job).state
            assert state in (JobState.FORFEITED, JobState.VOIDED) or "no longer kept" in str(error)
    report = world.check()
    assert world.types().count("job.posted") <= 1
    assert world.used() == report.jobs.get("posted", 0) + report.jobs.get("forfeited", 0)
    for name in world.broker.outbox.names():
        assert world.broker.job(name[:32]).state is JobState.POSTED, "nothing is kept that was not charged"
