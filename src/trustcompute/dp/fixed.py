"""Fixed plans: several questions, all written down before the first answer, and charged as one event.

Answers to questions that are chosen one by one add up under a filter. Where nothing depends on an answer, the
distribution of the whole privacy loss can be computed beforehand, and is smaller: 100 counts of ε = 0.1 cost 4.7746 at
δ = 10⁻⁶ instead of 5.2216 (``primitives.privacy.plan_epsilon``, certified from above). Called from notebooks, and by
``node`` for ``dp.plan.v1``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa

from trustcompute import tables
from trustcompute.dp import operation, parties
from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.answer import Release, column_types, run
from trustcompute.dp.budget import MIN_DELTA, Amount, Budget
from trustcompute.dp.groups import By, Group, listed
from trustcompute.dp.measure import Measured
from trustcompute.dp.plan import Plan, make_plan, parts_of, with_values
from trustcompute.dp.unit import PrivacyUnit
from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import PlannedEvent, PrivacyLoss, amount, plan_epsilon, plan_points
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage
from trustcompute.protocol.party import Party

MAX_QUESTIONS: Final = 1024
MAX_POINTS: Final = 2**14  # of the loss: accounted for within a second or so, for whoever asks
NAMES: Final = frozenset({"questions", "delta", "columns", "min_group"})


@dataclass(frozen=True)
class Question:
    """One release of a fixed plan. Made by ``question``."""

    aggregates: tuple[Aggregate, ...]
    by: tuple[Group, ...]
    budget: Budget

    def __post_init__(self) -> None:
        if self.budget.kind != "pure":
            raise ParameterError("questions of a fixed plan have pure budgets: dp.pure(epsilon)")


def question(aggregates: Sequence[Aggregate], *, by: By = (), budget: Budget) -> Question:
    """A question for a plan: as for ``release``, with a budget of ``pure`` and groups that are given or known."""
    return Question(tuple(aggregates), listed(by), budget)


@dataclass(frozen=True)
class FixedPlan:
    """Questions, and the δ at which they are charged together. Made by ``fixed_plan``."""

    questions: tuple[Question, ...]
    delta: Fraction

    def __post_init__(self) -> None:
        if not 1 <= len(self.questions) <= MAX_QUESTIONS:
            raise ParameterError(f"a plan has 1 to {MAX_QUESTIONS} questions")
        if not MIN_DELTA <= self.delta <= Fraction(1, 2):
            raise ParameterError("the delta of a plan must lie between 1e-18 and 0.5")
        if plan_points(self.events) > MAX_POINTS:
            raise ParameterError(
                "the plan is too long, or its epsilons too far apart: give all questions of one size the same epsilon"
            )

    @property
    def events(self) -> tuple[PlannedEvent, ...]:
        """Every number, choice and search is an event of its own, with its part of its question's ε."""
        found: dict[Fraction, int] = {}
        for one in self.questions:
            parts = sum(parts_of(aggregate) for aggregate in one.aggregates)
            found[one.budget.main / parts] = found.get(one.budget.main / parts, 0) + parts
        return tuple(PlannedEvent(epsilon, count) for epsilon, count in sorted(found.items()))

    @property
    def cost(self) -> PrivacyLoss:
        """What is charged: (ε, δ), whatever the answers."""
        return _cost(self.events, self.delta)

    def to_document(self) -> dict[str, Any]:
        """Canonical parameters of a request."""
        asked = [operation.parameters(one.aggregates, one.by, one.budget) for one in self.questions]
        return {
            "questions": [{name: one[name] for name in ("aggregates", "groups", "budget")} for one in asked],
            "delta": str(self.delta),
            "columns": sorted({column for one in asked for column in one["columns"]}),
            "min_group": 1,
        }

    @classmethod
    def from_document(cls, document: Params) -> FixedPlan:
        questions = document.get("questions")
        if set(document) - NAMES or not isinstance(questions, list):
            raise ParameterError(f"a fixed plan has {', '.join(sorted(NAMES))}")
        if type(least := document.get("min_group", 1)) is not int or least != 1:
            raise ParameterError("a fixed plan has no groups to be found, so min_group is 1")
        if not 1 <= len(questions) <= MAX_QUESTIONS:
            raise ParameterError(f"a plan has 1 to {MAX_QUESTIONS} questions")
        made = cls(
            tuple(Question(*_question(one)) for one in questions), amount("delta", document.get("delta", ""))
        )
        if document.get("columns", columns := made.to_document()["columns"]) != columns:
            raise ParameterError("the columns of a plan are those of its questions, in order, or left out")
        return made


def _question(document: Any) -> tuple[tuple[Aggregate, ...], tuple[Group, ...], Budget]:
    if not isinstance(document, Mapping) or set(document) != {"aggregates", "groups", "budget"}:
        raise ParameterError("a question has aggregates, groups and budget")
    aggregates, groups, budget, _ = operation.parsed(document)
    return aggregates, groups, budget


@lru_cache(maxsize=64)
def _cost(events: tuple[PlannedEvent, ...], delta: Fraction) -> PrivacyLoss:
    together = sum((event.epsilon * event.count for event in events), Fraction(0))
    return PrivacyLoss(epsilon=min(plan_epsilon(events, delta)[1], together), delta=delta)


def fixed_plan(questions: Sequence[Question], *, delta: Amount) -> FixedPlan:
    """Questions that are asked, answered and charged together. ``cost`` says what for."""
    return FixedPlan(tuple(questions), amount("delta", delta))


def release_plan(
    table: Any, plan: FixedPlan, *, unit: PrivacyUnit | None = None, bounding_key: bytes | None = None
) -> tuple[Release, ...]:
    """The answers to a plan's questions, all of them for ``plan.cost``. Otherwise as ``release``."""
    opened, unit = tables.open_table(table), unit or PrivacyUnit()
    plan = known_values(plan, unit)
    plans = []
    for one in plan.questions:
        types = column_types(opened, one.aggregates, one.by, unit)
        plans.append(make_plan(one.aggregates, one.by, unit, one.budget, types))
    rng = Rng.from_os()
    measured = [run(one, opened, rng, bounding_key) for one in plans]
    return answers(plans, measured)


def answers(plans: Sequence[Plan], measured: Sequence[Measured]) -> tuple[Release, ...]:
    """What was measured, with the bounds that were found."""
    return tuple(Release(one.settled(seen.bounds), seen) for one, seen in zip(plans, measured, strict=True))


def plans_of(params: Params, unit: PrivacyUnit, types: Mapping[str, pa.DataType]) -> list[Plan]:
    """The plans that both sides derive from canonical parameters, the holder's unit and the declared schema."""
    found = FixedPlan.from_document(params)
    return [make_plan(one.aggregates, one.by, unit, one.budget, types) for one in found.questions]


def known_values(plan: FixedPlan, unit: PrivacyUnit) -> FixedPlan:
    """The plan, with the values that a unit declares known where a question gives none."""
    return FixedPlan(
        tuple(
            Question(one.aggregates, tuple(with_values(group, unit) for group in one.by), one.budget)
            for one in plan.questions
        ),
        plan.delta,
    )


def provider(runs: Sequence[Callable[[], Measured]]) -> Party[None]:
    """The holder's party: one message for each question, in one turn."""
    for one in runs:
        yield from parties.provider(one)


def consumer(plans: Sequence[Plan]) -> Party[list[Measured]]:
    """The asking side's party."""
    found = []
    for plan in plans:
        found.append((yield from parties.consumer(plan)))  # noqa: PERF401 - it yields in between
    return found


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming what is wrong and what it may be."""
    if sizes.consumer != 0:
        raise ParameterError("a release brings no rows of the consumer's: declare 0")
    return FixedPlan.from_document(params).to_document()


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, and the plan's loss: what the data hold changes nothing."""
    return Usage(calls=1, **FixedPlan.from_document(params).cost.ledger())


def leakage(params: Params) -> Leakage:
    """In words, what each side learns."""
    plan = FixedPlan.from_document(params)
    return Leakage(
        consumer="noisy aggregates, by which the presence of no privacy unit can be told (differential privacy of"
        f" {len(plan.questions)} questions together with ε = {float(plan.cost.epsilon):.6g} and δ = {plan.delta})",
        provider="what was asked",
    )


OPERATIONS: Final = (
    Operation(
        id="dp.plan.v1",
        check=check,
        output=lambda params: OutputForm.DP_RELEASE,
        bound=bound,
        leakage=leakage,
        consumer="consumer",
        provider="provider",
    ),
)
