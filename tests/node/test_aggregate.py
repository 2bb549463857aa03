"""Aggregates over nodes: four airlines, each its own book and grant; refusals, drop-outs and receipts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from airlines import NAMES, OPERATION, SPEC, TABLES, expected, vanishing
from world import AIRLINE

import trustcompute as tc
from trustcompute import aggregation
from trustcompute.aggregation import Bounds, Spec, pieces
from trustcompute.broker.grant import Bounds as GrantBounds
from trustcompute.broker.grant import Limit
from trustcompute.errors import ParameterError, Refused, TableError
from trustcompute.protocol.operation import OutputForm
from trustcompute.protocol.star import TooFew


def test_four_nodes_under_four_grants_give_one_sum_and_four_receipts(airlines):
    found = tc.aggregate(airlines.sessions(), SPEC)
    frame = found.to_pandas().set_index("origin")
    assert frame["sum_delay"].tolist() == expected().sum().tolist()
    assert frame["count"].tolist() == expected().count().tolist()
    assert np.allclose(frame["mean_delay"], expected().mean())
    assert np.allclose(frame["variance_delay"], expected().var(ddof=0))
    assert found.parties == tuple(NAMES)
    assert found.dropped == {}
    assert set(found.receipts) == set(NAMES)
    for name in NAMES:
        entry = found.receipts[name].verify(airlines.brokers[name].log_key)
        assert (entry.type, entry.fields["job"]) == ("job.posted", found.jobs[name])
        airlines.brokers[name].audit()
    assert "at least 3 of 4" in found.leakage.consumer


def test_receipts_name_each_other_through_the_requests_they_are_for(airlines):
    sessions = airlines.sessions()
    seen = {}
    for session in sessions:
        inner = session._states.save
        session._states.save = lambda state, inner=inner, name=session.grant.aud: (
            seen.__setitem__(name, state),
            inner(state),
        )
    found = tc.aggregate(sessions, SPEC)
    for name, state in seen.items():
        params = state.asked["params"]
        assert (params["parties"], params["session"]) == (NAMES, found.session)
        from trustcompute.primitives.signing import token_hash

        entry = found.receipts[name].verify(airlines.brokers[name].log_key)
        assert entry.fields["request"] == token_hash(state.request)


@pytest.mark.fault
@pytest.mark.parametrize("after", [0, 1, 2])
def test_one_that_vanishes_before_its_vector_came_is_left_out(airlines, after):
    found = tc.aggregate(airlines.sessions(wn=vanishing(after)), SPEC)
    assert found.parties == tuple(NAMES[:3])
    assert "broken" in found.dropped["wn.example"]
    assert found.to_pandas()["sum_delay"].tolist() == expected(NAMES[:3]).sum().tolist()
    assert "job.posted" not in airlines.states("wn.example")


@pytest.mark.fault
@pytest.mark.parametrize("after", [3, 4])
def test_one_that_vanishes_after_its_vector_came_is_counted_nevertheless(airlines, after):
    found = tc.aggregate(airlines.sessions(wn=vanishing(after)), SPEC)
    assert found.parties == tuple(NAMES)
    assert found.to_pandas()["sum_delay"].tolist() == expected().sum().tolist()
    assert "wn.example" not in found.receipts


@pytest.mark.fault
def test_below_the_threshold_nothing_is_opened_and_the_others_stop(airlines):
    with pytest.raises(TooFew, match=r"2 of 3 answered with 'signed'.*dl.example.*broken"):
        tc.aggregate(airlines.sessions(wn=vanishing(2), dl=vanishing(3)), SPEC)
    for name in ("aa.example", "ua.example"):
        assert "job.posted" not in airlines.states(name)
        assert "job.forfeited" in airlines.states(name)


@pytest.mark.fault
def test_a_broken_connection_is_tried_again_and_nobody_drops_out(airlines):
    found = tc.aggregate(airlines.sessions(aa={"plan": {1: "lose answer", 3: "lose request"}}), SPEC)
    assert found.parties == tuple(NAMES)


def test_survivors_that_differ_by_fewer_than_min_parties_are_refused_also_after_a_restart(airlines):
    tc.aggregate(airlines.sessions(), SPEC)
    airlines.restart("aa.example")
    with pytest.raises(TooFew, match=r"differ from an earlier set by wn.example alone"):
        tc.aggregate(airlines.sessions(wn=vanishing(1)), SPEC)
    assert airlines.states("aa.example").count("job.posted") == 1
    assert tc.aggregate(airlines.sessions(), SPEC).parties == tuple(NAMES)


def test_a_refusal_of_one_grant_is_that_ones_alone_while_others_are_enough(airlines):
    found = tc.aggregate(airlines.sessions(wn={"purposes": ["other", "another"]}), SPEC, purpose="delays")
    assert "refused by rule 'purpose'" in found.dropped["wn.example"]
    three = Spec(columns=SPEC.columns, by=SPEC.by, max_rows=1000, min_parties=4)
    with pytest.raises(Refused, match=r"wn.example.*purpose"):
        tc.aggregate(airlines.sessions(wn={"purposes": ["other", "another"]}), three, purpose="delays")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec(columns={"crew": Bounds(0, 1000)}, max_rows=1000), "crew.*takes part in no aggregates|columns"),
        (Spec(columns={"delay": Bounds(-60, 1800)}, max_rows=1000, min_parties=2), "min_group|at least 3"),
    ],
)
def test_what_grant_or_holder_do_not_allow_is_refused_by_all(airlines, spec, words):
    with pytest.raises(TooFew, match=words):
        tc.aggregate(airlines.sessions(), spec)
    assert all("job.posted" not in airlines.states(name) for name in NAMES)


def test_data_that_break_the_specification_name_the_party_and_the_rule_and_no_value(airlines):
    airlines.tables["dl.example"] = pa.table({"origin": ["EWR"], "delay": [77777]})
    airlines.restart("dl.example")
    found = tc.aggregate(airlines.sessions(), SPEC)
    assert "dl.example: rule bounds: column 'delay'" in found.dropped["dl.example"]
    assert "77777" not in found.dropped["dl.example"]
    assert found.parties == ("aa.example", "ua.example", "wn.example")


def test_a_holder_that_offers_nothing_takes_no_part(airlines):
    airlines.restart("ua.example", aggregates=[], keys=["crew"])
    found = tc.aggregate(airlines.sessions(), SPEC)
    assert "takes part in no aggregates" in found.dropped["ua.example"]
    catalogue = airlines.session("aa.example").catalog()
    assert catalogue.datasets[0].aggregates == ["delay", "origin"]


def test_a_contributor_twice_and_too_few_are_refused_before_anything_moves(airlines):
    twice = [*airlines.sessions(), airlines.session("aa.example")]
    with pytest.raises(ParameterError, match=r"aa.example would contribute twice"):
        tc.aggregate(twice, SPEC)
    with pytest.raises(ParameterError, match="at least 3"):
        tc.aggregate(airlines.sessions()[:2], SPEC)


def test_everyone_may_receive_the_sum_and_checks_it(airlines):
    results = []
    for name in NAMES:
        airlines.nodes[name]._on_result = results.append
    spec = Spec(columns=SPEC.columns, by=SPEC.by, max_rows=1000, reveal="everyone")
    found = tc.aggregate(airlines.sessions(), spec)
    assert sorted(one.job for one in results) == sorted(found.jobs.values())
    assert all(np.array_equal(one.output, found.sums) for one in results)


def test_noise_is_charged_to_every_grant_and_the_output_is_a_private_release(airlines):
    noise = aggregation.Noise(rho="0.25")
    spec = Spec(columns={"delay": Bounds(-60, 1800)}, max_rows=1000, noise=noise)
    with pytest.raises(TooFew, match="dp_release"):
        tc.aggregate(airlines.sessions(), spec)
    changes = {"outputs": [OutputForm.DP_RELEASE], "limits": {"rho": Limit(total=10**12)}}
    sessions = airlines.sessions(**{name[:2]: changes for name in NAMES})
    found = tc.aggregate(sessions, spec)
    for session in sessions:
        entry = found.receipts[session.grant.aud].verify(session.log_key)
        assert entry.fields["usage"]["rho"] == 10**12 // 4
    assert abs(int(found.exact("count")) - 800) < 30


def test_over_tls(airlines):
    servers = {name: airlines.nodes[name].serve() for name in NAMES[:3]}
    sessions = [
        tc.connect(servers[name].url, identity=AIRLINE, grant=airlines.grant(name)) for name in servers
    ]
    try:
        found = tc.aggregate(sessions, SPEC)
        assert found.to_pandas()["count"].tolist() == expected(NAMES[:3]).count().tolist()
        assert all(cost.turns == 5 for cost in found.costs.values())
    finally:
        for session in sessions:
            session.close()
        for server in servers.values():
            server.close()


@pytest.fixture
def short_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 64)


VECTOR = Spec(columns={"value": Bounds(-60, 1800)}, length=200)
BY_ROW = {"operations": {OPERATION: GrantBounds(min_group=3)}}


@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("everyone", [False, True])
def test_columns_are_added_up_as_vectors_in_pieces(airlines, everyone):
    for name in NAMES:
        airlines.restart(name, vector="delay")
    spec = Spec(columns=VECTOR.columns, length=200, reveal="everyone") if everyone else VECTOR
    sessions = airlines.sessions(**{name[:2]: BY_ROW for name in NAMES})
    found = tc.aggregate(sessions, spec)
    assert found.vector().tolist() == sum(np.array(TABLES[name]["delay"]) for name in NAMES).tolist()
    assert all(cost.turns == 8 + everyone for cost in found.costs.values())
    assert all(not session._states._turns for session in sessions)
    for name in NAMES:
        airlines.brokers[name].audit()


@pytest.mark.fault
@pytest.mark.usefixtures("short_pieces")
@pytest.mark.parametrize("after", [3, 4, 5])
def test_one_that_vanishes_between_its_pieces_is_left_out(airlines, after):
    for name in NAMES:
        airlines.restart(name, vector="delay")
    special = {name[:2]: BY_ROW for name in NAMES}
    special["wn"] = BY_ROW | vanishing(after)
    found = tc.aggregate(airlines.sessions(**special), VECTOR)
    assert found.parties == tuple(NAMES[:3])
    assert found.vector().tolist() == sum(np.array(TABLES[name]["delay"]) for name in NAMES[:3]).tolist()


def test_vectors_are_taken_only_where_a_column_is_offered_and_of_its_length(airlines):
    special = {name[:2]: BY_ROW for name in NAMES}
    with pytest.raises(TooFew, match="takes part in no sums of vectors"):
        tc.aggregate(airlines.sessions(**special), VECTOR)
    for name in NAMES:
        airlines.restart(name, vector="delay")
    with pytest.raises(TooFew, match="vector of another length than 199"):
        tc.aggregate(airlines.sessions(**special), Spec(columns=VECTOR.columns, length=199))
    for name in NAMES:
        assert not {"job.posted", "job.forfeited"} & set(airlines.states(name))
    with pytest.raises(TableError, match="nosuch"):
        airlines.restart("aa.example", vector="nosuch")
