"""Making answers look as they should: named steps on what was released, which cost no privacy.

Called through ``Release.non_negative`` and ``Release.consistent``. Only noisy integers and declared parameters go in.
"""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from trustcompute.dp.measure import columns_of
from trustcompute.dp.plan import Plan

I64 = npt.NDArray[np.int64]


def non_negative(plan: Plan, values: I64) -> I64:
    """Counts (of rows, of units, in a histogram) below zero become zero."""
    changed, places = values.copy(), columns_of(plan)
    for number, one in enumerate(plan.measurements):
        if one.statistic in ("rows", "units", "buckets"):
            changed[:, places[number]] = np.maximum(values[:, places[number]], 0)
    return changed


def consistent(plan: Plan, values: I64) -> I64:
    """What was measured more than once becomes one number: the number of rows with a value, by column and group.

    Means and variances of a column count the rows that have one, and the buckets of its histograms add up to them.
    Each becomes the average of them all, weighted by the inverse of their noise's variance (least squares), as a
    whole number; a histogram's buckets share the difference equally, the first of them what is left over.
    """
    changed, places = values.copy(), columns_of(plan)
    for numbers in _together(plan).values():
        if len(numbers) > 1:
            weights = [1 / (plan.measurements[number].scale * _widths(plan, number)) for number in numbers]
            rows = [values[:, places[number]].sum(axis=1) for number in numbers]
            agreed = _average(rows, weights)
            for number, seen in zip(numbers, rows, strict=True):
                changed[:, places[number]] += _spread(agreed - seen, _widths(plan, number))
    return changed


def _together(plan: Plan) -> dict[str, list[int]]:
    """Measurements by the column whose values they count."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, one in enumerate(plan.measurements):
        aggregate = plan.aggregates[one.aggregate]
        if aggregate.column is not None and (
            one.statistic == "buckets" or (one.statistic == "rows" and aggregate.kind != "count")
        ):
            found[aggregate.column].append(number)
    return found


def _widths(plan: Plan, number: int) -> int:
    return plan.measurements[number].width


def _average(rows: list[I64], weights: list[Fraction]) -> I64:
    """Rounded to whole numbers. Scales of one release differ by no more than their widths, so floats will do here."""
    shares = np.array([float(weight / sum(weights)) for weight in weights])
    return np.rint(np.tensordot(shares, np.array(rows, dtype=np.float64), axes=1)).astype(np.int64)


def _spread(difference: I64, width: int) -> I64:
    """int64[groups, width] that adds up to the difference in each group."""
    each, left = np.divmod(difference, width)
    spread: I64 = each[:, np.newaxis] + (np.arange(width) < left[:, np.newaxis])
    return spread
