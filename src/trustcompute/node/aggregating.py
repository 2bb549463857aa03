"""``aggregate`` over the datasets of several nodes, each asked under its own grant. A star of metered jobs.

Every contributor's exchange is an ordinary job of the session with it (``legs``), and so is the key
holder's. Its request names the specification, the session and all
parties, so each receipt names the others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from trustcompute.aggregation import keyed, masked, threshold
from trustcompute.aggregation.keyed import Roles
from trustcompute.aggregation.operation import HOLDER, KEYED, NOTHING, operation_of, parameters
from trustcompute.aggregation.planner import IDS, SCHEMES, Scheme, cipher_of
from trustcompute.aggregation.result import Aggregate
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import MAX_SPEC, Spec
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I64
from trustcompute.node.legs import Leg, Legs, by_name
from trustcompute.primitives import canonical
from trustcompute.primitives import member as members
from trustcompute.protocol.star import PATIENCE, Coordinator

if TYPE_CHECKING:
    from trustcompute.node.session import Session


@dataclass(frozen=True)
class MeteredAggregate(Aggregate):
    """An aggregate over nodes. session: its id, in every contributor's request; jobs, receipts: by contributor.

    key_holder: who opened it, of a scheme under a key, and the receipt for that.
    """

    session: str
    jobs: Mapping[str, str]
    receipts: Mapping[str, Receipt] = field(repr=False)
    key_holder: str = ""
    opening: Receipt | None = field(repr=False, default=None)


def aggregate(
    sessions: Sequence[Session],
    spec: Spec,
    *,
    scheme: Scheme = "masked",
    key_holder: Session | None = None,
    matched: Mapping[str, str] | None = None,
    purpose: str | None = None,
    scenario: str | None = None,
    patience: float = PATIENCE,
) -> MeteredAggregate:
    """Add up what the datasets of several nodes hold, with none of them opened by itself.

    sessions: one with each contributor; the dataset is the one its grant is for. We are the aggregator: we learn
    the sums, and bring nothing. scheme: ``masked`` or ``rlwe-threshold``; or ``rlwe``, ``rlwe-4096``, ``paillier``,
    ``bfv`` or ``ckks``, with a key_holder: a session of its own with the node that makes the key and opens the sum,
    never our own; it may be one of the contributors. matched: by contributor's name, a finished job of ours with
    ``output="rows"`` and ``reveal="both"`` (``Intersection.job``): only rows that it matched are added up.
    purpose, scenario: as for other computations, the same everywhere.
    patience: seconds everyone has for one message; whoever takes longer has dropped out.

    Contributors that refuse or vanish are named in ``dropped``; the sum is over the others, as long as the threshold is
    left. Raises ``TooFew`` with everyone's reasons, the refusal or error of the one that failed where all are needed,
    ``ParameterError``.
    """
    named = by_name(sessions, "contribute")
    about = Round(spec, tuple(named), os.urandom(16))
    if scheme in _COORDINATORS and key_holder is not None:
        raise ParameterError(f"nobody holds a key in the scheme {scheme!r}: leave key_holder out")
    plan = (
        _together(about, named, scheme, matched)
        if scheme in _COORDINATORS
        else _under_key(about, named, scheme, key_holder, matched)
    )
    if len(canonical.dumps(spec.to_document())) > MAX_SPEC:
        raise ParameterError(f"over nodes a specification has at most {MAX_SPEC:,} bytes: name fewer groups")
    star: Legs[tuple[I64, tuple[str, ...]]] = Legs(
        plan.legs,
        input_digest=hashlib.sha256(about.session).digest(),
        together=False,
        decisive=keyed.LEG,
        purpose=purpose,
        scenario=scenario,
        patience=patience,
    )
    sums, survivors = star.run(lambda _: plan.coordinator)
    done = {name: star.computed[name] for name in survivors if name in star.computed}
    opened = star.computed.get(keyed.LEG)
    operation = operation_of(IDS[scheme])
    return MeteredAggregate(
        spec,
        sums,
        survivors,
        dict(star.hub.reasons),
        operation.id,
        {name: one.cost for name, one in done.items()},
        operation.leakage(plan.legs[about.parties[0]].params),
        session=about.session.hex(),
        jobs={name: one.job for name, one in done.items()},
        receipts={name: one.receipt for name, one in done.items()},
        key_holder=key_holder.grant.aud if key_holder is not None else "",
        opening=None if opened is None else opened.receipt,
    )


@dataclass(frozen=True)
class _Plan:
    about: Round
    legs: Mapping[str, Leg]
    coordinator: Coordinator[tuple[I64, tuple[str, ...]]]


_COORDINATORS: Final = {"masked": masked.aggregator, "rlwe-threshold": threshold.aggregator}


def _together(
    about: Round, sessions: Mapping[str, Session], scheme: Scheme, matched: Mapping[str, str] | None
) -> _Plan:
    """Contributors open the sum together."""
    operation = operation_of(IDS[scheme])
    params = operation.check(parameters(about, matched=matched), NOTHING)
    legs = {name: Leg(session, operation, params, NOTHING) for name, session in sessions.items()}
    recognise = partial(members.recognised, next(iter(sessions.values())).authority)
    return _Plan(about, legs, _COORDINATORS[scheme](about, recognise))


def _under_key(
    about: Round,
    sessions: Mapping[str, Session],
    scheme: Scheme,
    holder: Session | None,
    matched: Mapping[str, str] | None,
) -> _Plan:
    if IDS.get(scheme) not in KEYED:
        raise ParameterError(f"scheme must be one of {', '.join(SCHEMES)}, not {scheme!r}")
    if holder is None:
        raise ParameterError(f"somebody has to open what is encrypted by {scheme!r}: pass key_holder=")
    if any(holder is session for session in sessions.values()):
        raise ParameterError("the key holder needs a session of its own, also where it contributes")
    me = holder._identity
    if any(session._identity.key.public != me.key.public for session in sessions.values()):
        raise ParameterError("all sessions of one aggregate must have one identity: the aggregator's")
    roles = Roles(me.name, me.key.public.x, holder.grant.aud)
    params, operation = parameters(about, roles, matched=matched), operation_of(IDS[scheme])
    legs = {name: Leg(session, operation, params, NOTHING) for name, session in sessions.items()}
    opening = parameters(about, roles, under=operation.id, matched=matched)
    legs[keyed.LEG] = Leg(holder, operation_of(HOLDER), opening, NOTHING)
    recognise = partial(members.recognised, holder.authority)
    return _Plan(about, legs, keyed.aggregator(about, roles, cipher_of(scheme, about.spec), recognise))
