"""The life of one job, as the book keeps it.

    reserved → armed → posted | forfeited          reserved → posted | voided | expired

A one-turn protocol posts directly. A denied request is kept as a job too, so that its repetition is
answered with the same refusal and logged once. States on the right are final. Read by the node, written by
``writer`` alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from trustcompute.broker.policy import Reason
from trustcompute.broker.rules import Reference
from trustcompute.errors import LocalProtocolError
from trustcompute.protocol.operation import Usage

MAX_TURNS: Final = 10**7
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


class JobState(StrEnum):
    RESERVED = "reserved"
    ARMED = "armed"
    POSTED = "posted"
    FORFEITED = "forfeited"
    VOIDED = "voided"
    EXPIRED = "expired"
    DENIED = "denied"


OPEN: Final = frozenset({JobState.RESERVED, JobState.ARMED})


class Fault(StrEnum):
    """Whose doing it is that a job failed after it was armed. Only the peer's own fault is billed."""

    PEER = "peer"
    PROVIDER = "provider"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Release:
    """One turn that lets the peer compute some of its output, as it lies in the outbox or, if small, in the book.

    frames_hash: SHA-256 (hex) of the turn's frames, what the consumer countersigns; transcript: hex, after
    this turn; outbox: name of the file that holds the frames.
    """

    run: int
    turn: int
    frames_hash: str
    transcript: str
    outbox: str

    def __post_init__(self) -> None:
        if not _DIGEST.match(self.frames_hash) or not _DIGEST.match(self.transcript):
            raise LocalProtocolError("a release names its frames and its transcript by SHA-256 in hex")
        if not 0 <= self.run < MAX_TURNS or not 0 <= self.turn < MAX_TURNS or len(self.outbox) > 255:
            raise LocalProtocolError(f"a release's run and turn lie in 0..{MAX_TURNS - 1}")


class JobRecord(NamedTuple):
    """One job; a tuple, for three are made of each.

    request, grant: hashes of tokens; subject to payer: thumbprints; peer: TLS name; key: JWK x;
    accounts: what its use is debited to; window: UTC day of the reservation; reserved, charged: usage;
    lease: time (seconds) until which the reservation holds or, once posted, the answers are kept; entry,
    countersigned: indexes in the log; rules: the deny-lists and policies that the decision was made by.
    """

    id: str
    state: JobState
    request: str
    grant: str
    subject: str
    asker: str
    recipient: str
    payer: str
    peer: str
    key: str
    operation: str
    dataset: str
    purpose: str
    accounts: tuple[str, ...]
    window: int
    reserved: Usage
    lease: int
    charged: Usage | None = None
    releases: tuple[Release, ...] = ()
    reasons: tuple[Reason, ...] = ()
    detail: str = ""
    fault: Fault | None = None
    entry: int | None = None
    countersigned: int | None = None
    rules: tuple[Reference, ...] = ()

    @property
    def open(self) -> bool:
        return self.state in OPEN

    @property
    def terms(self) -> tuple[object, ...]:
        """What entries say of a job but its id and request."""
        parties = (self.asker, self.recipient, self.payer)
        return (self.grant, *parties, self.operation, self.dataset, self.purpose, self.rules)

    def release_of(self, run: int, turn: int) -> Release | None:
        return next(
            (release for release in self.releases if (release.run, release.turn) == (run, turn)), None
        )

    def but(self, **changes: Any) -> JobRecord:
        """The record with these fields changed."""
        return self._replace(**changes)
