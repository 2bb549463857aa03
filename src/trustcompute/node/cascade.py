"""Several identifiers in order of preference over a node: the body of ``Session.cascade``, and the provider's side.

One job with a run for each identifier, one after the other: charged once, gone on with after a stop at any of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.intersection import key_choice, key_spec
from trustcompute.node.metered import Metered
from trustcompute.node.runs import JobRuns
from trustcompute.primitives import canonical
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import cascading
from trustcompute.psi.ecdh import Found
from trustcompute.psi.in_order import Cascade, InOrder, input_digest, left_over, matched_by

if TYPE_CHECKING:
    from trustcompute.node.session import Session


@dataclass(frozen=True, kw_only=True)
class MeteredCascade(Cascade, Metered):
    """A cascade with another organisation. ``receipt`` proves offline what was charged, once for all identifiers."""


def match(
    session: Session,
    dataset: str,
    table: Any,
    *,
    on: InOrder,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredCascade:
    """See ``Session.cascade``."""
    entry, table = session.entry(dataset), tables.open_table(table)
    choices = [key_choice(entry, theirs) for _, theirs in on.pairs]
    specs = [key_spec(choice) for choice in choices]
    keys = [
        tables.keys(table, ours, spec=spec, executor=session.executor)
        for (ours, _), spec in zip(on.pairs, specs, strict=True)
    ]
    asked = [
        (list(choice.columns), spec.digest, len(mine), choice.distinct)
        for choice, spec, mine in zip(choices, specs, keys, strict=True)
    ]

    def party(run: int, params: Params, rng: Rng) -> Party[Found]:
        wanted = left_over(keys[run], matched_by(keys, map(runs.found, range(run))))
        return cascading.consumer(params, run, keys[run].digests, wanted, rng, executor=session.executor)

    runs = JobRuns(
        session,
        cascading.OPERATION,
        dataset,
        cascading.parameters(asked),
        Sizes(sum(map(len, keys)), sum(choice.distinct for choice in choices)),
        party=party,
        input_digest=input_digest(keys),
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    runs.run_all(at_a_time=1)  # in order: what a run asks for depends on what those before it found
    by = matched_by(keys, map(runs.found, range(runs.count)))
    done = runs.finish(by)
    return MeteredCascade(
        left_rows=(by >= 0).nonzero()[0],
        by=by[by >= 0],
        names=on.names,
        protocol=cascading.ID,
        cost=done.cost,
        leakage=done.leakage,
        left=table,
        job=done.job,
        acknowledged=done.acknowledged,
    )


def rows(held: HeldDataset, params: Params) -> int:
    """The provider's keys of all identifiers together. Refuses numbers other than its own."""
    total = 0
    for one in params["identifiers"]:
        keys = held.keys(one["columns"])
        if keys.spec.digest != one["keys"]:
            raise ParameterError(
                "the key specification is not that of the dataset: take it from the catalogue"
            )
        if held.declared(one["columns"]) != one["held"]:
            raise ParameterError("held is not the dataset's number of keys: take it from the catalogue")
        total += one["held"]
    return total


def provide(
    run: int,
) -> Callable[[HeldDataset, Params, Sizes, Rng, Executor | None], Party[Found | None]]:
    """The provider's party of a run."""

    def of_run(
        held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
    ) -> Party[Found | None]:
        keys = held.keys(params["identifiers"][run]["columns"])
        return cascading.provider(params, run, keys.digests, rng, executor=executor)

    return of_run


def source(held: HeldDataset, params: Params) -> str:
    """Names the keys of all identifiers."""
    digests = [held.keys(one["columns"]).digest for one in params["identifiers"]]
    return hashlib.sha256(canonical.dumps(digests)).hexdigest()
