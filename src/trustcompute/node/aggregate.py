"""``aggregate``: one sum over the datasets of several nodes, each asked under its own grant. A star of metered jobs.

Every contributor's exchange is an ordinary job of the session with it, on a thread of its own; a hub couples them
(``protocol.star``). Its request names the specification, the session and all parties, so each receipt names the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from trustcompute.aggregation import masked
from trustcompute.aggregation.operation import OPERATIONS, parameters
from trustcompute.aggregation.result import Aggregate
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import MAX_SPEC, Spec
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import ParameterError, TrustcomputeError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives import canonical
from trustcompute.primitives import member as members
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.star import PATIENCE, Hub, TooFew

if TYPE_CHECKING:
    from trustcompute.node.session import Computed, Session


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
    by_name = {one.grant.aud: one for one in sessions}
    if len(by_name) < len(sessions):
        twice = next(
            one.grant.aud for one in sessions if sum(o.grant.aud == one.grant.aud for o in sessions) > 1
        )
        raise ParameterError(f"{twice} would contribute twice: every contributor takes part once")
    about = Round(spec, tuple(sorted(by_name)), os.urandom(16))
    params = parameters(about)
    if len(canonical.dumps(params["spec"])) > MAX_SPEC:
        raise ParameterError(f"over nodes a specification has at most {MAX_SPEC:,} bytes: name fewer groups")
    star = _Star(about, params, by_name, purpose=purpose, scenario=scenario, patience=patience)
    sums, survivors = star.run()
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


class _Star:
    """The jobs of one aggregate, each on a thread."""

    def __init__(
        self,
        about: Round,
        params: dict[str, object],
        sessions: Mapping[str, Session],
        *,
        purpose: str | None,
        scenario: str | None,
        patience: float,
    ) -> None:
        self.hub: Hub[tuple[I64, tuple[str, ...]]] = Hub(about.parties, patience=patience)
        self.computed: dict[str, Computed[None]] = {}
        self._about, self._params, self._sessions = about, params, sessions
        self._purpose, self._scenario = purpose, scenario

    def run(self) -> tuple[I64, tuple[str, ...]]:
        authority = next(iter(self._sessions.values()))._identity.authority
        recognise = partial(members.recognised, authority)
        with ThreadPoolExecutor(len(self._sessions), thread_name_prefix="trustcompute-aggregate") as pool:
            for name in self._sessions:
                pool.submit(self._leg, name)
            try:
                return self.hub.run(masked.aggregator(self._about, recognise))
            except TooFew:
                causes = list(self.hub.errors.values())
                if len(causes) == 1:
                    raise _named(next(iter(self.hub.errors)), causes[0]) from causes[0]
                raise

    def _leg(self, name: str) -> None:
        session, began = self._sessions[name], list[str]()
        try:
            self.computed[name] = session.compute(
                OPERATIONS[0],
                session.grant.asset.id,
                self._params,
                Sizes(0, 0),
                lambda params, rng: self.hub.leg(name),
                input_digest=hashlib.sha256(self._about.session).digest(),
                purpose=self._purpose,
                scenario=self._scenario,
                began=began.append,
            )
        except BaseException as error:
            self.hub.failed(name, error)
            if began:
                with contextlib.suppress(TrustcomputeError):
                    session.cancel(began[0])


def _named(name: str, error: BaseException) -> BaseException:
    """The one contributor's error, its message beginning with its name."""
    if isinstance(error, TrustcomputeError) and name not in str(error):
        error.args = (f"{name}: {error}", *error.args[1:])
    return error
