"""Plans: a choice by sizes and outputs, with reasons a person can check."""

from __future__ import annotations

import pytest

from trustcompute import kernels, psi
from trustcompute.errors import ParameterError
from trustcompute.kernels import dispatch


def test_large_sets_go_to_vole_small_ones_and_counts_to_ecdh():
    if kernels.active().name == "native":  # the reference's code is slower than its curve at any size
        assert psi.plan(10**6, 10**6).protocol == "psi.vole.v1"
        assert psi.plan(10, 10**6).protocol == "psi.vole.v1"
    assert psi.plan(20, 50).protocol == "psi.dh.v1"
    assert psi.plan(10**6, 10**6, output="count").protocol == "psi.ecdh.v1"
    assert psi.plan(0, 0).protocol != "psi.vole.v1"


def test_a_thin_line_changes_the_choice():
    """psi.vole.v1 sends 0.4 MB whatever the sizes: on a slow line a few more multiplications are cheaper."""
    if kernels.active().name != "native":
        pytest.skip("the sizes below are chosen for the native kernels")
    assert psi.plan(3000, 3000).protocol == "psi.vole.v1"
    assert psi.plan(3000, 3000, bandwidth=10**6).protocol == "psi.dh.v1"


@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
def test_a_plan_says_what_a_run_will_take(reveal):
    plan = psi.plan(1000, 2000, reveal=reveal)
    assert {estimate.protocol for estimate in plan.estimates} == {"psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1"}
    assert plan.seconds == min(estimate.seconds for estimate in plan.estimates)
    assert plan.statistical_bits >= 40
    shown = str(plan)
    for part in (plan.protocol, f"{plan.bytes:,}", "semi-honest", plan.leakage.consumer, "would take"):
        assert part in shown


def test_a_grant_narrows_the_choice():
    plan = psi.plan(10**6, 10**6, protocols=["psi.ecdh.v1"])
    assert (plan.protocol, plan.reasons) == ("psi.ecdh.v1", ("it is the only one allowed here",))
    with pytest.raises(ParameterError, match="none is allowed"):
        psi.plan(10, 10, output="count", protocols=["psi.vole.v1"])


def test_warnings_name_the_danger():
    assert psi.plan(1000, 1000).warnings == ()
    assert psi.plan(1000, 1000, key_space=10**12).warnings == ()
    assert "10,000 possible keys" in psi.plan(1000, 1000, key_space=10**4).warnings[0]
    assert "3 times" in psi.plan(1000, 1000, earlier_runs=3).warnings[0]


@pytest.mark.parametrize(
    "wrong",
    [{"bandwidth": 0}, {"key_space": 0}, {"earlier_runs": -1}, {"output": "sum"}, {"reveal": "all"}],
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        psi.plan(10, 10, **wrong)
    with pytest.raises(ParameterError, match="distinct keys"):
        psi.plan(-1, 10)


def test_against_a_side_that_may_deviate_there_is_one_protocol():
    plan = psi.plan(1000, 1000, adversary="malicious")
    assert plan.protocol == "psi.vole-malicious.v1"
    assert "holds against a side that deviates" in plan.reasons[0]
    assert plan.statistical_bits == 108
    assert "malicious, 126 bits" in str(plan)
    for refused in ({"reveal": "both"}, {"output": "count"}, {"protocols": ["psi.vole.v1"]}):
        with pytest.raises(ParameterError):
            psi.plan(10, 10, adversary="malicious", **refused)
    with pytest.raises(ParameterError, match="semi-honest or malicious"):
        psi.plan(10, 10, adversary="covert")


def test_what_resists_more_is_taken_where_nothing_else_may_be():
    assert psi.plan(1000, 1000, protocols=["psi.vole-malicious.v1"]).adversary == "malicious"
    both = ["psi.vole.v1", "psi.vole-malicious.v1"]
    assert psi.plan(1000, 1000, protocols=both).protocol == "psi.vole.v1"


# Seconds of both parties' processors on a 2.45 GHz AMD EPYC (Zen 3): python -m benchmarks psi --task protocol
MEASURED = {
    ("psi.ecdh.v1", 2**10): 0.114,
    ("psi.ecdh.v1", 2**17): 12.97,
    ("psi.dh.v1", 2**10): 0.090,
    ("psi.dh.v1", 2**17): 9.34,
    ("psi.vole.v1", 2**10): 0.074,
    ("psi.vole.v1", 2**17): 0.196,
    ("psi.vole.v1", 2**20): 1.086,
    ("psi.vole-malicious.v1", 2**17): 0.241,
    ("psi.vole-malicious.v1", 2**20): 1.232,
}


@pytest.mark.parametrize(("protocol", "rows"), MEASURED)
def test_the_constants_give_what_was_measured_within_a_quarter(protocol, rows, monkeypatch):
    monkeypatch.setattr(kernels, "active", lambda: dispatch.Backend("native", "assumed"))
    predicted = psi.plan(rows, rows, protocols=[protocol], bandwidth=10**15).seconds
    assert 0.8 < predicted / MEASURED[protocol, rows] < 1.25
