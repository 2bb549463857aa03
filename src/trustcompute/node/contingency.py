"""What a node does when something goes wrong: asks whether to suspend the grant, and tells somebody.

Every grant names the hash of a plan for this; these are the hooks that carry it out. ``notify`` is told every order
that was carried out and every incident. ``suspend`` is asked after every incident of a job (a peer that breaks the
protocol); where it says yes, the node suspends the job's grant with an order of its own. Both run one after the
other in a thread of their own, so a slow hook delays nobody; what they raise is logged and nothing else.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final

from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import hash_of
from trustcompute.broker.order import VerifiedOrder, new_order
from trustcompute.errors import TrustcomputeError

TIMEOUT: Final = 30.0  # seconds that a command may take
MAX_WAITING: Final = 1024  # events; what comes on top is counted in the node's log of messages only

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened. kind: ``grant.suspend`` (or another order), ``incident``; detail: a code, no payload.

    grant: hash; contingency: hash of the grant's plan; by: thumbprint of who ordered it, or name of the peer.
    """

    kind: str
    grant: str
    subject: str
    dataset: str
    contingency: str
    by: str
    detail: str = ""


Notify = Callable[[Event], None]
Suspend = Callable[[Event], bool]


class Contingency:
    """The hooks of one node. Close it with the node."""

    def __init__(self, broker: Broker, notify: Notify | None = None, suspend: Suspend | None = None) -> None:
        self._broker, self._notify, self._suspend = broker, notify, suspend
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="trustcompute-contingency")
        self._waiting = 0

    def ordered(self, order: VerifiedOrder) -> None:
        """An order was carried out."""
        claims = order.link.claims
        event = Event(
            kind=f"grant.{order.claims.do}",
            grant=order.claims.grant,
            subject=claims.sub,
            dataset=claims.asset.id,
            contingency=claims.contingency,
            by=order.claims.iss,
        )
        self._later(self._told, event)

    def incident(self, job: str, peer: str, detail: str) -> None:
        """A peer broke the protocol of a job."""
        if self._notify is not None or self._suspend is not None:
            self._later(self._happened, job, peer, detail)

    def close(self) -> None:
        """Wait for what is running; what waits is given up."""
        self._thread.shutdown(cancel_futures=True)

    def _later(self, do: Callable[..., None], *arguments: object) -> None:
        if self._waiting >= MAX_WAITING:
            log.warning("the contingency hooks cannot keep up: an event was not passed on")
            return
        self._waiting += 1
        self._thread.submit(do, *arguments).add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        self._waiting -= 1
        if not future.cancelled() and future.exception() is not None:
            log.error("a contingency hook failed", exc_info=future.exception())

    def _told(self, event: Event) -> None:
        if self._notify is not None:
            self._notify(event)

    def _happened(self, job: str, peer: str, detail: str) -> None:
        record = self._broker.job(job)
        if record is None:
            return
        chain = self._broker.chain_of(record.grant)
        claims = self._broker.verify(chain).claims
        event = Event("incident", record.grant, claims.sub, claims.asset.id, claims.contingency, peer, detail)
        try:
            if self._suspend is not None and self._suspend(event):
                self._suspend_grant(chain, detail)
        finally:
            self._told(event)

    def _suspend_grant(self, chain: str, detail: str) -> None:
        mine = self._broker.identity
        token = new_order("suspend", hash_of(chain), audience=mine.name, key=mine.key, reason=detail or None)
        try:
            self.ordered(self._broker.order(token, chain))
        except TrustcomputeError as error:  # it does not stand any more, or is suspended already
            log.info("not suspended: %s", error)


@dataclass(frozen=True, slots=True)
class Command:
    """A program as a hook: it gets the event as one JSON document on its standard input.

    As ``suspend`` it says yes by ending with status 0. It is not run through a shell.
    """

    arguments: Sequence[str]
    timeout: float = TIMEOUT

    def __call__(self, event: Event) -> bool:
        done = subprocess.run(  # noqa: S603 - the operator's own program
            list(self.arguments),
            input=json.dumps(asdict(event)).encode(),
            timeout=self.timeout,
            check=False,
            stdout=subprocess.DEVNULL,
        )
        return done.returncode == 0

    def notify(self, event: Event) -> None:
        """As ``notify``: a program that fails is said so in the node's log of messages."""
        if not self(event):
            log.error("the program that is told of %s failed", event.kind)
