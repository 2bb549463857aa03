"""``intersect_many``: the rows of ours whose key datasets of several nodes all hold. A star of metered jobs.

Every node is asked under its own grant, meters and records its part; its request names all the others. The leaf's side
is here too (``rows``, ``check_asker``, ``provide``), called by ``computation``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from trustcompute import psi, tables
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import JobInterrupted, ParameterError
from trustcompute.node import legs
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.intersection import key_choice, key_spec
from trustcompute.primitives import member as members
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.protocol.star import PATIENCE
from trustcompute.psi import buckets, star
from trustcompute.psi.ecdh import Found
from trustcompute.psi.intersection import rows_found
from trustcompute.psi.many import OnMany, columns_of_each, total
from trustcompute.psi.star_operation import LEAST_LEAVES, OPERATION, holders

if TYPE_CHECKING:
    from trustcompute.node.documents import KeyChoice
    from trustcompute.node.session import Session


@dataclass(frozen=True, kw_only=True)
class MeteredStar(psi.Intersection):
    """What several nodes hold of ours. session: its id, in every node's request; jobs, receipts: by node."""

    session: str
    jobs: Mapping[str, str]
    receipts: Mapping[str, Receipt] = field(repr=False)


def intersect_many(
    sessions: Sequence[Session],
    table: Any,
    *,
    on: OnMany,
    purpose: str | None = None,
    scenario: str | None = None,
    patience: float = PATIENCE,
    executor: Executor | None = None,
    job: str | None = None,
) -> MeteredStar:
    """Which rows of a table of ours have a key that datasets of two or more nodes all hold (``psi.star.v1``).

    sessions: one with each node; the dataset is the one its grant is for. on: a key column all sides have, several, or
    a list of columns for our table and then for each session's. purpose, scenario: the same at every node.
    patience: seconds everyone has for one message. job: of ``JobInterrupted``, to go on with a star whose lines broke.

    All nodes are needed. Nothing is sent before each of them has opened its job: a refusal costs nothing anywhere.
    Raises what ``Session.intersect`` does, with the node's name; ``TooFew`` with everyone's reasons where several fail.
    """
    if len(sessions) < LEAST_LEAVES:
        raise ParameterError(
            f"a star has {LEAST_LEAVES} or more nodes beside us, not {len(sessions)}: with one, use Session.intersect"
        )
    named = legs.by_name(sessions, "take part")
    columns = columns_of_each(on, len(sessions) + 1)
    theirs = {one.grant.aud: names for one, names in zip(sessions, columns[1:], strict=True)}
    choices = {name: _choice(one, theirs[name]) for name, one in named.items()}
    spec = _agreed_spec(choices)
    table = tables.open_table(table)  # a stream can be read once only, and its rows are wanted again
    keys = tables.keys(table, columns[0], spec=spec, executor=executor)

    session = os.urandom(16).hex() if job is None else job
    asked = {"keys": spec.digest, "parties": list(named), "session": session}
    sizes = {name: Sizes(len(keys), choice.distinct) for name, choice in choices.items()}
    params = {name: OPERATION.check(asked | {"columns": theirs[name]}, of) for name, of in sizes.items()}
    ours = {name: None if job is None else _kept(one, session) for name, one in named.items()}
    jobs: legs.Legs[Found] = legs.Legs(
        {
            name: legs.Leg(one, OPERATION, params[name], sizes[name], ours[name])
            for name, one in named.items()
        },
        input_digest=bytes.fromhex(keys.digest),
        together=True,
        purpose=purpose,
        scenario=scenario,
        patience=patience,
    )
    first = next(iter(named))
    hub = partial(
        star.hub,
        holders(params[first], sizes[first]),
        partial(members.recognised, named[first].authority),
        keys.digests,
        {name: of.provider for name, of in sizes.items()},
        executor=executor,
    )
    try:
        found = jobs.run(hub)
    except JobInterrupted as error:
        raise JobInterrupted(f"{error}; of the star as a whole: pass job={session!r}", session) from error
    return MeteredStar(
        count=found.count,
        left_rows=rows_found(found, keys),
        protocol=OPERATION.id,
        cost=total([one.cost for one in jobs.computed.values()]),
        leakage=OPERATION.leakage(params[first]),
        left=table,
        left_keys=keys,
        session=session,
        jobs={name: one.job for name, one in jobs.computed.items()},
        receipts={name: one.receipt for name, one in jobs.computed.items()},
    )


def _choice(session: Session, columns: Sequence[str]) -> KeyChoice:
    return key_choice(session.entry(session.grant.asset.id), columns)


def _agreed_spec(choices: Mapping[str, KeyChoice]) -> tables.KeySpec:
    """The one key specification of all datasets. Raises ``TableError`` naming the columns that differ."""
    (first, chosen), *others = choices.items()
    spec = key_spec(chosen)
    for name, other in others:
        of_first = [f"{column} of {first}" for column in chosen.columns]
        spec.check_matches(key_spec(other), of_first, [f"{column} of {name}" for column in other.columns])
    return spec


def _kept(session: Session, star_id: str) -> str:
    """Our unfinished job with this node that is a leg of the star."""
    for job in session.unfinished():
        if session.begun(job)["params"].get("session") == star_id:
            return job
    raise ParameterError(
        f"no leg of the star {star_id!r} with {session.grant.aud} is kept here: it is finished, or was begun with"
        " another state="
    )


def rows(held: HeldDataset, params: Params) -> int:
    """The leaf's declared size. Refuses a star that does not name it."""
    keys = held.keys(params["columns"])
    if keys.spec.digest != params["keys"]:
        raise ParameterError("the key specification is not that of the dataset: take it from the catalogue")
    if held.member is None or held.member.name not in params["parties"]:
        raise ParameterError("this node is not one of the parties of the star: name it, or do not ask it")
    return held.declared(params["columns"])


def check_asker(params: Params, name: str, key: VerifyKey) -> None:
    """Refuses a star whose hub is a leaf too: it would have that leaf's seeds."""
    if name in params["parties"]:
        raise ParameterError(f"{name} asks, and cannot be one of the parties: leave it out")


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The leaf's party."""
    assert held.member is not None, "rows has looked"
    keys = buckets.padded(held.keys(params["columns"]).digests, sizes.provider, rng)
    return star.leaf(holders(params, sizes), held.member, keys, rng, executor=executor)
