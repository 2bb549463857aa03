"""What a finished job matched is kept by the holder: for its asker and dataset, for a while, and for nobody else."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from world import AIRLINE, FLIGHTS, PLANES, REGISTRY, RIVAL

from trustcompute.broker.outbox import RETENTION
from trustcompute.errors import ParameterError, Refused, StoreError
from trustcompute.node import Dataset, Node, aligned


def both(world, session=None, **options):
    return world.intersect(session, **({"reveal": "both"} | options))


def held(world, job, asker=AIRLINE.name, **options):
    return world.node.matched_rows("planes", job, asker, **options).tolist()


@pytest.mark.parametrize("protocol", ["psi.ecdh.v1", "psi.dh.v1"])
def test_both_sides_have_their_matched_rows_in_one_order(world, protocol):
    found = both(world, protocol=protocol)
    ours = [FLIGHTS["tail"][row].as_py() for row in found.aligned(duplicates="first")]
    theirs = [PLANES["tailnum"][row].as_py() for row in held(world, found.job)]
    assert ours == theirs
    assert sorted(ours) == ["N1", "N39", "N7"]
    listed = found.table(ids="place").to_pylist()
    assert {row["tail"]: row["place"] for row in listed} == {key: place for place, key in enumerate(ours)}
    assert held(world, found.job, duplicates="all").count(40) == 1, "the row that repeats a key"
    with pytest.raises(Refused, match="several rows"):
        held(world, found.job, duplicates="refuse")


def test_a_computation_gets_them_of_the_dataset_it_is_handed(world):
    found = both(world)
    handed = world.node._dataset("planes", world.broker.verify(world.grant))
    assert aligned.rows_of(handed, found.job).tolist() == held(world, found.job)


def test_they_are_kept_over_a_restart_and_after_the_receipt(world):
    found = both(world)
    before = held(world, found.job)
    world.restart()
    assert held(world, found.job) == before


def refused(world, job, **options):
    with pytest.raises(Refused) as no:
        held(world, job, **options)
    assert (no.value.rule, no.value.field) == ("matched", "params.matched")
    assert "reveal='both'" in no.value.fix
    return str(no.value)


def test_only_the_asker_of_a_finished_job_that_both_learnt(world):
    found = both(world)
    told = {
        refused(world, found.job, asker=RIVAL.name),
        refused(world, found.job, asker=""),
        refused(world, world.intersect().job),
        refused(world, world.intersect(output="count", reveal="both", protocol="psi.ecdh.v1").job),
        refused(world, "0" * 32),
        refused(world, "../" + found.job),
    }
    assert len(told) == 1, "why is not told: it would say whose jobs there are"
    with pytest.raises(ParameterError, match="no dataset"):
        world.node.matched_rows("others", found.job, AIRLINE.name)


def test_they_are_forgotten_when_answers_are(world):
    found = both(world)
    directory = world.directory / "book" / "matched"
    assert len(list(directory.iterdir())) == 1
    world.clock.advance(RETENTION - 1)
    world.node.sweep()
    assert held(world, found.job)
    world.clock.advance(1)
    refused(world, found.job)
    world.node.sweep()
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2014"},
        {"source": PLANES.slice(1)},
        {"keys": [["tailnum", "seats"]]},
    ],
)
def test_a_dataset_that_has_changed_has_none(world, change):
    found = both(world)
    world.node.close()
    made = {"id": "planes", "source": PLANES, "version": "2013", "keys": ["tailnum", ["tailnum", "seats"]]}
    world.node = Node(REGISTRY, world.broker, [Dataset(**(made | change))])
    assert "not as it was" in refused(world, found.job)


def test_rows_are_those_of_the_table_as_it_is(world):
    """The same keys in another order of rows: the rows move with their keys."""
    found = both(world)
    before = [PLANES["tailnum"][row].as_py() for row in held(world, found.job)]
    world.node.close()
    turned = PLANES.take(list(range(len(PLANES)))[::-1])
    world.node = Node(REGISTRY, world.broker, [Dataset("planes", turned, version="2013", keys=["tailnum"])])
    assert [turned["tailnum"][row].as_py() for row in held(world, found.job)] == before


def test_of_keys_on_disk_too(world, tmp_path):
    pq.write_table(PLANES, tmp_path / "planes.parquet")
    world.node.close()
    dataset = Dataset(
        "planes", tmp_path / "planes.parquet", version="2013", keys=["tailnum"], stored=tmp_path / "digests"
    )
    world.node = Node(REGISTRY, world.broker, [dataset])
    found = both(world)
    ours = [FLIGHTS["tail"][row].as_py() for row in found.aligned(duplicates="first")]
    assert [PLANES["tailnum"][row].as_py() for row in held(world, found.job)] == ours


@pytest.mark.fault
def test_what_cannot_be_kept_is_kept_when_the_turn_comes_again(world, monkeypatch):
    real, calls = aligned.keep_pieces, []

    def full_once(path, pieces):
        calls.append(path)
        if len(calls) == 1:
            raise StoreError("no space left")
        real(path, pieces)

    monkeypatch.setattr(aligned, "keep_pieces", full_once)
    session = world.session()
    exchange = session._channel.exchange

    def insisting(descriptor, frames):
        try:
            return exchange(descriptor, frames)
        except StoreError:
            return exchange(descriptor, frames)

    session._channel.exchange = insisting
    found = both(world, session)
    assert len(calls) == 2
    assert held(world, found.job)
    assert len(world.results) == 1


@pytest.mark.fault
def test_where_it_cannot_be_kept_the_asker_has_its_part_all_the_same(world, monkeypatch):
    def full(path, pieces):
        raise StoreError("no space left")

    monkeypatch.setattr(aligned, "keep_pieces", full)
    found = both(world)
    assert found.count == 3
    refused(world, found.job)
    assert not world.results
    world.check()


def test_files_are_the_owners_alone(world):
    both(world)
    (kept,) = (world.directory / "book" / "matched").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    assert kept.parent.stat().st_mode & 0o077 == 0


def test_an_interrupted_last_turn_goes_on(world):
    """The provider's part comes with the turn after the receipt; repeated and lost answers change nothing."""
    found = both(world, world.session(plan={1: "lose answer"}))
    assert len(held(world, found.job)) == len(found.aligned(duplicates="first"))
    assert len(world.results) == 1
    assert world.used() == 1
