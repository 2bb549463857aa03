"""The computations a node answers: each layer's operations, and the provider's party for a dataset."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from trustcompute.aggregation import masked, threshold
from trustcompute.aggregation import operation as aggregates
from trustcompute.dp.fixed import OPERATIONS as PLANS
from trustcompute.dp.operation import OPERATIONS as RELEASES
from trustcompute.errors import ParameterError, Refused
from trustcompute.node import (
    cascade,
    contribution,
    delta,
    labels,
    many,
    planned,
    release,
    statistics,
    verification,
)
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.sums import HeldSums
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.operation import Operation, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import buckets, cascading, lookup, padding, star_operation
from trustcompute.psi import delta as delta_runs
from trustcompute.psi.ecdh import Found
from trustcompute.psi.intersection import MatchedRows, rows_found
from trustcompute.psi.operation import INTERSECTIONS
from trustcompute.psi.sums import parties as sum_parties
from trustcompute.psi.sums.operation import OPERATION as SUM
from trustcompute.psi.sums.terms import Terms
from trustcompute.tables import KeySet
from trustcompute.verification.operation import OPERATIONS as VERIFICATIONS
from trustcompute.verification.statistical.operation import OPERATION as STATISTICS

Provide = Callable[[HeldDataset, Params, Sizes, Rng, Executor | None], Party[Any]]


@dataclass(frozen=True)
class Computation:
    """rows: the provider's declared size for these parameters; provide: its party, which starts when it is armed.

    cut: where a job may have several runs, how many, the party of each, and what its data are. charged_first:
    the first turn that leaves the provider is the one that is charged, and whether there is one does not depend on
    the data: nothing is told before the charge, so the job is charged without being armed.
    check_asker: refuses parameters that are not for the peer of that name and key.
    admit: has the last word on a job, given its id and the time, before anything is touched.
    """

    operation: Operation
    rows: Callable[[HeldDataset, Params], int]
    provide: Provide
    cut: Cut | None = None
    charged_first: bool = False
    check_asker: Callable[[Params, str, VerifyKey], None] | None = None
    admit: Callable[[HeldDataset, Params, Sizes, str, int], None] | None = None

    def runs(self, params: Params) -> int:
        return 1 if self.cut is None else self.cut.runs(params)

    def party(
        self, dataset: HeldDataset, params: Params, sizes: Sizes, executor: Executor | None, run: int
    ) -> Party[Any]:
        """The provider's party of one run, under fresh randomness."""
        whole = self.cut is None or self.cut.runs(params) == 1
        provide = self.provide if self.cut is None or whole else self.cut.provide(run)
        return provide(dataset, params, sizes, Rng.from_os(), executor)


@dataclass(frozen=True)
class Cut:
    """How a job is cut into independent runs. source: names the data, so that a job that goes on after a restart of
    the node meets the same."""

    runs: Callable[[Params], int]
    provide: Callable[[int], Provide]
    source: Callable[[HeldDataset, Params], str]


def _intersection_rows(dataset: HeldDataset, params: Params) -> int:
    keys = dataset.keys(params["columns"])
    if keys.spec.digest != params["keys"]:
        raise ParameterError("the key specification is not that of the dataset: take it from the catalogue")
    labels.check(dataset, params)
    return dataset.declared(params["columns"])


def _intersection(protocol: str) -> Provide:
    def provide(
        dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
    ) -> Party[MatchedRows | None]:
        keys = dataset.keys(params["columns"])
        party = padding.provider(
            protocol,
            params,
            sizes,
            keys.digests,
            rng,
            executor=executor,
            labelled=labels.labelled(dataset, params),
        )
        return _matched_rows(party, keys)

    return provide


def _bucket(protocol: str) -> Callable[[int], Provide]:
    def of_run(run: int) -> Provide:
        def provide(
            dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
        ) -> Party[None]:
            of = buckets.runs_of(params)
            _, digests = dataset.keys(params["columns"]).part(run, of)
            yield from padding.provider(protocol, params, sizes, digests, rng, executor=executor)

        return provide

    return of_run


def _keys_digest(dataset: HeldDataset, params: Params) -> str:
    return dataset.keys(params["columns"]).digest


def _matched_rows(party: Party[Found] | Party[Found | None], keys: KeySet) -> Party[MatchedRows | None]:
    """The party, its output told as rows of the dataset."""
    found = yield from party
    return None if found is None else MatchedRows(found.count, rows_found(found, keys), found.order)


def _lookup_rows(dataset: HeldDataset, params: Params) -> int:
    rows = _intersection_rows(dataset, params)
    if dataset.evaluated(params["columns"]).id != params["table"]:
        raise ParameterError("the dataset's evaluated table is another one: read the catalogue again")
    return rows


def _lookup(
    dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    return lookup.provider(params, sizes, dataset.evaluated(params["columns"]), executor=executor)


def _sum_rows(dataset: HeldDataset, params: Params) -> int:
    _sums_of(dataset).admit(params)
    noise = Terms.from_document(params).noise
    if noise is not None:
        release.refuse_unlimited(dataset.dataset, noise.loss)
    return _intersection_rows(dataset, params)


def _sum(
    dataset: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[sum_parties.Counted]:
    sums = _sums_of(dataset)
    return sum_parties.provider(
        lambda: sums.holder(params), Terms.from_document(params), sizes, rng, executor
    )


def _sums_of(dataset: HeldDataset) -> HeldSums:
    if dataset.sums is None:
        raise Refused(
            f"nothing of dataset {dataset.dataset.id!r} may be added up over keys that match",
            rule="sums",
            field="dataset",
            owner="the node's operator",
            fix="ask the operator to name the columns that may be added up",
        )
    return dataset.sums


COMPUTATIONS: Final = (
    *(
        Computation(
            one,
            _intersection_rows,
            _intersection(one.id),
            Cut(buckets.runs_of, _bucket(one.id), _keys_digest),
        )
        for one in INTERSECTIONS
    ),
    Computation(lookup.OPERATION, _lookup_rows, _lookup, charged_first=True),
    Computation(delta_runs.OPERATION, delta.rows, delta.provide, charged_first=True),
    Computation(star_operation.OPERATION, many.rows, many.provide, check_asker=many.check_asker),
    Computation(
        cascading.OPERATION,
        cascade.rows,
        cascade.provide(0),
        Cut(buckets.runs_of, cascade.provide, cascade.source),
    ),
    Computation(SUM, _sum_rows, _sum),
    *(Computation(operation, release.rows, release.provide) for operation in RELEASES),
    *(Computation(operation, planned.rows, planned.provide) for operation in PLANS),
    *(
        Computation(
            one,
            partial(verification.rows, one.id),
            verification.PROVIDERS[one.id],
            charged_first=True,
            admit=verification.admit,
        )
        for one in VERIFICATIONS
    ),
    Computation(STATISTICS, statistics.rows, statistics.provide),
    Computation(aggregates.operation_of(masked.ID), contribution.rows, contribution.provide),
    Computation(aggregates.operation_of(threshold.ID), contribution.rows, contribution.provide_threshold),
    *(
        Computation(
            aggregates.operation_of(under),
            contribution.rows,
            contribution.under_key(under),
            check_asker=aggregates.check_asker,
        )
        for under in aggregates.KEYED
    ),
    Computation(
        aggregates.operation_of(aggregates.HOLDER),
        contribution.holder_rows,
        contribution.provide_opening,
        check_asker=aggregates.check_asker,
    ),
)

UNMATCHED: Final = frozenset(one.id for one in (*RELEASES, *PLANS, *aggregates.OPERATIONS, STATISTICS))
"""Operations that match no keys: who may ask for these alone is not told how many keys there are."""
