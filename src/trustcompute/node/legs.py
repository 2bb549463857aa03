"""A star of metered jobs: every leg is an ordinary job of the session with one peer, on a thread of its own.

Called by ``aggregate`` and ``many``. A hub (``protocol.star``) couples the legs with a coordinator. Where all peers are
needed (``together``), nobody is sent anything before every node has opened its job: a refusal by one of them then costs
nothing anywhere.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from trustcompute.errors import InputError, JobInterrupted, ParameterError, TrustcomputeError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Operation, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.protocol.star import Coordinator, Hub, Stopped, TooFew

if TYPE_CHECKING:
    from trustcompute.node.client import Computed
    from trustcompute.node.session import Session

T = TypeVar("T")


@dataclass(frozen=True)
class Leg:
    """What one peer is asked: of the dataset its grant is for. job: an interrupted one to go on with."""

    session: Session
    operation: Operation
    params: Params
    sizes: Sizes
    job: str | None = None


class Legs(Generic[T]):
    """The jobs of one star. ``run``, then ``hub.reasons`` and ``computed``, by peer.

    together: all peers are needed; decisive: the one whose error says it for all, where one is.
    """

    def __init__(
        self,
        legs: Mapping[str, Leg],
        *,
        input_digest: bytes,
        together: bool,
        decisive: str = "",
        purpose: str | None,
        scenario: str | None,
        patience: float,
    ) -> None:
        self.hub: Hub[T] = Hub(list(legs), patience=patience)
        self.computed: dict[str, Computed[None]] = {}
        self._legs, self._input, self._decisive = legs, input_digest, decisive
        self._purpose, self._scenario, self._patience = purpose, scenario, patience
        self._opened = threading.Barrier(len(legs) + 1) if together else None
        self._rngs: dict[str, Rng] = {}

    def run(self, coordinator: Callable[[Mapping[str, Rng]], Coordinator[T]]) -> T:
        """coordinator: from a stream of randomness for every leg, those of the jobs (empty unless ``together``).

        Raises ``TooFew``, or the error of the one peer that failed, its name before it; ``JobInterrupted`` where lines
        broke and all are needed: the jobs are kept, and can go on.
        """
        with ThreadPoolExecutor(len(self._legs), thread_name_prefix="trustcompute-leg") as pool:
            for name in self._legs:
                pool.submit(self._leg, name)
            if self._opened is not None:
                try:
                    self._opened.wait(self._patience)
                except threading.BrokenBarrierError:
                    pass  # the hub says why
                except BaseException:  # an interrupt from the keyboard: nobody waits on
                    self._opened.abort()
                    raise
            try:
                return self.hub.run(coordinator(self._rngs))
            except TooFew:
                causes = {n: one for n, one in self.hub.errors.items() if not isinstance(one, Stopped)}
                if self._decisive in causes:
                    causes = {self._decisive: causes[self._decisive]}
                if len(causes) == 1 or (self._opened is not None and _alike(causes.values())):
                    name, cause = next(iter(causes.items()))
                    raise _named(name, cause) from cause
                raise

    def _leg(self, name: str) -> None:
        one, begun = self._legs[name], list[str]()
        try:
            self.computed[name] = one.session.compute(
                one.operation,
                one.session.grant.asset.id,
                one.params,
                one.sizes,
                lambda params, rng: self._party(name, rng),
                input_digest=self._input,
                purpose=self._purpose,
                scenario=self._scenario,
                job=one.job,
                begun=begun.append,
                ahead=self._opened is not None,
                resumable=self._opened is not None,
            )
        except BaseException as error:
            if self._opened is not None:
                self._opened.abort()
            self.hub.failed(name, error)
            if begun and not self._can_go_on(error):
                with contextlib.suppress(TrustcomputeError):
                    one.session.cancel(begun[0])

    def _party(self, name: str, rng: Rng) -> Party[None]:
        """A leg, once all peers have opened their jobs where all are needed."""
        if self._opened is not None:
            self._rngs[name] = rng
            try:
                self._opened.wait(self._patience)
            except threading.BrokenBarrierError:
                raise Stopped("nothing was begun: another party did not open its job") from None
        return self.hub.leg(name)

    def _can_go_on(self, error: BaseException) -> bool:
        """Nothing but broken lines has stopped a star that needs all: none of its jobs is given up."""
        causes = [one for one in (error, *self.hub.errors.values()) if not isinstance(one, Stopped)]
        return self._opened is not None and all(isinstance(one, JobInterrupted) for one in causes)


def by_name(sessions: Sequence[Session], verb: str) -> dict[str, Session]:
    """Sessions by the names of their nodes, in order. Raises ``ParameterError`` for a node that is there twice."""
    found = {one.grant.aud: one for one in sessions}
    for name in found:
        if sum(one.grant.aud == name for one in sessions) > 1:
            raise ParameterError(f"{name} would {verb} twice: everyone takes part once")
    return dict(sorted(found.items()))


def _alike(causes: Iterable[BaseException]) -> bool:
    """Whether the first of several errors says it for all."""
    kinds = (JobInterrupted, InputError)
    found = list(causes)
    return bool(found) and any(all(isinstance(one, kind) for one in found) for kind in kinds)


def _named(name: str, error: BaseException) -> BaseException:
    """One party's error, its message beginning with its name."""
    if isinstance(error, TrustcomputeError) and name not in str(error):
        error.args = (f"{name}: {error}", *error.args[1:])
    return error
