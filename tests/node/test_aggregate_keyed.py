"""Aggregates over nodes under a key: who holds it, who may, what each is charged, and what stops it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from airlines import HOLDER, IDENTITIES, NAMES, SPEC, expected, vanishing
from world import AIRLINE

import trustcompute as tc
from trustcompute.aggregation import Bounds, Noise, Spec, keyed
from trustcompute.aggregation import operation as aggregates
from trustcompute.aggregation.planner import IDS
from trustcompute.aggregation.round import Round
from trustcompute.broker.grant import Bounds as GrantBounds
from trustcompute.broker.grant import Limit
from trustcompute.errors import JobInterrupted, ParameterError, Refused, TransportError
from trustcompute.node import Session
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.star import TooFew
from trustcompute.transport import LocalChannel

SHORT = Spec(columns={"delay": Bounds(-60, 1800)}, max_rows=1000)


def may(*operations):
    return {"operations": {one: GrantBounds(min_group=3) for one in operations}}


@pytest.fixture
def pool(airlines):
    airlines.hold_keys()
    airlines.trust(HOLDER)
    return airlines


def asked(airlines, scheme="aggregation.rlwe.v1", **special):
    return airlines.sessions(**{name[:2]: may(scheme) | special.get(name[:2], {}) for name in NAMES})


def holder(airlines, name=HOLDER, **changes):
    return airlines.session(name, **(may(aggregates.HOLDER) | changes))


@pytest.mark.parametrize("scheme", ["rlwe", "rlwe-4096", "paillier", "bfv"])
def test_a_sum_is_added_by_one_and_opened_by_another(pool, scheme):
    if scheme == "bfv" and importlib.util.find_spec("tenseal") is None:
        pytest.skip("tenseal is not installed: trustcompute[he] brings it")
    operation = IDS[scheme]
    opener = holder(pool)
    results = []
    pool.nodes[HOLDER]._on_result = results.append
    found = tc.aggregate(asked(pool, operation), SPEC, scheme=scheme, key_holder=opener)
    frame = found.to_pandas().set_index("origin")
    assert frame["sum_delay"].tolist() == expected().sum().tolist()
    assert np.allclose(frame["variance_delay"], expected().var(ddof=0))
    assert (found.scheme, found.key_holder, found.parties) == (operation, HOLDER, tuple(NAMES))
    assert f"the key holder, {HOLDER}," in found.leakage.consumer
    for name in NAMES:
        entry = found.receipts[name].verify(pool.brokers[name].log_key)
        assert (entry.type, entry.fields["job"]) == ("job.posted", found.jobs[name])
        pool.brokers[name].audit()
    assert found.opening.verify(opener.log_key).fields["operation"] == aggregates.HOLDER
    sums, parties = results[0].output
    assert np.array_equal(sums, found.sums)
    assert parties == tuple(NAMES)
    pool.brokers[HOLDER].audit()


def test_a_contributor_may_hold_the_key(airlines):
    airlines.trust("aa.example")
    airlines.restart("aa.example", aggregates=["delay", "origin"], key_holders=["aa.example"], opens=True)
    found = tc.aggregate(asked(airlines), SPEC, scheme="rlwe", key_holder=holder(airlines, "aa.example"))
    assert found.to_pandas()["count"].tolist() == expected().count().tolist()
    assert found.key_holder == "aa.example"


@pytest.mark.fault
@pytest.mark.parametrize("after", [0, 1])
def test_one_that_vanishes_is_left_out_and_not_charged(pool, after):
    found = tc.aggregate(asked(pool, wn=vanishing(after)), SPEC, scheme="rlwe", key_holder=holder(pool))
    assert found.parties == tuple(NAMES[:3])
    assert "broken" in found.dropped["wn.example"]
    assert found.to_pandas()["sum_delay"].tolist() == expected(NAMES[:3]).sum().tolist()
    assert "job.posted" not in pool.states("wn.example")


@pytest.mark.fault
@pytest.mark.parametrize(("after", "charged"), [(0, False), (1, True)])
def test_without_the_key_holder_nothing_is_opened(pool, after, charged):
    with pytest.raises(JobInterrupted, match=r"key holder: .*broken"):
        tc.aggregate(asked(pool), SPEC, scheme="rlwe", key_holder=holder(pool, **vanishing(after)))
    for name in NAMES:
        assert ("job.posted" in pool.states(name)) == charged
    assert "job.posted" not in pool.states(HOLDER)


def test_the_key_holder_refuses_sets_that_are_almost_the_same_also_after_a_restart(pool):
    tc.aggregate(asked(pool), SPEC, scheme="rlwe", key_holder=holder(pool))
    pool.stop(HOLDER)
    pool.hold_keys()
    with pytest.raises(Refused, match=r"differ from an earlier set by wn.example alone"):
        tc.aggregate(asked(pool, wn=vanishing(1)), SPEC, scheme="rlwe", key_holder=holder(pool))
    again = tc.aggregate(asked(pool), SPEC, scheme="rlwe", key_holder=holder(pool))
    assert again.parties == tuple(NAMES)


def test_holders_of_data_say_whose_keys_they_trust(airlines):
    airlines.hold_keys()
    with pytest.raises(TooFew, match=r"not encrypted for keys.example.*could open"):
        tc.aggregate(asked(airlines), SPEC, scheme="rlwe", key_holder=holder(airlines))
    for name in NAMES:
        assert not {"job.posted", "job.forfeited"} & set(airlines.states(name))


def test_a_node_opens_under_a_dataset_for_it_alone_and_only_large_enough_crowds(pool):
    with pytest.raises(Refused, match="is for no keys"):
        tc.aggregate(asked(pool)[:3], SHORT, scheme="rlwe", key_holder=holder(pool, "wn.example"))
    pool.stop(HOLDER)
    pool.hold_keys(least_parties=4)
    with pytest.raises(Refused, match="at least 4 parties"):
        tc.aggregate(asked(pool)[:3], SHORT, scheme="rlwe", key_holder=holder(pool))


def test_whoever_adds_up_does_not_open(pool):
    """Neither under its own name, nor as a second identity with the same key."""
    grant = pool.grant(
        HOLDER, subject=HOLDER, subject_key=IDENTITIES[HOLDER].thumbprint, **may(aggregates.HOLDER)
    )
    channel = LocalChannel(pool.nodes[HOLDER], caller=HOLDER, peer=HOLDER)
    own = Session(channel, identity=IDENTITIES[HOLDER], grant=grant)
    sessions = []
    for name in NAMES:
        changes = {"subject": HOLDER, "subject_key": IDENTITIES[HOLDER].thumbprint}
        grant = pool.grant(name, **changes, **may("aggregation.rlwe.v1"))
        channel = LocalChannel(pool.nodes[name], caller=HOLDER, peer=name)
        sessions.append(Session(channel, identity=IDENTITIES[HOLDER], grant=grant))
    with pytest.raises(ParameterError, match="name another key holder"):
        tc.aggregate(sessions, SPEC, scheme="rlwe", key_holder=own)


def test_an_aggregator_cannot_say_that_it_is_somebody_else(pool):
    """A request that tells contributors of another aggregator than asks is refused, and costs nothing."""
    about = Round(SHORT, tuple(NAMES), b"s" * 16)
    session = asked(pool)[0]
    for name, key in (
        ("other.example", AIRLINE.key.public.x),
        (AIRLINE.name, IDENTITIES[HOLDER].key.public.x),
    ):
        params = aggregates.parameters(about, keyed.Roles(name, key, HOLDER))
        with pytest.raises(ParameterError, match=r"aggregator must be airline\.example"):
            session.compute(
                aggregates.operation_of("aggregation.rlwe.v1"), "flights", params, Sizes(0, 0),
                lambda params, rng: iter(()), input_digest=bytes(32), ahead=True,
            )  # fmt: skip
    assert not any(state.startswith("job.") for state in pool.states("aa.example"))


def test_what_does_not_go_together_is_refused_before_anything_moves(pool):
    sessions, opener = asked(pool), holder(pool)
    for scheme, key_holder, words in (
        ("rlwe", None, "pass key_holder="),
        ("masked", opener, "leave key_holder out"),
        ("shamir", opener, "scheme must be one of"),
        ("phe", sessions[0], "session of its own"),
    ):
        with pytest.raises(ParameterError, match=words):
            tc.aggregate(sessions, SPEC, scheme=scheme, key_holder=key_holder)
    everyone = Spec(columns=SPEC.columns, max_rows=1000, reveal="everyone")
    with pytest.raises(ParameterError, match="only the scheme 'masked'"):
        tc.aggregate(sessions, everyone, scheme="rlwe", key_holder=opener)
    with pytest.raises(ParameterError, match="opens none"):
        pool.restart("aa.example", aggregates=[])


def test_all_open_together_and_nobody_holds_a_key(airlines):
    operation = IDS["rlwe-threshold"]
    sessions = asked(airlines, operation)
    with pytest.raises(ParameterError, match="leave key_holder out"):
        tc.aggregate(sessions, SPEC, scheme="rlwe-threshold", key_holder=sessions[0])
    found = tc.aggregate(sessions, SPEC, scheme="rlwe-threshold")
    assert found.to_pandas()["sum_delay"].tolist() == expected().sum().tolist()
    assert (found.scheme, found.key_holder, found.opening) == (operation, "", None)
    assert set(found.receipts) == set(NAMES)
    with pytest.raises((JobInterrupted, TransportError), match=r"wn.example: .*broken"):
        tc.aggregate(asked(airlines, operation, wn=vanishing(4)), SPEC, scheme="rlwe-threshold")
    for name in NAMES:
        (given,) = (airlines.directory / name).glob("given-*")
        assert len(given.read_text().split()) == 1


def test_noise_is_charged_to_contributors_and_not_to_the_key_holder(pool):
    spec = Spec(columns={"delay": Bounds(-60, 1800)}, max_rows=1000, noise=Noise("0.25"))
    changes = {"outputs": [OutputForm.DP_RELEASE], "limits": {"rho": Limit(total=10**12)}}
    sessions = asked(pool, **{name[:2]: changes for name in NAMES})
    found = tc.aggregate(
        sessions, spec, scheme="rlwe", key_holder=holder(pool, outputs=[OutputForm.DP_RELEASE])
    )
    for session in sessions:
        usage = found.receipts[session.grant.aud].verify(session.log_key).fields["usage"]
        assert usage["rho"] == 10**12 // 4
    assert not found.opening.verify(pool.brokers[HOLDER].log_key).fields["usage"].get("rho")
    assert abs(int(found.exact("count")) - 800) < 60
