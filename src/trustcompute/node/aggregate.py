"""``aggregate``: one sum over the datasets of several nodes, each asked under its own grant. A star of metered jobs.

Every contributor's exchange is an ordinary job of the session with it (``legs``). Its request names the specification,
the session and all parties, so each receipt names the others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from trustcompute.aggregation import masked
from trustcompute.aggregation.operation import OPERATIONS, parameters
from trustcompute.aggregation.result import Aggregate
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import MAX_SPEC, Spec
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I64
from trustcompute.node import legs
from trustcompute.primitives import canonical
from trustcompute.primitives import member as members
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.star import PATIENCE

if TYPE_CHECKING:
    from trustcompute.node.session import Session


@dataclass(frozen=True)
class MeteredAggregate(Aggregate):
    """An aggregate over nodes. session: its id, in every contributor's request; jobs, receipts: by contributor."""

    session: str
    jobs: Mapping[str, str]
    receipts: Mapping[str, Receipt] = field(repr=False)


def aggregate(
    sessions: Sequence[Session],
    spec: Spec,
    *,
    purpose: str | None = None,
    scenario: str | None = None,
    patience: float = PATIENCE,
) -> MeteredAggregate:
    """Add up what the datasets of several nodes hold, with none of them opened by itself.

    sessions: one with each contributor; the dataset is the one its grant is for. We are the aggregator: we learn
    the sums, and bring nothing. purpose, scenario: as for other computations, the same at every contributor.
    patience: seconds everyone has for one message; whoever takes longer has dropped out.

    Contributors that refuse or vanish are named in ``dropped``; the sum is over the others, as long as the threshold is
    left. Raises ``TooFew`` with everyone's reasons, the refusal or error of the one that failed where all are needed,
    ``ParameterError``.
    """
    named = legs.by_name(sessions, "contribute")
    about = Round(spec, tuple(named), os.urandom(16))
    params = parameters(about)
    if len(canonical.dumps(params["spec"])) > MAX_SPEC:
        raise ParameterError(f"over nodes a specification has at most {MAX_SPEC:,} bytes: name fewer groups")
    star: legs.Legs[tuple[I64, tuple[str, ...]]] = legs.Legs(
        OPERATIONS[0],
        {name: legs.Leg(one, params, Sizes(0, 0)) for name, one in named.items()},
        input_digest=hashlib.sha256(about.session).digest(),
        together=False,
        purpose=purpose,
        scenario=scenario,
        patience=patience,
    )
    recognise = partial(members.recognised, sessions[0].authority)
    sums, survivors = star.run(lambda _: masked.aggregator(about, recognise))
    done = {name: star.computed[name] for name in survivors if name in star.computed}
    return MeteredAggregate(
        spec,
        sums,
        survivors,
        dict(star.hub.reasons),
        OPERATIONS[0].id,
        {name: one.cost for name, one in done.items()},
        OPERATIONS[0].leakage(params),
        session=about.session.hex(),
        jobs={name: one.job for name, one in done.items()},
        receipts={name: one.receipt for name, one in done.items()},
    )
