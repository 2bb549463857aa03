"""Intersections and lookups over a node, from the consumer's side: the bodies of ``Session``'s verbs.

Called by ``Session``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trustcompute import psi, tables
from trustcompute.errors import ParameterError, RemoteProtocolError, TableError
from trustcompute.node import differencing, labels
from trustcompute.node.documents import CatalogEntry, KeyChoice
from trustcompute.node.metered import Metered
from trustcompute.node.runs import JobRuns
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Operation, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import buckets, lookup, padding, planner
from trustcompute.psi.ecdh import Found
from trustcompute.psi.intersection import On, rows_found, split_on
from trustcompute.psi.operation import INTERSECTIONS, VOLE, named

if TYPE_CHECKING:
    from trustcompute.node.client import Computed
    from trustcompute.node.session import Session


@dataclass(frozen=True, kw_only=True)
class MeteredIntersection(psi.Intersection, Metered):
    """An intersection with another organisation: left is this side. ``receipt`` proves offline what was charged."""


@dataclass(frozen=True)
class Asked:
    """What every question about keys of ours begins with. theirs: columns; choice: the node's, of these."""

    table: tables.Table
    theirs: list[str]
    choice: KeyChoice
    keys: tables.Keys

    @classmethod
    def of(cls, session: Session, dataset: str, table: Any, on: On) -> Asked:
        ours, theirs = split_on(on)
        table = tables.open_table(table)  # a stream can be read once only, and its rows are wanted again
        choice = key_choice(session.entry(dataset), theirs)
        keys = tables.keys(table, ours, spec=key_spec(choice), executor=session.executor)
        return cls(table, theirs, choice, keys)


def intersect(
    session: Session,
    dataset: str,
    table: Any,
    *,
    on: On,
    output: str,
    reveal: str,
    protocol: planner.Protocol,
    runs: int,
    labelled: Sequence[str],
    pad_to: padding.PadTo,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredIntersection:
    """See ``Session.intersect``."""
    about, entry = Asked.of(session, dataset, table, on), session.entry(dataset)
    keys = about.keys
    sizes = Sizes(padding.padded_rows(len(keys), pad_to), about.choice.distinct)
    asked = {
        "columns": about.theirs,
        "keys": keys.spec.digest,
        "output": output,
        "reveal": reveal,
        "runs": runs,
    }
    asked |= labels.asked(entry, labelled)
    operation = named(planned(session, sizes, asked, job) if protocol == "auto" else protocol)
    asked |= differencing.of_ours(session, operation.id, dataset, keys, sizes.consumer)
    done: Computed[Any]
    if runs == 1:
        done = session.compute(
            operation,
            dataset,
            asked,
            sizes,
            lambda params, rng: padding.consumer(
                operation.id, params, sizes, keys.digests, rng, executor=session._executor
            ),
            input_digest=_digest(keys),
            purpose=purpose,
            scenario=scenario,
            job=job,
        )
    else:
        runs_of_job = JobRuns(
            session,
            operation,
            dataset,
            asked,
            sizes,
            party=bucket_party(session, operation, sizes, keys),
            input_digest=_digest(keys),
            purpose=purpose,
            scenario=scenario,
            job=job,
        )
        done = _in_runs(runs_of_job, keys)
    return MeteredIntersection(
        count=None if done.output is None else done.output.count,
        left_rows=rows_found(done.output, keys),
        protocol=operation.id,
        cost=done.cost,
        leakage=padding.leakage(done.leakage, consumer=pad_to is not None, provider=entry.padded),
        left=about.table,
        left_keys=keys,
        left_order=None if done.output is None else done.output.order,
        labels=None
        if done.output is None or done.output.labels is None
        else labels.received(done.output.labels, labels.form_in(entry, labelled)),
        job=done.job,
        acknowledged=done.acknowledged,
    )


def _digest(keys: tables.Keys) -> bytes:
    return bytes.fromhex(keys.digest)


def _in_runs(runs: JobRuns, keys: tables.Keys) -> Computed[Found]:
    """The same, bucket by bucket."""
    runs.run_all()
    mask = np.zeros(len(keys), np.bool_)
    for number in range(runs.count):
        first, digests = keys.part(number, runs.count)
        mask[first : first + len(digests)] = runs.found(number)
    return runs.finish(Found(int(mask.sum()), mask))


def bucket_party(session: Session, operation: Operation, sizes: Sizes, keys: tables.KeySet) -> Any:
    """The consumer's party of a run: (run, canonical parameters, randomness) -> which keys of its bucket were found."""

    def party(run: int, params: Params, rng: Rng) -> Party[Found]:
        of = buckets.runs_of(params)
        _, digests = keys.part(run, of)
        found = yield from padding.consumer(
            operation.id, params, sizes, digests, rng, executor=session._executor
        )
        assert found is not None and found.mask is not None, (
            "a job of several runs finds rows, for the consumer"
        )
        return found

    return party


def planned(session: Session, sizes: Sizes, asked: Params, job: str | None) -> str:
    """The protocol an interrupted job began with, or the one to begin a new one with."""
    if job is not None:
        return str(session._states.load(job).asked["operation"])
    if "labels" in asked:
        return VOLE
    offered = set((session._catalog or session.catalog()).operations) & {op.id for op in INTERSECTIONS}
    found = planner.plan(
        sizes.consumer,
        sizes.provider,
        output=asked["output"],
        reveal=asked["reveal"],
        protocols=sorted(offered) or None,  # where none is, the node says who could allow one
    )
    return found.protocol


def look_up(
    session: Session,
    dataset: str,
    table: Any,
    *,
    on: On,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredIntersection:
    """See ``Session.lookup``."""
    about = Asked.of(session, dataset, table, on)
    keys, choice = about.keys, about.choice
    if choice.table is None:
        raise ParameterError(f"dataset {dataset!r} offers no lookups on {about.theirs}: use intersect")
    sizes, held = Sizes(len(keys), choice.distinct), session._held(choice)
    fetch = held is None if job is None else bool(session._states.load(job).asked["params"].get("fetch"))
    done = session.compute(
        lookup.OPERATION,
        dataset,
        {"columns": about.theirs, "keys": keys.spec.digest, "table": choice.table, "fetch": fetch},
        sizes,
        lambda params, rng: lookup.consumer(
            params, sizes, keys.digests, held, rng, executor=session._executor
        ),
        input_digest=_digest(keys),
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    if fetch:
        session._hold(choice.table, done.output.table)
    return MeteredIntersection(
        count=done.output.found.count,
        left_rows=rows_found(done.output.found, keys),
        protocol=lookup.OPERATION.id,
        cost=done.cost,
        leakage=done.leakage,
        left=about.table,
        left_keys=keys,
        job=done.job,
        acknowledged=done.acknowledged,
    )


def key_choice(entry: CatalogEntry, columns: Sequence[str]) -> KeyChoice:
    for choice in entry.keys:
        if choice.columns == list(columns):
            return choice
    known = " or ".join(str(choice.columns) for choice in entry.keys)
    raise ParameterError(
        f"dataset {entry.id!r} is matched on {known}, not on {list(columns)}: pass on= accordingly"
    )


def key_spec(choice: KeyChoice) -> tables.KeySpec:
    try:
        return tables.KeySpec.from_json(choice.spec)
    except TableError as error:
        raise RemoteProtocolError(
            f"the node's catalogue has a key specification we cannot read: {error}"
        ) from error
