"""Lookups over a node: the table travels once, a lookup is metered, a new dataset makes a new table."""

from __future__ import annotations

import pyarrow as pa
import pytest
from world import AIRLINE, FLIGHTS, MATCHED, PLANES, REGISTRY, World

from trustcompute.broker.grant import Bounds
from trustcompute.errors import ParameterError, Refused
from trustcompute.node import Dataset, Node
from trustcompute.primitives import oprf

OPERATIONS = {"psi.lookup.v1": Bounds(), "psi.ecdh.v1": Bounds()}


class LookupWorld(World):
    """The world of intersections, its dataset offering lookups."""

    planes = PLANES

    def start(self):
        super().start()
        self.node.close()
        dataset = Dataset(
            "planes", self.planes, version="2013", keys=["tailnum"], evaluated=self.directory / "tables"
        )
        self.node = Node(REGISTRY, self.broker, [dataset])

    def lookup(self, session=None, table=FLIGHTS):
        return (session or self.session()).lookup("planes", table, on={"tail": "tailnum"})


@pytest.fixture
def world(tmp_path):
    made = LookupWorld(tmp_path, operations=OPERATIONS)
    yield made
    made.stop()


def test_the_table_travels_once_and_every_lookup_is_metered(world, tmp_path):
    with world.session(state=tmp_path / "state") as session:
        first = world.lookup(session)
        again = world.lookup(session, {"tail": ["N1"]})
    assert first.left_rows.tolist() == MATCHED
    assert (again.count, again.left_rows.tolist()) == (1, [0])
    assert first.cost.bytes_received - again.cost.bytes_received > 16 * 40
    with world.session(state=tmp_path / "state") as session:  # another process
        assert world.lookup(session, {"tail": ["X1"]}).cost.bytes_received == again.cost.bytes_received
    for found in (first, again):
        assert found.receipt.verify(world.broker.log_key).type == "job.posted"
        assert found.protocol == "psi.lookup.v1"
    assert world.used() == 3
    world.check()


def test_a_restarted_node_answers_from_the_table_it_kept(world, tmp_path):
    with world.session(state=tmp_path / "state") as session:
        first = world.lookup(session)
    world.restart()
    with world.session(state=tmp_path / "state") as session:
        again = world.lookup(session)
    assert again.left_rows.tolist() == MATCHED
    assert again.cost.bytes_received < first.cost.bytes_received


def test_other_data_are_another_table_and_an_open_session_is_told(world):
    with world.session() as session:
        world.lookup(session)
        world.planes = pa.table({"tailnum": ["N7", *[f"M{i}" for i in range(39)]]})  # as many keys
        world.stop()
        world.start()
        with world.session() as fresh:
            assert world.lookup(fresh).left_rows.tolist() == [5]
            fresh._catalog = session._catalog  # one that has not looked since
            with pytest.raises(ParameterError, match="catalogue again"):
                world.lookup(fresh)


def test_a_grant_that_does_not_name_lookups_allows_none(world):
    grant = world.issue(operations={"psi.ecdh.v1": Bounds()})
    with pytest.raises(Refused, match="operation"):
        world.lookup(world.session(identity=AIRLINE, grant=grant))


def test_a_lookup_is_charged_without_being_armed_and_one_that_stops_before_costs_nothing(world, monkeypatch):
    seen = []
    post = world.broker.post

    def noted(job, **options):
        seen.append(world.broker.job(job).state)
        return post(job, **options)

    monkeypatch.setattr(world.broker, "post", noted)
    with world.session() as session:
        world.lookup(session)
        assert seen == ["reserved"]
        monkeypatch.setattr(oprf, "evaluate", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            world.lookup(session)
    assert world.used() == 1
    world.check()
