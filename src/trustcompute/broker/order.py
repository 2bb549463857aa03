"""Orders: signed words about a grant that was given out: suspend, resume, exit, revoke, review.

``tc-order+jwt``. Who may give one about a link of a chain: the node's operator, the issuer of the link, and the
issuers of all links above it; the grantee itself may give its grant up. Orders reach a running node over the network
(``Session.order``, ``trustcompute grant suspend``) from whomever: what counts is the signature. An order that is
older than the last about the same link is refused, so none can be repeated; revoking twice changes nothing.

    suspend   nothing new; open jobs may end       by any of these
    resume    takes it back                        by whoever suspended, or somebody above
    exit      nothing new, for good; ended once no job is open
    revoke    for good; open jobs are stopped at their next step
    review    the next review is due at ``next``
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from trustcompute.broker import standing
from trustcompute.broker.grant import (
    Count,
    Digest,
    Label,
    Name,
    SelfSigned,
    Thumbprint,
    Time,
    VerifiedGrant,
    read_claims,
    read_signed,
    stated,
)
from trustcompute.broker.notice import Notice, topics
from trustcompute.broker.request import CLOCK_SKEW, LIFETIME
from trustcompute.broker.store import Evidence, Touched
from trustcompute.broker.writer import Book
from trustcompute.errors import Conflict, GrantError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey

ORDER_TYPE: Final = "tc-order+jwt"

Do = Literal["suspend", "resume", "exit", "revoke", "review"]
_ENTRIES: Final[dict[Do, str]] = {
    "suspend": "grant.suspended",
    "resume": "grant.resumed",
    "exit": "grant.ending",
    "revoke": "grant.revoked",
    "review": "grant.reviewed",
}
_STATES: Final[dict[Do, str]] = {
    "suspend": standing.SUSPENDED,
    "resume": standing.ACTIVE,
    "exit": standing.ENDING,
    "review": standing.REVIEWED,
}


class Order(SelfSigned):
    """The claims. grant: hash of the link; number: grows, milliseconds since 1970.

    next: of a review, when the next one is due; reason: kept in the log as a salted commitment.
    """

    iss: Thumbprint
    aud: Name
    grant: Digest
    do: Do
    number: Annotated[Count, Field(ge=1)]
    next: Time | None = None
    reason: Label | None = None


@dataclass(frozen=True, slots=True)
class VerifiedOrder:
    """An order whose signer may give it about ``link``; made by ``verify`` only. rank: 0 is the operator."""

    claims: Order
    token: str
    hash: str
    link: VerifiedGrant
    rank: int


def new_order(
    do: Do,
    grant: str,
    *,
    audience: str,
    key: SigningKey,
    reason: str | None = None,
    next_review: int | None = None,
    number: int | None = None,
) -> str:
    """A signed order. grant: hash of the link (``grant.hash_of``). Raises ``ParameterError`` naming the claim."""
    with stated("order"):
        claims = Order(
            iss=key.thumbprint,
            key=key.public.x,
            aud=audience,
            grant=grant,
            do=do,
            number=time.time_ns() // 1_000_000 if number is None else number,
            next=next_review,
            reason=reason,
        )
    return signing.sign(ORDER_TYPE, claims.to_document(), key)


def verify(token: str, *, grant: VerifiedGrant, operator: str, audience: str, now: int) -> VerifiedOrder:
    """Check an order about a link of ``grant``. operator: thumbprint. Raises ``GrantError`` with the field."""
    claims, key = read_signed(token, ORDER_TYPE, Order)
    if key.thumbprint != claims.iss:
        raise GrantError("the key is not that of the issuer", "key")
    if claims.aud != audience:
        raise GrantError(f"the order is for {claims.aud}, this node is {audience}", "aud")
    link = next((each for each in grant.chain if each.hash == claims.grant), None)
    if link is None:
        raise GrantError("the order is about another grant than the one that came with it", "grant")
    seconds = claims.number // 1000
    if not now - LIFETIME <= seconds <= now + CLOCK_SKEW:
        raise GrantError(
            "the order is old, or dated in the future: sign a new one, compare the clocks", "number"
        )
    if (claims.do == "review") != (claims.next is not None):
        raise GrantError("a review, and nothing else, says when the next one is due", "next")
    if claims.next is not None and not now < claims.next <= link.claims.exp:
        raise GrantError("the next review is due before the grant ends, and not in the past", "next")
    return VerifiedOrder(claims, token, signing.token_hash(token), link, _rank(claims, link, operator))


def _rank(claims: Order, link: VerifiedGrant, operator: str) -> int:
    found = rank(claims.iss, link, (operator,))
    if found is not None:
        return found
    if claims.do == "exit" and claims.iss == link.claims.cnf.jkt:
        return len(link.chain) + 1
    raise GrantError(
        "only the node's operator and the issuers of this grant and of those above may order this", "iss"
    )


def rank(signer: str, link: VerifiedGrant, operators: Collection[str]) -> int | None:
    """0 for the operator, 1 for the root's issuer, and so on downwards; ``None`` for everybody else."""
    if signer in operators:
        return 0
    for place, each in enumerate(reversed(link.chain), start=1):
        if each.claims.iss == signer:
            return place
    return None


@dataclass(frozen=True, slots=True)
class Give:
    """An order to the book. The same order again does nothing."""

    order: VerifiedOrder
    operators: tuple[str, ...]  # the operator's key, and those it had before

    @property
    def touched(self) -> Touched:
        return Touched(grants=tuple(link.hash for link in self.order.link.chain))

    def apply(self, book: Book) -> None:
        claims = self.order.claims
        if claims.do == "revoke":
            if not book.revoked(claims.grant):
                book.put_revocation(claims.grant, self._record(book))
            return
        name = topics(claims.grant)[claims.do == "review"]
        held = book.notice(name)
        if held is not None and held.hash == self.order.hash:
            return
        if book.revoked(claims.grant):
            raise Conflict("the grant was revoked for good")
        if claims.next is not None:
            self._review(book, name, claims.next, held)
        else:
            self._stand(book, name, held)

    def _review(self, book: Book, name: str, date: int, held: Notice | None) -> None:
        due = self.order.link.claims.review if held is None else held.version
        if due is None or date <= due:
            raise GrantError("a review puts a date later that the grant has", "next")
        entry = self._record(book, next=date)
        book.put_notice(Notice(name, standing.REVIEWED, date, self.order.hash, self.order.token, entry))

    def _stand(self, book: Book, name: str, held: Notice | None) -> None:
        claims = self.order.claims
        state = standing.ACTIVE if held is None else held.state
        if held is not None and claims.number <= held.version:
            raise GrantError("a newer order about this grant was given: sign a new one", "number")
        if state in (standing.ENDING, standing.ENDED):
            raise Conflict("the grant was given up for good")
        if claims.do == "suspend" and state == standing.SUSPENDED:
            raise Conflict("the grant is suspended already")
        if claims.do == "resume":
            self._may_resume(held)
        entry = self._record(book)
        book.put_notice(
            Notice(name, _STATES[claims.do], claims.number, self.order.hash, self.order.token, entry)
        )

    def _may_resume(self, held: Notice | None) -> None:
        if held is None or held.state != standing.SUSPENDED:
            raise Conflict("the grant is not suspended")
        suspended_by = rank(read(held.token).iss, self.order.link, self.operators)
        if suspended_by is not None and self.order.rank > suspended_by:
            raise GrantError(
                "it was suspended by somebody above: only they, or those above them, resume it", "iss"
            )

    def _record(self, book: Book, **more: int) -> int:
        claims = self.order.claims
        fields: dict[str, Any] = {"grant": claims.grant, "by": claims.iss, "order": self.order.hash, **more}
        book.keep(Evidence(self.order.hash, "order", self.order.hash, self.order.token))
        return book.record(_ENTRIES[claims.do], fields, {"reason": (claims.reason or "").encode()})


@dataclass(frozen=True, slots=True)
class End:
    """A grant that was given up has ended: no job is open under it or under what was delegated from it.

    That is for the caller to look up after the order is in the book, since when no new job can have been opened.
    """

    grant: str

    @property
    def touched(self) -> Touched:
        return Touched(grants=(self.grant,))

    def apply(self, book: Book) -> bool:
        name = topics(self.grant)[0]
        held = book.notice(name)
        if held is None or held.state != standing.ENDING:
            return False
        entry = book.record("grant.ended", {"grant": self.grant})
        book.put_notice(Notice(name, standing.ENDED, held.version, held.hash, held.token, entry))
        return True


def read(token: str) -> Order:
    """The claims, without any check of the signature."""
    return read_claims(token, ORDER_TYPE, Order)[0]
