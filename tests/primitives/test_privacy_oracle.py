"""Google's dp-accounting agrees with our conversions and plans, tiny δ included. Skipped where it is not installed."""

from __future__ import annotations

from fractions import Fraction
from math import exp, log

import pytest

from trustcompute.primitives.privacy import (
    PlannedEvent,
    plan_delta,
    plan_epsilon,
    zcdp_epsilon,
)

accounting = pytest.importorskip(
    "dp_accounting", reason="dp-accounting is not installed: it is an oracle only"
)
pytestmark = pytest.mark.peer

from dp_accounting.pld import common, privacy_loss_distribution  # noqa: E402

DELTAS = ["1e-5", "1e-9", "1e-15"]


@pytest.mark.parametrize("delta", ["1e-3", *DELTAS])
def test_zcdp_is_never_tighter_than_the_gaussian_mechanism_it_describes(delta):
    """ρ = 1/8 is Gaussian noise of σ = 2Δ, among others: its exact ε is below ours, and near it."""
    exactly = accounting.get_epsilon_gaussian(2.0, float(delta))
    ours = float(zcdp_epsilon(Fraction(1, 8), Fraction(delta)))
    assert exactly <= ours <= 1.25 * exactly


@pytest.mark.parametrize(
    "events", [[("0.1", 100)], [("0.5", 12)], [("0.1", 20), ("0.3", 4)], [("0.01", 400)]], ids=str
)
def test_plans(events):
    """Their losses are rounded up to a grid: theirs lies above our lower bound, and not far above our upper one."""
    theirs = None
    for epsilon, count in events:
        one = privacy_loss_distribution.from_privacy_parameters(
            common.DifferentialPrivacyParameters(float(epsilon), 0), value_discretization_interval=1e-5
        ).self_compose(count)
        theirs = one if theirs is None else theirs.compose(one)
    planned = [PlannedEvent(Fraction(epsilon), count) for epsilon, count in events]
    for delta in DELTAS[:2]:
        low, high = plan_epsilon(planned, Fraction(delta))
        found = theirs.get_epsilon_for_delta(float(delta))
        assert float(low) * (1 - 1e-3) - 1e-4 <= found <= float(high) * (1 + 1e-2) + 1e-3
    low, high = plan_delta(planned, Fraction(1))
    assert float(low) <= theirs.get_delta_for_epsilon(1.0) * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("delta", ["1e-12", "1e-15", "1e-18"])
def test_tiny_deltas_by_hand(delta):
    """Where floats end: one release of ε needs no δ, and a single Gaussian has the tail it has."""
    low, high = plan_epsilon([PlannedEvent(Fraction(1))], Fraction(delta))
    assert 1 - 1e-5 < float(low) <= float(high) <= 1
    two_low, two_high = plan_delta([PlannedEvent(Fraction(1), 40)], Fraction(39))
    wanted = (exp(1) / (1 + exp(1))) ** 40 * (1 - exp(-1))
    assert float(two_low) == pytest.approx(wanted, rel=1e-9) and two_low <= two_high
    assert (
        float(zcdp_epsilon(Fraction(1, 100), Fraction(delta)))
        < 0.01 + 2 * (0.01 * log(1 / float(delta))) ** 0.5
    )
