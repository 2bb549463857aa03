"""One job as its provider runs it: the only place where a computation meets the meter.

    take the peer's turn → arm → let the party work → outbox and charge → the frames may leave

Arming comes before the party first touches data; the charge comes before the first frame from which the peer could
compute output, and the frames are durable before the charge. A failure before arming costs nothing; after it,
the reservation is forfeited, billed only where the fault is the peer's.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from trustcompute.broker import Broker, Release
from trustcompute.errors import Refused, RemoteProtocolError, StoreError, TransportError
from trustcompute.protocol.message import Frame, frame_digest
from trustcompute.protocol.operation import Usage
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Incoming, Runner, Taken, Turn, take_again
from trustcompute.protocol.transcript import Binding


class ProviderJob:
    """A running job. ``answer`` is idempotent: the same turn with the same bytes gets the same frames."""

    def __init__(
        self,
        broker: Broker,
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
        self._runner = Runner(party, binding, leads=False, job=job, before_send=self._before_send)
        self._armed = self._posted = False

    @property
    def ended(self) -> bool:
        return self._runner.failed or (self._runner.done and self._posted)

    def answer(self, number: int, incoming: Iterable[Incoming]) -> Sequence[Frame]:
        with self.lock:
            try:
                self._runner.take(number, incoming)
                if not self._armed:
                    self._broker.arm(self.id)
                    self._armed = True
                return self._runner.give().frames
            except RemoteProtocolError as error:
                self._broker.incident("protocol", peer=self.peer, job=self.id, detail=error.code)
                self._fail("peer")
                raise
            except (Refused, TransportError, StoreError):
                raise  # the broker has decided, or the peer may try the same turn again
            except BaseException:
                self._fail("provider")
                raise

    def _before_send(self, turn: Turn) -> None:
        if self._posted or not (turn.releases or self._runner.done):
            return
        if self._runner.done:
            self._deliver(self._runner.result)
        stored = store_answer(self._broker, self.id, turn, self._runner.taken)
        release = Release(
            run=0, turn=turn.number, frames_hash=turn.digest, transcript=turn.transcript, outbox=stored
        )
        self._broker.post(self.id, usage=self._usage, release=release)
        self._posted = True

    def _fail(self, fault: str) -> None:
        if not self._runner.failed or self._posted:
            return
        if self._armed:
            self._broker.forfeit(self.id, reason="the run failed", fault=fault)
        else:
            self._broker.void(self.id, reason="the run failed before data were touched")
