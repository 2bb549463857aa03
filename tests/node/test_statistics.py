"""Statistics over a node: metered, bounded by grants, refused from history before anything is spent."""

from __future__ import annotations

import pyarrow as pa
import pytest
from world import AIRLINE, REGISTRY, World

from trustcompute.broker.grant import Bounds
from trustcompute.errors import JobInterrupted, ParameterError, Refused, VerificationError
from trustcompute.node import Dataset, Node
from trustcompute.verification import Rules

STATISTICS = "verify.statistics.v1"
ROWS = [(maker, kind, seats) for maker in "ABC" for kind in "xyz" for seats in (90, 100, 110, 120)]
PLANES = pa.table(
    {
        "maker": [maker for maker, _, _ in ROWS] + ["D"],
        "kind": [kind for _, kind, _ in ROWS] + ["x"],
        "state": ["CA", "NY"] * 18 + ["CA"],
        "seats": [seats for _, _, seats in ROWS] + [400],
    }
)
RULES = Rules(by={"maker": (), "kind": (), "state": ()}, columns=["seats"])


class StatisticalWorld(World):
    rules, version = RULES, "2013"

    def start(self):
        super().start()
        self.node.close()
        dataset = Dataset("planes", PLANES, version="2013", statistics=self.rules)
        self.node = Node(REGISTRY, self.broker, [dataset])

    def spent(self):
        return 10 - int(self.session().quote(STATISTICS, "planes", rows=0, **QUOTED).left["calls"]["total"])


QUOTED = {"by": [], "sums": [], "columns": [], "cells": 1, "min_group": 3, "terms": "0" * 64}


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = StatisticalWorld(tmp_path, operations={STATISTICS: Bounds()})
    [token] = [made.node._datasets["planes"].tabulator.id]
    monkeypatch.setitem(QUOTED, "terms", token)
    yield made
    made.stop()


def test_statistics_are_metered_and_explained(world):
    found = world.session().statistics("planes", "seats", by="maker")
    assert found.cell(maker="B").sums == {"seats": 1260}
    assert found.cell(maker="B").mean("seats") == 105
    assert found.cell(maker="A").suppressed == "complementary"
    assert found.cell(maker="D").suppressed == "minimum frequency"
    assert len(found.suppressed) == 2
    assert found.receipt.verify(world.broker.log_key).type == "job.posted"
    assert "suppressed" in found.leakage.consumer
    assert world.spent() == 1
    world.check()


def test_refusals_come_from_history_before_anything_is_spent_and_survive_a_restart(world):
    session = world.session()
    told = session.statistics("planes", by=["maker", "kind"])
    assert told.suppressed
    assert session.statistics("planes", by="maker").cell(maker="D").suppressed
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            world.session().statistics("planes", by=["maker", "state"])
        assert (refused.value.rule, refused.value.field) == ("overlap", "params.by")
        assert world.spent() == 2
        world.restart()
    assert [cell.status for cell in world.session().statistics("planes", by=["maker", "kind"]).cells] == [
        cell.status for cell in told.cells
    ]


def test_grants_bound_columns_and_groups(world):
    grant = world.issue(operations={STATISTICS: Bounds(columns=("maker", "seats"), min_group=3)})
    session = world.session(grant=grant)
    assert session.statistics("planes", "seats", by="maker").cell().rows == 37
    with pytest.raises(Refused) as refused:
        session.statistics("planes", by="kind")
    assert refused.value.rule == "columns"
    larger = world.issue(operations={STATISTICS: Bounds(min_group=5)})
    with pytest.raises(Refused) as refused:
        world.session(grant=larger).statistics("planes", by="kind")
    assert refused.value.rule == "min_group"


def test_what_is_not_published_is_refused_for_nothing(world):
    session = world.session()
    for call in (
        lambda: session.statistics("planes", "price"),
        lambda: session.statistics("planes", by="tail"),
        lambda: session.statistics("planes", by=["maker", "kind", "state"]),
    ):
        with pytest.raises(ParameterError):
            call()
    stale = QUOTED | {"terms": "0" * 64}
    with pytest.raises(ParameterError, match="others by now"):
        session.quote(STATISTICS, "planes", rows=0, **stale)
    with pytest.raises(ParameterError, match="cells and min_group"):
        session.quote(STATISTICS, "planes", rows=0, **QUOTED | {"cells": 2})
    assert world.spent() == 0


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "cut answer", "repeat"])
def test_what_is_lost_on_the_way_is_told_again_once(world, fault):
    found = world.session(plan={0: fault}).statistics("planes", "seats", by="kind")
    assert found.cell(kind="y").rows == 12
    assert world.spent() == 1


@pytest.mark.fault
def test_an_interrupted_job_goes_on(world, tmp_path):
    plan = dict.fromkeys(range(9), "lose answer")
    with pytest.raises(JobInterrupted) as stopped:
        world.session(plan=plan, state=tmp_path / "state").statistics("planes", by="kind")
    found = world.session(state=tmp_path / "state").statistics("planes", by="kind", job=stopped.value.job)
    assert found.cell(kind="x").rows is None or found.cell().rows == 37
    assert world.spent() == 1


def test_a_holder_that_answers_otherwise_than_it_signed_is_found(world, monkeypatch):
    from trustcompute.verification.statistical import tabulator

    told = tabulator.Tabulator.tell

    def more(self, by, columns):
        figures = told(self, by, columns)
        figures.rows[-1] += 1
        return figures

    monkeypatch.setattr(tabulator.Tabulator, "tell", more)
    with pytest.raises(VerificationError, match="total"):
        world.session(identity=AIRLINE).statistics("planes", by="state")
