"""Aggregates at a node: what a dataset's holder lets be added up, and its party. Called by ``computation``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from pathlib import Path

import numpy as np

from trustcompute import tables
from trustcompute.aggregation import keyed, masked, operation, threshold
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import Vector, column_vector, encode
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.rowsets import RowSets
from trustcompute.aggregation.spec import Spec
from trustcompute.aggregation.threshold import Given
from trustcompute.errors import ParameterError, Refused
from trustcompute.kernels.arrays import I64
from trustcompute.node import aligned
from trustcompute.node.dataset import Contributor, Dataset, HeldDataset
from trustcompute.primitives import member as members
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party


def contributor(identity: Identity, directory: Path, dataset: str, version: str) -> Contributor:
    """What a node takes part with for one dataset: its identity, and which sets of parties were opened before."""
    name = hashlib.sha256(f"{dataset}\n{version}".encode()).hexdigest()[:32]
    given = Given(directory / f"given-{name}")
    rows = RowSets(directory / f"rows-{name}")
    return Contributor(members.of_identity(identity), Cohorts(directory / f"opened-{name}"), given, rows)


def rows(held: HeldDataset, params: Params) -> int:
    """0: how many rows there are is not for an aggregator to know. Refuses what the holder does not take part in."""
    _admit(held, params)
    return 0


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[I64 | None]:
    """A contributor's party under masks."""
    about, part = operation.round_of(params), _admit(held, params)
    return masked.contributor(
        about, part.member, partial(_values, held, params, about, part), rng, part.cohorts
    )


def provide_threshold(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """A contributor's party under a key that nobody has."""
    about, part = operation.round_of(params), _admit(held, params)
    values = partial(_values, held, params, about, part)
    return threshold.contributor(
        about, part.member, values=values, rng=rng, cohorts=part.cohorts, given=part.given
    )


def under_key(under: str) -> Callable[[HeldDataset, Params, Sizes, Rng, Executor | None], Party[None]]:
    """What makes a contributor's party of the operation ``under``."""

    def provide(
        held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
    ) -> Party[None]:
        about, part = operation.round_of(params), _admit(held, params)
        cipher, values = operation.cipher_for(under, params), partial(_values, held, params, about, part)
        return keyed.contributor(
            about, part.member, operation.roles_of(params), cipher, values=values, rng=rng
        )

    return provide


def holder_rows(held: HeldDataset, params: Params) -> int:
    """0: a key holder brings no rows. Refuses what it does not open."""
    _admit_opening(held, params)
    return 0


def provide_opening(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[tuple[I64, tuple[str, ...]]]:
    """The key holder's party."""
    about, part = operation.round_of(params), _admit_opening(held, params)
    cipher = operation.cipher_for(params["under"], params)
    return keyed.key_holder(
        about, part.member, operation.roles_of(params), cipher, rng=rng, cohorts=part.cohorts
    )


def _values(held: HeldDataset, params: Params, about: Round, part: Contributor) -> Vector:
    member = part.member
    if operation.MATCHED in params:
        rows = _matched(held, params, part)
        if about.spec.noise is None:
            part.rows.admit(rows, held.rows, held.dataset.least_matched)
        return encode(tables.take(held.table, rows), about.spec, member.name)
    if about.spec.length is not None:
        assert held.dataset.vector is not None
        return column_vector(held.table, held.dataset.vector, about.spec, member.name)
    return encode(held.table, about.spec, member.name)


def _admit(held: HeldDataset, params: Params) -> Contributor:
    about = operation.round_of(params)
    dataset, spec, part = held.dataset, about.spec, held.contributor
    if spec.length is not None and part is not None:
        _check_vector(held, spec.length)
    elif part is None or not dataset.aggregates:
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
    others = [name for name in spec.named if spec.length is None and name not in dataset.aggregates]
    if others:
        raise Refused(
            f"column {others[0]!r} of dataset {dataset.id!r} takes part in no aggregates",
            rule="aggregates",
            field="params.columns",
            owner="the node's operator",
            fix=f"use columns among {', '.join(dataset.aggregates)}",
        )
    if "holder" in params and params["holder"] not in dataset.key_holders:
        raise Refused(
            f"dataset {dataset.id!r} is not encrypted for {params['holder']}, who could open its part",
            rule="key_holder",
            field="params.holder",
            owner="the node's operator",
            fix=f"use a key holder among {', '.join(dataset.key_holders)}"
            if dataset.key_holders
            else "use the scheme 'masked', where nobody holds a key",
        )
    _check_crowd(dataset, spec)
    if operation.MATCHED in params:
        rows = _matched(held, params, part)
        if spec.noise is None:
            part.rows.check(rows, held.rows, dataset.least_matched)
    return part


def _matched(held: HeldDataset, params: Params, part: Contributor) -> I64:
    """Positions of the rows that the asker's job matched, all rows of a key, ascending."""
    return np.sort(aligned.rows_of(held, params[operation.MATCHED][part.member.name], duplicates="all"))


def _admit_opening(held: HeldDataset, params: Params) -> Contributor:
    dataset, part = held.dataset, held.contributor
    if part is None or not dataset.opens:
        raise Refused(
            f"dataset {dataset.id!r} is for no keys: this node opens no sums under it",
            rule="opens",
            field="dataset",
            owner="the node's operator",
            fix="ask the operator for a dataset that opens sums, or name another key holder",
        )
    if part.member.name != params["holder"]:
        raise ParameterError(
            f"{part.member.name} is not the key holder of this aggregate: name it, or do not ask it"
        )
    operation.cipher_for(params["under"], params)
    _check_crowd(dataset, operation.round_of(params).spec)
    return part


def _check_vector(held: HeldDataset, length: int) -> None:
    dataset = held.dataset
    if dataset.vector is None:
        raise Refused(
            f"dataset {dataset.id!r} takes part in no sums of vectors, which show a sum for every row",
            rule="vector",
            field="params.spec.length",
            owner="the node's operator",
            fix="give the specification columns in place of a length, or ask the operator to name a column",
        )
    if held.rows != length:
        raise ParameterError(f"dataset {dataset.id!r} is a vector of another length than {length:,}")


def _check_crowd(dataset: Dataset, spec: Spec) -> None:
    if spec.min_parties < dataset.least_parties:
        raise Refused(
            f"dataset {dataset.id!r} takes part in sums of at least {dataset.least_parties} parties only",
            rule="min_parties",
            field="params.min_group",
            owner="the node's operator",
            fix=f"set min_parties to {dataset.least_parties} at least",
        )
