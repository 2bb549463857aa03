"""What an aggregate came to: exact integers, and the statistics made of them.

Returned by ``aggregate``, in one process and over nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa

from trustcompute.aggregation.spec import Slot, Spec
from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I64
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.run import Cost


@dataclass(frozen=True)
class Aggregate:
    """An opened aggregate.

    sums: int64[spec.slots], exact, in units about the public middle; parties: whose data are in it; dropped: who
    was asked and is not, and why; scheme: how it was computed; costs: by party, of its messages with the
    aggregator.
    """

    spec: Spec = field(repr=False)
    sums: I64 = field(repr=False)
    parties: tuple[str, ...]
    dropped: Mapping[str, str]
    scheme: str
    costs: Mapping[str, Cost] = field(repr=False)
    leakage: Leakage = field(repr=False)

    def exact(self, statistic: str, column: str = "", group: int = 0) -> Fraction | None:
        """One statistic of one group as a fraction: ``count``, ``sum``, ``mean``, ``variance`` (of the population) or
        ``weight``; None where the group is empty. Under noise it is the noisy one."""
        if self.spec.length is not None:
            raise ParameterError("a vector has no statistics: read vector()")
        row = {
            (slot.statistic, slot.column): int(value)
            for slot, value in self._row(group)
            if slot.statistic != "bucket"
        }
        if statistic == "count":
            return Fraction(row["rows", ""])
        if statistic == "weight":
            assert self.spec.weight is not None
            return Fraction(row["weight", self.spec.weight], self.spec.columns[self.spec.weight].scale)
        return self._of_column(statistic, column, row)

    def _of_column(self, statistic: str, column: str, row: Mapping[tuple[str, str], int]) -> Fraction | None:
        bounds = self.spec.columns[column]
        weight = self.spec.weight
        if weight is not None:
            count, unit = row["weight", weight], self.spec.columns[weight].scale
            total = row["weighted", column] + bounds.shift * count
            if statistic == "sum":
                return Fraction(total, bounds.scale * unit)
            return Fraction(total, bounds.scale * count) if count > 0 else None
        count, centred = row["rows", ""], row["sum", column]
        if statistic == "sum":
            return Fraction(centred + bounds.shift * count, bounds.scale)
        if count <= 0:
            return None
        if statistic == "mean":
            return Fraction(centred + bounds.shift * count, bounds.scale * count)
        if statistic == "variance":
            return (Fraction(row["squares", column], count) - Fraction(centred, count) ** 2) / bounds.scale**2
        raise ParameterError(f"{statistic!r} is no statistic of a column")

    def _row(self, group: int) -> list[tuple[Slot, Any]]:
        layout = self.spec.layout
        return list(zip(layout, self.sums[group * len(layout) : (group + 1) * len(layout)], strict=True))

    def vector(self) -> np.ndarray[Any, Any]:
        """The sum of the vectors, in the values' unit: int64 where the scale is 1, else float64."""
        if self.spec.length is None:
            raise ParameterError("this aggregate is of tables: read to_arrow()")
        bounds = self.spec.columns["value"]
        units = self.sums + np.int64(bounds.shift * len(self.parties))
        return units if bounds.scale == 1 else units / bounds.scale

    def to_arrow(self) -> pa.Table:
        """A row a group: its labels, then ``count`` and name_column for each statistic; empty groups have nulls."""
        if self.spec.length is not None:
            return pa.table({"value": self.vector()})
        columns: dict[str, Any] = {}
        labels = list(product(*self.spec.by.values()))
        for at, name in enumerate(self.spec.by):
            columns[name] = pa.array([label[at] for label in labels])
        groups = range(self.spec.groups)
        columns["count"] = pa.array(
            [int(self.exact("count", "", group) or 0) for group in groups], pa.int64()
        )
        for name, bounds in self.spec.columns.items():
            if name == self.spec.weight:
                columns[f"weight_{name}"] = self._shown("weight", name, whole=bounds.scale == 1)
                continue
            for statistic in ("sum", "mean", "variance"):
                if statistic in self.spec.statistics:
                    whole = statistic == "sum" and bounds.scale == 1 and self.spec.weight is None
                    columns[f"{statistic}_{name}"] = self._shown(statistic, name, whole=whole)
        for at, slot in enumerate(self.spec.layout):
            if slot.statistic == "bucket":
                low, high = self.spec.histograms[slot.column][slot.place : slot.place + 2]
                columns[f"{slot.column}_{low}_to_{high}"] = pa.array(self.sums[at :: len(self.spec.layout)])
        return pa.table(columns)

    def _shown(self, statistic: str, column: str, *, whole: bool) -> pa.Array:
        values = [self.exact(statistic, column, group) for group in range(self.spec.groups)]
        if whole:
            return pa.array([None if value is None else int(value) for value in values], pa.int64())
        return pa.array([None if value is None else float(value) for value in values], pa.float64())

    def to_pandas(self) -> Any:
        """The answer as a pandas DataFrame."""
        return self.to_arrow().to_pandas()
