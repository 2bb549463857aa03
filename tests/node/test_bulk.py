"""Files intersected over a node: kept while they run, taken up wherever they were stopped or killed, charged once."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import world as worlds
from killing import killed_at
from world import FLIGHTS, MATCHED

from trustcompute import tables
from trustcompute.broker.grant import hash_of
from trustcompute.broker.job import JobState
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.writer import Writer
from trustcompute.errors import (
    Conflict,
    JobInterrupted,
    ParameterError,
    Refused,
    RemoteProtocolError,
    StoreError,
    TableError,
    TrustcomputeError,
)
from trustcompute.node import Dataset, bulk
from trustcompute.node import job as jobs
from trustcompute.node import runs as node_runs
from trustcompute.node import session as sessions
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.state import StateStore
from trustcompute.protocol.operation import Sizes
from trustcompute.tables import stored
from trustcompute.transport import FlightChannel

RUNS = 3


@pytest.fixture
def one_at_a_time(monkeypatch):
    monkeypatch.setattr(node_runs, "AT_A_TIME", 1)


@pytest.fixture
def file(tmp_path):
    pq.write_table(FLIGHTS, tmp_path / "flights.parquet")
    return tmp_path / "flights.parquet"


def intersect(world, session=None, runs=RUNS, **options):
    directory = world.directory
    session = session or world.session(state=directory / "jobs")
    return session.intersect_file(
        "planes",
        directory / "flights.parquet",
        on={"tail": "tailnum"},
        out=directory / "out.parquet",
        **({"runs": runs, "protocol": "psi.dh.v1"} | options),
    )


def written(world):
    return pq.read_table(world.directory / "out.parquet")


def kept(world):
    files = world.directory / "jobs" / "files"
    return [path for path in files.iterdir() if path.suffix != ".lock"] if files.exists() else []


@pytest.mark.parametrize("runs", [None, 1, 5])
@pytest.mark.parametrize("protocol", ["auto", "psi.dh.v1"])
def test_rows_are_written_and_nothing_else_is_kept(world, file, runs, protocol):
    found = intersect(world, runs=runs, protocol=protocol)
    assert written(world) == FLIGHTS.take(MATCHED)
    assert (found.count, found.rows, found.runs) == (3, 4, runs or 1)
    entry = found.receipt.verify(world.broker.log_key)
    assert entry.fields["job"] == found.job
    assert world.used() == 1
    assert not kept(world)
    assert sorted(path.suffix for path in (world.directory / "jobs").iterdir()) == ["", ".json", ".log-key"]
    world.check()


def test_a_session_without_a_directory_has_nowhere_to_keep_it(world, file):
    with pytest.raises(ParameterError, match="state="):
        intersect(world, world.session())


@pytest.mark.fault
@pytest.mark.parametrize("number", range(RUNS))
@pytest.mark.parametrize("restart", [False, True])
def test_an_interrupted_job_goes_on(world, file, number, restart, one_at_a_time):
    lost = dict.fromkeys(range(number, number + 9), "lose answer")
    with pytest.raises(JobInterrupted) as interrupted:
        intersect(world, world.session(plan=lost, state=world.directory / "jobs"))
    if restart:
        world.restart()
    with pytest.raises(ParameterError, match="resume"):
        intersect(world)
    counted = []
    session = world.session(state=world.directory / "jobs", before=counted.append)
    seen = []
    found = intersect(world, session, resume=True, progress=seen.append)
    assert found.job == interrupted.value.job
    assert written(world) == FLIGHTS.take(MATCHED)
    assert len(counted) == RUNS - number
    assert "digest" not in {one.phase for one in seen}, "what was digested is not digested again"
    assert next(one.done for one in seen if one.phase == "match") == number
    assert world.used() == 1
    world.check()


def test_stopped_it_says_how_to_go_on(world, file):
    stop = threading.Event()
    with pytest.raises(JobInterrupted, match="job="):
        intersect(
            world, stop=stop, progress=lambda one: stop.set() if one.phase == "match" else None, at_a_time=1
        )
    assert intersect(world, resume=True).rows == len(MATCHED)
    assert world.used() == 1


def test_a_changed_file_does_not_go_on(world, file, one_at_a_time):
    lost = dict.fromkeys(range(1, 9), "lose answer")
    with pytest.raises(JobInterrupted):
        intersect(world, world.session(plan=lost, state=world.directory / "jobs"))
    pq.write_table(pa.table({"tail": ["N5"], "flight": [1]}), file)
    with pytest.raises(ParameterError, match="changed"):
        intersect(world, resume=True)
    session = world.session(state=world.directory / "jobs")
    assert session.cancel_file("planes", file, on={"tail": "tailnum"}) is not None
    assert not kept(world)
    assert intersect(world).rows == 1


def test_cancelled_before_it_was_charged_it_costs_nothing(world, file):
    stop = threading.Event()
    stop.set()
    with pytest.raises(JobInterrupted):
        intersect(world, stop=stop)
    session = world.session(state=world.directory / "jobs")
    assert session.cancel_file("planes", file, on={"tail": "tailnum"}) is None, "it had not been opened yet"

    def stop_at_match(one):
        if one.phase == "match":
            stop.set()

    stop.clear()
    with pytest.raises(JobInterrupted):
        intersect(world, stop=stop, progress=stop_at_match)
    job = session.cancel_file("planes", file, on={"tail": "tailnum"})
    assert world.broker.job(job).state is JobState.VOIDED
    assert world.used() == 0
    with pytest.raises(ParameterError, match="nothing to go on with"):
        intersect(world, resume=True)
    assert intersect(world).job != job


def test_what_can_never_go_on_makes_way(world, file, one_at_a_time):
    def revoke(at):
        if at == 1:
            world.broker.revoke(hash_of(world.grant), "test")

    session = world.session(before=revoke, state=world.directory / "jobs")
    with pytest.raises(Refused, match="revoked"):
        intersect(world, session)
    world.grant = world.issue(limits={})
    assert intersect(world).rows == len(MATCHED)
    world.check()


def test_a_job_whose_giving_up_was_cut_off_is_given_up(world, file, one_at_a_time):
    """Killed after the job's secrets were forgotten, and before the file's directory was told."""
    lost = dict.fromkeys(range(1, 9), "lose answer")
    with pytest.raises(JobInterrupted) as interrupted:
        intersect(world, world.session(plan=lost, state=world.directory / "jobs"))
    StateStore(world.directory / "jobs").forget(interrupted.value.job)
    found = intersect(world, resume=True)
    assert found.rows == len(MATCHED)
    assert found.job != interrupted.value.job


def test_two_processes_do_not_share_a_job(world, file):
    session = world.session(state=world.directory / "jobs")
    with (
        bulk._Kept.of(session, "planes", file, ["tail"], ["tailnum"]),
        pytest.raises(Conflict, match="another process"),
    ):
        intersect(world)


def test_nothing_is_spent_on_what_cannot_be_written(world, file):
    session = world.session(state=world.directory / "jobs")
    with pytest.raises(TableError):
        session.intersect_file("planes", file, on={"tail": "tailnum"}, out=world.directory / "out.doc")
    with pytest.raises(ParameterError):
        session.intersect_file("planes", file, on={"tail": "tailnum"}, out=world.directory / "no/out.csv")
    assert "job.reserved" not in world.types()


@pytest.mark.fault
@pytest.mark.parametrize("where", ["keys", "turns", "matched", "rows"])
def test_a_full_disk_ends_clearly_and_goes_on_when_there_is_room(
    world, file, where, monkeypatch, one_at_a_time
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        target = {
            "keys": (stored, "_created"),
            "turns": (os, "fsync"),
            "matched": (bulk._Kept, "keep"),
            "rows": (os, "fsync"),
        }[where]
        phase = {"turns": "match", "rows": "write"}.get(where)

        def fill(one):
            if phase is not None and one.phase == phase:
                patch.setattr(*target, full)

        def refuse(*_):
            raise StoreError("cannot write: No space left on device; free space, and resume")

        if phase is None:
            patch.setattr(*target, refuse if where == "matched" else full)
        with pytest.raises(StoreError, match="No space"):
            intersect(world, progress=fill)
    assert not (world.directory / "out.parquet").exists()
    assert not list(world.directory.glob("*.tmp"))
    assert intersect(world, resume=True).rows == len(MATCHED)
    world.check()


def test_a_dataset_kept_on_disk_answers_the_same_and_is_found_again(world, tmp_path, monkeypatch):
    path = tmp_path / "planes.parquet"
    pq.write_table(worlds.PLANES, path)
    dataset = Dataset(
        "planes", path, version="1", keys=["tailnum", ["tailnum", "seats"]], stored=tmp_path / "digests"
    )
    held, inside = HeldDataset(dataset), HeldDataset(Dataset("planes", path, version="1", keys=dataset.keys))
    assert held.describe() == inside.describe()
    assert held.asset() == inside.asset()
    monkeypatch.setattr("trustcompute.node.dataset.store", None)  # nothing is digested again
    assert HeldDataset(dataset).describe() == inside.describe()


@pytest.mark.parametrize("protocol", ["psi.ecdh.v1", "psi.dh.v1"])
def test_a_node_with_keys_on_disk(world, file, monkeypatch, protocol):
    pq.write_table(worlds.PLANES, world.directory / "planes.parquet")
    real = worlds.Dataset

    def on_disk(*arguments, **options):
        options |= {"source": world.directory / "planes.parquet", "stored": world.directory / "digests"}
        return real(arguments[0], **options)

    monkeypatch.setattr(worlds, "Dataset", on_disk)
    world.restart()
    assert intersect(world, protocol=protocol).rows == len(MATCHED)
    both = world.intersect(reveal="both", protocol="psi.ecdh.v1")
    assert both.left_rows.tolist() == MATCHED
    assert world.results[-1].output.rows.tolist() == [1, 7, 39, 40]
    world.restart()
    assert intersect(world, protocol=protocol).rows == len(MATCHED)
    world.check()


def begin(directory: Path) -> Callable[[], object]:
    """A world in a child, its grant left for the test, and the job of a file."""
    made = worlds.World(directory)
    (directory / "grant").write_text(made.grant)
    return lambda: intersect(made, runs=2)


WRITES = (
    (Writer, "commit"),
    (Outbox, "write"),
    (StateStore, "_write"),
    (StateStore, "forget"),
    (bulk, "store"),
    (bulk._Kept, "_write"),
    (bulk._Kept, "forget"),
    (bulk, "write_rows"),
)


def go_on_to_the_end(world):
    """As a person would: go on; where that cannot be, begin again, which only what was not charged needs."""
    charged = "job.posted" in world.types()
    try:
        intersect(world, runs=2, resume=True)
    except ParameterError as error:  # finished to the last step, or killed before its first
        assert "nothing to go on with" in str(error)
        if not charged:
            intersect(world, runs=2)
    except TrustcomputeError as error:
        assert error.code in ("forfeited", "conflict")
        assert not charged
        intersect(world, runs=2, resume=True)


@pytest.mark.fault
def test_both_sides_killed_at_every_write_end_with_the_same_rows(tmp_path):
    """Whatever was charged goes on; what had touched data and was not charged is forfeited, and begun anew."""
    for boundary in range(1, 200, 2):
        directory = tmp_path / str(boundary)
        directory.mkdir()
        pq.write_table(FLIGHTS, directory / "flights.parquet")
        if not killed_at(boundary, partial(begin, directory), WRITES):
            assert boundary > 30
            return
        world = worlds.World.reopened(directory)
        go_on_to_the_end(world)
        assert written(world) == FLIGHTS.take(MATCHED)
        assert world.types().count("job.posted") == 1
        assert not kept(world)
        world.check()
        world.stop()
    raise AssertionError("the child never finished")


@pytest.mark.fault
def test_jobs_killed_between_two_processes(tmp_path):
    """Two seeds of the campaign, in a process that has not spoken to a node and may fork."""
    campaign = Path(__file__).with_name("campaign_resume.py")
    ended = subprocess.run(
        [sys.executable, campaign, "--seeds", "2", "--first", "2"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "finished 2" in ended.stdout
    assert "killed" in ended.stdout


@contextlib.contextmanager
def served(world, turn_seconds):
    """A session over the network whose node may take so long for a turn."""
    with world.node.serve() as server:
        channel = FlightChannel(
            server.url, worlds.AIRLINE, peer=worlds.REGISTRY.name, turn_seconds=turn_seconds
        )
        session = sessions.Session(
            channel, identity=worlds.AIRLINE, grant=world.grant, state=world.directory / "jobs"
        )
        with session:
            yield session


@pytest.mark.fault
def test_a_slow_node_is_waited_for(world, file, monkeypatch):
    real = jobs.ProviderJob.answer

    def slowly(self, *arguments):
        time.sleep(0.3)
        return real(self, *arguments)

    monkeypatch.setattr(jobs.ProviderJob, "answer", slowly)
    with served(world, 60) as session:
        assert intersect(world, session).rows == len(MATCHED)
    world.check()


@pytest.mark.fault
def test_a_node_that_stalls_meets_its_deadline_and_the_job_goes_on_later(world, file, monkeypatch):
    stalled = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(jobs.ProviderJob, "answer", lambda *_: stalled.wait(60) and [])
        with served(world, 0.5) as session:
            with pytest.raises(JobInterrupted, match="in time") as interrupted:
                intersect(world, session, at_a_time=1)
            stalled.set()
    with served(world, 60) as session:
        found = intersect(world, session, resume=True)
    assert found.job == interrupted.value.job
    assert written(world) == FLIGHTS.take(MATCHED)
    assert world.used() == 1
    world.check()


@pytest.mark.fault
def test_a_consumer_that_brings_more_keys_than_it_declared_is_refused(world, file, monkeypatch):
    honest = bulk.bucket_party

    def lying(session, operation, sizes, keys):
        return honest(session, operation, Sizes(sizes.consumer + 50, sizes.provider), keys)

    monkeypatch.setattr(bulk, "bucket_party", lying)
    with pytest.raises(RemoteProtocolError, match="declared sizes"):
        intersect(world, at_a_time=1)
    assert "job.posted" not in world.types()
    assert "incident" in world.types()
    world.check()


@pytest.mark.fault
def test_a_dataset_that_has_changed_since_its_catalogue_was_read_costs_nothing(world, file, monkeypatch):
    session = world.session(state=world.directory / "jobs")
    session.catalog()
    monkeypatch.setattr(
        HeldDataset, "keys", lambda self, columns: tables.keys({"tailnum": ["N1"]}, "tailnum")
    )
    with pytest.raises(ParameterError, match="another size"):
        intersect(world, session)
    assert world.types()[-1] == "job.voided"
