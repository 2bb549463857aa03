"""Jobs of several runs: charged once, each run on its own, killed and lost on either side at any point."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import world as worlds
from killing import killed_at
from world import FLIGHTS, MATCHED, PLANES

from trustcompute.broker.grant import Bounds, hash_of
from trustcompute.broker.job import JobState
from trustcompute.errors import (
    Conflict,
    JobForfeited,
    JobInterrupted,
    ParameterError,
    Refused,
    RemoteProtocolError,
    TrustcomputeError,
)
from trustcompute.node import client
from trustcompute.node import job as jobs
from trustcompute.node import runs as node_runs

RUNS = 3


@pytest.fixture
def one_at_a_time(monkeypatch):
    """So that an exchange's number says which run it belongs to."""
    monkeypatch.setattr(node_runs, "AT_A_TIME", 1)


def record(world):
    with world.broker._writer.view() as (reader, _):
        return next(iter(reader.all_jobs()))


@pytest.mark.parametrize("protocol", ["psi.ecdh.v1", "psi.dh.v1"])
@pytest.mark.parametrize("runs", [2, 5])
def test_a_job_of_several_runs_is_charged_once_and_equal_to_one(world, protocol, runs):
    found = world.intersect(protocol=protocol, runs=runs)
    assert (found.left_rows.tolist(), found.count) == (MATCHED, 3)
    assert found.table() == FLIGHTS.take(MATCHED)
    assert found.cost.turns == runs
    types = world.types()
    assert types.count("job.posted") == 1
    assert types.count("job.released") == runs - 1
    assert types[-1] == "job.countersigned"
    entry = found.receipt.verify(world.broker.log_key)
    assert (entry.fields["usage"]["calls"], entry.fields["usage"]["rows"]) == (1, 4)
    assert world.used() == 1
    assert not list(world.broker.outbox.names())
    world.check()


def test_runs_of_several_turns_each(world):
    """More turns than one, so that a run can be half way."""
    grant = world.issue(operations={"psi.vole.v1": Bounds()})
    found = world.intersect(world.session(grant=grant), protocol="psi.vole.v1", runs=2)
    assert found.left_rows.tolist() == MATCHED
    assert found.cost.turns == 2 * 3
    world.check()


def test_what_passes_over_the_wire_does_not_depend_on_how_keys_fall_into_buckets(world):
    sent = set()
    for tail in ("A", "B", "C", "D"):
        table = {"tail": [f"{tail}{i}" for i in range(9)]}
        found = world.session().intersect(
            "planes", table, on={"tail": "tailnum"}, runs=4, protocol="psi.dh.v1"
        )
        assert found.count == 0
        sent.add((found.cost.bytes_sent, found.cost.bytes_received))
    assert len(sent) == 1


@pytest.mark.fault
@pytest.mark.parametrize("number", range(RUNS))
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "repeat"])
def test_an_interruption_of_any_run_is_overcome_and_charged_once(world, number, fault, one_at_a_time):
    found = world.intersect(world.session(plan={number: fault}), runs=RUNS)
    assert found.left_rows.tolist() == MATCHED
    assert world.types().count("job.posted") == 1
    assert "incident" not in world.types()
    world.check()


@pytest.mark.fault
@pytest.mark.parametrize("number", range(RUNS))
@pytest.mark.parametrize("restart", [False, True])
def test_a_job_interrupted_in_any_run_goes_on_there(world, tmp_path, number, restart, one_at_a_time):
    lost = dict.fromkeys(range(number, number + 9), "lose answer")
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(world.session(plan=lost, state=tmp_path / "jobs"), runs=RUNS)
    if restart:
        world.restart()
    counted = []
    session = world.session(state=tmp_path / "jobs", before=counted.append)
    found = world.intersect(session, runs=RUNS, job=interrupted.value.job)
    assert found.left_rows.tolist() == MATCHED
    assert len(counted) == RUNS - number, "what was finished is not asked for again"
    assert world.used() == 1
    assert not [
        path for path in (tmp_path / "jobs").iterdir() if "-" in path.suffix and "log" not in path.name
    ]
    world.check()


@pytest.mark.fault
@pytest.mark.parametrize("number", range(1, RUNS))
def test_a_node_that_restarts_between_runs_takes_the_job_up_again(world, number, one_at_a_time):
    def restart(at):
        if at == number:
            world.restart()
            session.channel.channel = world.channel()

    session = world.session(before=restart)
    found = world.intersect(session, runs=RUNS)
    assert found.left_rows.tolist() == MATCHED
    assert world.types().count("job.posted") == 1
    assert world.used() == 1
    world.check()


@pytest.mark.fault
def test_a_node_that_restarts_inside_a_run_has_it_begun_again_with_other_secrets(
    world, monkeypatch, one_at_a_time
):
    world.grant = world.issue(operations={"psi.vole.v1": Bounds(), "psi.ecdh.v1": Bounds()}, limits={})
    seen = []
    derived = node_runs.Rng.derive

    def derive(seed, *, info):
        seen.append(info)
        return derived(seed, info=info)

    monkeypatch.setattr(node_runs.Rng, "derive", derive)

    def restart(at):
        if at == 4:  # the second turn of the second run
            world.restart()
            session.channel.channel = world.channel()

    session = world.session(before=restart)
    found = world.intersect(session, protocol="psi.vole.v1", runs=2)
    assert found.left_rows.tolist() == MATCHED
    assert [info[-4:] for info in seen] == [b"/0/0", b"/1/0", b"/1/1"]
    assert len(set(seen)) == 3
    assert world.types().count("job.posted") == 1
    world.check()


@pytest.mark.fault
def test_a_node_that_restarts_before_anything_was_charged_forfeits(world, one_at_a_time):
    world.grant = world.issue(operations={"psi.vole.v1": Bounds()}, limits={})

    def restart(at):
        if at == 1:
            world.restart()
            session.channel.channel = world.channel()

    session = world.session(before=restart)
    with pytest.raises(JobForfeited):
        world.intersect(session, protocol="psi.vole.v1", runs=2)
    assert world.check().jobs == {"forfeited": 1}


@pytest.mark.fault
def test_other_data_do_not_meet_the_runs_that_are_left(world, tmp_path, monkeypatch, one_at_a_time):
    """A node restarted with other data behind the same version: the job ends, and says so."""
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(
            world.session(plan=dict.fromkeys(range(1, 9), "lose request"), state=tmp_path), runs=RUNS
        )
    monkeypatch.setattr(
        worlds, "PLANES", PLANES.slice(1).append_column("x", PLANES["seats"].slice(1)).drop(["x"])
    )
    changed = PLANES.set_column(
        0, "tailnum", [["N0", *PLANES["tailnum"].to_pylist()[:40], "Z"][: len(PLANES)]]
    )
    monkeypatch.setattr(worlds, "PLANES", changed)
    world.restart()
    with pytest.raises((Conflict, RemoteProtocolError), match=r"dataset"):
        world.intersect(world.session(state=tmp_path), runs=RUNS, job=interrupted.value.job)


def test_our_changed_table_does_not_go_on_with_the_job(world, tmp_path, one_at_a_time):
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(
            world.session(plan=dict.fromkeys(range(1, 9), "lose request"), state=tmp_path), runs=RUNS
        )
    with pytest.raises(ParameterError, match="another table"):
        world.session(state=tmp_path).intersect(
            "planes", {"tail": ["N2"]}, on={"tail": "tailnum"}, runs=RUNS, job=interrupted.value.job
        )


def test_revoked_between_two_runs_nothing_further_leaves(world, one_at_a_time):
    def revoke(at):
        if at == 1:
            world.broker.revoke(hash_of(world.grant), "test")

    with pytest.raises(Refused, match="revoked"):
        world.intersect(world.session(before=revoke), runs=RUNS)
    assert len(record(world).releases) == 1
    world.check()


def test_a_peer_cannot_have_more_runs_under_way_than_a_job_may(world, monkeypatch):
    """Each holds memory; the others are told to wait, which the session does."""
    monkeypatch.setattr(jobs, "MAX_OPEN_RUNS", 1)
    monkeypatch.setattr(node_runs, "AT_A_TIME", 4)
    monkeypatch.setattr(client, "RETRY_SECONDS", (0.2,) * 50)
    assert world.intersect(runs=8, protocol="psi.dh.v1").left_rows.tolist() == MATCHED


def test_a_charged_job_whose_peer_stays_away_is_let_go_of_and_taken_up_again(
    world, monkeypatch, one_at_a_time
):
    monkeypatch.setattr(jobs, "IDLE_SECONDS", -1.0)

    def sweep(at):
        if at == 1:
            world.node.sweep()
            assert not world.node._jobs

    found = world.intersect(world.session(before=sweep), runs=RUNS)
    assert found.left_rows.tolist() == MATCHED
    world.check()


def test_a_job_can_be_stopped_between_runs(world, tmp_path):
    stop = threading.Event()
    stop.set()
    monkey = node_runs.JobRuns.run_all

    def stopped(self, **options):
        return monkey(self, stop=stop, **options)

    node_runs.JobRuns.run_all = stopped
    try:
        with pytest.raises(JobInterrupted, match="stopped") as interrupted:
            world.intersect(world.session(state=tmp_path), runs=RUNS)
    finally:
        node_runs.JobRuns.run_all = monkey
    assert record(world).state is JobState.RESERVED
    found = world.intersect(world.session(state=tmp_path), runs=RUNS, job=interrupted.value.job)
    assert found.left_rows.tolist() == MATCHED


def begin(directory: Path) -> Callable[[], object]:
    """A world in a child, its grant left for the test, and a job of several runs."""
    made = worlds.World(directory)
    (directory / "grant").write_text(made.grant)
    return lambda: made.intersect(made.session(state=directory / "jobs"), runs=2, protocol="psi.dh.v1")


@pytest.mark.fault
def test_both_sides_killed_at_every_write_go_on_or_say_why_not(tmp_path):
    outcomes = {"went on": 0, "ended": 0, "not begun": 0}
    for boundary in range(1, 120):
        directory = tmp_path / str(boundary)
        directory.mkdir()
        if not killed_at(boundary, partial(begin, directory)):
            assert boundary > 20
            assert outcomes["went on"] > 8
            return
        world = worlds.World.reopened(directory)
        outcomes[resumed(world)] += 1
        world.stop()
    raise AssertionError("the child never finished")


def resumed(world) -> str:
    kept = [path.name[:32] for path in (world.directory / "jobs").glob("*.job.json")]
    for job in kept:
        charged = world.broker.job(job) is not None and world.broker.job(job).state is JobState.POSTED
        try:
            session = world.session(state=world.directory / "jobs")
            found = world.intersect(session, runs=2, protocol="psi.dh.v1", job=job)
        except TrustcomputeError:
            assert not charged, "what was charged can always go on"
            assert world.broker.job(job).state in (JobState.FORFEITED, JobState.VOIDED)
            outcome = "ended"
        else:
            assert found.left_rows.tolist() == MATCHED
            outcome = "went on"
    world.check()
    assert world.types().count("job.posted") <= 1
    return outcome if kept else "not begun"
