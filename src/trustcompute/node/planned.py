"""A fixed plan asked of a node (``dp.plan.v1``): the body of ``Session.release_plan``, and the provider's side."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from trustcompute import dp
from trustcompute.dp import fixed
from trustcompute.dp.answer import run
from trustcompute.dp.plan import Plan
from trustcompute.errors import ParameterError
from trustcompute.node import releasing
from trustcompute.node.client import NO_INPUT, NO_ROWS
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.metered import Metered
from trustcompute.node.release import declared_types, refuse_unlimited, unit_of
from trustcompute.primitives.privacy import PrivacyLoss
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Cost

if TYPE_CHECKING:
    from trustcompute.node.client import Client


@dataclass(frozen=True)
class MeteredPlan(Metered):
    """Answers to the questions of a plan, in their order. cost: of all together; ``receipt`` proves it."""

    answers: tuple[dp.Release, ...]
    cost: PrivacyLoss
    traffic: Cost
    leakage: Leakage


def ask(
    session: Client,
    dataset: str,
    plan: dp.FixedPlan,
    *,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredPlan:
    """Ask a node the questions of a plan."""
    unit, types = releasing.unit_of(session, dataset)
    params = fixed.known_values(plan, unit).to_document()
    plans = fixed.plans_of(params, unit, types)
    done = session.compute(
        fixed.OPERATIONS[0],
        dataset,
        params,
        NO_ROWS,
        lambda params, rng: fixed.consumer(plans),
        input_digest=NO_INPUT,
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    return MeteredPlan(
        fixed.answers(plans, done.output),
        plan.cost,
        done.cost,
        done.leakage,
        job=done.job,
        acknowledged=done.acknowledged,
    )


def _plans(held: HeldDataset, params: Params) -> list[Plan]:
    checked = fixed.check(params, Sizes(0, 0))
    refuse_unlimited(held.dataset, fixed.FixedPlan.from_document(checked).cost)
    types = declared_types({column.name: column.type for column in held.columns})
    return fixed.plans_of(checked, unit_of(held), types)


def rows(held: HeldDataset, params: Params) -> int:
    """0: how many rows there are is for a release to say. Refuses what could not be answered."""
    _plans(held, params)
    return 0


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party."""
    if sizes.consumer:
        raise ParameterError("a release brings no rows of the consumer's: declare 0")
    plans = _plans(held, params)
    return fixed.provider([partial(run, plan, held.table, rng, held.bounding_key) for plan in plans])
