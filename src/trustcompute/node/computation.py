"""The computations a node answers: each layer's operations, and the provider's party for a dataset."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from trustcompute import psi
from trustcompute.node.dataset import HeldDataset
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Operation, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import parties
from trustcompute.psi.intersection import MatchedRows, rows_found

Provide = Callable[[HeldDataset, Params, Sizes, Rng, Executor | None], Party[Any]]


@dataclass(frozen=True)
class Computation:
    """rows: the provider's declared size for these parameters; provide: its party, which starts when it is armed."""

    operation: Operation
    rows: Callable[[HeldDataset, Params], int]
    provide: Provide


def _intersection_rows(dataset: HeldDataset, params: Params) -> int:
    return len(dataset.keys(params["columns"]))


def _intersection(
    dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None, *, protocol: str
) -> Party[MatchedRows | None]:
    keys = dataset.keys(params["columns"])
    found = yield from parties.provider(params, sizes, keys.digests, rng, executor, protocol=protocol)
    return None if found is None else MatchedRows(found.count, rows_found(found, keys))


COMPUTATIONS: Final = tuple(
    Computation(operation, _intersection_rows, partial(_intersection, protocol=operation.id))
    for operation in psi.OPERATIONS
)
