"""Releases at a node: the holder's privacy unit, which budgets its limits are kept in, and the provider's party."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Final

import pyarrow as pa

from trustcompute import dp, tables
from trustcompute.broker.grant import Limit
from trustcompute.dp import operation, parties
from trustcompute.dp.answer import run
from trustcompute.dp.budget import Budget
from trustcompute.dp.plan import Plan
from trustcompute.errors import ParameterError, Refused
from trustcompute.node.dataset import Dataset, HeldDataset
from trustcompute.primitives.privacy import PrivacyLoss
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party

TYPES: Final[Mapping[str, pa.DataType]] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "float": pa.float64(),
    "boolean": pa.bool_(),
    "decimal": pa.decimal128(38, 0),
    "binary": pa.binary(),
}
"""Arrow types by logical type: what a plan needs to know of a column. Others can be counted only."""


def declared_types(columns: Mapping[str, str]) -> dict[str, pa.DataType]:
    """column -> logical type, to the types that both sides plan with."""
    return {name: TYPES.get(kind, pa.null()) for name, kind in columns.items()}


def unit_of(held: HeldDataset) -> dp.PrivacyUnit:
    """The holder's privacy unit. Raises ``Refused`` where there is none."""
    if held.dataset.unit is None:
        raise Refused(
            f"dataset {held.dataset.id!r} has no privacy unit: nothing is released from it",
            rule="privacy unit",
            field="dataset",
            owner="the node's operator",
            fix="ask the operator to declare whose presence is to be hidden",
        )
    return held.dataset.unit


def release_plan(held: HeldDataset, params: Params) -> Plan:
    """Everything about a release but the data. Raises before anything is reserved: ``ParameterError``, ``Refused``."""
    unit = unit_of(held)
    checked = operation.check(params, Sizes(0, 0))
    refuse_unlimited(held.dataset, Budget.from_document(checked["budget"]).loss)
    types = declared_types({column.name: column.type for column in held.columns})
    return operation.plan_of(checked, unit, types)


def refuse_unlimited(dataset: Dataset, loss: PrivacyLoss) -> None:
    """A budget in a unit that the dataset does not limit would cost it nothing. Raises ``Refused``."""
    for unit, amount in loss.ledger().items():
        if amount and dataset.limits.get(unit, Limit()).total is None:
            raise Refused(
                f"the budget of dataset {dataset.id!r} is not kept in {unit}",
                rule="privacy budget",
                field="params.budget",
                owner="the node's operator",
                fix="ask with dp.zcdp, or dp.pure(..., as_zcdp=True), where it is kept in rho; with dp.pure where it is"
                " kept in epsilon; without unknown groups where delta is not limited; plans need epsilon and delta",
            )


def rows(held: HeldDataset, params: Params) -> int:
    """0: how many rows there are is for a release to say, with noise. Refuses what could not be answered."""
    release_plan(held, params)
    return 0


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party."""
    plan = release_plan(held, params)
    return parties.provider(lambda: run(plan, held.table, rng, held.bounding_key))


def check_unit(dataset: Dataset) -> None:
    """Raise ``ParameterError`` for a unit the dataset cannot have, when the node starts."""
    unit: dp.PrivacyUnit | None = dataset.unit
    if unit is None:
        return
    if all(dataset.limits.get(name, Limit()).total is None for name in ("rho", "epsilon")):
        raise ParameterError(
            f"dataset {dataset.id!r} has a privacy unit and no limit: set limits={{'rho': Limit(total=...)}}, in 10^-12"
        )
    columns = {column.name for column in tables.describe(dataset.source)}
    for column in [*([] if unit.column is None else [unit.column]), *unit.known]:
        if column not in columns:
            raise ParameterError(
                f"dataset {dataset.id!r} has no column {column!r}, which its privacy unit names"
            )
