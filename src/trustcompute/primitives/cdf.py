"""Sampling integers by their distribution function: one 64-bit word a sample, more digits where it is not decided.

Called by ``sampling``. U uniform in [0, 1) becomes the least k with U < F(k). A table holds ⌊2^64·F(k)⌋; a word
that equals an entry is not decided, and is refined with further digits of U against a table with as many, without
limit. A word finds its entry through a guide table over its leading bits (H.-C. Chen and Y. Asau, *On Generating
Random Variates from an Empirical Distribution*, AIIE Transactions 6, 1974).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute.primitives.interval import REFINE, Interval, exp_minus

I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

GUIDE_BITS: Final = 16
UNDECIDED: Final = 2**16 - 1  # in a short table
STEPS: Final = 3  # looked at beside the guide's entry; what is further away is searched for


@dataclass(frozen=True)
class Floors:
    """⌊2^bits·F(k)⌋ for k = first, first+1, ...: the first of them is 0, the last 2^bits - 1."""

    first: int
    values: list[int]


Distribution = Callable[[int], Floors]
"""A distribution function to any number of bits."""


class Table:
    """A sampler for one distribution, with words of ``bits`` bits (fewer than 64 to enumerate them all)."""

    def __init__(self, distribution: Distribution, bits: int = 64) -> None:
        self._distribution, self._bits = distribution, bits
        floors = distribution(bits)
        self._first = floors.first
        self._floors = np.array(floors.values, dtype=np.uint64)
        self._shift = np.uint64(max(bits - GUIDE_BITS, 0))
        starts = np.arange(1 << min(bits, GUIDE_BITS), dtype=np.uint64) << self._shift
        self._guide = np.searchsorted(self._floors, starts).astype(np.int32)

    @property
    def first(self) -> int:
        return self._first

    @property
    def floors(self) -> U64:
        return self._floors

    def sample(self, words: U64, draw: Callable[[], int]) -> I64:
        """One sample for each word; ``draw`` gives further 64 bits of a word that is not decided."""
        at = self._guide[words >> self._shift]
        found = self._floors[at]
        for _ in range(STEPS):
            at += found < words
            found = self._floors[at]
        far = np.flatnonzero(found < words)
        if far.size:
            at[far] = np.searchsorted(self._floors, words[far])
            found = self._floors[at]
        samples: I64 = at.astype(np.int64)
        samples += self._first
        for tie in np.flatnonzero(found == words):
            samples[tie] = self._refine(int(words[tie]), draw)
        return samples

    def _refine(self, word: int, draw: Callable[[], int]) -> int:
        bits = self._bits
        while True:
            word, bits = word << REFINE | draw(), bits + REFINE
            floors = self._distribution(bits)
            at = _first_at_least(floors.values, word)
            if floors.values[at] != word:
                return floors.first + at


class ShortTable:
    """A sampler for a distribution over fewer than 2^15 values from 0, with ``word`` bits drawn at first.

    Nearly all words decide: a table tells the sample of each. The others get the rest of ``bits`` bits, and beyond
    those what it takes. One look-up in a table of 128 KiB, where ``Table`` compares with entries nearby.
    """

    def __init__(self, distribution: Distribution, word: int = 16, bits: int = 64) -> None:
        self._long = Table(distribution, bits)
        self._rest = np.uint64(bits - word)
        floors = self._long.floors >> self._rest
        words = np.arange(1 << word, dtype=np.uint64)
        at = np.searchsorted(floors, words)
        self._sample = np.where(floors[at] == words, UNDECIDED, at + self._long.first).astype(np.uint16)

    def sample(self, words: npt.NDArray[np.uint16], more: Callable[[int], U64]) -> npt.NDArray[np.uint16]:
        """One sample for each word; more(n): n further words of 64 bits."""
        found = self._sample[words]
        undecided = np.flatnonzero(found == UNDECIDED)
        if undecided.size:
            longer = (
                words[undecided].astype(np.uint64) << self._rest
                | more(undecided.size) >> np.uint64(64) - self._rest
            )
            found[undecided] = self._long.sample(longer, lambda: int(more(1)[0]))
        return found


def _first_at_least(values: list[int], word: int) -> int:
    low, high = 0, len(values) - 1  # the last is 2^bits - 1, so one is found
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if values[middle] < word else (low, middle)
    return low


def gaussian(variance: Fraction) -> Distribution:
    """The discrete Gaussian, P(k) ∝ e^{-k²/2σ²}."""
    return lambda bits: _certain(lambda precision: _gaussian(variance, bits, precision), bits)


def poisson(mean: Fraction) -> Distribution:
    """The Poisson distribution."""
    return lambda bits: _certain(lambda precision: _poisson(mean, bits, precision), bits)


def geometric(rate: Fraction) -> Distribution:
    """The geometric distribution from 0, P(k) ∝ e^{-rate·k}."""
    return lambda bits: _certain(lambda precision: _geometric(rate, None, bits, precision), bits)


def truncated_geometric(rate: Fraction, size: int) -> Distribution:
    """The same on 0..size-1."""
    return lambda bits: _certain(lambda precision: _geometric(rate, size, bits, precision), bits)


def _certain(attempt: Callable[[int], Floors | None], bits: int) -> Floors:
    """The floors, at the first precision at which no interval holds an integer."""
    precision = bits + 112  # rounding in 2^18 steps of two nested recurrences loses under 60 bits
    while True:
        floors = attempt(precision)
        if floors is not None:
            return floors
        precision += 64


def _gaussian(variance: Fraction, bits: int, precision: int) -> Floors | None:
    """From the tails q(k) = P(X > k), k ≥ 0: F(-k-1) = q(k) and F(k) = 1 - q(k)."""
    low, high = _gaussian_weights(variance, precision)
    # Beyond w(K), K >= 1, each ratio is below e^{-1/σ²}: the rest is at most w(K)/(e^{1/σ²} - 1) <= w(K)·σ².
    rest = high[-1] * variance.__ceil__() + 1
    q_low, q_high = _suffix_sums(low, 0), _suffix_sums(high, rest)
    total_low, total_high = 2 * q_low[1] + low[0], 2 * q_high[1] + high[0]
    tails = []
    for k in range(1, len(low)):
        at_least, at_most = (q_low[k] << bits) // total_high, (q_high[k] << bits) // total_low
        if at_least != at_most:
            return None
        tails.append(at_least)
        if at_least == 0:
            break
    else:
        return None
    top = (1 << bits) - 1
    return Floors(-len(tails), [*reversed(tails), *(top - tail for tail in tails)])


def _gaussian_weights(variance: Fraction, precision: int) -> tuple[list[int], list[int]]:
    """Intervals of e^{-k²/2σ²}, k = 0, 1, ..., by w(k+1) = w(k)·r(k), r(k+1) = r(k)·e^{-1/σ²}."""
    r_low, r_high = exp_minus(1 / (2 * variance), precision)
    s_low, s_high = exp_minus(1 / variance, precision)
    low, high = [1 << precision], [1 << precision]
    end = 1 << 40
    while high[-1] > end or len(low) < 3:
        low.append(low[-1] * r_low >> precision)
        high.append((high[-1] * r_high >> precision) + 1)
        r_low, r_high = r_low * s_low >> precision, (r_high * s_high >> precision) + 1
    return low, high


def _suffix_sums(weights: list[int], rest: int) -> list[int]:
    sums = [0] * len(weights)
    running = rest
    for at in range(len(weights) - 1, -1, -1):
        running += weights[at]
        sums[at] = running
    return sums


def _geometric(rate: Fraction, size: int | None, bits: int, precision: int) -> Floors | None:
    """F(k) = (1 - w(k+1))/(1 - w(size)) with w(k) = e^{-rate·k}; without a size, up to F(k) > 1 - 2^-bits."""
    one, top = 1 << precision, (1 << bits) - 1
    low, high = exp_minus(rate, precision)
    whole_low, whole_high = one, one
    if size is not None:
        rest_low, rest_high = exp_minus(rate * size, precision)
        whole_low, whole_high = one - rest_high, one - rest_low
    w_low, w_high, values = one, one, [0]
    while values[-1] < top if size is None else len(values) < size:
        w_low, w_high = w_low * low >> precision, (w_high * high >> precision) + 1
        at_least = ((one - w_high) << bits) // whole_high
        at_most = min(((one - w_low) << bits) // whole_low, top)
        if at_least != at_most:
            return None
        values.append(at_least)
    return Floors(-1, values if size is None else [*values, top])


def _poisson(mean: Fraction, bits: int, precision: int) -> Floors | None:
    """By w(k+1) = w(k)·mean/(k+1) up and down from the mode, where w = 1."""
    mode = int(mean)
    up, up_rest = _poisson_up(mean, mode, precision)
    down, down_rest, first = _poisson_down(mean, mode, precision)
    weights: list[Interval] = [*reversed(down), (1 << precision, 1 << precision), *up]
    total_low = sum(low for low, _ in weights)
    total_high = sum(high for _, high in weights) + up_rest + down_rest
    values = [0] if first > 0 else []
    below_low, below_high = 0, down_rest
    for low, high in weights:
        below_low, below_high = below_low + low, below_high + high
        at_least = (below_low << bits) // total_high
        at_most = min((below_high << bits) // total_low, (1 << bits) - 1)
        if at_least != at_most:
            return None
        values.append(at_least)
    if values[-1] != (1 << bits) - 1 or (first > 0 and values[1] != 0):
        return None
    return Floors(first - 1 if first > 0 else 0, values)


def _poisson_up(mean: Fraction, mode: int, precision: int) -> tuple[list[Interval], int]:
    weights: list[Interval] = []
    low = high = 1 << precision
    k = mode
    end = 1 << 40
    while high > end:
        k += 1
        low = low * mean.numerator // (mean.denominator * k)
        high = high * mean.numerator // (mean.denominator * k) + 1
        weights.append((low, high))
    ratio = mean / (k + 1)
    return weights, (high * ratio / (1 - ratio)).__ceil__()


def _poisson_down(mean: Fraction, mode: int, precision: int) -> tuple[list[Interval], int, int]:
    weights: list[Interval] = []
    low = high = 1 << precision
    k = mode
    end = 1 << 40
    while high > end and k > 0:
        low = low * mean.denominator * k // mean.numerator
        high = high * mean.denominator * k // mean.numerator + 1
        k -= 1
        weights.append((low, high))
    if k == 0:
        return weights, 0, 0
    ratio = k / mean
    return weights, (high * ratio / (1 - ratio)).__ceil__(), k
