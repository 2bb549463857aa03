"""Aggregates over matched rows only: those of the asker's own jobs, enough of them, and never almost the same."""

from __future__ import annotations

import numpy as np
import pytest
from airlines import NAMES, TABLES

import trustcompute as tc
from trustcompute.aggregation import Bounds, Noise, Spec
from trustcompute.aggregation.rowsets import MAX_SETS, RowSets
from trustcompute.broker.grant import Bounds as GrantBounds
from trustcompute.broker.grant import Limit
from trustcompute.errors import ParameterError, Refused, StoreError
from trustcompute.protocol.operation import OutputForm
from trustcompute.protocol.star import TooFew

SPEC = Spec(columns={"delay": Bounds(-60, 1800)}, statistics=["count", "sum"], max_rows=1000)
GRANT = {
    "operations": {
        "psi.ecdh.v1": GrantBounds(),
        "aggregation.masked.v1": GrantBounds(min_group=3),
        "aggregation.rlwe-threshold.v1": GrantBounds(min_group=3),
    },
    "outputs": [OutputForm.AGGREGATE, OutputForm.MATCHED_IDS, OutputForm.COUNT, OutputForm.DP_RELEASE],
    "limits": {"calls": Limit(total=50), "rho": Limit(total=10**12)},
}


@pytest.fixture
def pool(airlines):
    for name in NAMES:
        airlines.restart(name, aggregates=["delay"], keys=["crew"])
    return airlines


def sessions(pool):
    return pool.sessions(**{name[:2]: GRANT for name in NAMES})


def intersect(session, crew, **options):
    asked = {"output": "rows", "reveal": "both", "protocol": "psi.ecdh.v1"} | options
    return session.intersect("flights", {"crew": list(crew)}, on="crew", **asked).job


def matched(asked, crew):
    return {one.grant.aud: intersect(one, crew) for one in asked}


def total(rows):
    return sum(int(np.array(TABLES[name]["delay"])[list(rows)].sum()) for name in NAMES)


@pytest.mark.parametrize("scheme", ["masked", "rlwe-threshold"])
def test_only_matched_rows_are_added_up(pool, scheme):
    asked = sessions(pool)
    jobs = matched(asked, range(10, 50))
    found = tc.aggregate(asked, SPEC, scheme=scheme, matched=jobs)
    assert found.exact("count") == 160
    assert found.exact("sum", "delay") == total(range(10, 50))
    assert "of the rows that matched" in found.leakage.consumer
    for name in NAMES:
        pool.brokers[name].audit()


def test_jobs_of_others_or_none_are_refused_and_cost_nothing(pool):
    asked = sessions(pool)
    jobs = matched(asked, range(40))
    before = {name: pool.states(name).count("job.posted") for name in NAMES}
    count = intersect(asked[0], range(40), output="count", reveal="consumer")
    for wrong in ("0" * 32, count):
        found = tc.aggregate(asked, SPEC, matched=jobs | {NAMES[0]: wrong})
        assert "no finished job of yours" in found.dropped[NAMES[0]]
        assert found.parties == tuple(NAMES[1:])
    assert pool.states(NAMES[0]).count("job.posted") == before[NAMES[0]] + 1


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ({}, "a job for each"),
        (dict.fromkeys(NAMES, "x"), "32 hex digits"),
        (dict.fromkeys([*NAMES, "more.example"], "0" * 32), "a job for each"),
    ],
)
def test_jobs_are_named_for_every_contributor(pool, jobs, words):
    with pytest.raises(ParameterError, match=words):
        tc.aggregate(sessions(pool), SPEC, matched=jobs)
    vector = Spec(columns={"value": Bounds(-60, 1800)}, length=200)
    with pytest.raises(ParameterError, match="no vector"):
        tc.aggregate(sessions(pool), vector, matched=dict.fromkeys(NAMES, "0" * 32))


def test_too_few_rows_and_sets_that_are_almost_the_same_are_refused_also_after_a_restart(pool):
    asked = sessions(pool)
    with pytest.raises(TooFew, match="fewer than 20 rows matched"):
        tc.aggregate(asked, SPEC, matched=matched(asked, range(19)))
    tc.aggregate(asked, SPEC, matched=matched(asked, range(40)))
    for name in NAMES:
        pool.restart(name, aggregates=["delay"], keys=["crew"])
    asked = sessions(pool)
    with pytest.raises(TooFew, match="differ from an earlier set by fewer than 20"):
        tc.aggregate(asked, SPEC, matched=matched(asked, range(41)))
    again = tc.aggregate(asked, SPEC, matched=matched(asked, range(40)))
    other = tc.aggregate(asked, SPEC, matched=matched(asked, range(60)))
    assert (again.exact("count"), other.exact("count")) == (160, 240)
    noisy = Spec(columns=SPEC.columns, statistics=["count"], max_rows=1000, noise=Noise("0.5"))
    assert abs(int(tc.aggregate(asked, noisy, matched=matched(asked, range(41))).exact("count")) - 164) < 60


def test_sets_of_rows_are_remembered(tmp_path):
    path, of = tmp_path / "rows", 10_000
    RowSets(path).admit(np.arange(30), of, 20)
    kept = RowSets(path)
    kept.admit(np.arange(30), of, 20)
    with pytest.raises(Refused, match="fewer than 20"):
        kept.check(np.arange(1, 31), of, 20)
    for at in range(1, MAX_SETS):
        kept.admit(np.arange(40 * at, 40 * at + 30), of, 20)
    with pytest.raises(Refused, match="as many as one version gives"):
        kept.check(np.arange(5000, 5900), of, 20)
    kept.admit(np.arange(30), of, 20)
    path.write_text("nothing\n")
    with pytest.raises(StoreError, match="cannot read which rows"):
        RowSets(path)
