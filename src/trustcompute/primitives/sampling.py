"""Exact samplers of integer noise: discrete Laplace, discrete Gaussian, geometric, Poisson, Skellam.

Called by ``dp`` and by whoever adds noise that a proof speaks about. Exact: the probability of every outcome is the
distribution's, given uniform bits. Each comparison of random digits with a probability is decided by as many digits
as it takes (``interval``, ``cdf``); no float is involved. Scales are rationals.

- Geometric: the digits of a geometric variable are independent, in any base: e^{-λk} is the product of e^{-λ·d·b^i}
  over its digits d. Each is looked up in a table by itself; what is above the highest is a geometric variable again.
- Laplace: 0 or more with probability 1/(1 + e^-λ), and then geometric; else -1 less a geometric variable.
- Gaussian: by its distribution function up to σ = 2^14; beyond, by rejection from Laplace (C. Canonne, G. Kamath,
  T. Steinke, *The Discrete Gaussian for Differential Privacy*, NeurIPS 2020, algorithm 3).

A stream is read in blocks, and a sample that needs more digits (one in 2^12, or rarer) takes them from the same
stream: the same stream gives the same samples only in the same version.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from math import isqrt
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import ParameterError
from trustcompute.primitives import cdf
from trustcompute.primitives.cdf import I64
from trustcompute.primitives.interval import Interval, Threshold, exp_minus
from trustcompute.primitives.rng import Rng

BLOCK: Final = 2**15  # samples at a time: the work arrays stay in the second-level cache
WORD: Final = 16  # bits first drawn for each digit of a geometric variable
DIGIT: Final = 8  # bits of a digit: 255 of 2^16 words do not decide it
MAX_TOP: Final = 24  # scale of what is left above the digits: 24·45 of 2^16 words do not decide it
MAX_SCALE: Final = 2**44  # ε = 2^-13 of a sum whose terms have 31 bits
MIN_SCALE: Final = Fraction(1, 2**10)
MAX_TABLE_SIGMA: Final = 2**14
MAX_POISSON_MEAN: Final = 2**28
FLIP_BITS: Final = 31  # digits first drawn for Bernoulli(e^-γ)
FLIP_MARGIN: Final = 2**13  # of 2^31; see _flip

Words = Callable[[int], npt.NDArray[Any]]


def geometric(rng: Rng, scale: Fraction, count: int) -> I64:
    """int64[count] ≥ 0 with P(k) = (1 - e^{-1/s})·e^{-k/s}. scale s: from 2^-10 to 2^44."""
    plan = _geometric_plan(_scale(scale))
    source = _words16(rng)
    return _blocks(count, lambda size: plan.sample(size, source, _words64(rng)))


def discrete_laplace(rng: Rng, scale: Fraction, count: int) -> I64:
    """int64[count] with P(k) ∝ e^{-|k|/s}. scale s: from 2^-10 to 2^44."""
    plan = _geometric_plan(_scale(scale))
    source, more, draw = _words16(rng), _words64(rng), _draw(rng)

    def block(size: int) -> I64:
        far = plan.sample(size, source, more)
        return far ^ -plan.negative(source(size), draw).astype(np.int64)  # ~k = -1 - k where negative

    return _blocks(count, block)


def discrete_gaussian(rng: Rng, variance: Fraction, count: int) -> I64:
    """int64[count] with P(k) ∝ e^{-k²/2σ²}. variance σ²: from 2^-20 to 2^86 (the distribution's parameter).

    Up to σ = 2^14 the first call for a variance makes a table (18 entries a unit of σ), unless fewer samples
    are asked for than it would have entries.
    """
    if not Fraction(1, 2**20) <= variance <= 2**86:
        raise ParameterError("the variance of discrete Gaussian noise must lie between 2^-20 and 2^86")
    sigma = isqrt(variance.__ceil__())
    if sigma <= MAX_TABLE_SIGMA and (sigma <= 64 or count >= 16 * sigma):
        return _by_table(rng, _gaussian_table(variance), count)
    return _rejected(rng, variance, count)


def poisson(rng: Rng, mean: Fraction, count: int) -> I64:
    """int64[count] of the Poisson distribution. mean: from 2^-20 to 2^28."""
    if not Fraction(1, 2**20) <= mean <= MAX_POISSON_MEAN:
        raise ParameterError("the mean of Poisson noise must lie between 2^-20 and 2^28")
    return _by_table(rng, _poisson_table(mean), count)


def skellam(rng: Rng, variance: Fraction, count: int) -> I64:
    """int64[count]: the difference of two Poisson variables of mean variance/2. variance: from 2^-19 to 2^29.

    Sums of independent Skellam variables are Skellam: parties can each add a share of the noise.
    """
    both = poisson(rng, variance / 2, 2 * count)
    return both[:count] - both[count:]


def bernoulli_exp(rng: Rng, steps: I64, rate: Fraction) -> npt.NDArray[np.bool_]:
    """bool[n]: true with probability e^{-rate·steps}. steps: int64[n] ≥ 0; rate: 2^-34 to 2^62.

    What is compared first is right to 32 units of 2^-24: a step is rounded by 2^-58, and fewer than 2^40 count.
    """
    if not Fraction(1, 2**34) <= rate <= 2**62:
        raise ParameterError("the rate of a Bernoulli draw must lie between 2^-34 and 2^62 a step")
    per_step = min((rate * 2**57).__round__(), 2**62)  # beyond 32 it makes no difference to the first digits
    near = np.minimum(steps, min((32 / rate).__ceil__(), 2**63 // per_step - 1))
    gamma = (near * np.int64(per_step)) >> 33
    return _flip(gamma, lambda at: rate * int(steps[at]), _words31(rng), _draw(rng))


def uniform(rng: Rng, bound: int, count: int) -> I64:
    """int64[count], uniform in 0..bound-1, by rejection. bound: 1 to 2^62."""
    if not 1 <= bound <= 2**62:
        raise ParameterError("a uniform draw needs a bound between 1 and 2^62")
    limit = np.uint64((1 << 64) // bound * bound - 1)
    kept = np.empty(0, dtype=np.uint64)
    while len(kept) < count:
        words = rng.array(8 * (count - len(kept))).view("<u8")
        kept = np.concatenate([kept, words[words <= limit]])
    return (kept % np.uint64(bound)).astype(np.int64)


class GeometricPlan:
    """Tables for the digits of a geometric variable in base 2^``digit``, first looked up by words of ``word`` bits.

    The last digit is what is left above the others: a geometric variable, not bounded.
    """

    def __init__(self, scale: Fraction, word: int = WORD, digit: int = DIGIT) -> None:
        self.word, self.digit = word, digit
        rate, self.digits = 1 / scale, []
        while rate * MAX_TOP < 1:
            self.digits.append(cdf.ShortTable(cdf.truncated_geometric(rate, 1 << digit), word))
            rate *= 1 << digit
        self.top = cdf.ShortTable(cdf.geometric(rate), word)
        self.sign = _sign_threshold(1 / scale)

    def sample(self, count: int, words: Words, more: Words) -> I64:
        """int64[count]. words(n): n words of ``word`` bits; more(n): n words of 64 bits."""
        value: npt.NDArray[Any] = self.top.sample(words(count), more)
        wide: Any = np.uint32 if len(self.digits) * self.digit <= 16 else np.uint64
        for table in reversed(self.digits):
            value = value.astype(wide, copy=False) << wide(self.digit) | table.sample(words(count), more)
        return value.astype(np.int64)

    def negative(self, words: npt.NDArray[Any], draw: Callable[[], int]) -> npt.NDArray[np.bool_]:
        """bool[n]: whether a Laplace variable is below 0, one for each word."""
        first = self.sign.digits(self.word)
        bits = words < first
        for at in np.flatnonzero(words == first):
            bits[at] = self.sign.exceeds(int(words[at]), self.word, draw)
        return bits


def _sign_threshold(x: Fraction) -> Threshold:
    """e^-x/(1 + e^-x) = w/(1 + w), which grows with w."""

    def bounds(bits: int) -> Interval:
        low, high = exp_minus(x, bits + 2)
        one = 1 << (bits + 2)
        return (low << bits) // (one + low), -((-high << bits) // (one + high))

    return Threshold(bounds)


def _power_threshold(x: Fraction) -> Threshold:
    return Threshold(lambda bits: exp_minus(x, bits))


def _rejected(rng: Rng, variance: Fraction, count: int) -> I64:
    """Laplace of scale t = ⌊σ⌋ + 1, kept with probability e^{-(|y| - σ²/t)²/2σ²}, in batches of a fixed size."""
    t = isqrt(variance.__floor__()) + 1
    centre = variance / t
    draw, flips = _draw(rng), _words31(rng)
    # σ in units of 2^-shift has 25 bits, so that squares stay below 2^62 and γ is right to 2^-19.
    shift = 25 - t.bit_length()
    scaled = Fraction(2) ** shift
    middle = (centre * scaled).__round__()
    divisor = (2 * variance * scaled * scaled / 2**24).__round__()
    kept: list[I64] = []
    missing = count
    while missing > 0:
        size = min(BLOCK, missing + missing // 2 + 64)
        y = discrete_laplace(rng, Fraction(t), size)
        far = np.abs(y)
        distance = np.abs((far << shift if shift >= 0 else far >> -shift) - middle)
        np.minimum(distance, 2**31 - 1, out=distance)
        gamma = distance * distance // divisor
        accept = _flip(
            gamma,
            lambda at, far=far: (int(far[at]) - centre) ** 2 / (2 * variance),  # type: ignore[misc]
            flips,
            draw,
        )
        kept.append(y[accept][:missing])
        missing -= len(kept[-1])
    return np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)


def _flip(
    gamma: I64, exactly: Callable[[int], Fraction], words: Words, draw: Callable[[], int]
) -> npt.NDArray[np.bool_]:
    """bool[n]: true with probability e^-γ. gamma: 2^24·γ, right to 32 units wherever γ < 32; exactly(i): γ.

    A first comparison with an approximation of 2^31·e^-γ. Its error is below the margin: 32 units of γ move it by
    at most 2^31·2^-19 = 2^12, the two tables and their product by less than 4. What lies within the margin,
    one in 2^17, is decided exactly.
    """
    coarse, fine = _flip_tables()
    near = np.minimum(gamma, (32 << 24) - 1).astype(np.uint64)
    approximate = (coarse[near >> np.uint64(14)] * fine[near & np.uint64(2**14 - 1)] >> np.uint64(31)).astype(
        np.int64
    )
    word = words(len(gamma)).astype(np.int64)
    result: npt.NDArray[np.bool_] = word < approximate
    for at in np.flatnonzero(np.abs(word - approximate) <= FLIP_MARGIN):
        threshold = _power_threshold(exactly(int(at)))
        result[at] = threshold.exceeds(int(word[at]), FLIP_BITS, draw)
    return result


@lru_cache(maxsize=1)
def _flip_tables() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """⌊2^31·e^{-i/2^10}⌋ for i < 2^15, and ⌊2^31·e^{-i/2^24}⌋ for i < 2^14."""
    return (_powers(Fraction(1, 2**10), 2**15), _powers(Fraction(1, 2**24), 2**14))


def _powers(step: Fraction, count: int) -> npt.NDArray[np.uint64]:
    low, _ = exp_minus(step, 128)
    values, running = [], 1 << 128
    for _ in range(count):
        values.append(running >> 97)
        running = running * low >> 128  # short of the truth by less than 2^-110 after 2^15 steps
    return np.array(values, dtype=np.uint64)


def _scale(scale: Fraction) -> Fraction:
    if not MIN_SCALE <= scale <= MAX_SCALE:
        raise ParameterError("the scale of discrete Laplace noise must lie between 2^-10 and 2^44")
    return Fraction(scale)


@lru_cache(maxsize=64)
def _geometric_plan(scale: Fraction) -> GeometricPlan:
    return GeometricPlan(scale)


@lru_cache(maxsize=8)
def _gaussian_table(variance: Fraction) -> cdf.Table:
    return cdf.Table(cdf.gaussian(variance))


@lru_cache(maxsize=8)
def _poisson_table(mean: Fraction) -> cdf.Table:
    return cdf.Table(cdf.poisson(mean))


def _by_table(rng: Rng, table: cdf.Table, count: int) -> I64:
    return _blocks(count, lambda size: table.sample(rng.array(8 * size).view("<u8"), _draw(rng)))


def _blocks(count: int, block: Callable[[int], I64]) -> I64:
    samples = np.empty(count, dtype=np.int64)
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        samples[start : start + size] = block(size)
    return samples


def _words16(rng: Rng) -> Words:
    return lambda count: rng.array(2 * count).view("<u2")


def _words31(rng: Rng) -> Words:
    return lambda count: rng.array(4 * count).view("<u4") >> np.uint32(1)


def _words64(rng: Rng) -> Words:
    return lambda count: rng.array(8 * count).view("<u8")


def _draw(rng: Rng) -> Callable[[], int]:
    return lambda: int.from_bytes(rng.bytes(8), "little")
