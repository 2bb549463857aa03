"""Runs over changes over a node: charged for what moved, kept between processes, equal to full runs."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from world import AIRLINE, REGISTRY, World

from trustcompute.broker.grant import Bounds
from trustcompute.errors import JobInterrupted, ParameterError, TransportError, VerificationError
from trustcompute.node import Dataset, Node

OPERATIONS = {"psi.delta.v1": Bounds(), "psi.ecdh.v1": Bounds()}


class FollowedWorld(World):
    """Its dataset can be followed, and changed."""

    planes = range(20)

    def start(self):
        super().start()
        self.node.close()
        table = pa.table({"tail": [f"N{i}" for i in self.planes]})
        dataset = Dataset(
            "planes", table, version="2013", keys=["tail"], changing=self.directory / "followed"
        )
        self.node = Node(REGISTRY, self.broker, [dataset])

    def change(self, planes):
        self.planes = planes
        self.restart()

    def run(self, ours, state, **options):
        table = {"tail": [f"N{i}" for i in ours]}
        with self.session(state=state, **options) as session:
            found = session.intersect_changes("planes", table, on="tail")
        assert [ours[row] for row in found.left_rows] == [one for one in ours if one in self.planes]
        return found

    def usage(self, found):
        used = found.receipt.verify(self.broker.log_key).fields["usage"]  # what is none is left out
        return {"calls": 0, "rows": 0, "bytes": 0} | used


@pytest.fixture
def world(tmp_path):
    made = FollowedWorld(tmp_path, operations=OPERATIONS)
    yield made
    made.stop()


def test_runs_over_changes_find_what_full_ones_do_and_are_charged_for_what_moved(world, tmp_path):
    state = tmp_path / "state"
    first = world.usage(world.run(list(range(10, 25)), state))
    assert (first["rows"], first["bytes"]) == (15, 15 * 64 + 20 * 16)
    second = world.usage(world.run(list(range(10, 27)), state))  # another process, two keys more
    assert (second["rows"], second["bytes"]) == (2, 2 * 64)
    world.change(range(3, 22))
    third = world.usage(world.run(list(range(12, 27)), state))
    assert (third["rows"], third["bytes"]) == (0, 5 * 16)
    assert first["calls"] == third["calls"] == 1
    world.check()


def test_one_that_stayed_away_too_long_receives_the_whole_table_and_keeps_its_own_values(world, tmp_path):
    world.run(list(range(5)), tmp_path / "state")
    for at in range(10):
        world.change(range(at, at + 20))
    usage = world.usage(world.run(list(range(6)), tmp_path / "state"))
    assert (usage["rows"], usage["bytes"]) == (1, 64 + 20 * 16)


def test_a_holder_with_another_key_is_begun_with_anew(world, tmp_path):
    world.run(list(range(5)), tmp_path / "state")
    for kept in (world.directory / "followed").iterdir():
        kept.unlink()
    world.restart()
    assert world.usage(world.run(list(range(5)), tmp_path / "state"))["rows"] == 5


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["lose answer", "lose request"])
def test_what_gets_lost_is_sent_again_and_a_stopped_job_goes_on_charged_once(world, tmp_path, fault):
    state = tmp_path / "state"
    world.run(list(range(5)), state, plan={0: fault})

    def gone(number):
        raise TransportError("the line is broken")

    table = {"tail": [f"N{i}" for i in range(8)]}
    with world.session(state=state, before=gone) as session, pytest.raises(JobInterrupted) as failed:
        session.intersect_changes("planes", table, on="tail")
    with world.session(state=state) as session:
        found = session.intersect_changes("planes", table, on="tail", job=failed.value.job)
    assert len(found.left_rows) == 8
    assert world.types().count("job.posted") == 2


def test_a_kept_set_that_was_altered_is_not_used(world, tmp_path):
    state = tmp_path / "state"
    world.run(list(range(5)), state)
    kept = next(state.glob("*.followed"))
    raw = bytearray(kept.read_bytes())
    raw[-1] ^= 1
    kept.write_bytes(raw)
    with pytest.raises(VerificationError, match="remove it"):
        world.run(list(range(5)), state)


def test_a_dataset_that_is_not_followed_says_so(tmp_path):
    plain = World(tmp_path, operations=OPERATIONS)
    try:
        with pytest.raises(ParameterError, match="not followed"):
            plain.session().intersect_changes("planes", {"tailnum": ["N1"]}, on="tailnum")
    finally:
        plain.stop()


def test_without_a_state_directory_a_session_remembers(world):
    with world.session() as session:
        for _ in range(2):
            found = session.intersect_changes("planes", {"tail": ["N1", "N99"]}, on="tail")
    assert found.left_rows.tolist() == [0]
    assert world.usage(found)["rows"] == 0


def test_the_command_and_the_setting(world, tmp_path, capsys):
    pytest.importorskip("typer")
    import pyarrow.parquet as pq

    from trustcompute.cli import main
    from trustcompute.cli.settings import load_settings

    (tmp_path / "node.toml").write_text(
        'identity = "me"\nbook = "book"\n[[dataset]]\nid = "planes"\nsource = "ours.parquet"\nversion = "1"\n'
        'keys = ["tail"]\nchanging = "followed"\n'
    )
    (one,) = load_settings(tmp_path / "node.toml").dataset
    assert one.dataset(tmp_path).changing == tmp_path / "followed"
    pq.write_table(pa.table({"tail": ["N1", "N2", "X"]}), tmp_path / "ours.parquet")
    AIRLINE.save(tmp_path / "me")
    (tmp_path / "grant").write_text(world.grant)
    with world.node.serve() as server:
        command = [
            "intersect-changes",
            str(tmp_path / "ours.parquet"),
            "--with",
            server.url,
            "--dataset",
            "planes",
        ]
        command += [
            "--identity",
            str(tmp_path / "me"),
            "--grant",
            str(tmp_path / "grant"),
            "--on",
            "tail",
            "--json",
        ]
        command += ["--state", str(tmp_path / "jobs"), "--out", str(tmp_path / "out.csv")]
        for _ in range(2):
            assert main(command) == 0
            assert json.loads(capsys.readouterr().out)["rows"] == 2
