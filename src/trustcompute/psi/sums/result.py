"""What an intersection-sum came to, here and over a node."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pyarrow as pa

from trustcompute.errors import ParameterError, Refused
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.run import Cost
from trustcompute.psi.sums.operation import ID
from trustcompute.psi.sums.parties import GroupSum, Summed
from trustcompute.psi.sums.terms import Terms
from trustcompute.tables.fixed import Label


@dataclass(frozen=True, kw_only=True)
class IntersectionSum:
    """count: distinct keys both sides hold. terms: what was added up. cost: exchanges, and bytes each way.
    leakage: what each side learnt beyond its own table, in words (consumer is left, provider is right).
    """

    count: int
    terms: Terms = field(repr=False)
    groups: tuple[GroupSum | None, ...] = field(repr=False)
    cost: Cost
    leakage: Leakage
    protocol: str = ID

    def sum(self, column: str, group: Label | None = None) -> int | Fraction | None:
        """The sum of a column, of a group where there are groups; None where too few keys match."""
        names = list(self.terms.values)
        if column not in names:
            raise ParameterError(f"{column!r} was not added up: {', '.join(names) or 'nothing'} was")
        found, scale = self._group(group), self.terms.values[column].scale
        if found is None:
            return None
        total = found.sums[names.index(column)]
        return total if scale == 1 else Fraction(total, scale)

    def mean(self, column: str, group: Label | None = None) -> Fraction | None:
        """The sum for each key that matches."""
        total, found = self.sum(column, group), self._group(group)
        return None if found is None or total is None else Fraction(total) / found.count

    @property
    def left_out(self) -> tuple[Label, ...]:
        """Listed groups of which nothing is told: fewer of their keys match than the least group."""
        labels = zip(self.terms.groups, self.groups, strict=True)
        return tuple(label for label, one in labels if one is None and label is not None)

    def to_arrow(self) -> pa.Table:
        """A row a group: its label, ``count``, and sum_column; nulls where too few keys match. Sums are decimals where
        columns have a scale that decimals can have.
        """
        columns: dict[str, pa.Array] = {}
        if self.terms.by is not None:
            columns[self.terms.by[0]] = pa.array(self.terms.by[1])
        columns["count"] = pa.array([None if one is None else one.count for one in self.groups], pa.int64())
        for at, (name, bounds) in enumerate(self.terms.values.items()):
            columns[f"sum_{name}"] = _shown(
                [None if one is None else one.sums[at] for one in self.groups], bounds.scale
            )
        return pa.table(columns)

    def to_pandas(self) -> Any:
        """The same as a pandas DataFrame."""
        return self.to_arrow().to_pandas()

    def _group(self, group: Label | None) -> GroupSum | None:
        if group not in self.terms.groups or isinstance(group, bool) != isinstance(
            self.terms.groups[0], bool
        ):
            known = ", ".join(repr(label) for label in self.terms.groups if label is not None)
            raise ParameterError(f"there is no group {group!r}: {known or 'there are none, pass no group'}")
        return self.groups[self.terms.groups.index(group)]


def _shown(units: list[int | None], scale: int) -> pa.Array:
    digits = len(str(scale)) - 1
    if scale == 10**digits:
        exact = [None if one is None else Decimal(one).scaleb(-digits) for one in units]
        return pa.array(exact, pa.decimal128(38, digits)) if digits else pa.array(units, pa.int64())
    return pa.array([None if one is None else one / scale for one in units], pa.float64())


def told(found: Summed, terms: Terms) -> int:
    """The count. Raises ``Refused`` where fewer keys match than the least group: nothing was opened."""
    if found.count is None:
        raise Refused(
            f"fewer than {terms.min_group:,} keys match: nothing is told, not even how many",
            rule="min_group",
            field="params.min_group",
            owner="the holder of the values",
            fix="bring more keys that the other side holds, or ask for a smaller least group where it is granted",
        )
    return found.count
