"""The samplers are exact: small words enumerated bit string by bit string, large ones tested for their fit."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import gmpy2
import numpy as np
import pytest

from trustcompute.errors import ParameterError
from trustcompute.primitives import cdf, sampling
from trustcompute.primitives.interval import Threshold, certain_floor, exp_minus
from trustcompute.primitives.rng import Rng

ALPHA = 1e-6
SAMPLES = 400_000


def laplace_pmf(scale):
    def pmf(k):
        return float(gmpy2.tanh(gmpy2.mpfr(1) / (2 * scale)) * gmpy2.exp(-gmpy2.mpfr(abs(k)) / scale))

    return pmf


def geometric_pmf(scale):
    def pmf(k):
        return (
            float((1 - gmpy2.exp(gmpy2.mpfr(-1) / scale)) * gmpy2.exp(gmpy2.mpfr(-k) / scale))
            if k >= 0
            else 0.0
        )

    return pmf


def gaussian_pmf(variance):
    reach = int(20 * variance**0.5) + 20
    total = sum(float(gmpy2.exp(gmpy2.mpfr(-k * k) / (2 * variance))) for k in range(-reach, reach + 1))
    return lambda k: float(gmpy2.exp(gmpy2.mpfr(-k * k) / (2 * variance))) / total


def poisson_pmf(mean):
    def pmf(k):
        return float(gmpy2.exp(k * gmpy2.log(mean) - mean - gmpy2.lngamma(k + 1))) if k >= 0 else 0.0

    return pmf


def p_value(samples, pmf):
    """χ² over cells of at least 50 expected samples, and two tails."""
    values = range(int(samples.min()) - 1, int(samples.max()) + 2)
    expected = {k: len(samples) * pmf(k) for k in values}
    inner = [k for k in values if expected[k] >= 50]
    low, high = inner[0], inner[-1]
    counts = np.bincount(np.clip(samples, low - 1, high + 1) - (low - 1), minlength=high - low + 3)
    below = sum(len(samples) * pmf(k) for k in range(low - 400, low))
    above = sum(len(samples) * pmf(k) for k in range(high + 1, high + 401))
    cells = [(counts[0], below), (counts[-1], above)]
    cells += [(counts[k - low + 1], expected[k]) for k in range(low, high + 1)]
    cells = [(seen, wanted) for seen, wanted in cells if wanted >= 5]
    statistic = sum((seen - wanted) ** 2 / wanted for seen, wanted in cells)
    # Wilson and Hilferty: the cube root of χ²/d is close to normal.
    freedom = len(cells) - 1
    normal = ((statistic / freedom) ** (1 / 3) - 1 + 2 / (9 * freedom)) / (2 / (9 * freedom)) ** 0.5
    return float(gmpy2.erfc(gmpy2.mpfr(normal) / gmpy2.sqrt(2)) / 2)


DISTRIBUTIONS = {
    "laplace 1/2": (lambda r, n: sampling.discrete_laplace(r, Fraction(1, 2), n), laplace_pmf, 0.5),
    "laplace 7.3": (lambda r, n: sampling.discrete_laplace(r, Fraction(73, 10), n), laplace_pmf, 7.3),
    "laplace 100": (lambda r, n: sampling.discrete_laplace(r, Fraction(100), n), laplace_pmf, 100),
    "geometric 5": (lambda r, n: sampling.geometric(r, Fraction(5), n), geometric_pmf, 5),
    "gaussian 1/3": (lambda r, n: sampling.discrete_gaussian(r, Fraction(1, 3), n), gaussian_pmf, 1 / 3),
    "gaussian 100": (lambda r, n: sampling.discrete_gaussian(r, Fraction(100), n), gaussian_pmf, 100),
    "poisson 0.4": (lambda r, n: sampling.poisson(r, Fraction(2, 5), n), poisson_pmf, 0.4),
    "poisson 50": (lambda r, n: sampling.poisson(r, Fraction(50), n), poisson_pmf, 50),
    "rejected gaussian 100": (lambda r, n: sampling._rejected(r, Fraction(100), n), gaussian_pmf, 100),
}


@pytest.mark.statistical  # false alarm: 10^-6 a case
@pytest.mark.parametrize("case", DISTRIBUTIONS, ids=str)
def test_goodness_of_fit_and_a_perturbed_scale_is_seen(case):
    sample, pmf, parameter = DISTRIBUTIONS[case]
    drawn = sample(Rng.from_os(), SAMPLES)
    assert drawn.dtype == np.int64 and drawn.shape == (SAMPLES,)
    assert p_value(drawn, pmf(parameter)) > ALPHA
    assert p_value(drawn, pmf(parameter * 1.04)) < ALPHA
    assert p_value(drawn, pmf(parameter / 1.04)) < ALPHA


@pytest.mark.statistical
@pytest.mark.parametrize("sigma", [2**12, 2**17, 2**38])
def test_large_gaussians_have_their_moments_and_tails(sigma):
    drawn = sampling.discrete_gaussian(Rng.from_os(), Fraction(sigma) ** 2, SAMPLES) / sigma
    assert abs(drawn.mean()) < 5 / SAMPLES**0.5
    assert abs((drawn**2).mean() - 1) < 5 * (2 / SAMPLES) ** 0.5
    for bound, mass in ((1, 0.3173105), (2, 0.0455003), (3, 0.0026998)):
        seen = (np.abs(drawn) > bound).mean()
        assert abs(seen - mass) < 5.5 * (mass / SAMPLES) ** 0.5
    skew = (drawn**3).mean()
    assert abs(skew) < 5.5 * (15 / SAMPLES) ** 0.5


@pytest.mark.statistical
def test_large_laplace_and_skellam_have_their_moments():
    drawn = sampling.discrete_laplace(Rng.from_os(), Fraction(2**40), SAMPLES) / 2**40
    assert abs((drawn**2).mean() - 2) < 5.5 * (20 / SAMPLES) ** 0.5
    assert abs((np.abs(drawn) > 3).mean() - 0.0497871) < 5.5 * (0.05 / SAMPLES) ** 0.5
    drawn = sampling.skellam(Rng.from_os(), Fraction(10_000), SAMPLES) / 100
    assert abs(drawn.mean()) < 5 / SAMPLES**0.5
    assert abs((drawn**2).mean() - 1) < 5.5 * (2 / SAMPLES) ** 0.5


def each_word(table, word, rest):
    """The sample of each word, followed by nothing but zeros or ones."""
    words = np.arange(1 << word, dtype=np.uint16)
    return table.sample(words, lambda count: np.full(count, rest, dtype=np.uint64)).astype(np.int64)


@pytest.mark.parametrize(("scale", "word"), [(Fraction(1, 2), 4), (Fraction(2), 6), (Fraction(5), 8)])
def test_geometric_variables_by_enumeration(scale, word):
    """Each word is one sample; an undecided one falls where either end of it falls."""
    plan = sampling.GeometricPlan(scale, word)
    assert plan.digits == []
    least, most = each_word(plan.top, word, 1), each_word(plan.top, word, 2**64 - 2**20)
    pmf = geometric_pmf(gmpy2.mpq(scale))
    for k in range(int(most.max()) + 1):
        certainly = ((least == k) & (most == k)).mean()
        perhaps = ((least <= k) & (k <= most)).mean()
        assert certainly - 1e-12 <= pmf(k) <= perhaps + 1e-12
    assert (least == most).any() and np.all(np.diff(least) >= 0)


@pytest.mark.parametrize(("scale", "word", "digit"), [(Fraction(30), 8, 2), (Fraction(100), 8, 3)])
def test_digits_of_a_geometric_variable_by_enumeration(scale, word, digit):
    """Every pair of words: the digits put together are the geometric distribution."""
    plan = sampling.GeometricPlan(scale, word, digit)
    [low_digit] = plan.digits
    size, pmf = 1 << digit, geometric_pmf(gmpy2.mpq(scale))
    ends = [
        (each_word(table, word, 1), each_word(table, word, 2**64 - 2**20)) for table in (plan.top, low_digit)
    ]
    assert ends[1][1].max() == size - 1
    for k in range(40 * size):
        certainly, perhaps = 1.0, 1.0
        for (least, most), part in zip(ends, divmod(k, size), strict=True):
            certainly *= ((least == part) & (most == part)).mean()
            perhaps *= ((least <= part) & (part <= most)).mean()
        assert certainly - 1e-12 <= pmf(k) <= perhaps + 1e-12
    strings = [np.repeat(np.arange(1 << word), 1 << word), np.tile(np.arange(1 << word), 1 << word)]
    supply = iter([string.astype(np.uint16) for string in strings])
    whole = plan.sample(
        1 << 2 * word, lambda count: next(supply), lambda count: np.ones(count, dtype=np.uint64)
    )
    assert np.array_equal(whole, ends[0][0][strings[0]] * size + ends[1][0][strings[1]])


@pytest.mark.parametrize("scale", [Fraction(1, 3), Fraction(4), Fraction(1000)])
def test_the_sign_of_laplace_noise_by_enumeration(scale):
    plan = sampling.GeometricPlan(scale, 8)
    words = np.arange(256, dtype=np.uint16)
    below = 1 / (1 + gmpy2.exp(1 / gmpy2.mpq(scale)))
    least, most = (plan.negative(words, lambda rest=rest: rest).sum() / 256 for rest in (2**64 - 1, 0))
    assert least <= below <= most <= least + 1 / 256


def test_geometric_tables_to_any_number_of_bits():
    for distribution in (cdf.geometric(Fraction(1, 7)), cdf.truncated_geometric(Fraction(1, 2**44), 256)):
        short, long = distribution(32), distribution(96)
        for k, value in enumerate(short.values[:-1]):
            assert long.values[k] >> 64 == value
    floors = cdf.truncated_geometric(Fraction(1, 3), 8)(200)
    for k, value in enumerate(floors.values[1:-1], 1):
        exactly = (1 - gmpy2.exp(gmpy2.mpq(-k, 3))) / (1 - gmpy2.exp(gmpy2.mpq(-8, 3)))
        assert value / 2**200 == pytest.approx(float(exactly), rel=1e-14)
    assert len(floors.values) == 9


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize(
    ("distribution", "pmf"),
    [
        (cdf.gaussian(Fraction(4)), gaussian_pmf(4)),
        (cdf.gaussian(Fraction(1, 2)), gaussian_pmf(0.5)),
        (cdf.poisson(Fraction(3)), poisson_pmf(3)),
        (cdf.poisson(Fraction(1, 4)), poisson_pmf(0.25)),
    ],
)
def test_tables_by_enumeration(distribution, pmf, bits):
    """Each word is one sample; a tied word is settled by more digits, and falls where either end of it falls."""
    table = cdf.Table(distribution, bits)
    words = np.arange(1 << bits, dtype=np.uint64)
    with_least = table.sample(words, lambda: 1)  # a tied word followed by (almost) zeros
    with_most = table.sample(words, lambda: 2**64 - 2**20)
    tied = with_least != with_most
    for k in range(int(with_least.min()), int(with_most.max()) + 1):
        certainly = ((with_least == k) & ~tied).sum() / 2**bits
        perhaps = ((with_least <= k) & (k <= with_most)).sum() / 2**bits
        assert certainly - 1e-12 <= pmf(k) <= perhaps + 1e-12
    assert np.all(np.diff(with_least) >= 0) and np.all(np.diff(with_most) >= 0)


def test_a_gaussian_table_is_the_distribution_function():
    floors = cdf.gaussian(Fraction(25))(64)
    pmf, running = gaussian_pmf(25), 0.0
    below = {floors.first + i: value / 2**64 for i, value in enumerate(floors.values)}
    for k in range(-60, 60):
        running += pmf(k)
        assert below.get(k, 0 if k < floors.first else 1) == pytest.approx(running, abs=1e-12)
    assert floors.values[0] == 0 and floors.values[-1] == 2**64 - 1
    assert all(left <= right for left, right in pairwise(floors.values))


def test_more_digits_extend_fewer():
    for distribution in (cdf.gaussian(Fraction(9)), cdf.poisson(Fraction(7))):
        short, long = distribution(32), distribution(96)
        for k, value in enumerate(short.values, short.first):
            if 0 <= k - long.first < len(long.values):
                assert long.values[k - long.first] >> 64 == value


def test_a_tie_is_refined_without_limit():
    third_of_e = Threshold(lambda bits: exp_minus(Fraction(1, 3), bits))
    for depth in (1, 2, 5):
        digits = third_of_e.digits(16 + 64 * depth)
        words = [(digits >> 64 * (depth - 1 - i)) & (2**64 - 1) for i in range(depth)]
        for last, expected in ((words[-1] - 1, True), (words[-1] + 1, False)):
            supply = iter([*words[:-1], last])
            assert (
                third_of_e.exceeds(digits >> 64 * depth, 16, lambda supply=supply: next(supply)) is expected
            )
            assert next(supply, None) is None, "every digit that was needed was drawn, and none more"


@pytest.mark.parametrize("x", [Fraction(1, 10**9), Fraction(1, 3), Fraction(7), Fraction(300)])
def test_intervals_of_exp_hold_the_value_and_are_narrow(x):
    gmpy2.get_context().precision = 600
    try:
        value = gmpy2.exp(-gmpy2.mpq(x)) * gmpy2.mpfr(2) ** 200
        low, high = exp_minus(x, 200)
        assert low <= value <= high and high - low <= 2
        assert certain_floor(lambda bits: exp_minus(x, bits), 100) == int(value / gmpy2.mpfr(2) ** 100)
    finally:
        gmpy2.get_context().precision = 53


@pytest.mark.statistical
@pytest.mark.parametrize("rate", [Fraction(1, 2**20), Fraction(1, 3), Fraction(3), Fraction(40)])
def test_bernoulli_exp_has_its_probability(rate):
    for gamma in (Fraction(1, 5), Fraction(1), Fraction(5)):
        steps = (gamma / rate).__ceil__()
        wanted = float(gmpy2.exp(-gmpy2.mpq(rate * steps)))
        seen = sampling.bernoulli_exp(Rng.from_os(), np.full(SAMPLES, steps), rate).mean()
        assert abs(seen - wanted) <= 5.5 * (wanted * (1 - wanted) / SAMPLES) ** 0.5
    assert sampling.bernoulli_exp(Rng.from_os(), np.zeros(1000, dtype=np.int64), rate).all()


def test_a_flip_near_its_threshold_is_decided_exactly():
    """At the words around 2^31·e^-1, the approximation decides nothing: the exact comparison does."""
    border = exp_minus(Fraction(1), 31)[0]
    words = np.arange(border - 20, border + 21)
    gamma = np.full(len(words), 2**24 + 31)  # as wrong as it may be
    flips = sampling._flip(gamma, lambda at: Fraction(1), lambda count: words, lambda: 0)
    assert flips.tolist() == [
        word <= border for word in words
    ]  # followed by zeros, the border itself is below


@pytest.mark.statistical
def test_uniform_is_uniform():
    drawn = sampling.uniform(Rng.from_os(), 7, 70_000)
    assert np.all(np.abs(np.bincount(drawn, minlength=7) - 10_000) < 600)
    assert set(sampling.uniform(Rng.from_os(), 1, 10)) == {0}


def test_a_derived_stream_gives_the_same_samples():
    first, second = (
        sampling.discrete_laplace(Rng.derive(bytes(32), info=b"t"), Fraction(3), 100_000) for _ in range(2)
    )
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    "sample",
    [
        lambda rng: sampling.discrete_laplace(rng, Fraction(0), 1),
        lambda rng: sampling.discrete_laplace(rng, Fraction(-1), 1),
        lambda rng: sampling.discrete_laplace(rng, Fraction(2**60), 1),
        lambda rng: sampling.discrete_gaussian(rng, Fraction(0), 1),
        lambda rng: sampling.discrete_gaussian(rng, Fraction(2) ** 100, 1),
        lambda rng: sampling.poisson(rng, Fraction(2**30), 1),
        lambda rng: sampling.uniform(rng, 0, 1),
        lambda rng: sampling.bernoulli_exp(rng, np.ones(1, dtype=np.int64), Fraction(1, 2**60)),
    ],
)
def test_scales_out_of_range_are_refused(sample):
    with pytest.raises(ParameterError):
        sample(Rng.from_os())
