"""Groups: columns to group by, and which groups of unknown names may be reported.

Unknown groups are kept by the optimal rule of D. Desfontaines, J. Voss, B. Gipson, C. Mandayam, *Differentially Private
Partition Selection*, PoPETs 2022 (theorem 1): the probability π(n) to keep a group of n units is the largest that
(ε, δ) allows given π(n - 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import ParameterError
from trustcompute.primitives.interval import Directed, Threshold, exact, exp_minus
from trustcompute.primitives.rng import Rng

I64 = npt.NDArray[np.int64]

MAX_GROUPS: Final = 2**20  # reported at most: the first in the order of their labels
MAX_PUBLIC: Final = 100_000
MAX_BY: Final = 8
MAX_STEPS: Final = 100_000  # of the rule, until a group is kept for certain


@dataclass(frozen=True)
class Group:
    """A column to group by. values: those to report, all of them; none: found in the data, at a cost of δ."""

    column: str
    values: tuple[str | int | bool, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.column, str) or not self.column:
            raise ParameterError("a group needs the name of a column")
        if len(self.values) > MAX_PUBLIC or len(set(self.values)) < len(self.values):
            raise ParameterError(f"the values of {self.column!r} must be at most {MAX_PUBLIC} different ones")
        if not all(type(value) in (str, int, bool) for value in self.values):
            raise ParameterError(f"the values of {self.column!r} must be texts, integers or booleans")

    def to_document(self) -> dict[str, Any]:
        return {"column": self.column, "values": list(self.values)}

    @classmethod
    def from_document(cls, document: Any) -> Group:
        if not isinstance(document, Mapping) or set(document) != {"column", "values"}:
            raise ParameterError("a group has column and values")
        if not isinstance(document["values"], list):
            raise ParameterError("the values of a group are a list")
        return cls(document["column"], tuple(document["values"]))


By = str | Group | Sequence[str | Group]


def public(column: str, values: Sequence[str | int | bool]) -> Group:
    """Group by ``column``, reporting exactly these values, in this order."""
    if not len(values):
        raise ParameterError("public groups need at least one value")
    return Group(column, tuple(values))


def listed(by: By) -> tuple[Group, ...]:
    """The columns to group by."""
    found = [by] if isinstance(by, str | Group) else list(by)
    groups = tuple(one if isinstance(one, Group) else Group(one) for one in found)
    if len({group.column for group in groups}) < len(groups) or len(groups) > MAX_BY:
        raise ParameterError(f"group by at most {MAX_BY} different columns")
    return groups


@dataclass(frozen=True)
class PartitionRule:
    """Keep a group of n units with probability π(n - (least_units - 1)).

    epsilon, delta: of the whole selection; groups: how many a unit can be in; least_units: the pre-threshold, below
    which a group is never reported.
    """

    epsilon: Fraction
    delta: Fraction
    groups: int
    least_units: int = 1

    def keep(self, units: I64, rng: Rng) -> npt.NDArray[np.bool_]:
        """bool[n]. units: int64[n], units in each group."""
        thresholds = self.thresholds()
        words = rng.array(8 * len(units)).view("<u8")
        at = np.clip(units - (self.least_units - 1), 0, len(thresholds))
        firsts = np.array([0, *(min(t.digits(64), 2**64 - 1) for t in thresholds)], dtype=np.uint64)
        kept: npt.NDArray[np.bool_] = words < firsts[at]
        for tie in np.flatnonzero((words == firsts[at]) & (at > 0)):
            threshold = thresholds[at[tie] - 1]
            kept[tie] = threshold.exceeds(int(words[tie]), 64, lambda: int.from_bytes(rng.bytes(8), "little"))
        return kept

    def thresholds(self) -> tuple[Threshold, ...]:
        """π(1), π(2), ... up to the first that is 1."""
        return _thresholds(self.epsilon / self.groups, _each(self.delta, self.groups))


@lru_cache(maxsize=256)
def _each(delta: Fraction, groups: int) -> Fraction:
    """1 - (1-δ)^{1/ℓ0}, rounded down to 200 bits."""
    if groups == 1:
        return delta
    directed = Directed(400)
    _, kept = directed.ratio(1 - delta)
    root = exact(directed.up.exp(directed.up.div(directed.up.log(kept), groups)))
    return Fraction(((1 - root) * 2**200).__floor__(), 2**200)


@lru_cache(maxsize=64)
def _thresholds(epsilon: Fraction, delta: Fraction) -> tuple[Threshold, ...]:
    steps = len(_probabilities(epsilon, delta, 128))

    def at(n: int) -> Threshold:
        return Threshold(lambda bits: _probabilities(epsilon, delta, bits)[n])

    return tuple(at(n) for n in range(steps))


@lru_cache(maxsize=64)
def _probabilities(epsilon: Fraction, delta: Fraction, bits: int) -> tuple[tuple[int, int], ...]:
    """Intervals of π(1), π(2), ..., the last of them 1: π(n) = min(e^ε·π(n-1) + δ, 1 - e^-ε·(1 - π(n-1) - δ), 1)."""
    work = bits + 64 + 2 * MAX_STEPS.bit_length()
    one = 1 << work
    shrink_low, shrink_high = exp_minus(epsilon, work)
    step_low, step_high = (delta * one).__floor__(), (delta * one).__ceil__()
    low = high = 0
    found = []
    while low < one:
        grown_low = (low << work) // shrink_high + step_low
        grown_high = -((-high << work) // shrink_low) + step_high
        fallen_low = one - (shrink_high * max(one - low - step_low, 0) >> work) - 1
        fallen_high = one - (shrink_low * (one - high - step_high) >> work) if high + step_high < one else one
        if low + step_low >= one:
            fallen_low = one
        low, high = min(grown_low, fallen_low, one), min(grown_high, fallen_high, one)
        found.append((low >> (work - bits), -(-high >> (work - bits))))
        if len(found) > MAX_STEPS:
            raise ParameterError("epsilon or delta for finding groups is too small: give the groups' values")
    return tuple(found)
