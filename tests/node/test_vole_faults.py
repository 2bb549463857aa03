"""psi.vole over a node whose channel loses and repeats turns, and whose processes die half way."""

from __future__ import annotations

import pytest
from world import MATCHED, World

from trustcompute import kernels
from trustcompute.broker.grant import Bounds
from trustcompute.broker.job import JobState
from trustcompute.errors import JobForfeited, JobInterrupted

pytestmark = pytest.mark.fault
PROTOCOLS = {"psi.vole.v1": 3, "psi.vole-malicious.v1": 5}  # turns of the consumer
OPERATIONS = {**{name: Bounds() for name in PROTOCOLS}, "psi.ecdh.v1": Bounds()}
EACH_TURN = [(name, turn) for name, turns in PROTOCOLS.items() for turn in range(turns)]
if kernels.active().name != "native":  # where each run takes seconds
    EACH_TURN = [("psi.vole.v1", 2)]
    del PROTOCOLS["psi.vole-malicious.v1"]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "world", operations=OPERATIONS)
    yield made
    made.stop()


@pytest.mark.parametrize(("protocol", "turn"), EACH_TURN)
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "repeat"])
def test_a_fault_at_any_turn_is_overcome_and_charged_once(world, protocol, turn, fault):
    found = world.intersect(world.session(plan={turn: fault}), protocol=protocol)
    assert found.left_rows.tolist() == MATCHED
    assert world.types().count("job.posted") == 1
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize(("protocol", "turn"), EACH_TURN)
def test_a_consumer_that_dies_after_any_turn_goes_on_in_another_process_with_the_same_secrets(
    world, tmp_path, protocol, turn
):
    first = world.session(plan=dict.fromkeys(range(turn, turn + 9), "lose answer"), state=tmp_path / "jobs")
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(first, protocol=protocol)
    second = world.session(state=tmp_path / "jobs")
    found = world.intersect(second, protocol=protocol, job=interrupted.value.job)
    assert found.left_rows.tolist() == MATCHED
    assert "incident" not in world.types(), "a repeated turn had other bytes: a second message under one Δ"
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_node_that_dies_half_way_forfeits_its_delta_with_the_job(world, tmp_path, protocol):
    first = world.session(plan=dict.fromkeys(range(1, 10), "lose answer"), state=tmp_path / "jobs")
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(first, protocol=protocol)
    world.restart()
    with pytest.raises(JobForfeited):
        world.intersect(world.session(state=tmp_path / "jobs"), protocol=protocol, job=interrupted.value.job)
    assert world.broker.job(interrupted.value.job).state is JobState.FORFEITED
    assert world.intersect(protocol=protocol).left_rows.tolist() == MATCHED
    world.check()
