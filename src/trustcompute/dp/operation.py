"""What the broker knows of releases: parameters, bounds and leakage, by operation id.

Parameters of a request: ``aggregates``, ``groups`` and ``budget`` as their classes write them, ``columns`` (all that
are named: grants bound them), ``min_group`` (``least_units``). What is charged is the declared budget, whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.budget import Budget
from trustcompute.dp.groups import MAX_BY, Group, listed
from trustcompute.dp.plan import MAX_AGGREGATES, Plan, make_plan
from trustcompute.dp.unit import PrivacyUnit
from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage

NAMES: Final = frozenset({"aggregates", "groups", "budget", "columns", "min_group"})


def parameters(
    aggregates: Sequence[Aggregate], groups: Sequence[Group], budget: Budget, least_units: int = 1
) -> dict[str, Any]:
    """The canonical parameters of a request. Where no groups have to be found, no δ is asked for."""
    if all(group.values for group in groups):
        budget = budget.without_delta()
    columns = {group.column for group in groups} | {
        one.column for one in aggregates if one.column is not None
    }
    return {
        "aggregates": [one.to_document() for one in aggregates],
        "groups": [group.to_document() for group in groups],
        "budget": budget.to_document(),
        "columns": sorted(columns),
        "min_group": least_units,
    }


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming what is wrong and what it may be."""
    if sizes.consumer != 0:
        raise ParameterError("a release brings no rows of the consumer's: declare 0")
    return parameters(*parsed(params))


def parsed(params: Params) -> tuple[tuple[Aggregate, ...], tuple[Group, ...], Budget, int]:
    """What the parameters of a release say. Raises ``ParameterError``."""
    unknown = set(params) - NAMES
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: a release takes {', '.join(sorted(NAMES))}"
        )
    aggregates, groups = params.get("aggregates"), params.get("groups", [])
    if not isinstance(aggregates, list) or not 1 <= len(aggregates) <= MAX_AGGREGATES:
        raise ParameterError(f"aggregates must list 1 to {MAX_AGGREGATES} of them")
    if not isinstance(groups, list) or len(groups) > MAX_BY:
        raise ParameterError(f"groups must list at most {MAX_BY} columns")
    least_units = params.get("min_group", 1)
    if type(least_units) is not int or not 1 <= least_units <= 2**31:
        raise ParameterError("min_group must be an integer of at least 1")
    return (
        tuple(Aggregate.from_document(one) for one in aggregates),
        listed([Group.from_document(one) for one in groups]),
        Budget.from_document(params.get("budget", {})),
        least_units,
    )


def plan_of(params: Params, unit: PrivacyUnit, types: Mapping[str, pa.DataType]) -> Plan:
    """The plan that both sides derive from canonical parameters, the holder's unit and the declared schema."""
    aggregates, groups, budget, least_units = parsed(params)
    return make_plan(aggregates, groups, unit, budget, types, least_units=least_units)


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, and the declared budget: what the data hold changes nothing."""
    return Usage(calls=1, **Budget.from_document(params["budget"]).loss.ledger())


def leakage(params: Params) -> Leakage:
    """In words, what each side learns."""
    budget = Budget.from_document(params["budget"])
    kind = "ρ-zCDP with ρ" if budget.kind == "zcdp" else "differential privacy with ε"
    delta = f" and δ = {budget.delta}" if budget.delta else ""
    return Leakage(
        consumer="noisy aggregates, by which the presence of no privacy unit can be told"
        f" ({kind} = {budget.main}{delta})",
        provider="what was asked",
    )


OPERATIONS: Final = (
    Operation(
        id="dp.release.v1",
        check=check,
        output=lambda params: OutputForm.DP_RELEASE,
        bound=bound,
        leakage=leakage,
        consumer="consumer",
        provider="provider",
        scope=lambda params: Scope(tuple(params["columns"]), params["min_group"]),
    ),
)
