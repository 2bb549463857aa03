"""Releases asked of a node: the bodies of ``Session``'s verbs. The provider's side is ``release``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trustcompute import dp
from trustcompute.dp import operation as releases
from trustcompute.dp import parties as dp_parties
from trustcompute.dp.answer import ReleaseQuote, accuracy, proof
from trustcompute.dp.groups import By, listed
from trustcompute.dp.plan import Plan, with_values
from trustcompute.errors import ParameterError
from trustcompute.node.client import NO_INPUT, NO_ROWS
from trustcompute.node.documents import Quote, QuoteRequest
from trustcompute.node.metered import Metered
from trustcompute.node.release import declared_types
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.run import Cost

if TYPE_CHECKING:
    from trustcompute.node.client import Client


@dataclass(frozen=True, kw_only=True)
class MeteredRelease(dp.Release, Metered):
    """A release of another organisation's data. ``receipt`` proves what was charged; ``traffic``: on the wire."""

    traffic: Cost
    leakage: Leakage


@dataclass(frozen=True)
class MeteredReleaseQuote(ReleaseQuote):
    """price: of the node; equal_left: how many such releases what is left of the grant would pay for, if limited."""

    price: Quote
    equal_left: int | None


def release(
    session: Client,
    dataset: str,
    aggregates: Sequence[dp.Aggregate],
    *,
    by: By,
    budget: dp.Budget,
    least_units: int,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredRelease:
    """See ``Session.release``."""
    plan, params = planned(session, dataset, aggregates, by=by, budget=budget, least_units=least_units)
    done = session.compute(
        releases.OPERATIONS[0],
        dataset,
        params,
        NO_ROWS,
        lambda params, rng: dp_parties.consumer(plan),
        input_digest=NO_INPUT,
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    plan = plan.settled(done.output.bounds)
    return MeteredRelease(
        plan,
        done.output,
        job=done.job,
        traffic=done.cost,
        leakage=done.leakage,
        acknowledged=done.acknowledged,
    )


def quote(
    session: Client,
    dataset: str,
    aggregates: Sequence[dp.Aggregate],
    *,
    by: By,
    budget: dp.Budget,
    least_units: int,
    group_rows: int,
) -> MeteredReleaseQuote:
    """See ``Session.quote_release``."""
    plan, params = planned(session, dataset, aggregates, by=by, budget=budget, least_units=least_units)
    request = QuoteRequest(
        grant=session._token, operation=releases.OPERATIONS[0].id, dataset=dataset, params=params, rows=0
    )
    price = Quote.parse(session._channel.action("quote", request.encode()))
    used = {unit: int(amount) for unit, amount in price.usage.items()}
    left = [
        int(amount) // used[unit]
        for unit, spans in price.left.items()
        for span, amount in spans.items()
        if used.get(unit) and span != "per_call"
    ]
    return MeteredReleaseQuote(
        plan.cost, accuracy(plan, group_rows), proof(plan), price, min(left) if left else None
    )


def unit_of(session: Client, dataset: str) -> tuple[dp.PrivacyUnit, dict[str, pa.DataType]]:
    """See ``Session.unit_of``."""
    entry = session.entry(dataset)
    if entry.unit is None:
        raise ParameterError(f"dataset {dataset!r} has no privacy unit: nothing is released from it")
    unit = dp.PrivacyUnit(
        entry.unit.column, entry.unit.groups, entry.unit.rows_per_group, dict(entry.unit.known)
    )
    return unit, declared_types({column.name: column.type for column in entry.columns})


def planned(
    session: Client,
    dataset: str,
    aggregates: Sequence[dp.Aggregate],
    *,
    by: By,
    budget: dp.Budget,
    least_units: int,
) -> tuple[Plan, dict[str, Any]]:
    """What both sides will do, and the parameters that say so."""
    unit, types = unit_of(session, dataset)
    groups = [with_values(group, unit) for group in listed(by)]
    params = releases.parameters(aggregates, groups, budget, least_units)
    return releases.plan_of(params, unit, types), params
