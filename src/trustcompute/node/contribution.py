"""Aggregates at a node: what a dataset's holder lets be added up, and its party. Called by ``computation``."""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from pathlib import Path

import numpy as np

from trustcompute.aggregation import masked, operation
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import encode
from trustcompute.aggregation.round import Round
from trustcompute.errors import ParameterError, Refused
from trustcompute.kernels.arrays import I64
from trustcompute.node.dataset import Contributor, HeldDataset
from trustcompute.primitives import member as members
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.member import Member
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party


def contributor(identity: Identity, directory: Path, dataset: str, version: str) -> Contributor:
    """What a node takes part with for one dataset: its identity, and which sets of parties were opened before."""
    name = hashlib.sha256(f"{dataset}\n{version}".encode()).hexdigest()[:32]
    return Contributor(members.of_identity(identity), Cohorts(directory / f"opened-{name}"))


def rows(held: HeldDataset, params: Params) -> int:
    """0: how many rows there are is not for an aggregator to know. Refuses what the holder does not take part in."""
    _admit(held, operation.round_of(params))
    return 0


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[I64 | None]:
    """The provider's party."""
    about = operation.round_of(params)
    taking_part = _admit(held, about)
    return masked.contributor(
        about, taking_part.member, lambda: _values(held, about, taking_part.member), rng, taking_part.cohorts
    )


def _values(held: HeldDataset, about: Round, member: Member) -> I64:
    return np.ascontiguousarray(encode(held.table, about.spec, member.name))


def _admit(held: HeldDataset, about: Round) -> Contributor:
    dataset, spec, part = held.dataset, about.spec, held.contributor
    if part is None or not dataset.aggregates:
        raise Refused(
            f"dataset {dataset.id!r} takes part in no aggregates",
            rule="aggregates",
            field="dataset",
            owner="the node's operator",
            fix="ask the operator to name the columns that may be added up",
        )
    if part.member.name not in about.parties:
        raise ParameterError(
            f"{part.member.name} is not one of the parties of this aggregate: name it, or do not ask it"
        )
    if spec.length is not None:
        raise ParameterError("a dataset is a table: give the specification columns, not a length")
    others = [name for name in spec.named if name not in dataset.aggregates]
    if others:
        raise Refused(
            f"column {others[0]!r} of dataset {dataset.id!r} takes part in no aggregates",
            rule="aggregates",
            field="params.columns",
            owner="the node's operator",
            fix=f"use columns among {', '.join(dataset.aggregates)}",
        )
    if spec.min_parties < dataset.least_parties:
        raise Refused(
            f"dataset {dataset.id!r} takes part in sums of at least {dataset.least_parties} parties only",
            rule="min_parties",
            field="params.min_group",
            owner="the node's operator",
            fix=f"set min_parties to {dataset.least_parties} at least",
        )
    return part
