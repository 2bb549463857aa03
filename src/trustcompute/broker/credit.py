"""Credit events: what a party's conduct costs it for the time being, and how it is taken back.

The node's operator lowers what a party may use (``tc-credit+jwt``, do ``lower``) and repairs it (do ``repair``, naming
the event). Both are entries of the log; the reason enters as a salted commitment. Nothing is undone: an event holds for
what is reserved after it, open jobs run to their end, and no balance changes.

    bar       nothing new for the party: not as the grantee of any link, nor as asker, recipient or payer
    percent   of every limit of the party's grants, rounded down; what a grant does not limit stays unlimited
    limits    the most of a unit in total, per job and per day, on each of the party's grants

Of several open events each holds for the grants' own limits, so the least counts, and their order does not: what is in
force is what the open ones say. A grant that was delegated is debited to all above it, so lowering a party binds
whatever it has passed on. Called by ``commands``, ``broker`` and ``audit``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field, field_validator

from trustcompute.broker.grant import (
    Count,
    Digest,
    Document,
    Label,
    Limit,
    Name,
    Thumbprint,
    read_claims,
    stated,
)
from trustcompute.broker.meter import Account
from trustcompute.broker.notice import Notice
from trustcompute.broker.request import CLOCK_SKEW, LIFETIME
from trustcompute.broker.store import Evidence, Touched
from trustcompute.broker.writer import Book
from trustcompute.errors import Conflict, GrantError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey
from trustcompute.protocol.operation import UNITS

CREDIT_TYPE: Final = "tc-credit+jwt"
LOWERED: Final = "lowered"  # the state of a notice with open events
RESTORED: Final = "restored"  # of one whose events are all repaired
MAX_OPEN: Final = 64  # events of one party
SPANS: Final = ("total", "per_call", "per_day")


class Ceiling(Document):
    """What one event says. Nothing is left out that would lower nothing: at least one of the three is given."""

    bar: bool = False
    percent: Annotated[int, Field(ge=0, le=99)] | None = None
    limits: dict[str, Limit] = Field(default_factory=dict)

    @field_validator("limits")
    @classmethod
    def _known_units(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        if set(limits) - set(UNITS):
            raise ValueError(f"the units are {', '.join(UNITS)}")
        return limits

    @property
    def empty(self) -> bool:
        return not (self.bar or self.percent is not None or self.limits)

    def says(self) -> dict[str, Any]:
        """What is not left out, for entries and the book."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude_none=True)


class Event(Document):
    """The claims. party: thumbprint of the key; number: grows with each event about the party, milliseconds since 1970;
    ceiling: of a lowering; event: of a repair, the hash of the lowering's token; reason: never in the log in words."""

    iss: Thumbprint
    aud: Name
    party: Thumbprint
    do: Literal["lower", "repair"]
    number: Annotated[Count, Field(ge=1)]
    reason: Label
    ceiling: Ceiling | None = None
    event: Digest | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """An event that holds. event: hash of its token."""

    event: str
    ceiling: Ceiling


@dataclass(frozen=True, slots=True)
class Credit:
    """How a party stands. number, hash: of the last event or repair."""

    party: str
    number: int
    hash: str
    events: tuple[Open, ...]

    @property
    def ceilings(self) -> tuple[Ceiling, ...]:
        return tuple(each.ceiling for each in self.events)


def lower(
    party: str, ceiling: Ceiling, *, reason: str, audience: str, key: SigningKey, number: int = 0
) -> str:
    """A signed event that lowers. Raises ``ParameterError`` naming the claim."""
    return _signed(key, party=party, aud=audience, do="lower", reason=reason, ceiling=ceiling, number=number)


def repair(party: str, event: str, *, reason: str, audience: str, key: SigningKey, number: int = 0) -> str:
    """A signed repair. event: hash of the event's token. Raises ``ParameterError`` naming the claim."""
    return _signed(key, party=party, aud=audience, do="repair", reason=reason, event=event, number=number)


def _signed(key: SigningKey, *, number: int, **claims: Any) -> str:
    number = number or time.time_ns() // 1_000_000
    with stated("credit event"):
        made = Event(iss=key.thumbprint, number=number, **claims)
    return signing.sign(CREDIT_TYPE, made.to_document(), key)


def is_event(token: str) -> bool:
    return token.startswith(signing.header(CREDIT_TYPE).decode() + ".")


def verify(token: str, *, operator: VerifyKey, audience: str, now: int) -> Event:
    """Check form, signature and date. Raises ``GrantError`` with the field."""
    claims, unverified = read_claims(token, CREDIT_TYPE, Event)
    if claims.iss != operator.thumbprint:
        raise GrantError("only the node's operator records credit events", "iss")
    try:
        unverified.verify(operator)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    if claims.aud != audience:
        raise GrantError(f"the event is for {claims.aud}, this node is {audience}", "aud")
    if not now - LIFETIME <= claims.number // 1000 <= now + CLOCK_SKEW:
        raise GrantError("the event is old, or dated in the future: sign a new one", "number")
    lowers = claims.do == "lower"
    if lowers != (claims.ceiling is not None) or lowers == (claims.event is not None):
        raise GrantError("a lowering has a ceiling, a repair names the event it repairs", "do")
    if claims.ceiling is not None and claims.ceiling.empty:
        raise GrantError("the ceiling lowers nothing: give bar, percent or limits", "ceiling")
    return claims


# In the book


def name_of(party: str) -> str:
    """Of the notice that has a party's open events."""
    return f"credit/{party}"


def credit_of(notice: Notice) -> Credit:
    events = [
        Open(each["event"], Ceiling.model_validate(each["ceiling"])) for each in json.loads(notice.token)
    ]
    return Credit(notice.name.partition("/")[2], notice.version, notice.hash, tuple(events))


def text_of(events: Iterable[Open]) -> str:
    """What the notice carries in place of a token."""
    return canonical.dumps(
        [{"event": each.event, "ceiling": each.ceiling.says()} for each in events]
    ).decode()


@dataclass(frozen=True, slots=True)
class Enter:
    """A verified event to the book. The last one again does nothing."""

    claims: Event
    token: str
    hash: str

    @property
    def touched(self) -> Touched:
        return Touched(notices=(name_of(self.claims.party),))

    def apply(self, book: Book) -> None:
        claims = self.claims
        held = book.notice(name_of(claims.party))
        if held is not None and held.hash == self.hash:
            return
        if held is not None and claims.number <= held.version:
            raise GrantError("a newer event about this party was recorded: sign a new one", "number")
        events = [] if held is None else list(credit_of(held).events)
        fields: dict[str, Any] = {"party": claims.party, "by": claims.iss, "token": self.hash}
        if claims.ceiling is not None:
            if len(events) == MAX_OPEN:
                raise Conflict(f"the party has {MAX_OPEN} open events: repair some, or bar it")
            events.append(Open(self.hash, claims.ceiling))
            kind, fields = "credit.lowered", fields | {"ceiling": claims.ceiling.says()}
        else:
            left = [each for each in events if each.event != claims.event]
            if len(left) == len(events):
                raise Conflict("the party has no such open event: it was repaired, or never recorded")
            events = left
            kind, fields = "credit.repaired", fields | {"event": claims.event}
        entry = book.record(kind, fields, {"reason": claims.reason.encode()})
        book.keep(Evidence(self.hash, "credit", self.hash, self.token))
        state = LOWERED if events else RESTORED
        book.put_notice(
            Notice(name_of(claims.party), state, claims.number, self.hash, text_of(events), entry)
        )


# What it comes to


def least(limits: Mapping[str, Limit], ceilings: Iterable[Ceiling]) -> dict[str, Limit]:
    """A grant's limits under all these ceilings, in whatever order."""
    found = dict(limits)
    for ceiling in ceilings:
        if ceiling.percent is not None:
            for unit, own in limits.items():
                found[unit] = _lesser(found[unit], _part(own, ceiling.percent))
        for unit, bound in ceiling.limits.items():
            found[unit] = _lesser(found.get(unit, Limit()), bound)
    return found


def _part(limit: Limit, percent: int) -> Limit:
    spans = {span: getattr(limit, span) for span in SPANS}
    return Limit(**{span: None if most is None else most * percent // 100 for span, most in spans.items()})


def _lesser(one: Limit, other: Limit) -> Limit:
    pairs = {span: (getattr(one, span), getattr(other, span)) for span in SPANS}
    return Limit(
        **{
            span: min((each for each in pair if each is not None), default=None)
            for span, pair in pairs.items()
        }
    )


class Standings:
    """The open events of everybody a decision is about."""

    def __init__(self, notice: Callable[[str], Notice | None], parties: Iterable[str]) -> None:
        found = {party: notice(name_of(party)) for party in parties}
        self.credits = {
            party: credit_of(held)
            for party, held in found.items()
            if held is not None and held.state == LOWERED
        }

    def accounts(self, accounts: list[Account], grantees: Iterable[str]) -> list[Account]:
        """The accounts with lower limits. grantees: of the first accounts, one each; the others stay as they are."""
        found = list(accounts)
        for place, party in enumerate(grantees):
            if party in self.credits:
                old = accounts[place]
                found[place] = Account(
                    old.name, least(old.limits, self.credits[party].ceilings), old.owner, old.shared
                )
        return found

    def barred(self, named: Iterable[tuple[str, str]]) -> Iterator[str]:
        """Fields whose party is barred, each once. named: (field, thumbprint)."""
        fields = {
            field: None
            for field, party in named
            if party in self.credits and any(each.bar for each in self.credits[party].ceilings)
        }
        yield from fields

    def versions(self) -> dict[str, str]:
        return {name_of(party): f"{held.number} {held.hash}" for party, held in sorted(self.credits.items())}
