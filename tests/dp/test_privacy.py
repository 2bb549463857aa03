"""What a release promises, tested against the definition: neighbours, exact loss, audits."""

from __future__ import annotations

import dataclasses
import sys
from fractions import Fraction
from itertools import pairwise, permutations
from math import exp
from pathlib import Path
from time import perf_counter_ns

import gmpy2
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

import audit

from trustcompute import dp
from trustcompute.dp import measure as measuring
from trustcompute.dp import selection
from trustcompute.dp.groups import PartitionRule
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import discrete_gaussian, discrete_laplace

KEY = bytes(range(32))
RNG = Rng.from_os()
ROW = pa.table({"x": [1]})

ASKED = [
    dp.count(),
    dp.count("x"),
    dp.distinct(),
    dp.sum("x", -2, 5),
    dp.mean("x", -2, 6),
    dp.variance("x", -2, 6),
    dp.sum("y", "-0.7", "0.3"),
    dp.mean("y", "-0.3", "0.7"),
    dp.histogram("x", [-2, 0, 2, 6]),
]


def exact_totals(table, unit, budget, by):
    """The integers of a release, without noise."""
    found = dp.release(table, ASKED, by=by, unit=unit, budget=budget, bounding_key=KEY)
    return found.plan, found.measured.values


def without_noise(patch):
    for name in ("discrete_laplace", "discrete_gaussian"):
        patch.setattr(measuring, name, lambda rng, scale, count: np.zeros(count, dtype=np.int64))


rows = st.lists(
    st.tuples(
        st.sampled_from("uvw"),
        st.sampled_from(["a", "b", "c"]),
        st.one_of(st.none(), st.integers(-9, 9)),
        st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True)),
    ),
    max_size=24,
)


def as_table(found):
    return pa.table(
        {
            "user": pa.array([row[0] for row in found], pa.string()),
            "g": pa.array([row[1] for row in found], pa.string()),
            "x": pa.array([row[2] for row in found], pa.int64()),
            "y": pa.array([row[3] for row in found], pa.float64()),
        }
    )


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(rows, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_no_unit_changes_an_answer_by_more_than_its_noise_is_for(found, groups, rows_per_group, laplace):
    """Take a unit out: the change, measured as the plan's noise allows for, is within its share of the budget."""
    unit = dp.PrivacyUnit("user", groups=groups, rows_per_group=rows_per_group)
    budget = dp.pure("1") if laplace else dp.zcdp("1")
    by = dp.public("g", ["a", "b", "c"])
    with pytest.MonkeyPatch.context() as patch:
        without_noise(patch)
        plan, whole = exact_totals(as_table(found), unit, budget, by)
        for user in {row[0] for row in found}:
            _, rest = exact_totals(as_table([row for row in found if row[0] != user]), unit, budget, by)
            check_changes(plan, whole - rest, laplace, groups)


def check_changes(plan, change, laplace, groups):
    places = measuring.columns_of(plan)
    total = Fraction(0)
    for at, one in enumerate(plan.measurements):
        moved = [int(value) for value in np.abs(change[:, places[at]]).ravel()]
        if laplace:
            loss = Fraction(sum(moved)) / one.scale
        else:
            loss = Fraction(sum(value * value for value in moved)) / (2 * one.scale)
        assert loss <= one.share
        total += one.share
    assert total <= plan.budget.main


@pytest.mark.parametrize("laplace", [True, False])
def test_the_worst_unit_uses_all_that_is_paid_for(laplace):
    """Not only is the bound kept: it is reached, so no noise is wasted."""
    unit = dp.PrivacyUnit("user", groups=2, rows_per_group=3)
    worst = [("u", group, 5, 0.7) for group in "ab" for _ in range(5)]
    budget = dp.pure("1") if laplace else dp.zcdp("1")
    asked = [dp.count(), dp.distinct(), dp.sum("x", -2, 5)]
    with pytest.MonkeyPatch.context() as patch:
        without_noise(patch)
        found = dp.release(
            as_table(worst), asked, by=dp.public("g", ["a", "b", "c"]), unit=unit, budget=budget
        )
    assert found.measured.values.sum(axis=0).tolist() == [6, 2, 30]
    for at, one in enumerate(found.plan.measurements):
        moved = found.measured.values[:, at]
        loss = (
            Fraction(int(moved.sum())) / one.scale
            if laplace
            else Fraction(int((moved**2).sum())) / (2 * one.scale)
        )
        assert loss == one.share
    assert sum(one.share for one in found.plan.measurements) == 1


def ladder_of(plan, found):
    """Queries of a search on a table: rows above and below each step of its ladder."""
    table = as_table(found)
    seen = {}

    def remember(one, below, above, rng):
        seen[one.aggregate] = (below, above)
        return 0, len(one.ladder) - 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring.bounds, "find", remember)
        dp.release(table, plan.aggregates, by=plan.by, unit=plan.unit, budget=plan.budget, bounding_key=KEY)
    return seen[0]


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(rows, st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_no_unit_changes_a_search_for_bounds_by_more_than_its_sensitivity(
    found, groups, rows_per_group, laplace
):
    unit = dp.PrivacyUnit("user", groups=groups, rows_per_group=rows_per_group)
    budget = dp.pure("1") if laplace else dp.zcdp("1")
    asked = [dp.sum("y", dp.private(-4, 4))]
    by = dp.public("g", ["a", "b", "c"])
    plan = dp.release(as_table([]), asked, by=by, unit=unit, budget=budget).plan
    plan = dataclasses.replace(plan, aggregates=(dp.sum("y", dp.private(-4, 4)),))
    [search] = plan.searches
    assert sum(one.share for one in (*plan.measurements, *plan.searches)) == plan.budget.main
    spent = 2 * search.epsilon if laplace else search.epsilon**2  # two pure mechanisms, of ρ = ε²/2 each
    assert search.share * Fraction(999, 1000) < spent <= search.share
    whole = ladder_of(plan, found)
    for user in {row[0] for row in found}:
        rest = ladder_of(plan, [row for row in found if row[0] != user])
        for before, after in zip(whole, rest, strict=True):
            assert np.abs(before - after).max() <= search.sensitivity


def test_noise_is_for_the_bounds_that_were_found():
    table = pa.table({"x": np.full(1000, 0.5)})
    found = dp.release(table, [dp.sum("x", dp.private(-1000, 1000))], budget=dp.zcdp(1))
    low, high = found.plan.aggregates[0].low, found.plan.aggregates[0].high
    assert high - low < 2000
    given = dp.release(table, [dp.sum("x", low, high)], budget=dp.zcdp("0.5"))
    assert found.plan.measurements == given.plan.measurements


def partition_probabilities(rule, most):
    return (
        [Fraction(0)]
        + [Fraction(threshold.digits(300), 2**300) for threshold in rule.thresholds()]
        + [Fraction(1)] * most
    )


@pytest.mark.parametrize(("epsilon", "delta"), [("1", "1e-5"), ("0.3", "1e-3"), ("2", "0.01")])
def test_partition_selection_is_private_for_every_pair_of_neighbours(epsilon, delta):
    rule = PartitionRule(Fraction(epsilon), Fraction(delta), 1)
    pi = partition_probabilities(rule, 3)
    slack = Fraction(1, 2**250)
    growth = Fraction(int(gmpy2.mpz(gmpy2.exp(gmpy2.mpfr(epsilon)) * 10**12)) + 1, 10**12) + slack
    for fewer, more in pairwise(pi):
        for p, q in ((fewer, more), (more, fewer), (1 - fewer, 1 - more), (1 - more, 1 - fewer)):
            assert p - growth * q <= rule.delta + slack


@pytest.mark.vectors  # Desfontaines et al., theorem 1, evaluated independently
def test_partition_selection_golden_numbers():
    pi = partition_probabilities(PartitionRule(Fraction(1), Fraction(1, 10**5), 1), 0)
    assert round(float(pi[11]), 5) == 0.34845
    assert round(float(pi[22]), 8) == 0.99999494
    assert pi[23] == 1 and len(pi) == 24
    e, d = gmpy2.mpfr(1), gmpy2.mpfr("1e-5")
    crossover = 1 + int(gmpy2.floor(gmpy2.log(1 + gmpy2.tanh(e / 2) * (1 / d - 1)) / e))
    assert crossover == 11
    assert pi[11] * gmpy2.exp(e) + d > 1 - gmpy2.exp(-e) * (1 - pi[11] - d), (
        "beyond it, the other branch is the less"
    )
    for n in range(1, 12):  # the closed form below the crossover
        assert float(pi[n]) == pytest.approx(float(d * (gmpy2.exp(n * e) - 1) / (gmpy2.exp(e) - 1)), rel=1e-9)


def test_partition_selection_of_several_groups_a_unit():
    rule = PartitionRule(Fraction(1), Fraction(1, 1000), 3)
    first = Fraction(rule.thresholds()[0].digits(300), 2**300)
    assert first < Fraction(1, 3000) * Fraction(1001, 1000)
    assert 1 - (1 - first) ** 3 <= Fraction(1, 1000), "three groups of one unit each: δ together"
    assert len(rule.thresholds()) > len(PartitionRule(Fraction(1), Fraction(1, 1000), 1).thresholds())


def test_the_pre_threshold_shifts_the_rule():
    units = np.array([0, 1, 4, 5, 1000])
    rule = PartitionRule(Fraction(20), Fraction(1, 2), 1, least_units=5)
    kept = np.mean([rule.keep(units, RNG) for _ in range(300)], axis=0)
    assert kept[:3].tolist() == [0, 0, 0] and 0.35 < kept[3] < 0.65 and kept[4] == 1


@pytest.mark.statistical
def test_partition_selection_keeps_with_its_probability():
    rule = PartitionRule(Fraction(1), Fraction(1, 10**5), 1)
    kept = rule.keep(np.repeat([10, 11, 12, 30], 100_000), RNG).reshape(4, -1).mean(axis=1)
    pi = partition_probabilities(rule, 9)
    for at, n in enumerate((10, 11, 12)):
        assert abs(kept[at] - float(pi[n])) < 0.008
    assert kept[3] == 1


def flip_distribution(scores, rate):
    """Permute-and-flip's distribution by enumerating orders."""
    found = [0.0] * len(scores)
    orders = list(permutations(range(len(scores))))
    for order in orders:
        left = 1.0
        for at in order:
            chosen = float(gmpy2.exp(-rate * (max(scores) - scores[at])))
            found[at] += left * chosen / len(orders)
            left *= 1 - chosen
    return found


def weights_distribution(scores, rate):
    weights = [float(gmpy2.exp(rate * score)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def max_distribution(scores, scale):
    """Report-noisy-max with discrete Laplace noise and a random choice of the tied, by summation."""
    noise = {k: float(gmpy2.tanh(1 / (2 * scale)) * gmpy2.exp(-abs(k) / scale)) for k in range(-200, 201)}
    found = [0.0] * 3
    below = np.cumsum([noise[k] for k in range(-200, 201)])
    for k in range(-60, 61):
        at_k = [noise.get(k - s, 0.0) for s in scores]
        under = [below[min(max(k - s - 1 + 200, 0), 400)] for s in scores]
        for chosen in range(3):
            others = [i for i in range(3) if i != chosen]
            a, b = others
            found[chosen] += at_k[chosen] * (
                under[a] * under[b] + (at_k[a] * under[b] + under[a] * at_k[b]) / 2 + at_k[a] * at_k[b] / 3
            )
    return found


@pytest.mark.statistical
@pytest.mark.parametrize("mechanism", ["exponential", "permute_and_flip", "report_noisy_max"])
def test_selection_has_its_exact_distribution_and_keeps_its_promise(mechanism):
    scores, neighbour, runs = [3, 1, 0], [1, 3, 2], 3000
    epsilon, sensitivity = Fraction(3), 2
    rate = float(epsilon / (2 * sensitivity))
    expected = {
        "exponential": lambda s: weights_distribution(s, rate),
        "permute_and_flip": lambda s: flip_distribution(s, rate),
        "report_noisy_max": lambda s: max_distribution(s, 2 * sensitivity / float(epsilon)),
    }[mechanism]
    pick = getattr(selection, mechanism)
    size = sensitivity if mechanism == "report_noisy_max" else Fraction(sensitivity)
    seen = np.bincount([pick(np.array(scores), size, epsilon, RNG) for _ in range(runs)], minlength=3) / runs
    for frequency, mass in zip(seen, expected(scores), strict=True):
        assert abs(frequency - mass) < 5.5 * (mass * (1 - mass) / runs) ** 0.5 + 1e-3
    # and that distribution is ε-differentially private between these neighbours
    for p, q in zip(expected(scores), expected(neighbour), strict=True):
        assert max(p / q, q / p) <= float(gmpy2.exp(3)) * (1 + 1e-9)


def test_sparse_vector_draws_the_noise_that_its_proof_needs(monkeypatch):
    """One noise for the threshold, one for each query, of the scales of Lyu, Su and Li, algorithm 1."""
    scales, script = [], iter([7, 0, -5, 9, 0])

    def scripted(rng, scale, count):
        scales.append(scale)
        return np.array([next(script)])

    monkeypatch.setattr(selection, "discrete_laplace", scripted)
    answers = list(selection.sparse_vector([10, 20, 3, 12, 10**9], 5, 3, Fraction(2), RNG, most=2))
    assert answers == [False, True, True], (
        "against 5 + 7: 10 + 0, 20 - 5, 3 + 9; then it has given what was paid for"
    )
    assert scales == [Fraction(3)] + [Fraction(12)] * 3


def test_sparse_vector_ends_only_when_it_has_to():
    far = 10**6
    assert list(selection.sparse_vector([far] * 9, 0, 1, Fraction(2), RNG, most=2)) == [True, True]
    assert list(selection.sparse_vector([-far] * 9, 0, 1, Fraction(2), RNG)) == [False] * 9


@pytest.mark.statistical  # false alarm: 10^-3 each, two bounds a case
def test_audit_of_counts_through_the_whole_release():
    found = audit.audit_release("1", 10**6)
    assert 0.95 <= found <= 1


@pytest.mark.statistical
def test_audit_of_small_epsilon_and_of_gaussian_noise():
    assert 0.085 <= audit.audit_laplace("0.1", 10**6) <= 0.1
    claim = 1.0  # at the δ that discrete Gaussian noise of variance 2 has for it
    weights = {k: exp(-k * k / 4) for k in range(-40, 41)}
    beyond = sum(max(weights[k] - exp(claim) * weights.get(k - 1, 0), 0) for k in weights)
    delta = beyond / sum(weights.values())
    assert 0.4 <= audit.audit_gaussian(2, delta, 10**6, threshold=3) <= claim


@pytest.mark.statistical  # false alarm: 6·10^-7 a case
@pytest.mark.parametrize(
    "draw",
    [
        lambda: int(discrete_laplace(RNG, Fraction(1000), 1)[0]),
        lambda: int(discrete_gaussian(RNG, Fraction(1000), 1)[0]),
        lambda: int(discrete_gaussian(RNG, Fraction(2**40), 1)[0]),
        lambda: int(dp.release(ROW, [dp.count()], budget=dp.pure("0.01")).measured.values[0, 0]) - 1,
    ],
    ids=["laplace", "gaussian", "wide gaussian", "release"],
)
def test_how_long_it_takes_says_nothing_about_the_noise(draw):
    """Rank correlation of the time of a draw with the magnitude of what was drawn."""
    times, sizes = [], []
    for _ in range(400):
        start = perf_counter_ns()
        noise = draw()
        times.append(perf_counter_ns() - start)
        sizes.append(abs(noise))
    by_time, by_size = (np.argsort(np.argsort(one)) for one in (times, sizes))
    assert abs(np.corrcoef(by_time, by_size)[0, 1]) < 5 / 400**0.5


def test_an_audit_finds_half_the_noise():
    assert audit.epsilon_bound(10**6, 880_797, 119_203) > 1.9  # what ε = 2 looks like
