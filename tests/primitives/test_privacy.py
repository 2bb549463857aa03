"""Conversions reproduce published numbers and err on the safe side; plans account as proved."""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import (
    PlannedEvent,
    PrivacyLoss,
    amount,
    plan_delta,
    plan_epsilon,
    zcdp_delta,
    zcdp_epsilon,
    zcdp_rho,
)

MILLIONTH = Fraction(1, 10**6)


@pytest.mark.vectors  # computed independently, to the digits given
def test_golden_numbers():
    assert round(float(zcdp_rho(Fraction(1), MILLIONTH)), 6) == 0.024356
    assert round((2 * float(zcdp_rho(Fraction(1), MILLIONTH))) ** -0.5, 3) == 4.531
    low, high = plan_epsilon([PlannedEvent(Fraction(1, 10), 100)], MILLIONTH)
    assert 4.7740 < low <= high <= 4.7746
    assert high - low <= Fraction(2, 10**6)


@pytest.mark.vectors  # the published bounds for 100 times ε = 0.1 at δ = 10^-6, from their own formulae
def test_a_hundred_counts_cost_what_each_account_says():
    count, epsilon, tail = 100, 0.1, 2 * log(10**6)
    basic = count * epsilon
    dwork_rothblum_vadhan = (count * tail) ** 0.5 * epsilon + count * epsilon * (exp(epsilon) - 1)
    epsilon_delta_filter = (count * epsilon**2 * tail) ** 0.5 + count * epsilon**2 / 2
    zcdp_filter = float(zcdp_epsilon(count * Fraction(1, 10) ** 2 / 2, MILLIONTH))
    plan = float(plan_epsilon([PlannedEvent(Fraction(1, 10), count)], MILLIONTH)[1])
    found = [basic, dwork_rothblum_vadhan, epsilon_delta_filter, zcdp_filter, plan]
    assert [round(one, 2) for one in found[:3]] == [10, 6.31, 5.76]
    assert 5.2215 < zcdp_filter <= 5.2216 and 4.7745 < plan <= 4.7746
    assert found == sorted(found, reverse=True)
    classical = (2 * log(1.25 * 10**6)) ** 0.5
    assert round(classical, 3) == 5.299


def test_losses_add_exactly_and_the_ledger_rounds_up():
    third = PrivacyLoss(Fraction(1, 3), Fraction(1, 3), Fraction(1, 3 * 10**6))
    assert (third + third + third).rho == 1
    assert third.ledger() == {"rho": 333333333334, "epsilon": 333333333334, "delta": 333333333334}
    assert PrivacyLoss().ledger() == {"rho": 0, "epsilon": 0, "delta": 0}
    assert PrivacyLoss(rho=Fraction(1, 10**30)).ledger()["rho"] == 1


@settings(max_examples=6, deadline=None)
@given(
    st.fractions(Fraction(1, 1000), 3, max_denominator=1000),
    st.integers(2, 12),
)
def test_conversions_are_inverse_and_on_the_safe_side(rho, digits):
    delta = Fraction(1, 10**digits)
    epsilon = zcdp_epsilon(rho, delta)
    assert zcdp_delta(rho, epsilon) <= delta
    if epsilon > 0:
        assert epsilon < rho + 2 * (rho * Fraction(log(10**digits))) ** Fraction(1, 2) + Fraction(1, 10**6)
        assert zcdp_rho(epsilon, delta) <= rho * Fraction(1_000_001, 1_000_000) + Fraction(2, 10**12)
        assert zcdp_rho(epsilon + Fraction(1, 10**9), delta) >= rho * Fraction(999_999, 1_000_000)


def alpha_bound(rho, epsilon, alpha):
    gmpy2.get_context().precision = 200
    try:
        a, r, e = gmpy2.mpfr(alpha), gmpy2.mpq(rho), gmpy2.mpq(epsilon)
        return gmpy2.exp((a - 1) * (a * r - e)) * (1 - 1 / a) ** a / (a - 1)
    finally:
        gmpy2.get_context().precision = 53


@pytest.mark.parametrize("rho", [Fraction(1, 20), Fraction(1), Fraction(9)])
def test_the_conversion_is_the_least_over_alpha(rho):
    epsilon = 3 * rho + 1
    found = zcdp_delta(rho, epsilon)
    least = min(alpha_bound(rho, epsilon, 1 + 0.01 * 1.006**i) for i in range(2400))
    assert found <= least * (1 + 1e-12)
    assert found >= least * 0.999


def binomial_delta(epsilon, count, target):
    """Exact composition of randomised response (Kairouz, Oh and Viswanath), summed directly."""
    p = exp(epsilon) / (1 + exp(epsilon))
    return sum(
        comb(count, k) * p**k * (1 - p) ** (count - k) * max(0.0, 1 - exp(target - (2 * k - count) * epsilon))
        for k in range(count + 1)
    )


@pytest.mark.parametrize(("epsilon", "count", "target"), [("0.1", 100, 2), ("0.5", 20, 3), ("1", 1, "0.5")])
def test_a_plan_of_equal_events_is_the_binomial(epsilon, count, target):
    low, high = plan_delta([PlannedEvent(Fraction(epsilon), count)], Fraction(target))
    assert float(low) == pytest.approx(binomial_delta(float(epsilon), count, float(target)), rel=1e-9)
    assert low <= high <= low * (1 + Fraction(1, 10**12))


def test_a_plan_of_mixed_events_is_enclosed():
    mixed = [PlannedEvent(Fraction(1, 10), 5), PlannedEvent(Fraction(1, 7), 3)]
    low, high = plan_epsilon(mixed, MILLIONTH)
    total = Fraction(1, 2) + Fraction(3, 7)
    assert 0 < low <= high <= total + Fraction(1, 10**6)
    awkward = [PlannedEvent(Fraction(1, 10), 5), PlannedEvent(Fraction(142857, 10**6), 3)]  # no common grid
    around_low, around_high = plan_epsilon(awkward, MILLIONTH)
    assert around_low <= high and around_high >= low - Fraction(1, 1000)
    assert around_high - around_low < Fraction(1, 100)


@pytest.mark.parametrize(
    "value", [0.1, float("nan"), True, None, "nan", "inf", "-1", "", "1e999", "0x1", "1/0", "١"]
)
def test_amounts_are_exact_or_refused(value):
    with pytest.raises(ParameterError, match="epsilon must be"):
        amount("epsilon", value)


def test_amounts():
    assert amount("x", "0.05") == Fraction(1, 20)
    assert amount("x", "1e-6") == MILLIONTH
    assert amount("x", "2/3") == Fraction(2, 3)
    assert amount("x", 2) == 2


def test_what_cannot_be_is_refused():
    for broken in (
        lambda: PrivacyLoss(rho=Fraction(-1)),
        lambda: PrivacyLoss(delta=Fraction(1)),
        lambda: zcdp_epsilon(Fraction(1), Fraction(0)),
        lambda: zcdp_rho(Fraction(0), MILLIONTH),
        lambda: plan_epsilon([], MILLIONTH),
        lambda: plan_epsilon([PlannedEvent(Fraction(1, 10), 10**9)], MILLIONTH),
    ):
        with pytest.raises(ParameterError):
            broken()
