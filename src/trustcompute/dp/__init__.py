"""Differential privacy: aggregates of a table such that nobody's presence in it can be told from the answer.

    table = dp.release(
        flights, [dp.count(), dp.mean("dep_delay", -30, 180)], by=["origin"],
        unit=dp.PrivacyUnit("tailnum", groups=3, rows_per_group=20), budget=dp.zcdp("0.05"),
    )

Called from notebooks, and by ``node`` for sessions. All noise is exact (``primitives.sampling``).
"""

from trustcompute.dp import fixed, operation
from trustcompute.dp.aggregates import (
    Aggregate,
    count,
    distinct,
    histogram,
    mean,
    private,
    quantile,
    sum,
    top_k,
    variance,
)
from trustcompute.dp.answer import Accuracy, Release, ReleaseQuote, least_budget, quote, release
from trustcompute.dp.budget import Budget, approx, pure, zcdp
from trustcompute.dp.fixed import FixedPlan, Question, fixed_plan, question, release_plan
from trustcompute.dp.groups import Group, public
from trustcompute.dp.plotting import plot_accuracy
from trustcompute.dp.unit import PrivacyUnit

OPERATIONS = (*operation.OPERATIONS, *fixed.OPERATIONS)

__all__ = [
    "OPERATIONS",
    "Accuracy",
    "Aggregate",
    "Budget",
    "FixedPlan",
    "Group",
    "PrivacyUnit",
    "Question",
    "Release",
    "ReleaseQuote",
    "approx",
    "count",
    "distinct",
    "fixed_plan",
    "histogram",
    "least_budget",
    "mean",
    "plot_accuracy",
    "private",
    "public",
    "pure",
    "quantile",
    "question",
    "quote",
    "release",
    "release_plan",
    "sum",
    "top_k",
    "variance",
    "zcdp",
]
