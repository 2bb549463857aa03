"""Running a plan on a table: bound, add up, choose, add noise. What leaves is integers on the plan's lattices.

The one place where data meet noise. Whatever the data hold, nothing is raised: nulls and NaN are left out of what needs
their value, infinities are clamped, rows without a unit or group are left out, groups beyond the most are cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.dp import selection
from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.bounding import Bounded, Codes, bound, encode, every_row, hash_values, mix
from trustcompute.dp.groups import MAX_GROUPS, Group
from trustcompute.dp.lattice import add_noise, group_sums
from trustcompute.dp.plan import CANDIDATES, Choice, Measurement, Plan, is_text, is_unit
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import discrete_gaussian, discrete_laplace

I64 = npt.NDArray[np.int64]
Pick = Callable[[I64, int], int]


@dataclass(frozen=True)
class Measured:
    """labels: one column for each grouped column, a row a group; values: int64[groups, columns] of the plan."""

    labels: tuple[list[str | int | bool], ...]
    values: I64


def measure(plan: Plan, table: pa.Table, rng: Rng, key: bytes) -> Measured:
    """Run the plan. table: the plan's columns and the unit's; key: 32 secret bytes that decide who is left out."""
    labels, group, hashes = _grouped(plan.by, table)
    kept = _bounded(plan, table, group, hashes, key)
    count = len(labels[0]) if labels else 1
    chosen = np.arange(count)
    if plan.rule is not None:
        units = np.bincount(kept.pair_group, minlength=count).astype(np.int64)
        chosen = np.flatnonzero(plan.rule.keep(units, rng))
        order = sorted(chosen.tolist(), key=lambda at: [str(label[at]) for label in labels])[:MAX_GROUPS]
        chosen = np.array(order, dtype=np.int64)
    run = _Run(plan, table, kept, chosen, count, rng)
    parts = [_noisy(run, one) for one in plan.measurements] + [_chosen(run, one) for one in plan.choices]
    return Measured(tuple([label[at] for at in chosen] for label in labels), np.concatenate(parts, axis=1))


def _grouped(by: tuple[Group, ...], table: pa.Table) -> tuple[list[list[Any]], I64, npt.NDArray[np.uint64]]:
    """Labels of the groups, one list a column; the group of each row, -1 if in none; a hash of each group."""
    if not by:
        return [], np.zeros(table.num_rows, dtype=np.int64), np.zeros(1, dtype=np.uint64)
    coded = [_values(group, table[group.column]) for group in by]
    inside = np.logical_and.reduce([code >= 0 for code, _ in coded])
    combined = np.zeros(table.num_rows, dtype=np.int64)
    sizes = [len(values) for _, values in coded]
    if all(group.values for group in by):
        for code, values in coded:
            combined = combined * len(values) + code
        grid = np.indices(sizes).reshape(len(sizes), -1)
    else:
        combined, grid = _found_together(coded, inside)
    combined[~inside] = -1
    labels = [[values[at] for at in places] for (_, values), places in zip(coded, grid, strict=True)]
    return labels, combined, _label_hashes(labels)


def _found_together(coded: list[tuple[I64, list[Any]]], inside: npt.NDArray[np.bool_]) -> tuple[I64, I64]:
    """Number the combinations that occur. Step by step, so that no product of sizes can overflow."""
    combined = coded[0][0].copy()
    grid = np.arange(len(coded[0][1]))[np.newaxis]
    combined[~inside] = -1
    for code, values in coded[1:]:
        pair = combined * len(values) + code
        distinct, numbered = np.unique(pair[inside], return_inverse=True)
        left, right = np.divmod(distinct, max(len(values), 1))
        grid = np.concatenate([grid[:, left], right[np.newaxis]])
        combined[inside] = numbered
    return combined, grid


def _values(group: Group, column: pa.ChunkedArray) -> tuple[I64, list[Any]]:
    """Codes of a column (-1: in no group), and the value of each code."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    plain = pc.cast(column, pa.large_string() if is_text(kind) else kind)
    if group.values:
        wanted = _array(group.values, plain.type)
        code = pc.fill_null(pc.index_in(plain, value_set=wanted), -1)
        code = pc.if_else(pc.is_null(plain), -1, code)
        return np.asarray(code, dtype=np.int64).copy(), list(group.values)
    codes = pc.dictionary_encode(plain).combine_chunks()
    if isinstance(codes, pa.ChunkedArray):
        codes = pa.array([], plain.type).dictionary_encode()
    code = pc.fill_null(codes.indices.cast(pa.int64()), -1)
    return np.asarray(code, dtype=np.int64).copy(), _labels(codes.dictionary)


def _labels(values: pa.Array) -> list[Any]:
    """Python values; text that is not UTF-8 is shown with replacement characters."""
    if not is_text(values.type):
        return list(values.to_pylist())
    return [text.decode("utf-8", "replace") for text in values.cast(pa.large_binary()).to_pylist()]


def _array(values: tuple[str | int | bool, ...], kind: pa.DataType) -> pa.Array:
    """Declared values in a column's type; an integer that the type cannot hold matches nothing."""
    if not pa.types.is_integer(kind):
        return pa.array(values, kind)
    bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    return pa.array([value if low <= int(value) < high else None for value in values], kind)


def _label_hashes(labels: list[list[Any]]) -> npt.NDArray[np.uint64]:
    hashed = np.zeros(len(labels[0]), dtype=np.uint64)
    for label in labels:
        hashed = mix(
            hashed, hash_values(pa.array([str(value) for value in label], pa.large_string()), b"group")
        )
    return hashed


def _bounded(plan: Plan, table: pa.Table, group: I64, hashes: npt.NDArray[np.uint64], key: bytes) -> Bounded:
    if plan.unit.column is None:
        return every_row(group)
    units = encode(_hashable(table[plan.unit.column]), key)
    contents = [_content(table[column], key) for column in plan.columns]
    return bound(units, group, hashes, contents, plan.unit)


def _content(column: pa.ChunkedArray, key: bytes) -> npt.NDArray[np.uint64]:
    """A hash of each row's value, nulls alike."""
    if pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        values = pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan"))
        bits = np.ascontiguousarray(np.asarray(values, dtype=np.float64)).view(np.uint64)
        return mix(bits, np.full(len(bits), int.from_bytes(key[:8], "little"), dtype=np.uint64))
    if not (is_text(_plain(column.type)) or is_unit(_plain(column.type)) or pa.types.is_boolean(column.type)):
        return np.asarray(pc.is_valid(column)).astype(np.uint64)  # only whether it is there can count
    codes: Codes = encode(_hashable(column), key)
    return np.append(codes.hashes, np.uint64(0))[codes.code]  # -1 is the last: null


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column whose values can be numbered and written as text."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _hashable(pc.cast(column, kind.value_type))
    return pc.cast(column, pa.large_string()) if is_text(kind) else column


@dataclass(frozen=True)
class _Run:
    """What every number of a run needs. chosen: groups reported, as numbers below count."""

    plan: Plan
    table: pa.Table
    kept: Bounded
    chosen: I64
    count: int
    rng: Rng


def _noisy(run: _Run, one: Measurement) -> I64:
    values, group = _row_values(run, one)
    if one.statistic == "buckets":
        totals = group_sums(
            np.ones(len(group), dtype=np.int64), group * one.width + values, run.count * one.width
        )
    else:
        totals = group_sums(values, group, run.count)
    totals = totals.reshape(run.count, one.width)[run.chosen]
    draw = discrete_laplace if run.plan.budget.noise == "laplace" else discrete_gaussian
    return add_noise(totals, draw(run.rng, one.scale, totals.size).reshape(totals.shape))


def _row_values(run: _Run, one: Measurement) -> tuple[I64, I64]:
    """What each row that stays adds, and to which group."""
    aggregate, kept = run.plan.aggregates[one.aggregate], run.kept
    if one.statistic == "units":
        return np.ones(len(kept.pair_group), dtype=np.int64), kept.pair_group
    if aggregate.column is None:
        return np.ones(len(kept.rows), dtype=np.int64), kept.group
    column = run.table[aggregate.column]
    if aggregate.kind == "count":
        valid = np.asarray(pc.is_valid(column))[kept.rows]
        return np.ones(int(valid.sum()), dtype=np.int64), kept.group[valid]
    if one.statistic == "buckets":
        return _buckets(aggregate, column, kept)
    lattice = run.plan.lattice(one.aggregate)
    quantised, valid = lattice.quantise(column)
    valid = valid[kept.rows]
    q, group = quantised[kept.rows][valid], kept.group[valid]
    y = 2 * q - lattice.last
    found = {"rows": np.ones_like(q), "sum": q, "centred": y, "squares": 2 * y * y - lattice.last**2}
    return found[one.statistic], group


def _buckets(aggregate: Aggregate, column: pa.ChunkedArray, kept: Bounded) -> tuple[I64, I64]:
    values = np.asarray(pc.fill_null(pc.cast(column, pa.float64(), safe=False), float("nan")))[kept.rows]
    valid = ~np.isnan(values)
    edges = np.array([float(edge) for edge in aggregate.points])
    found = np.clip(np.searchsorted(edges, values[valid], side="right") - 1, 0, len(edges) - 2)
    return found.astype(np.int64), kept.group[valid]


def _chosen(run: _Run, one: Choice) -> I64:
    aggregate = run.plan.aggregates[one.aggregate]
    mechanism = selection.permute_and_flip if run.plan.budget.noise == "laplace" else selection.exponential
    rows = run.plan.unit.rows_per_group

    def pick(scores: I64, step: int) -> int:
        """step: by how much a row changes a score."""
        return mechanism(scores, Fraction(rows * step), one.epsilon, run.rng)

    assert aggregate.column is not None
    column = run.table[aggregate.column]
    return _top(run, aggregate, column, pick) if aggregate.kind == "top_k" else _many(run, one, column, pick)


def _many(run: _Run, one: Choice, column: pa.ChunkedArray, pick: Pick) -> I64:
    """Quantiles of each group."""
    lattice, quantiles = run.plan.lattice(one.aggregate), run.plan.aggregates[one.aggregate].points
    quantised, valid = lattice.quantise(column)
    valid = valid[run.kept.rows]
    values, group = quantised[run.kept.rows][valid], run.kept.group[valid]
    order = np.lexsort((values, group))
    values, group = values[order], group[order]
    grid = candidates(lattice.last)
    rows = np.zeros((len(run.chosen), len(quantiles)), dtype=np.int64)
    for at, number in enumerate(run.chosen):
        own = values[np.searchsorted(group, number) : np.searchsorted(group, number, side="right")]
        rows[at] = quantiles_of(own, grid, quantiles, pick)
    return rows


def candidates(last: int) -> I64:
    """Lattice points 0..last among which a quantile is chosen: evenly spaced, whatever the data."""
    steps = min(CANDIDATES, last)
    return np.array([last * at // steps for at in range(steps + 1)], dtype=np.int64)


def quantiles_of(values: I64, grid: I64, quantiles: tuple[Fraction, ...], pick: Pick) -> list[int]:
    """The middle quantile, then those below it among the values below it, those above it above.

    H. Kaplan, S. Schnapp, U. Stemmer, *Differentially Private Approximate Quantiles*, ICML 2022. A row is in one
    selection of each level. A unit whose rows are split between selections of a level changes each score by as
    many rows as it has there, and their losses add up to no more than those of all its rows in one.
    """
    if not quantiles:
        return []
    middle = len(quantiles) // 2
    q = quantiles[middle]
    below, above = q.numerator, q.denominator - q.numerator
    less = np.searchsorted(values, grid, side="left")
    more = len(values) - np.searchsorted(values, grid, side="right")
    at = pick(-np.abs(above * less - below * more), max(below, above))
    cut = int(np.searchsorted(values, grid[at], side="left"))
    left = tuple(one / q for one in quantiles[:middle])
    right = tuple((one - q) / (1 - q) for one in quantiles[middle + 1 :])
    return [
        *quantiles_of(values[:cut], grid[: at + 1], left, pick),
        int(grid[at]),
        *quantiles_of(values[cut:], grid[at:], right, pick),
    ]


def _top(run: _Run, aggregate: Aggregate, column: pa.ChunkedArray, pick: Pick) -> I64:
    """k times the most frequent of the candidates that are left: indices of candidates."""
    code, _ = _values(Group(str(aggregate.column), aggregate.candidates), column)
    of_row = code[run.kept.rows]
    inside = of_row >= 0
    width = len(aggregate.candidates)
    flat = run.kept.group[inside] * width + of_row[inside]
    counts = group_sums(np.ones(len(flat), dtype=np.int64), flat, run.count * width).reshape(-1, width)
    rows = np.zeros((len(run.chosen), aggregate.k), dtype=np.int64)
    for at, number in enumerate(run.chosen):
        left = np.arange(width)
        for place in range(aggregate.k):
            found = pick(counts[number][left], 1)
            rows[at, place] = left[found]
            left = np.delete(left, found)
    return rows


def columns_of(plan: Plan) -> Mapping[int, slice]:
    """Where each measurement's (by position), then each choice's integers lie among ``Measured.values``' columns."""
    found, start = {}, 0
    widths = [one.width for one in plan.measurements]
    widths += [
        plan.aggregates[one.aggregate].k or len(plan.aggregates[one.aggregate].points) for one in plan.choices
    ]
    for at, width in enumerate(widths):
        found[at] = slice(start, start + width)
        start += width
    return found
