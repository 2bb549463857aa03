"""Statistics at a node (``verify.statistics.v1``): the body of ``Session.statistics``, and the provider's side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trustcompute.errors import ParameterError, Refused, RemoteProtocolError
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.metered import Metered
from trustcompute.primitives.identity import Identity, peer_key, verify_certificate
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.verification.statistical import operation, parties, terms
from trustcompute.verification.statistical.answer import Statistics
from trustcompute.verification.statistical.parties import Promise
from trustcompute.verification.statistical.tabulator import Tabulator

if TYPE_CHECKING:
    from trustcompute.node.session import Session


@dataclass(frozen=True, eq=False)
class MeteredStatistics(Statistics, Metered):
    """Statistics of another organisation's table. ``receipt`` proves offline what was charged."""


def ask(
    session: Session,
    dataset: str,
    sums: str | Sequence[str],
    by: str | Sequence[str],
    *,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredStatistics:
    """``Session.statistics``."""
    promise = _promise(session, dataset)
    names = [by] if isinstance(by, str) else list(by)
    added = [sums] if isinstance(sums, str) else list(sums)
    params = operation.parameters(promise.terms, promise.id, names, added)
    done = session.compute(
        operation.OPERATION,
        dataset,
        params,
        Sizes(0, 0),
        lambda params, rng: parties.consumer(promise, params),
        input_digest=hashlib.sha256(b"").digest(),
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    return MeteredStatistics(
        promise.terms,
        tuple(names),
        tuple(params["sums"]),
        done.output,
        done.cost,
        done.leakage,
        operation.STATISTICS,
        job=done.job,
        acknowledged=done.acknowledged,
    )


def tabulator(held: HeldDataset, identity: Identity, directory: Path) -> Tabulator | None:
    """What tells a dataset's statistics, if it publishes any. directory: where it is remembered what was told."""
    d = held.dataset
    if d.statistics is None:
        return None
    name = hashlib.sha256(f"{d.id}\n{d.version}".encode()).hexdigest()[:32]
    return Tabulator(
        held.table,
        d.statistics,
        identity.key,
        dataset=d.id,
        version=d.version,
        path=directory / f"told-{name}",
    )


def rows(held: HeldDataset, params: Params) -> int:
    """0: how many rows there are is for the answer to say. Refuses what is not published, and what earlier answers rule
    out."""
    found = _published(held)
    if params["terms"] != found.id:
        raise ParameterError("the terms of statistics are others by now: read the catalogue again")
    if operation.parameters(found.terms, found.id, params["by"], params["sums"]) != params:
        raise ParameterError("cells and min_group must be those of the terms: see the catalogue")
    found.admit(params["by"])
    return 0


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party."""
    found = _published(held)
    return parties.provider(params, lambda: found.tell(params["by"], params["sums"]), found.signer)


def _published(held: HeldDataset) -> Tabulator:
    if held.tabulator is None:
        raise Refused(
            f"dataset {held.dataset.id!r} publishes no statistics",
            rule="statistics",
            field="dataset",
            owner="the node's operator",
            fix="ask the operator to publish some, or for a release with noise (dp.release.v1)",
        )
    return held.tabulator


def _promise(session: Session, dataset: str) -> Promise:
    """What the holder publishes, its signature checked."""
    entry = session.entry(dataset)
    if entry.statistics is None:
        raise ParameterError(f"dataset {dataset!r} publishes no statistics")
    holder = peer_key(verify_certificate(session.certificate, session.authority))
    said = terms.verify(entry.statistics, holder)
    if (said.dataset, said.version) != (entry.id, entry.version):
        raise RemoteProtocolError("the catalogue shows the terms of another dataset")
    return Promise(token_hash(entry.statistics), said, holder)
