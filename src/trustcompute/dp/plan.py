"""From what is asked to what is measured, with how much noise: a function of declared parameters alone.

Called on both sides of a session, by ``quote`` and before any data are touched. A *measurement* is a vector of
integers a group; each row adds to it at most ``reach`` in magnitude. One unit is in at most ℓ0 groups with at
most c rows in each, so Δ1 = ℓ0·c·reach and Δ2 = √ℓ0·c·reach. A *choice* is made by the exponential mechanism or by
permute-and-flip, group by group. A *search* finds the bounds of an aggregate that has none. The budget is divided
equally between measurements, choices, searches and finding groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute.dp import lattice
from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.budget import Budget
from trustcompute.dp.groups import MAX_GROUPS, MAX_PUBLIC, Group, PartitionRule
from trustcompute.dp.lattice import Lattice
from trustcompute.dp.unit import PrivacyUnit
from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import PrivacyLoss
from trustcompute.primitives.sampling import MAX_SCALE

I64 = npt.NDArray[np.int64]
Statistic = Literal["rows", "units", "sum", "centred", "squares", "buckets"]

CANDIDATES: Final = 1024  # points between the bounds among which a quantile is chosen
MAX_AGGREGATES: Final = 64
MAX_NUMBERS: Final = 2**24  # of an answer, all groups together
MAX_PICKS: Final = 2**20  # of an answer: at a tenth of a millisecond each
MAX_DENOMINATOR: Final = 10_000  # of quantiles: scores stay below 2^46
ROOT: Final = 10**9  # ε of a choice is rounded down to a multiple of 1/ROOT of what the root would be


@dataclass(frozen=True)
class Measurement:
    """statistic of ``aggregate``'s column, with noise. share: ρ or ε; reach: of a row; width: integers a group."""

    aggregate: int
    statistic: Statistic
    reach: int
    rows: int
    width: int
    share: Fraction
    scale: Fraction  # of Laplace noise; σ² of Gaussian noise


@dataclass(frozen=True)
class Choice:
    """A quantile or top-k of ``aggregate``. epsilon: of each selection; rounds: of them a unit takes part in."""

    aggregate: int
    epsilon: Fraction
    rounds: int
    share: Fraction


@dataclass(frozen=True)
class Search:
    """For the bounds of ``aggregate``: two sparse vectors of ``epsilon`` each over the steps of ``ladder``.

    outside: about how many rows may lie beyond a bound; sensitivity: rows of a unit.
    """

    aggregate: int
    ladder: tuple[Fraction, ...]
    epsilon: Fraction
    sensitivity: int
    outside: int
    share: Fraction


@dataclass(frozen=True)
class Plan:
    """Everything about a release but the data. share: of the budget, what each part of it gets."""

    aggregates: tuple[Aggregate, ...]
    by: tuple[Group, ...]
    types: Mapping[str, pa.DataType]
    unit: PrivacyUnit
    budget: Budget
    measurements: tuple[Measurement, ...]
    choices: tuple[Choice, ...]
    rule: PartitionRule | None
    share: Fraction = Fraction(0)
    searches: tuple[Search, ...] = ()

    def settled(self, found: Sequence[int] | I64) -> Plan:
        """The plan with the bounds that its searches found: for each, steps of its ladder, low and high."""
        aggregates = list(self.aggregates)
        for at, one in enumerate(self.searches):
            low, high = (one.ladder[int(step)] for step in found[2 * at : 2 * at + 2])
            aggregates[one.aggregate] = replace(aggregates[one.aggregate], low=low, high=high)
        changed = replace(self, aggregates=tuple(aggregates))
        measurements = [one for at in range(len(aggregates)) for one in _measurements(changed, at)]
        return replace(changed, measurements=tuple(measurements))

    @property
    def groups(self) -> int:
        """In how many groups a unit counts."""
        return self.unit.groups if self.by else 1

    @property
    def most_groups(self) -> int:
        """That are reported: such that neither the numbers of an answer nor its choices are more than can be made."""
        picks = sum(self.picks(one) for one in self.choices)
        width = sum(one.width for one in self.measurements) + picks
        return max(min(MAX_GROUPS, MAX_NUMBERS // max(width, 1), MAX_PICKS // max(picks, 1)), 1)

    def picks(self, one: Choice) -> int:
        """Of a group: quantiles, or the k of a top-k."""
        aggregate = self.aggregates[one.aggregate]
        return aggregate.k or len(aggregate.points)

    @property
    def cost(self) -> PrivacyLoss:
        return self.budget.loss

    @property
    def columns(self) -> list[str]:
        """The columns a release reads, without the unit's."""
        named = [group.column for group in self.by] + [
            a.column for a in self.aggregates if a.column is not None
        ]
        return list(dict.fromkeys(named))

    def lattice(self, aggregate: int) -> Lattice:
        """Of an aggregate with bounds."""
        asked = self.aggregates[aggregate]
        assert asked.column is not None and asked.low is not None and asked.high is not None
        kind = self.types[asked.column]
        whole = bool(pa.types.is_integer(kind) or pa.types.is_boolean(kind))
        if asked.kind == "sum":
            return lattice.of_sums(asked.low, asked.high, integers=whole)
        bits = lattice.SQUARED_BITS if asked.kind == "variance" else lattice.BITS - 1
        return lattice.of_range(asked.low, asked.high, integers=whole, bits=bits)

    def half_width(self, measurement: Measurement, outside: float = 0.05) -> float:
        """Half the interval that noise leaves with probability ``outside`` at most, in lattice steps.

        P(|X| >= t) is at most 2e^{-t/s}/(1 + e^{-1/s}) for Laplace noise, so t is a step more than s·ln(1/outside).
        """
        scale = float(measurement.scale)
        if self.budget.noise == "laplace":
            return math.ceil(scale * math.log(1 / outside)) + 1
        return math.ceil(NormalDist().inv_cdf(1 - outside / 2) * math.sqrt(scale))


def make_plan(
    aggregates: tuple[Aggregate, ...],
    by: tuple[Group, ...],
    unit: PrivacyUnit,
    budget: Budget,
    types: Mapping[str, pa.DataType],
    *,
    least_units: int = 1,
) -> Plan:
    """Check what is asked against the declared schema, and set every parameter. Raises ``ParameterError``."""
    if not 1 <= len(aggregates) <= MAX_AGGREGATES:
        raise ParameterError(f"ask for 1 to {MAX_AGGREGATES} aggregates")
    names = [aggregate.name for aggregate in aggregates] + [group.column for group in by]
    if len(set(names)) < len(names):
        raise ParameterError("each aggregate may be asked for once: ask for several quantiles in one")
    by = tuple(with_values(group, unit) for group in by)
    _check_types(aggregates, by, unit, types)
    unknown = any(not group.values for group in by)
    if not unknown:
        budget = budget.without_delta()
    elif not budget.selectable:
        raise ParameterError(
            "groups whose values are not given need a delta: give dp.public(column, values), or a budget with delta"
        )
    if math.prod(len(group.values) or 1 for group in by) > MAX_PUBLIC:
        raise ParameterError(f"the values of all columns make more than {MAX_PUBLIC} groups")
    if type(least_units) is not int or not 1 <= least_units <= 2**31:
        raise ParameterError("least_units must be an integer of at least 1")
    if least_units > 1 and not unknown:
        raise ParameterError("least_units is for groups whose values are not given: all others are reported")
    share = budget.measurable / (sum(parts_of(aggregate) for aggregate in aggregates) + unknown)
    draft = Plan(aggregates, by, types, unit, budget, (), (), None, share)
    everything = range(len(aggregates))
    made = replace(
        draft,
        measurements=tuple(one for at in everything for one in _measurements(draft, at)),
        choices=tuple(
            _choice(draft, at) for at in everything if aggregates[at].kind in ("quantile", "top_k")
        ),
        searches=tuple(_search(draft, at) for at in everything if aggregates[at].private),
        rule=_rule(draft, least_units) if unknown else None,
    )
    if not unknown and math.prod(len(group.values) for group in by) > made.most_groups:
        raise ParameterError(
            f"that many numbers can be released for {made.most_groups} groups at most: ask for fewer"
        )
    return made


def _rule(plan: Plan, least_units: int) -> PartitionRule:
    epsilon = plan.share if plan.budget.noise == "laplace" else root_down(2 * plan.share)
    rule = PartitionRule(epsilon, plan.budget.selectable, plan.groups, least_units)
    rule.thresholds()  # refuses what is too small, before anything is spent
    return rule


def root_down(x: Fraction) -> Fraction:
    """√x, rounded down."""
    return Fraction(math.isqrt((x * ROOT * ROOT).__floor__()), ROOT)


def with_values(group: Group, unit: PrivacyUnit) -> Group:
    """A group, with the values that its unit declares known where it gives none."""
    return group if group.values else Group(group.column, tuple(unit.known.get(group.column, ())))


def parts_of(aggregate: Aggregate) -> int:
    """How many parts of a budget an aggregate takes."""
    return {"mean": 2, "variance": 3}.get(aggregate.kind, 1) + aggregate.private


def _measurements(plan: Plan, at: int) -> list[Measurement]:
    aggregate, share, groups = plan.aggregates[at], plan.share, plan.groups
    rows = plan.unit.rows_per_group

    def measure(statistic: Statistic, reach: int, *, rows: int = rows, width: int = 1) -> Measurement:
        largest = rows * reach
        gaussian = groups * largest * largest / (2 * share)
        scale = groups * largest / share if plan.budget.noise == "laplace" else gaussian
        worst = (
            Fraction(2**lattice.BITS, reach) if aggregate.private else Fraction(1)
        )  # whatever will be found
        if scale * worst > MAX_SCALE if plan.budget.noise == "laplace" else scale * worst**2 > MAX_SCALE**2:
            raise ParameterError(
                f"the noise of {aggregate.name!r} would be beyond any use: narrow its bounds, or those of the unit,"
                " or spend more"
            )
        return Measurement(at, statistic, reach, rows, width, share, scale)

    if aggregate.kind == "count":
        return [measure("rows", 1)]
    if aggregate.kind == "distinct":
        return [measure("units", 1, rows=1)]
    if aggregate.kind == "histogram":
        return [measure("buckets", 1, width=len(aggregate.points) - 1)]
    if aggregate.kind == "sum":
        return [measure("sum", plan.lattice(at).reach)]
    if aggregate.kind in ("mean", "variance"):
        width = plan.lattice(at).last
        found = [measure("rows", 1), measure("centred", width)]
        return found if aggregate.kind == "mean" else [*found, measure("squares", width * width)]
    return []


def _choice(plan: Plan, at: int) -> Choice:
    """A unit takes part in ``rounds`` selections in each of its groups: the levels of a recursion, or the k picks."""
    aggregate, share, groups = plan.aggregates[at], plan.share, plan.groups
    quantile = aggregate.kind == "quantile"
    rounds = len(aggregate.points).bit_length() if quantile else aggregate.k
    each = share / (groups * rounds)
    epsilon = each if plan.budget.noise == "laplace" else root_down(8 * each)
    scores = math.lcm(*(q.denominator for q in aggregate.points)) if quantile else 1
    if scores > MAX_DENOMINATOR:
        raise ParameterError(f"quantiles are multiples of 1/{MAX_DENOMINATOR} or coarser")
    if epsilon / (2 * plan.unit.rows_per_group * scores) < Fraction(1, 2**33):  # what a sampler can compare
        raise ParameterError(f"too little budget is left for {aggregate.name!r}: spend more, or ask for less")
    return Choice(at, epsilon, rounds, share)


def _search(plan: Plan, at: int) -> Search:
    """Two sparse vectors, of half the share each: ε of each is a half, or √ρ, since 2·(√ρ)²/2 = ρ."""
    aggregate = plan.aggregates[at]
    epsilon = plan.share / 2 if plan.budget.noise == "laplace" else root_down(plan.share)
    sensitivity = plan.groups * plan.unit.rows_per_group
    if epsilon == 0 or 4 * sensitivity / epsilon > MAX_SCALE:
        raise ParameterError(
            f"too little budget is left to find the bounds of {aggregate.column!r}: give them"
        )
    assert aggregate.column is not None and aggregate.low is not None and aggregate.high is not None
    whole = pa.types.is_integer(plain_type(plan.types[aggregate.column]))
    ladder = lattice.ladder(aggregate.low, aggregate.high, integers=bool(whole))
    # Three times the noise of both comparisons: at the true bound, one search in twenty goes a step too far.
    return Search(at, ladder, epsilon, sensitivity, (18 * sensitivity / epsilon).__ceil__(), plan.share)


def candidates(last: int) -> I64:
    """Lattice points 0..last among which a quantile is chosen: evenly spaced, whatever the data."""
    steps = min(CANDIDATES, last)
    return np.array([last * at // steps for at in range(steps + 1)], dtype=np.int64)


def _check_types(
    aggregates: tuple[Aggregate, ...],
    by: tuple[Group, ...],
    unit: PrivacyUnit,
    types: Mapping[str, pa.DataType],
) -> None:
    for column in [*(group.column for group in by), *(a.column for a in aggregates), unit.column]:
        if column is not None and column not in types:
            raise ParameterError(f"there is no column {column!r}; there are: {', '.join(list(types)[:20])}")
    if unit.column is not None and not is_unit(plain_type(types[unit.column])):
        raise ParameterError(
            f"units are named by text, integers or binary: {unit.column!r} is not, cast it before"
        )
    for group in by:
        kind = plain_type(types[group.column])
        if not (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            raise ParameterError(f"group by text, integers or booleans: {group.column!r} is {kind}")
        if group.column == unit.column:
            raise ParameterError("the privacy unit's own column cannot be grouped by")
        _check_values(group.column, group.values, kind)
    for aggregate in aggregates:
        if aggregate.column is None:
            continue
        kind = plain_type(types[aggregate.column])
        if aggregate.kind == "top_k":
            if not (is_text(kind) or pa.types.is_integer(kind)):
                raise ParameterError(f"top_k takes text or integers: {aggregate.column!r} is {kind}")
            _check_values(aggregate.column, aggregate.candidates, kind)
        elif aggregate.kind != "count" and not lattice.is_number(kind):
            raise ParameterError(
                f"{aggregate.kind} takes numbers: {aggregate.column!r} is {kind}, cast it before"
            )


def _check_values(column: str, values: tuple[str | int | bool, ...], kind: pa.DataType) -> None:
    for value in values:
        fits = (
            isinstance(value, str) if is_text(kind) else isinstance(value, bool) == pa.types.is_boolean(kind)
        )
        if not fits or (not is_text(kind) and isinstance(value, str)):
            raise ParameterError(f"the values given for {column!r} must be of its type, {kind}")
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise ParameterError(f"a value given for {column!r} leaves 64 bits")


def is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_unit(kind: pa.DataType) -> bool:
    """Types whose values can name privacy units."""
    return is_text(kind) or bool(
        pa.types.is_integer(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    )


def plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind
