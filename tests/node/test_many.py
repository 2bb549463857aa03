"""Stars over nodes: three holders, each its own book and grant; refusals, broken lines and receipts."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from pool import Pool, gone
from world import AIRLINE, AUTHORITY

import trustcompute as tc
from trustcompute import kernels
from trustcompute.broker.grant import Bounds
from trustcompute.cli.app import main
from trustcompute.errors import (
    JobForfeited,
    JobInterrupted,
    ParameterError,
    Refused,
    TableError,
)
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.star import TooFew
from trustcompute.psi.star_operation import OPERATION
from trustcompute.transport import LocalChannel

NAMES = ["aa.example", "bb.example", "cc.example"]
IDENTITIES = {name: AUTHORITY.issue(name) for name in NAMES}
TABLES = {name: pa.table({"tail": [f"N{i}" for i in range(at, at + 9)]}) for at, name in enumerate(NAMES)}
OURS = pa.table({"tail": ["N1", "N5", None, "N2", "N5", "N8", "N9"]})  # all hold N2 ... N8
MATCHED = [1, 3, 4, 5]
pytestmark = pytest.mark.skipif(kernels.active().name != "native", reason="only with the native kernels")


OFFERED = {"keys": ["tail"]}
GRANTED = {
    "operations": {"psi.star.v1": Bounds(columns=["tail"])},
    "outputs": [OutputForm.MATCHED_IDS],
}


class Holders(Pool):
    """A node for each, and a session with each as one airline."""

    identities, tables, dataset = IDENTITIES, TABLES, "planes"
    offered, granted = OFFERED, GRANTED


@pytest.fixture
def holders(tmp_path):
    made = Holders(tmp_path)
    yield made
    for name in list(made.nodes):
        made.stop(name)


def gone_at(*exchanges):
    return gone(lambda number: number in exchanges)


def test_three_nodes_under_three_grants_give_one_answer_and_three_receipts(holders):
    found = tc.intersect_many(holders.sessions(), OURS, on="tail")
    assert (found.left_rows.tolist(), found.count) == (MATCHED, 3)
    assert found.table().column("tail").to_pylist() == ["N5", "N2", "N5", "N8"]
    assert sorted(found.receipts) == NAMES
    for name in NAMES:
        entry = found.receipts[name].verify(holders.brokers[name].log_key)
        assert (entry.type, entry.fields["job"]) == ("job.posted", found.jobs[name])
        assert entry.fields["usage"]["rows"] == 5
        holders.brokers[name].audit()
    assert "all 3 others" in found.leakage.consumer


def test_a_holder_may_pad_its_set_and_nothing_else_changes(holders):
    holders.stop("bb.example")
    holders.start("bb.example", pad_to="power-of-two")
    sessions = holders.sessions()
    assert [one.entry("planes").keys[0].distinct for one in sessions] == [9, 16, 9]
    assert tc.intersect_many(sessions, OURS, on="tail").left_rows.tolist() == MATCHED


def test_requests_name_the_other_leaves_and_one_session(holders):
    sessions, asked = holders.sessions(), []
    for session in sessions:
        save = session._states.save
        session._states.save = lambda state, save=save: (asked.append(state.asked["params"]), save(state))
    found = tc.intersect_many(sessions, OURS, on="tail")
    assert [one["parties"] for one in asked] == [NAMES] * 3
    assert {one["session"] for one in asked} == {found.session}


def test_columns_may_be_called_otherwise_at_every_node(holders):
    holders.tables["bb.example"] = TABLES["bb.example"].rename_columns(["tailnum"])
    holders.stop("bb.example")
    holders.serve("bb.example", holders.tables["bb.example"], book="bb", keys=["tailnum"])
    sessions = holders.sessions(bb={"operations": {"psi.star.v1": Bounds()}})[::-1]
    found = tc.intersect_many(sessions, OURS, on=[["tail"], ["tail"], ["tailnum"], ["tail"]])
    assert found.left_rows.tolist() == MATCHED


def test_a_refusal_by_one_costs_nothing_anywhere(holders):
    for special in (
        {"cc": {"purposes": ["other", "another"]}},
        {"aa": {"operations": {"psi.star.v1": Bounds(min_group=4)}}},
    ):
        with pytest.raises(Refused, match=r"(aa|cc).example"):
            tc.intersect_many(holders.sessions(**special), OURS, on="tail", purpose="check")
    for name in NAMES:
        states = holders.states(name)
        assert "job.posted" not in states
        assert "job.forfeited" not in states
        left = (
            holders.session(name).quote("psi.star.v1", "planes", rows=5, parties=NAMES, session="0" * 32).left
        )
        assert left["calls"]["total"] == "10"


def test_a_node_twice_or_alone_or_with_other_keys_is_refused_before_anything_is_asked(holders):
    sessions = holders.sessions()
    with pytest.raises(ParameterError, match=r"aa.example would take part twice"):
        tc.intersect_many([*sessions, holders.session("aa.example")], OURS, on="tail")
    with pytest.raises(ParameterError, match=r"use Session\.intersect"):
        tc.intersect_many(sessions[:1], OURS, on="tail")
    with pytest.raises(ParameterError, match="matched on"):
        tc.intersect_many(sessions, OURS, on="seats")
    holders.tables["cc.example"] = pa.table({"tail": [1, 2, 3]})
    holders.stop("cc.example")
    holders.serve("cc.example", holders.tables["cc.example"], book="cc2", keys=["tail"])
    with pytest.raises(TableError, match=r"tail of aa.example"):
        tc.intersect_many(holders.sessions(), OURS, on="tail")
    assert all("job.reserved" not in holders.states(name) for name in NAMES)


def test_a_node_that_is_not_named_does_not_take_part(holders):
    session = holders.session("aa.example")
    with pytest.raises(ParameterError, match="not one of the parties"):
        session.quote("psi.star.v1", "planes", rows=5, parties=["x.example", "y.example"], session="0" * 32)


def test_who_asks_cannot_be_a_leaf_too(holders):
    params = {"parties": ["aa.example", AIRLINE.name], "session": "0" * 32}
    session = holders.session("aa.example")
    asked = session._asked("planes", dict(params))
    with pytest.raises(ParameterError, match=r"airline.example asks, and cannot be one of the parties"):
        session.compute(
            OPERATION,
            "planes",
            asked,
            Sizes(5, 9),
            lambda params, rng: iter(()),
            input_digest=bytes(32),
            ahead=True,
        )
    assert "job.reserved" not in holders.states("aa.example")


@pytest.mark.fault
@pytest.mark.parametrize("exchange", [0, 1, 2, 3])
def test_a_line_that_breaks_at_any_turn_is_mended_later_and_nobody_is_charged_twice(holders, exchange):
    sessions = holders.sessions(bb=gone_at(exchange, exchange + 1, exchange + 2))
    with pytest.raises(JobInterrupted, match=r"bb.example.*broken.*star as a whole") as failed:
        tc.intersect_many(sessions, OURS, on="tail")
    found = tc.intersect_many(sessions, OURS, on="tail", job=failed.value.job)
    assert found.left_rows.tolist() == MATCHED
    assert found.session == failed.value.job
    for name in NAMES:
        assert holders.states(name).count("job.posted") == 1
        assert "job.forfeited" not in holders.states(name)
    with pytest.raises(ParameterError, match="no leg of the star"):
        tc.intersect_many(sessions, OURS, on="tail", job=failed.value.job)


@pytest.mark.fault
def test_another_table_cannot_go_on_with_a_star(holders):
    sessions = holders.sessions(bb=gone_at(2, 3, 4))
    with pytest.raises(JobInterrupted) as failed:
        tc.intersect_many(sessions, OURS, on="tail")
    with pytest.raises(ParameterError, match="another table"):
        tc.intersect_many(sessions, OURS.slice(1), on="tail", job=failed.value.job)


@pytest.mark.fault
def test_a_node_that_was_restarted_half_way_has_forfeited_its_leg_and_the_star_says_whose(holders):
    sessions = holders.sessions(bb=gone_at(2, 3, 4))
    with pytest.raises(JobInterrupted) as failed:
        tc.intersect_many(sessions, OURS, on="tail")
    holders.restart("bb.example")
    sessions[1]._channel = LocalChannel(holders.nodes["bb.example"], caller=AIRLINE.name, peer="bb.example")
    with pytest.raises(JobForfeited, match=r"bb.example"):
        tc.intersect_many(sessions, OURS, on="tail", job=failed.value.job)


@pytest.mark.fault
@pytest.mark.parametrize("plan", [{0: "lose answer"}, {1: "lose request"}, {2: "cut answer"}, {3: "repeat"}])
def test_what_gets_lost_on_the_way_is_sent_again(holders, plan):
    found = tc.intersect_many(holders.sessions(cc={"plan": plan}), OURS, on="tail")
    assert found.left_rows.tolist() == MATCHED


@pytest.mark.fault
@pytest.mark.parametrize("exchange", [1, 2, 3])
@pytest.mark.parametrize("side", ["flip request", "flip answer"])
def test_a_byte_that_was_altered_ends_the_star(holders, exchange, side):
    with pytest.raises((TooFew, tc.errors.TrustcomputeError)):
        tc.intersect_many(holders.sessions(aa={"plan": {exchange: side}}), OURS, on="tail")


def test_the_command_writes_the_rows_all_of_them_hold(holders, tmp_path, capsys):
    import pyarrow.parquet as pq

    pq.write_table(OURS, tmp_path / "ours.parquet")
    AIRLINE.save(tmp_path / "me")
    parties = []
    servers = [holders.nodes[name].serve() for name in NAMES]
    for name, server in zip(NAMES, servers, strict=True):
        (tmp_path / name[:2]).write_text(holders.grant(name))
        parties += ["--party", f"{server.url}={tmp_path / name[:2]}"]
    common = ["--identity", str(tmp_path / "me"), "--on", "tail", "--state", str(tmp_path / "jobs"), "--json"]
    out = ["--out", str(tmp_path / "all.parquet")]
    try:
        assert main(["intersect-many", str(tmp_path / "ours.parquet"), *parties, *common, *out]) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["count"], document["rows"], sorted(document["receipts"])) == (3, 4, NAMES)
        assert pq.read_table(tmp_path / "all.parquet").column("tail").to_pylist() == ["N5", "N2", "N5", "N8"]
        assert main(["intersect-many", str(tmp_path / "ours.parquet"), *parties[:2], *common]) == 2
        assert (
            main(["intersect-many", str(tmp_path / "ours.parquet"), *parties, *common, "--out", "x.txt"]) == 2
        )
    finally:
        for server in servers:
            server.close()
