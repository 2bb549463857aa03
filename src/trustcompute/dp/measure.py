"""Running a plan on a table: bound, add up, choose, add noise. What leaves is integers on the plan's lattices.

The one place where data meet noise. Whatever the data hold, nothing is raised: nulls and NaN are left out of what needs
their value, infinities are clamped, rows without a unit or group are left out, groups beyond the most are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, partial
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.dp import bounds, selection, totals
from trustcompute.dp.bounding import Bounded, Codes, bound, encode, every_row, mix
from trustcompute.dp.grouping import Grouped, group, shown
from trustcompute.dp.lattice import add_noise, floats
from trustcompute.dp.plan import Choice, Measurement, Plan, candidates, is_text, is_unit, plain_type
from trustcompute.dp.totals import Part
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import discrete_gaussian, discrete_laplace

I64 = npt.NDArray[np.int64]
Pick = Callable[[I64, int], int]

CELLS: Final = 2**23  # numbers that choices are made from, at a time


@dataclass(frozen=True)
class Measured:
    """labels: one column for each grouped column, a row a group; values: int64[groups, columns] of the plan;
    bounds: int64[2·searches], the steps that were found.
    """

    labels: tuple[list[str | int | bool], ...]
    values: I64
    bounds: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def measure(plan: Plan, parts: Sequence[Callable[[], pa.Table]], rng: Rng, key: bytes) -> Measured:
    """Run the plan. parts: give the rows, of the plan's columns and the unit's, all rows of a unit in one part;
    key: 32 secret bytes that decide who is left out.
    """
    kept, labels, units = _bounded(plan, parts, key)
    chosen = _reported(plan, labels, units, rng)
    everything = np.append(np.zeros(len(units), dtype=np.int64), -1)
    found: list[int] = []
    for search in plan.searches:
        column = str(plan.aggregates[search.aggregate].column)
        ladder = np.array([float(step) for step in search.ladder])
        found += bounds.find(search, *totals.ladder_counts(ladder, column, kept, everything), rng)
    plan = plan.settled(found)
    target = np.full(len(units) + 1, -1, dtype=np.int64)
    target[chosen] = np.arange(len(chosen))
    exact = totals.sums(plan, kept, target, len(chosen))
    columns = []
    for one, total in zip(plan.measurements, exact, strict=True):
        columns.append(
            _noisy(plan, one, units[chosen, np.newaxis] if one.statistic == "units" else total, rng)
        )
    columns += [_choices(plan, one, kept, target, count=len(chosen), rng=rng) for one in plan.choices]
    names = tuple(shown(column.take(pa.array(chosen))) for column in labels.columns)
    return Measured(names, np.concatenate(columns, axis=1), np.array(found, dtype=np.int64))


def _bounded(
    plan: Plan, parts: Sequence[Callable[[], pa.Table]], key: bytes
) -> tuple[list[Part], pa.Table, I64]:
    """Parts with the rows that stay, the labels of their groups, and how many units count in each."""
    grouped = []
    found: list[tuple[pa.Table, I64]] = []
    for read in parts:
        table = read()
        groups = group(plan.by, table)
        bounded = _bound(plan, table, groups, key)
        grouped.append(Grouped(groups.labels, np.where(bounded.kept, groups.code, np.int32(-1))))
        found.append((groups.labels, bounded.units))
    if len(parts) == 1:
        return [Part(parts[0], grouped[0].code)], *found[0]
    if not plan.by or all(one.values for one in plan.by):
        units = np.sum([one for _, one in found], axis=0)
        return [Part(read, one.code) for read, one in zip(parts, grouped, strict=True)], found[0][0], units
    whole = pa.concat_tables([labels for labels, _ in found])
    merged = group(plan.by, whole)  # which of the parts' groups are the same
    units = np.zeros(merged.count, dtype=np.int64)
    np.add.at(units, merged.code, np.concatenate([one for _, one in found]))
    kept, start = [], 0
    for read, one in zip(parts, grouped, strict=True):
        numbers = np.append(merged.code[start : start + one.count], -1)
        kept.append(Part(read, numbers[one.code].astype(np.int32)))
        start += one.count
    return kept, merged.labels, units


def _bound(plan: Plan, table: pa.Table, groups: Grouped, key: bytes) -> Bounded:
    if plan.unit.column is None:
        return every_row(groups.code, groups.count)
    units = encode(_hashable(table[plan.unit.column]), key)
    valued = dict.fromkeys(one.column for one in plan.aggregates if one.column is not None)
    contents = [cache(partial(_content, table[column], key)) for column in valued]
    return bound(units, groups.code, groups.hashes(), contents, plan.unit)


def _content(column: pa.ChunkedArray, key: bytes) -> npt.NDArray[np.uint64]:
    """A hash of each row's value, nulls alike."""
    kind = plain_type(column.type)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        bits = floats(column).view(np.uint64)
        return mix(bits, np.full(len(bits), int.from_bytes(key[:8], "little"), dtype=np.uint64))
    if not (is_text(kind) or is_unit(kind) or pa.types.is_boolean(kind)):
        return np.asarray(pc.is_valid(column)).astype(np.uint64)  # only whether it is there can count
    codes: Codes = encode(_hashable(column), key)
    return np.append(codes.hashes, np.uint64(0))[codes.code]  # -1 is the last: null


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose values can be numbered and written as text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _hashable(pc.cast(column, kind.value_type))
    return pc.cast(column, pa.large_string()) if is_text(kind) else column


def _reported(plan: Plan, labels: pa.Table, units: I64, rng: Rng) -> I64:
    """The groups that are reported, as numbers; the first in the order of their labels, where there are too many."""
    if plan.rule is None:
        return np.arange(len(units))
    chosen = np.flatnonzero(plan.rule.keep(units, rng))
    names = [shown(column.take(pa.array(chosen))) for column in labels.columns]
    order = sorted(range(len(chosen)), key=lambda at: [str(name[at]) for name in names])
    return chosen[order[: plan.most_groups]]


def _noisy(plan: Plan, one: Measurement, exact: I64, rng: Rng) -> I64:
    draw = discrete_laplace if plan.budget.noise == "laplace" else discrete_gaussian
    return add_noise(exact, draw(rng, one.scale, exact.size).reshape(exact.shape))


def _choices(plan: Plan, one: Choice, kept: Sequence[Part], target: I64, *, count: int, rng: Rng) -> I64:
    """int64[count, k or quantiles]: what is chosen in each group."""
    aggregate = plan.aggregates[one.aggregate]
    mechanism = selection.permute_and_flip if plan.budget.noise == "laplace" else selection.exponential
    rows = plan.unit.rows_per_group

    def pick(scores: I64, step: int) -> int:
        """step: by how much a row changes a score."""
        return mechanism(scores, Fraction(rows * step), one.epsilon, rng)

    found = np.zeros((count, plan.picks(one)), dtype=np.int64)
    block = max(CELLS // totals.cells_of(plan, one), 1)
    for start in range(0, count, block):
        within = np.where((target >= start) & (target < start + block), target - start, -1)
        cells = totals.cells(plan, one, kept, within, min(block, count - start))
        for at, own in enumerate(cells, start):
            if aggregate.kind == "top_k":
                found[at] = top(own, aggregate.k, pick)
            else:
                grid = candidates(plan.lattice(one.aggregate).last)
                found[at] = grid[quantiles_of(own, aggregate.points, pick)]
    return found


def quantiles_of(cells: I64, quantiles: tuple[Fraction, ...], pick: Pick, first: int = 0) -> list[int]:
    """Of each quantile a candidate. cells: how many values are at candidate ``first``, between it and the next, ...

    The middle quantile, then those below it among the values below it, those above it among the others.
    H. Kaplan, S. Schnapp, U. Stemmer, *Differentially Private Approximate Quantiles*, ICML 2022. A row is in one
    selection of each level. A unit whose rows are split between selections of a level changes each score by as
    many rows as it has there, and their losses add up to no more than those of all its rows in one.
    """
    if not quantiles:
        return []
    middle = len(quantiles) // 2
    q = quantiles[middle]
    below, above = q.numerator, q.denominator - q.numerator
    upto = np.cumsum(cells)
    more = upto[-1] - upto[::2]
    less = upto[::2] - cells[::2]
    at = pick(-np.abs(above * less - below * more), max(below, above))
    lower = cells[: 2 * at + 1].copy()
    lower[-1] = 0  # values at the candidate are above it
    left = tuple(one / q for one in quantiles[:middle])
    right = tuple((one - q) / (1 - q) for one in quantiles[middle + 1 :])
    return [
        *quantiles_of(lower, left, pick, first),
        first + at,
        *quantiles_of(cells[2 * at :], right, pick, first + at),
    ]


def top(counts: I64, k: int, pick: Pick) -> list[int]:
    """k times the most frequent of the candidates that are left."""
    left, found = np.arange(len(counts)), []
    for _ in range(k):
        place = pick(counts[left], 1)
        found.append(int(left[place]))
        left = np.delete(left, place)
    return found


def columns_of(plan: Plan) -> Mapping[int, slice]:
    """Where each measurement's (by position), then each choice's integers lie among ``Measured.values``' columns."""
    found, start = {}, 0
    widths = [*(one.width for one in plan.measurements), *(plan.picks(one) for one in plan.choices)]
    for at, width in enumerate(widths):
        found[at] = slice(start, start + width)
        start += width
    return found
