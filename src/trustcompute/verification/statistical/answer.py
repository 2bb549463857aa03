"""A table as the asker reads it: every cell with its numbers, or the rule by which it has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.run import Cost
from trustcompute.verification.statistical.network import Shape
from trustcompute.verification.statistical.rules import Label, Status
from trustcompute.verification.statistical.terms import Terms

ALL: Final = "(all)"
OTHER: Final = "(other)"
MEAN_DIGITS: Final = 6
"""Decimals that ``to_arrow`` shows of a mean beside those of its column; ``Cell.mean`` is exact."""


@dataclass(frozen=True, eq=False)
class Figures:
    """What is sent of a table. status: uint8[cells]; rows: int64[cells]; counts, sums: int64[columns, cells], in the
    smallest unit of each column. Zero where a cell is not shown."""

    status: U8 = field(repr=False)
    rows: I64 = field(repr=False)
    counts: I64 = field(repr=False)
    sums: I64 = field(repr=False)


@dataclass(frozen=True)
class Cell:
    """groups: column -> value, without those it is the total of; the value is ``None`` for rows of no named group.

    rows, counts (of values), sums: exact; ``None`` and empty where ``suppressed`` names the rule.
    """

    groups: Mapping[str, Label | None]
    rows: int | None
    counts: Mapping[str, int]
    sums: Mapping[str, int | Decimal]
    status: Status

    @property
    def suppressed(self) -> str:
        """The first rule by which the cell is not shown; empty where it is."""
        return self.status.text

    def mean(self, column: str) -> Fraction | None:
        """Exact; ``None`` without values."""
        count = self.counts.get(column, 0)
        return Fraction(self.sums[column]) / count if count else None


@dataclass(frozen=True, eq=False)
class Statistics:
    """Counts, sums and means by group, with all totals."""

    terms: Terms
    by: tuple[str, ...]
    columns: tuple[str, ...]
    figures: Figures
    cost: Cost
    leakage: Leakage
    operation: str

    @property
    def shape(self) -> Shape:
        return self.terms.shape(self.by)

    @cached_property
    def cells(self) -> list[Cell]:
        """Row by row, the totals last in each."""
        labels = [self.terms.ways[name].labels for name in self.by]
        found = []
        for number in range(self.shape.cells):
            at = zip(self.by, labels, self.shape.at(number), strict=True)
            groups = {name: values[place] for name, values, place in at if place < len(values)}
            found.append(self._cell(number, groups))
        return found

    def cell(self, **groups: Label | None) -> Cell:
        """The cell of some groups, a total by the columns that are left out. Raises ``ParameterError``."""
        for one in self.cells:
            if one.groups == groups:
                return one
        raise ParameterError(f"there is no such cell: groups are by {', '.join(self.by) or 'no column'}")

    @property
    def suppressed(self) -> list[Cell]:
        return [one for one in self.cells if one.suppressed]

    def to_arrow(self) -> pa.Table:
        """A row a cell: its groups as text, rows, for each column count, sum and mean, and the rule it is suppressed
        by."""
        found: dict[str, Any] = {name: [_shown(cell.groups, name) for cell in self.cells] for name in self.by}
        found["rows"] = pa.array([cell.rows for cell in self.cells], pa.int64())
        for name in self.columns:
            scale = self.terms.scales[name]
            found[f"{name}.count"] = pa.array([cell.counts.get(name) for cell in self.cells], pa.int64())
            found[f"{name}.sum"] = pa.array([cell.sums.get(name) for cell in self.cells], _type(scale))
            digits = scale + MEAN_DIGITS
            means = [_rounded(cell.mean(name), digits) for cell in self.cells]
            found[f"{name}.mean"] = pa.array(means, pa.decimal128(38, digits))
        found["suppressed"] = [cell.suppressed or None for cell in self.cells]
        return pa.table(found)

    def _cell(self, number: int, groups: Mapping[str, Label | None]) -> Cell:
        status = Status(int(self.figures.status[number]))
        if status is not Status.SHOWN:
            return Cell(groups, None, {}, {}, status)
        counts, sums = self.figures.counts[:, number].tolist(), self.figures.sums[:, number].tolist()
        return Cell(
            groups,
            int(self.figures.rows[number]),
            dict(zip(self.columns, counts, strict=True)),
            {
                name: _scaled(one, self.terms.scales[name])
                for name, one in zip(self.columns, sums, strict=True)
            },
            status,
        )


def check(shape: Shape, figures: Figures) -> None:
    """Raise ``VerificationError`` for figures that contradict themselves: totals that are not what they add up, more
    values than rows, numbers in cells that are not shown."""
    if figures.status.max(initial=0) > max(Status):
        raise VerificationError("the answer names a rule that does not exist")
    hidden = figures.status != Status.SHOWN
    if figures.rows[hidden].any() or figures.counts[:, hidden].any() or figures.sums[:, hidden].any():
        raise VerificationError("the answer has numbers in cells that it calls suppressed")
    if (figures.rows < 0).any() or (figures.counts < 0).any() or (figures.counts > figures.rows).any():
        raise VerificationError("the answer has cells with more values than rows")
    for parts, total in equations(shape):
        if figures.status[[*parts, total]].any():
            continue
        for numbers in (figures.rows[None], figures.counts, figures.sums):
            if any(sum(row[parts].tolist()) != int(row[total]) for row in numbers):
                raise VerificationError("the answer has a total that is not what its cells add up to")


def equations(shape: Shape) -> list[tuple[list[int], int]]:
    """(cells, the cell they add up to) for every total of every way."""
    grid = np.arange(shape.cells).reshape([groups + 1 for groups in shape.ways])
    found = []
    for way in range(len(shape.ways)):
        lines = np.moveaxis(grid, way, -1).reshape(-1, shape.ways[way] + 1).tolist()
        found += [(line[:-1], line[-1]) for line in lines]
    return found


def _shown(groups: Mapping[str, Label | None], name: str) -> str:
    if name not in groups:
        return ALL
    value = groups[name]
    return OTHER if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _type(scale: int) -> pa.DataType:
    return pa.decimal128(38, scale) if scale else pa.int64()


def _scaled(units: int, scale: int) -> int | Decimal:
    return Decimal(units).scaleb(-scale) if scale else units


def _rounded(mean: Fraction | None, digits: int) -> Decimal | None:
    """Half to even."""
    return None if mean is None else Decimal(round(mean * 10**digits)).scaleb(-digits)
