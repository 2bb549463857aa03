"""``release``: aggregates of a table with differential privacy. ``Release``: the answer, here and metered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.dp import postprocess, spill
from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.bounding import KEY_BYTES
from trustcompute.dp.budget import Budget
from trustcompute.dp.groups import By, Group, listed
from trustcompute.dp.lattice import MAX_ROWS
from trustcompute.dp.measure import Measured, columns_of, measure
from trustcompute.dp.plan import Choice, Measurement, Plan, candidates, is_text, make_plan
from trustcompute.dp.unit import PrivacyUnit
from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import PrivacyLoss
from trustcompute.primitives.rng import Rng

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

GROUP_ROWS = 1000
"""The size of group that errors of means, variances and quantiles are stated for, where none is named."""


@dataclass(frozen=True)
class Accuracy:
    """Half the 95 % interval of an answer, known before it is paid for; clamping and bounding add a bias to it.

    half_width: in the answer's unit; for a quantile, in ranks. group_rows: the group's size it is stated for, where it
    depends on one. Where bounds are yet to be found, stated for the widest.
    """

    half_width: float
    group_rows: int | None = None


@dataclass(frozen=True)
class Release:
    """An answer. Columns: those grouped by, then one for each aggregate, and one for each quantile.

    accuracy: by aggregate, from parameters alone; cost: what was charged; proof: the mechanism and parameters of each
    number; rules: what was left out or clamped, as declared, not what was; steps: post-processing done since.
    """

    plan: Plan = field(repr=False)
    measured: Measured = field(repr=False)
    steps: tuple[str, ...] = ()

    @property
    def cost(self) -> PrivacyLoss:
        return self.plan.cost

    @property
    def accuracy(self) -> dict[str, Accuracy]:
        return accuracy(self.plan)

    @property
    def proof(self) -> tuple[str, ...]:
        return proof(self.plan)

    @property
    def rules(self) -> tuple[str, ...]:
        return rules(self.plan)

    def to_arrow(self) -> pa.Table:
        """The answer as an Arrow table."""
        columns: dict[str, Any] = {}
        for group, label in zip(self.plan.by, self.measured.labels, strict=True):
            kind = self.plan.types[group.column]
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            if pa.types.is_integer(kind):
                kind = pa.int64() if pa.types.is_signed_integer(kind) else pa.uint64()
            columns[group.column] = pa.array(label, pa.string() if is_text(kind) else kind)
        for at, aggregate in enumerate(self.plan.aggregates):
            columns |= {name: pa.array(values) for name, values in self._answers(at, aggregate).items()}
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """The answer as a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def intervals(self) -> pa.Table:
        """95 % intervals of what noise did: name_low and name_high for each number. They do not know of clamping."""
        columns: dict[str, Any] = {}
        for at, aggregate in enumerate(self.plan.aggregates):
            if aggregate.kind in ("quantile", "top_k", "histogram"):
                continue
            middle = np.asarray(self._answers(at, aggregate)[aggregate.name], dtype=np.float64)
            half = self._half_widths(at, aggregate, middle)
            columns |= {f"{aggregate.name}_low": middle - half, f"{aggregate.name}_high": middle + half}
        return pa.table(columns)

    def non_negative(self) -> Release:
        """Counts (of rows, of units, in a histogram) below zero become zero: post-processing, which costs nothing."""
        return self._processed("non-negative counts", postprocess.non_negative)

    def consistent(self) -> Release:
        """Numbers of rows that were measured several times become one: post-processing, which costs nothing.

        Means, variances and histograms of one column each count its values; they are averaged, by their noise.
        """
        return self._processed("consistent counts", postprocess.consistent)

    def _processed(self, step: str, change: Callable[[Plan, I64], I64]) -> Release:
        measured = replace(self.measured, values=change(self.plan, self.measured.values))
        return replace(self, measured=measured, steps=(*self.steps, step))

    def _integers(self, aggregate: int) -> list[npt.NDArray[np.int64]]:
        """int64[groups, width] for each measurement and choice of an aggregate, in the plan's order."""
        places = columns_of(self.plan)
        ones: list[Measurement | Choice] = [*self.plan.measurements, *self.plan.choices]
        return [
            self.measured.values[:, places[at]] for at, one in enumerate(ones) if one.aggregate == aggregate
        ]

    def _answers(self, at: int, aggregate: Aggregate) -> dict[str, Any]:  # noqa: PLR0911 - one a kind
        parts = self._integers(at)
        if aggregate.kind in ("count", "distinct"):
            return {aggregate.name: parts[0][:, 0]}
        if aggregate.kind == "histogram":
            return {aggregate.name: parts[0].tolist()}
        if aggregate.kind == "top_k":
            return {aggregate.name: [[aggregate.candidates[one] for one in row] for row in parts[0]]}
        lattice = self.plan.lattice(at)
        step, origin = float(lattice.step), float(lattice.origin)
        if aggregate.kind == "sum":
            return {aggregate.name: parts[0][:, 0] * step}
        if aggregate.kind == "quantile":
            values = origin + parts[0] * step
            low, high = float(lattice.low), float(lattice.high)
            return {
                f"{aggregate.name}_{float(q):g}": np.clip(values[:, place], low, high)
                for place, q in enumerate(aggregate.points)
            }
        count = np.maximum(parts[0][:, 0], 1)
        centre = np.clip(parts[1][:, 0] / count, -lattice.last, lattice.last)
        if aggregate.kind == "mean":
            mean = origin + (lattice.last + centre) * step / 2
            return {aggregate.name: np.clip(mean, float(lattice.low), float(lattice.high))}
        squares = (parts[2][:, 0] / count + float(lattice.last) ** 2) / 2
        return {aggregate.name: np.clip(squares - centre**2, 0, float(lattice.last) ** 2) * (step / 2) ** 2}

    def _half_widths(self, at: int, aggregate: Aggregate, middle: F64) -> F64:
        parts = self._integers(at)
        ones = [one for one in self.plan.measurements if one.aggregate == at]
        widths = [self.plan.half_width(one, 0.05 / len(ones)) for one in ones]
        if aggregate.kind in ("count", "distinct"):
            return np.full(len(middle), widths[0])
        lattice = self.plan.lattice(at)
        step = float(lattice.step)
        if aggregate.kind == "sum":
            return np.full(len(middle), widths[0] * step)
        count = np.maximum(parts[0][:, 0], 1)
        # |S/n - S*/n*| <= (|S - S*| + |S/n|·|n - n*|)/n*, with n* at least the count less its own half width
        least = np.maximum(count - widths[0], 1)
        centre = np.abs(np.clip(parts[1][:, 0] / count, -lattice.last, lattice.last))
        off = (widths[1] + centre * widths[0]) / least
        if aggregate.kind == "mean":
            return off * step / 2
        squares = np.abs(parts[2][:, 0] / count)
        off_squares = (widths[2] + squares * widths[0]) / least / 2
        return (off_squares + 2 * centre * off + off * off) * (step / 2) ** 2


def release(
    table: Any,
    aggregates: Sequence[Aggregate],
    *,
    by: By = (),
    unit: PrivacyUnit | None = None,
    budget: Budget,
    least_units: int = 1,
    bounding_key: bytes | None = None,
) -> Release:
    """Aggregates of a table such that no unit's presence can be told, within ``budget``.

    table: anything ``tables`` reads. by: columns to group by; a name is reported with the values found (which costs δ)
    unless the unit declares them known, ``public(column, values)`` with the values given. unit: whose presence is
    hidden; each row, if left out. least_units: groups of fewer units are never reported.
    bounding_key: 32 secret bytes that decide which rows of a unit beyond its bounds are left out; fresh by default.

    Adversary: whoever sees the answer, with any knowledge of the other units, and any computing power. Not protected:
    what many budgets together reveal; how long it took. Raises ``ParameterError`` for what is asked and ``TableError``
    for what is not a table; nothing that is raised depends on values in it.
    """
    opened = tables.open_table(table)
    unit = PrivacyUnit() if unit is None else unit
    types = column_types(opened, aggregates, listed(by), unit)
    plan = make_plan(tuple(aggregates), listed(by), unit, budget, types, least_units=least_units)
    measured = run(plan, opened, Rng.from_os(), bounding_key)
    return Release(plan.settled(measured.bounds), measured)


def column_types(
    table: tables.Table, aggregates: Sequence[Aggregate], by: Sequence[Group], unit: PrivacyUnit
) -> dict[str, pa.DataType]:
    """Types of the columns that are named. Raises ``TableError`` for one that is not there."""
    named = [*(group.column for group in by), *(one.column for one in aggregates), unit.column]
    columns = list(dict.fromkeys(column for column in named if column is not None))
    return {one.name: one.type for one in table.scan_forgiving(columns or list(table.names)[:1]).schema}


def run(plan: Plan, table: tables.Table, rng: Rng, key: bytes | None = None) -> Measured:
    """Read what a plan needs, and run it."""
    key = rng.bytes(KEY_BYTES) if key is None else key
    if len(key) != KEY_BYTES:
        raise ParameterError(f"a bounding key has {KEY_BYTES} bytes")
    needed = list(dict.fromkeys([*plan.columns, *([plan.unit.column] if plan.unit.column else [])]))
    with spill.parts(table, needed or list(table.names)[:1], plan.unit.column, MAX_ROWS) as parts:
        return measure(plan, parts, rng, key)


def accuracy(plan: Plan, group_rows: int = GROUP_ROWS) -> dict[str, Accuracy]:
    """Half widths of 95 % intervals by aggregate, from parameters alone."""
    found = {}
    for at, aggregate in enumerate(plan.aggregates):
        ones = [one for one in plan.measurements if one.aggregate == at]
        widths = [plan.half_width(one, 0.05 / len(ones)) for one in ones]
        if aggregate.kind in ("count", "distinct", "histogram"):
            found[aggregate.name] = Accuracy(widths[0])
        elif aggregate.kind == "sum":
            found[aggregate.name] = Accuracy(widths[0] * float(plan.lattice(at).step))
        elif ones:
            lattice = plan.lattice(at)
            least = max(group_rows - widths[0], 1)
            off = (widths[1] + lattice.last * widths[0]) / least
            unit, worst = float(lattice.step) / 2, 2.0 * lattice.last
            if aggregate.kind == "variance":
                off_squares = (widths[2] + lattice.last**2 * widths[0]) / least / 2
                off, unit, worst = (
                    off_squares + 2 * lattice.last * off + off * off,
                    unit * unit,
                    lattice.last**2,
                )
            found[aggregate.name] = Accuracy(min(off, worst) * unit, group_rows)
        else:
            found[aggregate.name] = Accuracy(_choice_error(plan, at, aggregate), group_rows)
    return found


def _choice_error(plan: Plan, at: int, aggregate: Aggregate) -> float:
    """By how much the score of what is chosen may fall short of the best, in rows: 2Δ/ε·ln(candidates/0.05)."""
    one = next(choice for choice in plan.choices if choice.aggregate == at)
    size = len(aggregate.candidates) or len(candidates(plan.lattice(at).last))
    largest = 1.0 if aggregate.kind == "top_k" else max(max(float(q), 1 - float(q)) for q in aggregate.points)
    picks = aggregate.k or len(aggregate.points)
    rows = plan.unit.rows_per_group * largest
    return 2 * rows / float(one.epsilon) * math.log(size * picks / 0.05)


def proof(plan: Plan) -> tuple[str, ...]:
    """The mechanism, sensitivity and parameter of each number, in words."""
    unit, laplace = plan.unit, plan.budget.noise == "laplace"
    groups = unit.groups if plan.by else 1
    found = []
    for one in plan.measurements:
        name = f"{plan.aggregates[one.aggregate].name} ({one.statistic})"
        largest = f"{one.rows}·{one.reach}"
        if laplace:
            found.append(
                f"{name}: discrete Laplace, Δ1 = {groups}·{largest}, scale Δ1/ε = {one.scale}, ε = {one.share}"
            )
        else:
            found.append(
                f"{name}: discrete Gaussian, Δ2² = {groups}·({largest})², σ² = Δ2²/2ρ = {one.scale}, ρ = {one.share}"
            )
    found += [
        f"{plan.aggregates[search.aggregate].name} (bounds): two sparse vectors, Δ = {search.sensitivity},"
        f" ε = {search.epsilon} each, over {len(search.ladder)} steps"
        for search in plan.searches
    ]
    for choice in plan.choices:
        name, rounds = plan.aggregates[choice.aggregate].name, f"{groups}·{choice.rounds} selections a unit"
        mechanism = "permute-and-flip" if laplace else "exponential mechanism, ρ = ε²/8"
        found.append(f"{name}: {mechanism}, ε = {choice.epsilon} each, {rounds}")
    if plan.rule is not None:
        found.append(
            f"groups: optimal partition selection, ε = {plan.rule.epsilon}, δ = {plan.rule.delta}, ℓ0 = {groups},"
            f" pre-threshold {plan.rule.least_units}"
        )
    loss = plan.cost
    found.append(f"charged: ρ = {loss.rho}, ε = {loss.epsilon}, δ = {loss.delta}")
    return tuple(found)


def rules(plan: Plan) -> tuple[str, ...]:
    """What is left out, clamped or suppressed: declared beforehand, and said whether or not it happened."""
    unit = plan.unit
    found = ["nulls and NaN are left out of what needs their value; infinities are clamped"]
    if unit.column is not None:
        found.append(
            f"each {unit.column} counts in at most {unit.groups if plan.by else 1} groups, with at most"
            f" {unit.rows_per_group} rows in each; rows without one are left out"
        )
    for at, aggregate in enumerate(plan.aggregates):
        if aggregate.low is not None:
            step = plan.lattice(at).step
            which = ", bounds that were found privately" if aggregate.private else ""
            found.append(
                f"{aggregate.name}: values are clamped to [{aggregate.low}, {aggregate.high}] in steps of {step}{which}"
            )
    if plan.rule is not None:
        found.append(
            f"groups of fewer than {plan.rule.least_units + len(plan.rule.thresholds()) - 1} units may be suppressed"
        )
    elif plan.by:
        found.append("all groups of the given values are reported, and no other rows count")
    return tuple(found)


@dataclass(frozen=True)
class ReleaseQuote:
    """What a release would cost, and how accurate it would be. Computed from parameters; nothing is spent or read."""

    cost: PrivacyLoss
    accuracy: Mapping[str, Accuracy]
    proof: tuple[str, ...]


def quote(
    schema: pa.Schema | Mapping[str, pa.DataType],
    aggregates: Sequence[Aggregate],
    *,
    by: By = (),
    unit: PrivacyUnit | None = None,
    budget: Budget,
    least_units: int = 1,
    group_rows: int = GROUP_ROWS,
) -> ReleaseQuote:
    """Cost and 95 % intervals of a release before it is paid for. group_rows: for what depends on a group's size."""
    types = dict(schema) if isinstance(schema, Mapping) else {one.name: one.type for one in schema}
    plan = make_plan(
        tuple(aggregates), listed(by), unit or PrivacyUnit(), budget, types, least_units=least_units
    )
    return ReleaseQuote(plan.cost, accuracy(plan, group_rows), proof(plan))


def least_budget(
    schema: pa.Schema | Mapping[str, pa.DataType],
    aggregates: Sequence[Aggregate],
    *,
    errors: Mapping[str, float],
    budget: Budget,
    by: By = (),
    unit: PrivacyUnit | None = None,
    group_rows: int = GROUP_ROWS,
) -> Budget:
    """The least budget of the kind of ``budget`` whose half widths are within ``errors``, by aggregate's name.

    Found to a part in a thousand. Raises ``ParameterError`` where none is large enough.
    """

    def enough(main: Fraction) -> bool:
        try:
            found = quote(
                schema, aggregates, by=by, unit=unit, budget=replace(budget, main=main), group_rows=group_rows
            )
        except ParameterError:
            return False
        unknown = set(errors) - set(found.accuracy)
        if unknown:
            raise KeyError(unknown.pop())
        return all(found.accuracy[name].half_width <= error for name, error in errors.items())

    try:
        if not enough(Fraction(100)):
            raise ParameterError(
                "no budget up to 100 gives answers that accurate: or what is asked has an error"
            )
    except KeyError as error:
        raise ParameterError(f"no aggregate of this release is named {error}") from None
    low, high = -30 * 1000, 7 * 1000  # thousandths of powers of two
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(_power(middle)) else (middle, high)
    return replace(budget, main=min(_power(high), Fraction(100)))


def _power(thousandths: int) -> Fraction:
    return Fraction(2 ** (thousandths / 1000)).limit_denominator(10**12)
