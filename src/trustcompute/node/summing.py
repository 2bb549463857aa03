"""Intersection-sums asked of a node: the bodies of ``Session``'s verbs. The provider's side is ``sums``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trustcompute import psi
from trustcompute.errors import ParameterError
from trustcompute.node.documents import Quote
from trustcompute.node.intersection import Asked
from trustcompute.node.metered import Metered
from trustcompute.node.sums import Summable
from trustcompute.protocol.operation import Sizes
from trustcompute.psi.intersection import On, split_on
from trustcompute.psi.sums import parties
from trustcompute.psi.sums.operation import ID, OPERATION
from trustcompute.psi.sums.result import told
from trustcompute.psi.sums.terms import Noise, Terms

if TYPE_CHECKING:
    from trustcompute.node.session import Session


@dataclass(frozen=True, kw_only=True)
class MeteredSum(psi.IntersectionSum, Metered):
    """An intersection-sum with another organisation: left is this side. ``receipt`` proves what was charged."""


@dataclass(frozen=True)
class SumAsked:
    """values, by, min_group, noise: as ``Session.intersect_sum`` takes them."""

    values: Sequence[str]
    by: str | None
    min_group: int | None
    noise: Noise | None


def intersect_sum(
    session: Session,
    dataset: str,
    table: Any,
    asked: SumAsked,
    *,
    on: On,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredSum:
    """See ``Session.intersect_sum``."""
    about, terms = Asked.of(session, dataset, table, on), _terms(session, dataset, asked)
    keys = about.keys
    sizes = Sizes(len(keys), about.choice.distinct)
    done = session.compute(
        OPERATION,
        dataset,
        {"columns": about.theirs, "keys": keys.spec.digest} | terms.to_document(),
        sizes,
        lambda params, rng: parties.consumer(keys.digests, terms, sizes, rng, session.executor),
        input_digest=bytes.fromhex(keys.digest),
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    return MeteredSum(
        count=told(done.output, terms),
        terms=terms,
        groups=done.output.groups,
        cost=done.cost,
        leakage=done.leakage,
        job=done.job,
        acknowledged=done.acknowledged,
    )


def quote(session: Session, dataset: str, asked: SumAsked, *, rows: int, on: On) -> Quote:
    """See ``Session.quote_sum``."""
    _, theirs = split_on(on)
    return session.quote(
        ID, dataset, rows=rows, columns=theirs, **_terms(session, dataset, asked).to_document()
    )


def _terms(session: Session, dataset: str, asked: SumAsked) -> Terms:
    entry = session.entry(dataset).sums
    if entry is None:
        raise ParameterError(
            f"dataset {dataset!r} offers no sums: ask its holder to name what may be added up"
        )
    offered, least = Summable.of_entry(entry), asked.min_group
    if least is None:
        bounds = session.grant.operations.get(ID)
        least = max(offered.min_group, (bounds.min_group if bounds is not None else None) or 0)
    return offered.terms(asked.values, asked.by, least, asked.noise)
