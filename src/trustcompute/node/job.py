"""One job as its provider runs it: the only place where a computation meets the meter.

    take the peer's turn → arm, before the party starts → outbox and charge → the frames may leave → deliver

Arming comes before the party first works; the charge comes before the first frame from which the peer could
compute output, and the frames are durable before the charge; what the computation reveals to this side is
delivered after it. A failure before arming costs nothing; after it, the reservation is forfeited, billed only
where the fault is the peer's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from trustcompute.broker.broker import Broker
from trustcompute.broker.job import Fault, Release
from trustcompute.broker.outbox import file_name
from trustcompute.errors import Refused, RemoteProtocolError, StoreError, TransportError
from trustcompute.node.answers import pack
from trustcompute.protocol.message import Frame
from trustcompute.protocol.operation import Usage
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Incoming, Runner, Turn
from trustcompute.protocol.transcript import Binding

RUN: Final = 0  # this computation has one run


class ProviderJob:
    """A running job. ``answer`` is idempotent: the same turn with the same bytes gets the same frames."""

    def __init__(
        self,
        broker: Broker,
        *,
        job: str,
        peer: str,
        party: Party[Any],
        binding: Binding,
        usage: Usage,
        deliver: Callable[[Any], None],
    ) -> None:
        self.id, self.peer = job, peer
        self.lock = threading.Lock()
        self._broker, self._usage, self._deliver = broker, usage, deliver
        self._runner = Runner(
            party,
            binding,
            leads=False,
            job=job,
            before_start=lambda: broker.arm(job),
            before_send=self._before_send,
        )
        self._posted = self._delivered = False
        self.failed = False  # it cannot go on
        self.stale = False  # it had ended when the node last swept

    @property
    def ended(self) -> bool:
        """Nothing is left to do but to answer the last turn once more, should it get lost."""
        return self.failed or (self._runner.done and self._posted)

    def answer(self, number: int, incoming: Iterable[Incoming]) -> Sequence[Frame]:
        with self.lock:
            try:
                self._runner.take(number, incoming)
                turn = self._runner.give()
                self._deliver_result()
                return turn.frames
            except RemoteProtocolError:
                self._fail(Fault.PEER)
                raise
            except (Refused, TransportError, StoreError):
                raise  # the broker has decided, or the peer may try the same turn again
            except BaseException:
                self.failed = True
                self._fail(Fault.PROVIDER)
                raise

    def _before_send(self, turn: Turn) -> None:
        if self._posted or not (turn.releases or self._runner.done):
            return
        self._broker.outbox.write(self.id, RUN, turn.number, pack(turn, self._runner.taken))
        release = Release(
            run=RUN,
            turn=turn.number,
            frames_hash=turn.digest,
            transcript=turn.transcript,
            outbox=file_name(self.id, RUN, turn.number),
        )
        self._broker.post(self.id, release=release, usage=self._usage)
        self._posted = True

    def _deliver_result(self) -> None:
        if self._runner.done and not self._delivered:
            self._delivered = True
            self._deliver(self._runner.result)

    def _fail(self, fault: Fault) -> None:
        self.failed |= self._runner.failed
        if self.failed and not self._posted:
            self._broker.abandon(self.id, "the run failed", fault)
