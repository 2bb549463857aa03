"""The definition itself, on domains small enough to list: every table, every neighbour, every answer, exactly.

The distributions are written out here from the papers, not taken from the samplers; the samplers are held against
them in ``tests/primitives``. What a release would do is asked of its own plan and its own way of choosing.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations_with_replacement, permutations, product

import gmpy2
import numpy as np
import pyarrow as pa
import pytest

from trustcompute import dp
from trustcompute.dp import measure as measuring
from trustcompute.dp.plan import candidates
from trustcompute.primitives.privacy import zcdp_delta

SLACK = 1e-12


def laplace(scale, reach=300):
    rate = 1 / float(scale)
    weights = np.exp(-rate * np.abs(np.arange(-reach, reach + 1)))
    return weights / weights.sum()


def gaussian(variance, reach=300):
    k = np.arange(-reach, reach + 1)
    weights = np.exp(-(k**2) / (2 * float(variance)))
    return weights / weights.sum()


def hockey_stick(p, q, epsilon):
    return float(np.maximum(p - np.exp(epsilon) * q, 0).sum())


def divergence(p, q, alpha):
    """Rényi's, of order alpha."""
    both = (p > 1e-30) & (q > 1e-30)  # the rest adds next to nothing
    return float(np.log((p[both] ** alpha * q[both] ** (1 - alpha)).sum()) / (alpha - 1))


def tables_and_neighbours(values, units, rows):
    """Tables of up to ``units`` units with up to ``rows`` rows each, and each with one unit taken out."""
    owns = [own for size in range(1, rows + 1) for own in combinations_with_replacement(values, size)]
    for size in range(1, units + 1):
        for table in combinations_with_replacement(owns, size):
            for at in range(size):
                yield table, (*table[:at], (), *table[at + 1 :])


def as_table(table):
    found = [(str(unit), value) for unit, own in enumerate(table) for value in own]
    return pa.table(
        {
            "u": pa.array([unit for unit, _ in found], pa.string()),
            "x": pa.array([value for _, value in found], pa.int64()),
        }
    )


UNIT = dp.PrivacyUnit("u", rows_per_group=2)


@pytest.mark.parametrize("laplacian", [True, False])
def test_sums_of_all_small_tables_and_their_neighbours(laplacian):
    budget = dp.pure("0.7") if laplacian else dp.zcdp("0.2")
    asked = [dp.sum("x", -1, 2), dp.count(), dp.distinct()]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("discrete_laplace", "discrete_gaussian"):
            patch.setattr(measuring, name, lambda rng, scale, count: np.zeros(count, dtype=np.int64))
        totals = {
            table: dp.release(as_table(table), asked, unit=UNIT, budget=budget, bounding_key=bytes(32))
            for table in {one for pair in tables_and_neighbours((-5, 0, 2), 2, 3) for one in pair}
        }
    plan = next(iter(totals.values())).plan
    noise = [laplace(one.scale) if laplacian else gaussian(one.scale) for one in plan.measurements]
    moves = {
        tuple((totals[more].measured.values - totals[less].measured.values)[0])
        for more, less in tables_and_neighbours((-5, 0, 2), 2, 3)
    }
    assert (4, 2, 1) in moves and (-2, 2, 1) in moves
    for move in moves:
        ratio, renyi = 0.0, dict.fromkeys((1.5, 2, 8), 0.0)
        for pmf, shift in zip(noise, move, strict=True):
            moved = np.roll(pmf, int(shift))[50:-50]
            same = pmf[50:-50]
            if laplacian:
                ratio += np.log(np.maximum(moved / same, same / moved).max())
            for alpha in renyi:
                renyi[alpha] += max(divergence(moved, same, alpha), divergence(same, moved, alpha))
        if laplacian:
            assert ratio <= 0.7 + SLACK
        else:
            assert all(found <= alpha * 0.2 + 1e-9 for alpha, found in renyi.items())
    if not laplacian:  # one number alone, by the hockey-stick divergence and the conversion that is charged
        for pmf, shift, one in zip(noise, (4, 2, 1), plan.measurements, strict=True):
            for epsilon in (Fraction(1, 4), Fraction(1)):
                delta = hockey_stick(np.roll(pmf, shift), pmf, float(epsilon))
                assert delta <= float(zcdp_delta(one.share, epsilon))


def exponential_pmf(scores, rate):
    weights = [gmpy2.exp(rate * int(score - max(scores))) for score in scores]
    return [float(weight / sum(weights)) for weight in weights]


def flip_pmf(scores, rate):
    found = [0.0] * len(scores)
    orders = list(permutations(range(len(scores))))
    keep = [float(gmpy2.exp(rate * int(score - max(scores)))) for score in scores]
    for order in orders:
        left = 1.0 / len(orders)
        for at in order:
            found[at] += left * keep[at]
            left *= 1 - keep[at]
    return found


def distribution(choose, pmf, epsilon, rows):
    """All that ``choose`` can give, with its probability: each pick is taken every way there is."""
    found = {}
    waiting = [()]
    while waiting:
        script = waiting.pop()
        asked, mass = iter(script), 1.0

        def pick(scores, step, asked=asked):
            nonlocal mass
            rate = float(epsilon) / (2 * rows * step)
            place = next(asked, None)
            masses = pmf(scores.tolist(), rate)
            if place is None:
                raise NextPick(len(masses))
            mass *= masses[place]
            return place

        try:
            outcome = tuple(choose(pick))
            found[outcome] = mass
        except NextPick as more:
            waiting += [(*script, place) for place in range(more.ways)]
    assert sum(found.values()) == pytest.approx(1)
    return found


class NextPick(Exception):
    def __init__(self, ways):
        self.ways = ways


@pytest.mark.parametrize("quantiles", [("0.5",), ("0.25", "0.75"), ("0.1", "0.5", "0.9")])
@pytest.mark.parametrize("laplacian", [True, False])
def test_quantiles_of_all_small_tables_and_their_neighbours(quantiles, laplacian):
    budget = dp.pure(1) if laplacian else dp.zcdp("0.5")
    quoted = dp.release(as_table(()), [dp.quantile("x", quantiles, 0, 2)], unit=UNIT, budget=budget).plan
    [choice] = quoted.choices
    points, last = quoted.aggregates[0].points, quoted.lattice(0).last
    assert candidates(last).tolist() == [0, 1, 2]
    pmf, seen = (flip_pmf if laplacian else exponential_pmf), {}

    def answers(table):
        values = sorted(value for own in table for value in own)
        if tuple(values) not in seen:
            cells = np.zeros(2 * last + 1, dtype=np.int64)
            np.add.at(cells, 2 * np.array(values, dtype=np.int64), 1)
            seen[tuple(values)] = distribution(
                lambda pick: measuring.quantiles_of(cells, points, pick), pmf, choice.epsilon, 2
            )
        return seen[tuple(values)]

    compare(answers, list(tables_and_neighbours((0, 1, 2), 2, 2)), laplacian)


@pytest.mark.parametrize("laplacian", [True, False])
def test_top_k_of_all_small_tables_and_their_neighbours(laplacian):
    budget = dp.pure(1) if laplacian else dp.zcdp("0.5")
    plan = dp.release(as_table(()), [dp.top_k("x", 2, [0, 1, 2])], unit=UNIT, budget=budget).plan
    [choice] = plan.choices
    pmf = flip_pmf if laplacian else exponential_pmf

    def answers(table):
        counts = np.bincount([value for own in table for value in own], minlength=3)
        return distribution(lambda pick: measuring.top(counts, 2, pick), pmf, choice.epsilon, 2)

    compare(answers, list(tables_and_neighbours((0, 1, 2), 2, 2)), laplacian)


def compare(answers, pairs, laplacian):
    """One unit out of a table: ε = 1 for pure budgets, ρ = 1/2 for others. Not far from it, so little is wasted."""
    worst = 0.0
    for more, less in pairs:
        left, right = answers(more), answers(less)
        outcomes = sorted(left.keys() | right.keys())
        p, q = (np.array([one.get(outcome, 0.0) for outcome in outcomes]) for one in (left, right))
        if laplacian:
            worst = max(worst, float(np.abs(np.log(p / q)).max()))
        else:
            worst = max(
                worst,
                *(divergence(a, b, alpha) / alpha for a, b in ((p, q), (q, p)) for alpha in (1.01, 2, 16)),
            )
    assert 0.1 < worst / (1 if laplacian else 0.5) <= 1 + SLACK


def test_groups_that_are_found_hockey_stick_over_all_small_tables():
    """Partition selection with a count: every pair of a table and one with a unit less, all answers."""
    budget = dp.zcdp("0.5", "0.01")
    unit = dp.PrivacyUnit("u", groups=2)
    plan = dp.release(as_table(()), [dp.count()], by="x", unit=unit, budget=budget).plan
    pi = [0.0, *(one.digits(60) / 2**60 for one in plan.rule.thresholds()), *[1.0] * 4]
    claim, epsilon = float(plan.rule.delta), float(plan.rule.epsilon)
    for counts in product(range(1, 5), repeat=2):
        kept, fewer = ([pi[n - gone] for n in counts] for gone in (0, 1))

        def outcomes(masses):
            return np.array(
                [
                    (masses[0] if a else 1 - masses[0]) * (masses[1] if b else 1 - masses[1])
                    for a, b in product((0, 1), repeat=2)
                ]
            )

        for p, q in ((outcomes(kept), outcomes(fewer)), (outcomes(fewer), outcomes(kept))):
            assert hockey_stick(p, q, epsilon) <= claim + SLACK
