"""Fixed plans: what they cost together, what they may hold, and that their answers are those of releases."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from trustcompute import dp
from trustcompute.dp import fixed
from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import PlannedEvent, plan_delta

TABLE = pa.table({"g": ["a", "b"] * 500, "x": range(1000)})
TENTH = dp.question([dp.count()], budget=dp.pure("0.1"))


def test_a_hundred_counts_cost_less_together_than_a_filter_would_admit_them_for():
    plan = dp.fixed_plan([TENTH] * 100, delta="1e-6")
    assert plan.events == (PlannedEvent(Fraction(1, 10), 100),)
    assert 4.7740 < plan.cost.epsilon <= Fraction("4.7746")
    assert plan.cost.delta == Fraction(1, 10**6) and plan.cost.rho == 0
    assert dp.fixed_plan([TENTH], delta="1e-6").cost.epsilon <= Fraction(1, 10)


def test_every_part_of_a_question_is_an_event():
    asked = [
        dp.question([dp.mean("x", 0, 10), dp.variance("x", 0, 10)], budget=dp.pure(1)),
        dp.question(
            [dp.sum("x", dp.private()), dp.quantile("x", "0.5", 0, 9)],
            by=dp.public("g", ["a"]),
            budget=dp.pure(3),
        ),
        TENTH,
    ]
    plan = dp.fixed_plan(asked, delta="1e-6")
    assert plan.events == (
        PlannedEvent(Fraction(1, 10), 1), PlannedEvent(Fraction(1, 5), 5), PlannedEvent(Fraction(1), 3),
    )  # fmt: skip
    for one in asked:
        made = dp.release(TABLE, one.aggregates, by=one.by, budget=one.budget).plan
        parts = [*made.measurements, *made.choices, *made.searches]
        assert sum(part.share for part in parts) == one.budget.main
        assert {part.share for part in parts} <= {event.epsilon for event in plan.events}


def test_what_is_charged_bounds_two_counts_exactly_composed():
    """The hockey-stick of two discrete Laplace answers on neighbours, summed, against the plan's own δ."""
    first, second = Fraction(1, 2), Fraction(1, 4)
    k = np.arange(-200, 201)
    noise = [np.tanh(float(e) / 2) * np.exp(-float(e) * np.abs(k)) for e in (first, second)]
    p, q = (np.outer(np.roll(noise[0], move), np.roll(noise[1], move))[5:-5, 5:-5] for move in (1, 0))
    for epsilon in (Fraction(1, 10), Fraction(2, 5), Fraction(7, 10)):
        exactly = np.maximum(p - np.exp(float(epsilon)) * q, 0).sum()
        low, high = plan_delta([PlannedEvent(first), PlannedEvent(second)], epsilon)
        assert exactly <= float(high) + 1e-12
        assert float(low) <= float(high) and exactly == pytest.approx(float(high), rel=0.02), (
            "counts reach it"
        )


def test_answers_are_those_of_releases():
    asked = [
        dp.question([dp.count()], by=dp.public("g", ["a", "b", "c"]), budget=dp.pure(50)),
        dp.question([dp.mean("x", dp.private(0, 10**6))], budget=dp.pure(100)),
    ]
    first, second = dp.release_plan(TABLE, dp.fixed_plan(asked, delta="1e-9"))
    assert np.all(np.abs(np.array(first.to_arrow()["count"]) - [500, 500, 0]) < 5)
    assert second.to_arrow()["mean_x"][0].as_py() == pytest.approx(499.5, abs=5)
    known = dp.PrivacyUnit(known={"g": ["a", "b"]})
    [found] = dp.release_plan(
        TABLE, dp.fixed_plan([dp.question([dp.count()], by="g", budget=dp.pure(9))], delta="1e-9"), unit=known
    )
    assert found.to_arrow()["g"].to_pylist() == ["a", "b"]


def test_documents_of_plans_are_canonical():
    plan = dp.fixed_plan(
        [TENTH, dp.question([dp.sum("x", 0, 1)], by=dp.public("g", ["a"]), budget=dp.pure(1))], delta="1e-9"
    )
    document = plan.to_document()
    assert fixed.FixedPlan.from_document(document) == plan
    assert document["columns"] == ["g", "x"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: dp.question([dp.count()], budget=dp.zcdp(1)), "pure budgets"),
        (lambda: dp.question([dp.count()], budget=dp.pure(1, as_zcdp=True)), "pure budgets"),
        (lambda: dp.fixed_plan([], delta="1e-6"), "1 to"),
        (lambda: dp.fixed_plan([TENTH] * 1025, delta="1e-6"), "1 to"),
        (lambda: dp.fixed_plan([TENTH], delta=0), "delta"),
        (lambda: dp.fixed_plan([TENTH], delta=1e-6), "floats"),
        (
            lambda: dp.fixed_plan(
                [TENTH, *[dp.question([dp.count()], budget=dp.pure("0.123457"))] * 500], delta="1e-6"
            ),
            "too long",
        ),
        (lambda: fixed.FixedPlan.from_document({"questions": [{}], "delta": "1e-6"}), "a question has"),
        (lambda: fixed.FixedPlan.from_document({"questions": 3}), "a fixed plan has|1 to"),
        (lambda: fixed.FixedPlan.from_document({"questions": [], "min_group": 5}), "min_group"),
        (
            lambda: dp.release_plan(
                TABLE, dp.fixed_plan([dp.question([dp.count()], by="g", budget=dp.pure(1))], delta="1e-6")
            ),
            "delta",
        ),
    ],
)
def test_what_cannot_be_a_plan_is_said(change, says):
    with pytest.raises(ParameterError, match=says):
        change()
