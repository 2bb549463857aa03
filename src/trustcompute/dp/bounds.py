"""Bounds found with part of a budget: two sparse vectors over a ladder of steps, one from each end.

The upper bound is the first step from below with at most about ``outside`` rows above it, the lower bound the first
from above with as few below it: prefix sums of one histogram, each query with the sensitivity of a count. Sparse
vector: M. Lyu, D. Su, N. Li, VLDB 2017, algorithm 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trustcompute.dp.plan import Search
from trustcompute.dp.selection import sparse_vector
from trustcompute.primitives.rng import Rng

I64 = npt.NDArray[np.int64]


def find(one: Search, below: I64, above: I64, rng: Rng) -> tuple[int, int]:
    """Steps of the ladder, low before high. below, above: of each step, rows with smaller and with larger values."""
    last = len(one.ladder) - 1
    high = _first(one, above[1:], rng) + 1
    low = last - 1 - _first(one, below[-2::-1], rng)
    if low == high:  # all values but a few are one step of the ladder
        return max(low - 1, 0), min(high + 1, last)
    return min(low, high), max(low, high)  # the wrong way round where there is next to nothing


def _first(one: Search, outside: I64, rng: Rng) -> int:
    """The first with about as few rows outside as allowed; the last where there is none."""
    queries = (-int(rows) for rows in outside)
    answers = sparse_vector(queries, -one.outside, one.sensitivity, one.epsilon, rng)
    return next((at for at, few in enumerate(answers) if few), len(outside) - 1)
