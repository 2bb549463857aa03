"""Sizes over a node: what is declared, charged and shown is the padded one, on either side."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from world import FLIGHTS, MATCHED, PLANES, REGISTRY

from trustcompute.errors import JobInterrupted, ParameterError
from trustcompute.node import Dataset, Node


def renew(world, **options):
    world.node.close()
    dataset = Dataset(
        "planes", PLANES, version="2013", keys=["tailnum", ["tailnum", "seats"]], **({"pad_to": 64} | options)
    )
    world.node = Node(REGISTRY, world.broker, [dataset], on_result=world.results.append)


@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
@pytest.mark.parametrize("protocol", ["psi.ecdh.v1", "psi.dh.v1"])
def test_both_sides_padded(world, reveal, protocol):
    renew(world)
    found = world.intersect(pad_to="power-of-two", reveal=reveal, protocol=protocol)
    assert "padded number" in found.leakage.provider
    assert "padded number" in found.leakage.consumer
    if reveal != "provider":
        assert (found.count, found.left_rows.tolist()) == (3, MATCHED)
    if reveal != "consumer":
        assert world.results[-1].output.rows.tolist() == [1, 7, 39, 40]
        assert world.results[-1].output.count == 3
    charged = found.receipt.verify(world.broker.log_key).fields["usage"]
    assert int(charged["rows"]) == 4, "as declared: three keys of ours and X1"
    world.check()


def test_the_size_that_is_charged_is_the_padded_one(world):
    found = world.intersect(pad_to=100)
    assert int(found.receipt.verify(world.broker.log_key).fields["usage"]["rows"]) == 100
    assert "padded" in found.leakage.provider
    assert "padded" not in found.leakage.consumer, "the dataset is not"


def test_the_catalogue_tells_the_padded_size_alone(world):
    renew(world, pad_to="power-of-two")
    entry = world.session().entry("planes")
    assert entry.padded
    assert [choice.distinct for choice in entry.keys] == [64, 64]
    assert world.intersect().left_rows.tolist() == MATCHED


def test_common_order_of_padded_sets(world):
    renew(world)
    found = world.intersect(pad_to=9, reveal="both")
    ours = [FLIGHTS["tail"][row].as_py() for row in found.aligned(duplicates="first")]
    theirs = world.node.matched_rows("planes", found.job, "airline.example")
    assert [PLANES["tailnum"][row].as_py() for row in theirs] == ours


def test_what_cannot_be_padded_is_said_at_the_start(world):
    with pytest.raises(ParameterError, match="40 distinct keys, more than pad_to=39"):
        renew(world, pad_to=39)
    with pytest.raises(ParameterError, match="evaluated"):
        renew(world, evaluated=world.directory / "tables")
    renew(world, pad_to=None)
    with pytest.raises(ParameterError, match="more than pad_to=2"):
        world.intersect(pad_to=2)
    assert world.used() == 0


@pytest.mark.parametrize("runs", [1, 3])
def test_files_are_padded_and_go_on(world, runs):
    renew(world)
    file, state = world.directory / "flights.parquet", world.directory / "jobs"
    pq.write_table(FLIGHTS, file)

    def intersect(plan=None, **options):
        return world.session(plan=plan, state=state).intersect_file(
            "planes",
            file,
            on={"tail": "tailnum"},
            out=world.directory / "out.parquet",
            **({"runs": runs, "protocol": "psi.dh.v1", "pad_to": 32} | options),
        )

    with pytest.raises(JobInterrupted):
        intersect(plan=dict.fromkeys(range(9), "lose answer"))
    with pytest.raises(ParameterError, match="pad_to"):
        intersect(resume=True, pad_to=None)
    found = intersect(resume=True)
    assert found.rows == len(MATCHED)
    assert "padded number" in found.leakage.provider
    assert int(found.receipt.verify(world.broker.log_key).fields["usage"]["rows"]) == 32
    assert world.used() == 1
    world.check()
