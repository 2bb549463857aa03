"""Several identifiers over a node: one job, one charge, gone on with after a stop."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from world import AIRLINE, REGISTRY, World

from trustcompute import kernels, psi
from trustcompute.broker.grant import Bounds
from trustcompute.errors import JobInterrupted, ParameterError, Refused, TransportError

pytestmark = pytest.mark.skipif(kernels.active().name != "native", reason="only with the native kernels")

OURS = pa.table(
    {
        "tail": ["N1", None, "X1", "X2", "N7"],
        "seat": [7, 3, 5, 99, 7],
        "plane": ["N1", "N3", "N5", "N6", "N0"],
    }
)
ON = psi.InOrder({"tail": "tailnum"}, {"plane": "tailnum", "seat": "seats"})
MATCHED = [0, 1, 2, 4]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, operations={"psi.cascade.v1": Bounds()})
    yield made
    made.stop()


def test_rows_match_by_the_first_identifier_that_the_dataset_holds_charged_once(world):
    found = world.session().cascade("planes", OURS, on=ON)
    assert found.left_rows.tolist() == MATCHED
    assert found.by.tolist() == [0, 1, 1, 0]
    assert found.names == ("tail", "plane + seat")
    entry = found.receipt.verify(world.broker.log_key)
    assert (entry.type, entry.fields["job"]) == ("job.posted", found.job)
    assert entry.fields["usage"] | {"bytes": 0} == {"bytes": 0, "calls": 1, "rows": 4 + 5} | {
        unit: 0 for unit in entry.fields["usage"] if unit not in ("calls", "rows", "bytes")
    }
    assert world.types().count("job.posted") == 1
    world.check()


@pytest.mark.fault
@pytest.mark.parametrize("exchange", range(6))
@pytest.mark.parametrize("restart", [False, True])
def test_a_job_that_was_stopped_anywhere_goes_on_and_is_charged_once(world, tmp_path, exchange, restart):
    def break_down(number):
        if number >= exchange:
            raise TransportError("the line is broken")

    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as failed:
        world.session(before=break_down, state=state).cascade("planes", OURS, on=ON)
    job = failed.value.job
    if restart and exchange >= 3:  # charged: the runs that are left begin again
        world.restart()
    found = world.session(state=state).cascade("planes", OURS, on=ON, job=job)
    assert (found.left_rows.tolist(), found.by.tolist()) == (MATCHED, [0, 1, 1, 0])
    assert found.receipt.verify(world.broker.log_key).fields["job"] == job
    assert world.types().count("job.posted") == 1
    with pytest.raises(ParameterError):
        world.session(state=state).cascade("planes", OURS, on=ON, job=job)


def test_another_table_or_other_rows_of_it_do_not_go_on_with_a_job(world, tmp_path):
    def break_down(number):
        if number >= 4:
            raise TransportError("the line is broken")

    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as failed:
        world.session(before=break_down, state=state).cascade("planes", OURS, on=ON)
    moved = OURS.set_column(
        0, "tail", pa.array([None, "N1", "X1", "X2", "N7"])
    )  # the same keys, of other rows
    with pytest.raises(ParameterError, match="another table"):
        world.session(state=state).cascade("planes", moved, on=ON, job=failed.value.job)


def test_what_the_dataset_or_the_grant_does_not_allow_is_refused_and_costs_nothing(world):
    session = world.session()
    with pytest.raises(ParameterError, match="matched on"):
        session.cascade("planes", OURS, on=psi.InOrder({"tail": "tailnum"}, {"seat": "seats"}))
    narrow = world.issue(operations={"psi.cascade.v1": Bounds(columns=["tailnum"])})
    with pytest.raises(Refused, match="columns"):
        world.session(grant=narrow).cascade("planes", OURS, on=ON)
    params = {
        "identifiers": [
            {"columns": ["tailnum"], "keys": "0" * 64, "rows": 1, "held": 40},
            {"columns": ["tailnum", "seats"], "keys": "0" * 64, "rows": 1, "held": 42},
        ],
        "runs": 2,
    }
    with pytest.raises(ParameterError, match="key specification"):
        session.quote("psi.cascade.v1", "planes", rows=2, **params)
    assert "job.posted" not in world.types()
    left = session.quote("psi.cascade.v1", "planes", rows=9, **_good(session)).left
    assert left["calls"]["total"] == "10"


def _good(session):
    choices = session.entry("planes").keys
    from trustcompute.node.intersection import key_spec

    named = [
        {"columns": list(one.columns), "keys": key_spec(one).digest, "rows": rows, "held": one.distinct}
        for one, rows in zip(choices, (4, 5), strict=True)
    ]
    return {"identifiers": named, "runs": 2}


def test_another_number_of_keys_than_the_datasets_is_refused(world):
    session = world.session()
    params = _good(session)
    params["identifiers"][1]["held"] += 1
    with pytest.raises(ParameterError, match="held is not"):
        session.quote("psi.cascade.v1", "planes", rows=9, **params)


def test_the_command_says_by_what_rows_matched(world, tmp_path, capsys):
    pytest.importorskip("typer")
    import pyarrow.parquet as pq

    from trustcompute.cli import main

    pq.write_table(OURS, tmp_path / "ours.parquet")
    AIRLINE.save(tmp_path / "me")
    (tmp_path / "grant").write_text(world.grant)
    assert REGISTRY.name
    with world.node.serve() as server:
        command = ["cascade", str(tmp_path / "ours.parquet"), "--with", server.url, "--dataset", "planes"]
        command += ["--identity", str(tmp_path / "me"), "--grant", str(tmp_path / "grant"), "--json"]
        command += [
            "--by",
            "tail=tailnum",
            "--by",
            "plane=tailnum,seat=seats",
            "--state",
            str(tmp_path / "jobs"),
        ]
        assert main([*command, "--out", str(tmp_path / "out.parquet")]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["matched"] == {"tail": 2, "plane + seat": 2}
        assert pq.read_table(tmp_path / "out.parquet").column("matched_by").to_pylist()[0] == "tail"
        assert main(command[:-4]) == 2
