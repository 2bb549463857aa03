"""Choosing one of several: exponential mechanism, permute-and-flip, report-noisy-max, sparse vector. Exact.

Scores are integers, and no unit changes any of them by more than the sensitivity. Sources:

- exponential mechanism: F. McSherry, K. Talwar, FOCS 2007; ρ = ε²/8 in zCDP: M. Cesar, R. Rogers, *Bounding,
  Concentrating, and Truncating*, ALT 2021;
- permute-and-flip: R. McKenna, D. Sheldon, NeurIPS 2020 (theorem 1);
- report-noisy-max and sparse vector: C. Dwork, A. Roth, *The Algorithmic Foundations of Differential Privacy*,
  2014, §3.3 and §3.6; sparse vector as corrected by M. Lyu, D. Su, N. Li, VLDB 2017 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import bernoulli_exp, discrete_laplace, uniform

I64 = npt.NDArray[np.int64]
TRIES: Final = 16  # for each candidate, in a batch: another is needed once in e^16


def exponential(scores: I64, sensitivity: Fraction, epsilon: Fraction, rng: Rng) -> int:
    """Index i with probability ∝ e^{ε·score/(2Δ)}. ε-differentially private, and ρ = ε²/8.

    A candidate drawn uniformly is kept with probability e^{-ε(best - score)/(2Δ)}; the first kept is the choice.
    """
    below = scores.max() - scores
    while True:
        tried = uniform(rng, len(scores), max(TRIES * len(scores), 64))
        kept = np.flatnonzero(bernoulli_exp(rng, below[tried], epsilon / (2 * sensitivity)))
        if kept.size:
            return int(tried[kept[0]])


def permute_and_flip(scores: I64, sensitivity: Fraction, epsilon: Fraction, rng: Rng) -> int:
    """In random order, each candidate is chosen with probability e^{-ε(best - score)/(2Δ)}. ε-differentially private.

    Its error is never larger than the exponential mechanism's.
    """
    order = rng.permutation(len(scores))
    below = (scores.max() - scores)[order]
    return int(order[np.flatnonzero(bernoulli_exp(rng, below, epsilon / (2 * sensitivity)))[0]])


def report_noisy_max(scores: I64, sensitivity: int, epsilon: Fraction, rng: Rng) -> int:
    """The index of the largest score with discrete Laplace noise of scale 2Δ/ε. ε-differentially private.

    Ties go to one of the tied at random: to the first of a fixed order would favour it, though not break the bound.
    """
    noisy = scores + discrete_laplace(rng, 2 * sensitivity / epsilon, len(scores))
    tied = np.flatnonzero(noisy == noisy.max())
    return int(tied[uniform(rng, len(tied), 1)[0]])


def sparse_vector(
    queries: Iterable[int], threshold: int, sensitivity: int, epsilon: Fraction, rng: Rng, *, most: int = 1
) -> Iterator[bool]:
    """For each query whether it is (about) at or above the threshold, until ``most`` were. ε-differentially private.

    Half of ε goes to the threshold's noise, drawn once, half to ``most`` answers: their noise has scale 4·most·Δ/ε.
    """
    if most < 1 or sensitivity < 1 or epsilon <= 0:
        raise ParameterError("sparse vector needs most and sensitivity of at least 1, and epsilon above 0")
    bar = threshold + int(discrete_laplace(rng, 2 * sensitivity / epsilon, 1)[0])
    scale, left = 4 * most * sensitivity / epsilon, most
    for query in queries:
        above = query + int(discrete_laplace(rng, scale, 1)[0]) >= bar
        yield above
        left -= above
        if left == 0:
            return
