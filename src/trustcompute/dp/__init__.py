"""Differential privacy: aggregates of a table such that nobody's presence in it can be told from the answer.

    table = dp.release(
        flights, [dp.count(), dp.mean("dep_delay", -30, 180)], by=["origin"],
        unit=dp.PrivacyUnit("tailnum", groups=3, rows_per_group=20), budget=dp.zcdp("0.05"),
    )

Called from notebooks, and by ``node`` for sessions. All noise is exact (``primitives.sampling``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustcompute.lazy import attach

if TYPE_CHECKING:
    from trustcompute.dp.aggregates import Aggregate as Aggregate
    from trustcompute.dp.aggregates import count as count
    from trustcompute.dp.aggregates import distinct as distinct
    from trustcompute.dp.aggregates import histogram as histogram
    from trustcompute.dp.aggregates import mean as mean
    from trustcompute.dp.aggregates import private as private
    from trustcompute.dp.aggregates import quantile as quantile
    from trustcompute.dp.aggregates import sum as sum
    from trustcompute.dp.aggregates import top_k as top_k
    from trustcompute.dp.aggregates import variance as variance
    from trustcompute.dp.answer import Accuracy as Accuracy
    from trustcompute.dp.answer import Release as Release
    from trustcompute.dp.answer import ReleaseQuote as ReleaseQuote
    from trustcompute.dp.answer import least_budget as least_budget
    from trustcompute.dp.answer import quote as quote
    from trustcompute.dp.answer import release as release
    from trustcompute.dp.budget import Budget as Budget
    from trustcompute.dp.budget import approx as approx
    from trustcompute.dp.budget import pure as pure
    from trustcompute.dp.budget import zcdp as zcdp
    from trustcompute.dp.fixed import FixedPlan as FixedPlan
    from trustcompute.dp.fixed import Question as Question
    from trustcompute.dp.fixed import fixed_plan as fixed_plan
    from trustcompute.dp.fixed import question as question
    from trustcompute.dp.fixed import release_plan as release_plan
    from trustcompute.dp.groups import Group as Group
    from trustcompute.dp.groups import public as public
    from trustcompute.dp.operations import OPERATIONS as OPERATIONS
    from trustcompute.dp.plotting import plot_accuracy as plot_accuracy
    from trustcompute.dp.unit import PrivacyUnit as PrivacyUnit
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "trustcompute.dp.aggregates": [
                "Aggregate",
                "count",
                "distinct",
                "histogram",
                "mean",
                "private",
                "quantile",
                "sum",
                "top_k",
                "variance",
            ],
            "trustcompute.dp.answer": [
                "Accuracy",
                "Release",
                "ReleaseQuote",
                "least_budget",
                "quote",
                "release",
            ],
            "trustcompute.dp.budget": ["Budget", "approx", "pure", "zcdp"],
            "trustcompute.dp.fixed": ["FixedPlan", "Question", "fixed_plan", "question", "release_plan"],
            "trustcompute.dp.groups": ["Group", "public"],
            "trustcompute.dp.operations": ["OPERATIONS"],
            "trustcompute.dp.plotting": ["plot_accuracy"],
            "trustcompute.dp.unit": ["PrivacyUnit"],
        },
    )
