"""The computations a node answers: each layer's operations, and the provider's party for a dataset."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from trustcompute.dp.operation import OPERATIONS as RELEASES
from trustcompute.errors import ParameterError
from trustcompute.node import release, verification
from trustcompute.node.dataset import HeldDataset
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Operation, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import lookup, parties
from trustcompute.psi.ecdh import Found
from trustcompute.psi.intersection import MatchedRows, rows_found
from trustcompute.psi.operation import INTERSECTIONS
from trustcompute.tables import Keys
from trustcompute.verification.operation import OPERATIONS as VERIFICATIONS

Provide = Callable[[HeldDataset, Params, Sizes, Rng, Executor | None], Party[Any]]


@dataclass(frozen=True)
class Computation:
    """rows: the provider's declared size for these parameters; provide: its party, which starts when it is armed."""

    operation: Operation
    rows: Callable[[HeldDataset, Params], int]
    provide: Provide


def _intersection_rows(dataset: HeldDataset, params: Params) -> int:
    keys = dataset.keys(params["columns"])
    if keys.spec.digest != params["keys"]:
        raise ParameterError("the key specification is not that of the dataset: take it from the catalogue")
    return len(keys)


def _intersection(protocol: str) -> Provide:
    def provide(
        dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
    ) -> Party[MatchedRows | None]:
        keys = dataset.keys(params["columns"])
        party = parties.provider(protocol, params, sizes, keys.digests, rng, executor=executor)
        return _matched_rows(party, keys)

    return provide


def _matched_rows(party: Party[Found] | Party[Found | None], keys: Keys) -> Party[MatchedRows | None]:
    """The party, its output told as rows of the dataset."""
    found = yield from party
    return None if found is None else MatchedRows(found.count, rows_found(found, keys))


def _lookup_rows(dataset: HeldDataset, params: Params) -> int:
    rows = _intersection_rows(dataset, params)
    if dataset.evaluated(params["columns"]).id != params["table"]:
        raise ParameterError("the dataset's evaluated table is another one: read the catalogue again")
    return rows


def _lookup(
    dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    return lookup.provider(params, sizes, dataset.evaluated(params["columns"]), executor=executor)


COMPUTATIONS: Final = (
    *(Computation(one, _intersection_rows, _intersection(one.id)) for one in INTERSECTIONS),
    Computation(lookup.OPERATION, _lookup_rows, _lookup),
    *(Computation(operation, release.rows, release.provide) for operation in RELEASES),
    *(
        Computation(one, partial(verification.rows, one.id), verification.PROVIDERS[one.id])
        for one in VERIFICATIONS
    ),
)
