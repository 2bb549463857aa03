"""Lower bounds of ε from many runs: ``python tests/dp/audit.py [RUNS]`` asks 0.99 of the claim at 10^8 runs.

Two neighbouring tables, an event E, and confidence bounds at 99.9 %: no (ε, δ)-DP mechanism with a smaller ε than
ln((p - δ)/p') is consistent with what was seen. Each public group is a run: one row, its own unit, in all or none.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import pyarrow as pa

from trustcompute import dp
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import discrete_gaussian, discrete_laplace

CONFIDENCE = 0.999
GROUPS = 100_000


def binomial_tail(runs: int, hits: int, p: float, *, upper: bool) -> float:
    """P(X >= hits), or P(X <= hits), for X ~ Bin(runs, p): summed from ``hits`` outwards, as far as it matters."""
    if (upper and hits <= runs * p) or (not upper and hits >= runs * p):
        return 1.0  # at least about a half
    terms = min(runs - hits if upper else hits, 40 * math.isqrt(runs) + 100)
    k = hits + np.arange(1, terms + 1) if upper else hits - np.arange(1, terms + 1)
    odds = p / (1 - p)
    ratios = (runs - k + 1) / k * odds if upper else (k + 1) / ((runs - k) * odds)
    first = math.lgamma(runs + 1) - math.lgamma(hits + 1) - math.lgamma(runs - hits + 1)
    first += hits * math.log(p) + (runs - hits) * math.log1p(-p)
    return math.exp(first) * (1 + float(np.cumprod(ratios).sum()))


def bound(runs: int, hits: int, *, lower: bool) -> float:
    """A one-sided confidence bound of a probability (C. Clopper, E. Pearson, *Biometrika* 26, 1934)."""
    low, high = (0.0, hits / runs) if lower else (hits / runs, 1.0)
    for _ in range(50):
        middle = (low + high) / 2
        rejected = binomial_tail(runs, hits, middle, upper=lower) < 1 - CONFIDENCE
        low, high = (middle, high) if rejected == lower else (low, middle)
    return low if lower else high


def epsilon_bound(runs: int, hits: int, other_hits: int, delta: float = 0.0) -> float:
    """The lower bound of ε that ``hits`` of ``runs`` on one table and ``other_hits`` on its neighbour allow."""
    most, least = bound(runs, other_hits, lower=False), bound(runs, hits, lower=True)
    return math.log((least - delta) / most) if least > delta else 0.0


def counts(epsilon: str, runs: int, present: bool) -> np.ndarray:
    """int64[runs]: noisy counts of as many groups, released through the whole path."""
    names = [str(i) for i in range(min(runs, GROUPS))]
    table = pa.table({"g": pa.array(names if present else [], pa.string())})
    found = [
        dp.release(table, [dp.count()], by=dp.public("g", names), budget=dp.pure(epsilon)).to_arrow()["count"]
        for _ in range(-(-runs // len(names)))
    ]
    return np.concatenate([np.asarray(one) for one in found])


def audit_release(epsilon: str, runs: int) -> float:
    runs = -(-runs // GROUPS) * GROUPS if runs > GROUPS else runs
    return epsilon_bound(
        runs, int((counts(epsilon, runs, True) >= 1).sum()), int((counts(epsilon, runs, False) >= 1).sum())
    )


def audit_laplace(epsilon: str, runs: int, block: int = 10**6) -> float:
    """The sampler alone, in blocks."""
    from fractions import Fraction

    rng, hits, other = Rng.from_os(), 0, 0
    for _ in range(runs // block):
        hits += int((discrete_laplace(rng, 1 / Fraction(epsilon), block) + 1 >= 1).sum())
        other += int((discrete_laplace(rng, 1 / Fraction(epsilon), block) >= 1).sum())
    return epsilon_bound(runs, hits, other)


def audit_gaussian(variance: int, delta: float, runs: int, threshold: int, block: int = 10**6) -> float:
    from fractions import Fraction

    rng, hits, other = Rng.from_os(), 0, 0
    for _ in range(runs // block):
        hits += int((discrete_gaussian(rng, Fraction(variance), block) + 1 >= threshold).sum())
        other += int((discrete_gaussian(rng, Fraction(variance), block) >= threshold).sum())
    return epsilon_bound(runs, hits, other, delta)


if __name__ == "__main__":
    asked = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**8
    failed = False
    for claim in ("0.1", "1"):
        found = audit_laplace(claim, asked)
        wanted = 0.99 if asked >= 10**8 else 0.95 if claim == "1" else 0.85
        failed |= not wanted * float(claim) <= found <= float(claim)
        print(
            f"discrete Laplace, ε = {claim}: at least {found:.6f} ({found / float(claim):.4f}) in {asked:,} runs"
        )
    sys.exit(failed)
