"""What rows that stay add up to, exactly: integers on the plan's lattices, group by group, before any noise.

Called by ``measure``, which alone lets anything of it out. Tables are read in parts and parts in pieces, so that work
arrays have a size of their own, whatever the table's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.bounding import CHUNK
from trustcompute.dp.grouping import codes
from trustcompute.dp.groups import Group
from trustcompute.dp.lattice import floats
from trustcompute.dp.plan import Choice, Plan, Statistic, candidates

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Part:
    """Some rows of a table. read: gives them, the same each time; group: of each row that stays, else -1."""

    read: Callable[[], pa.Table]
    group: I32


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of a part. at: those that count; group: of each of them, as numbers of what is reported."""

    table: pa.Table
    at: I64
    group: I32

    def of(self, values: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """A value for each row, for those that count."""
        return values if len(self.at) == len(values) else values[self.at]


def pieces(parts: Sequence[Part], target: I64) -> Iterator[Piece]:
    """All rows that count. target: of each group the number it is reported under, or -1; one -1 more at its end."""
    for part in parts:
        table = part.read()
        for start in range(0, len(part.group), CHUNK):
            group = target[part.group[start : start + CHUNK]].astype(np.int32)
            at = np.flatnonzero(group >= 0)
            yield Piece(table.slice(start, CHUNK), at, group[at])


def sums(plan: Plan, parts: Sequence[Part], target: I64, count: int) -> list[I64]:
    """int64[count, width] for each measurement; those of units are left zero."""
    totals = [np.zeros((count, one.width), dtype=np.int64) for one in plan.measurements]
    wanted = [at for at, one in enumerate(plan.measurements) if one.statistic != "units"]
    if wanted:
        for piece in pieces(parts, target):
            added = {
                at: _contributions(plan, at, piece)
                for at in {plan.measurements[one].aggregate for one in wanted}
            }
            for one in wanted:
                measurement = plan.measurements[one]
                place, values = added[measurement.aggregate][measurement.statistic]
                np.add.at(totals[one].reshape(-1), place, values)
    return totals


def _contributions(
    plan: Plan, at: int, piece: Piece
) -> dict[Statistic, tuple[npt.NDArray[np.integer], I64 | int]]:
    """By statistic: where each row that has a value adds, and what."""
    aggregate = plan.aggregates[at]
    if aggregate.column is None:
        return {"rows": (piece.group, 1)}
    column = piece.table[aggregate.column]
    if aggregate.kind == "count":
        return {"rows": (piece.group[piece.of(np.asarray(pc.is_valid(column)))], 1)}
    if aggregate.kind == "histogram":
        values = piece.of(floats(column))
        valid = ~np.isnan(values)
        width = len(aggregate.points) - 1
        return {
            "buckets": (piece.group[valid].astype(np.int64) * width + bucket(aggregate, values[valid]), 1)
        }
    lattice = plan.lattice(at)
    q, group = _quantised(plan, at, piece)
    if aggregate.kind == "sum":
        return {"sum": (group, q)}
    y = 2 * q - lattice.last
    found: dict[Statistic, tuple[npt.NDArray[np.integer], I64 | int]] = {
        "rows": (group, 1),
        "centred": (group, y),
    }
    if aggregate.kind == "variance":
        found["squares"] = (group, 2 * y * y - lattice.last**2)
    return found


def _quantised(plan: Plan, at: int, piece: Piece) -> tuple[I64, I32]:
    """Integers of the rows that have a value, and their groups."""
    values, valid = plan.lattice(at).quantise(piece.of(floats(piece.table[str(plan.aggregates[at].column)])))
    return (values, piece.group) if valid.all() else (values[valid], piece.group[valid])


def bucket(aggregate: Aggregate, values: F64) -> I64:
    """Of each value its bucket of a histogram."""
    edges = np.array([float(edge) for edge in aggregate.points])
    found: I64 = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    return found


def cells_of(plan: Plan, one: Choice) -> int:
    """How many numbers of a group a choice is made from."""
    aggregate = plan.aggregates[one.aggregate]
    return len(aggregate.candidates) or 2 * len(candidates(plan.lattice(one.aggregate).last)) - 1


def cells(plan: Plan, one: Choice, parts: Sequence[Part], target: I64, count: int) -> I64:
    """int64[count, cells]: rows by candidate; for a quantile, rows at and between the candidates, in turn."""
    aggregate, width = plan.aggregates[one.aggregate], cells_of(plan, one)
    found = np.zeros((count, width), dtype=np.int64)
    for piece in pieces(parts, target):
        if aggregate.kind == "top_k":
            code, _ = codes(
                Group(str(aggregate.column), aggregate.candidates), piece.table[str(aggregate.column)]
            )
            cell = piece.of(code)
            inside = cell >= 0
            cell, group = cell[inside], piece.group[inside]
        else:
            values, group = _quantised(plan, one.aggregate, piece)
            grid = candidates(plan.lattice(one.aggregate).last)
            place = np.searchsorted(grid, values)
            cell = 2 * place - (grid[place] != values)
        np.add.at(found.reshape(-1), group.astype(np.int64) * width + cell, 1)
    return found


def ladder_counts(ladder: F64, column: str, parts: Sequence[Part], target: I64) -> tuple[I64, I64]:
    """Of each step of a ladder: how many rows have a smaller value, and how many a larger one."""
    below, above = np.zeros(len(ladder) + 1, dtype=np.int64), np.zeros(len(ladder) + 1, dtype=np.int64)
    for piece in pieces(parts, target):
        values = piece.of(floats(piece.table[column]))
        values = values[~np.isnan(values)]
        below += np.bincount(np.searchsorted(ladder, values, side="right"), minlength=len(ladder) + 1)
        above += np.bincount(np.searchsorted(ladder, values, side="left"), minlength=len(ladder) + 1)
    # x < ladder[i] where searchsorted right of x is at most i; x > ladder[i] where searchsorted left is above i
    return np.cumsum(below)[:-1], above.sum() - np.cumsum(above)[:-1]
