"""Deciding on a request within a transaction: the policy, credit events, and what the meter has left.

Used by the command that reserves, and by the dry run (``quote``). Changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trustcompute.broker import budget, credit, meter, policy, standing
from trustcompute.broker.grant import MAX_TIME, VerifiedGrant
from trustcompute.broker.meter import Account, Place
from trustcompute.broker.notice import Notice, topics
from trustcompute.broker.policy import Case, Decision, Reason
from trustcompute.broker.request import Request
from trustcompute.broker.store import Touched
from trustcompute.broker.writer import Book
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Operation, Sizes, Usage

MAX_ALLOWED: Final = 1024  # decisions that are remembered, some 3 KB each
_BARRED: Final = "nothing new is allowed to this party: ask the node's operator to repair the credit event"


def touched(grant: VerifiedGrant, claims: Request) -> Touched:
    """What deciding on a request looks at."""
    about = _touched(grant, claims.dataset, claims.asker, claims.recipient, claims.payer)
    return about._replace(jobs=(claims.jti,))


@functools.lru_cache(maxsize=MAX_ALLOWED)
def _touched(grant: VerifiedGrant, dataset: str, asker: str, recipient: str, payer: str) -> Touched:
    """But for the job, which alone differs among most requests."""
    links = tuple(link.hash for link in grant.chain)
    grantees = (link.claims.cnf.jkt for link in grant.chain)
    credits = map(credit.name_of, dict.fromkeys((*grantees, asker, recipient, payer)))
    return Touched(
        grants=links,
        datasets=tuple(dict.fromkeys((dataset, grant.claims.asset.id))),
        notices=(*credits, *(name for link in links for name in topics(link))),
        recipients=(recipient,),
    )


def _parties(grant: VerifiedGrant, claims: Request) -> list[tuple[str, str]]:
    """Whose credit a decision looks at, by the field that names them."""
    named = [("grant", link.claims.cnf.jkt) for link in grant.chain]
    return [*named, ("asker", claims.asker), ("recipient", claims.recipient), ("payer", claims.payer)]


@dataclass(frozen=True, slots=True)
class Decided:
    """usage: the most the job may use; accounts: what it would be debited to, and ``places`` where."""

    decision: Decision
    usage: Usage
    accounts: tuple[Account, ...]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What was allowed, and what that rested on but for the balances: of requests that differ in nothing a rule sees.

    stands: what the book had about grants, parties, the dataset and rules; until: no date passes before.
    """

    decided: Decided
    operation: Operation
    stands: tuple[object, ...]
    day: int
    until: int

    def holds(self, book: Book, operation: Operation, stands: tuple[object, ...]) -> bool:
        return (
            self.operation is operation
            and self.day == book.day
            and book.now < self.until
            and self.stands == stands
            and meter.fits(self.decided.places, book.balances)
        )


def decide(book: Book, grant: VerifiedGrant, claims: Request, operation: Operation) -> Decided:
    """The decision on a request. Changes nothing.

    Revocations, notices, the dataset and balances are read each time. What follows from them is worked out once for
    requests that say the same. Raises ``ParameterError`` for parameters the operation does not take.
    """
    says, stands = _says(grant, claims), _stands(book, grant, claims)
    known = book.allowed.get(says)
    if known is not None and known.holds(book, operation, stands):
        return known.decided
    decided, until = _decided(book, grant, claims, operation)
    if until is not None and decided.decision.allowed:
        if len(book.allowed) >= MAX_ALLOWED:
            book.allowed.clear()
        book.allowed[says] = Allowed(decided, operation, stands, book.day, until)
    return decided


def _says(grant: VerifiedGrant, claims: Request) -> tuple[object, ...]:
    """All of a request that a rule can see: not its id and its dates."""
    return (
        grant.hash,
        claims.op,
        claims.dataset,
        claims.purpose,
        claims.scenario,
        claims.territory,
        claims.san,
        claims.asker,
        claims.recipient,
        claims.payer,
        claims.sizes.consumer,
        canonical.dumps(claims.params) if claims.params else b"",
    )


def _stands(book: Book, grant: VerifiedGrant, claims: Request) -> tuple[object, ...]:
    """All of the book that a decision looks at, but for balances."""
    about = _touched(grant, claims.dataset, claims.asker, claims.recipient, claims.payer)
    revoked, notices = book.revoked_any(about.grants), [book.notice(name) for name in about.notices]
    return book.asset(claims.dataset), book.rules.references, revoked, notices


def _decided(
    book: Book, grant: VerifiedGrant, claims: Request, operation: Operation
) -> tuple[Decided, int | None]:
    """The decision, and until when it holds where nothing but balances changes; ``None``: for this request alone."""
    asset = book.asset(claims.dataset)
    usage, accounts, params = Usage(), grant_accounts(grant), None
    if asset is not None and claims.op == operation.id:
        sizes = Sizes(claims.sizes.consumer, asset.rows)
        params = operation.check(claims.params, sizes)
        usage = operation.bound(params, sizes)
        accounts += budget.accounts(asset, claims.recipient, grant.claims.aud)
    case = Case(
        grant=grant.claims,
        request=claims,
        operation=operation,
        params=params,
        asset=asset,
        standing=standing.of(grant, book.revoked, book.notice),
        now=book.now,
        links=tuple(link.claims for link in grant.chain),
        usage=usage,
        rules=book.rules,
    )
    credits = credit.Standings(book.notice, (party for _, party in _parties(grant, claims)))
    reasons = policy.decide(case)
    if credits.credits:
        named = credits.barred(_parties(grant, claims))
        reasons += [Reason("credit", name, grant.claims.aud, _BARRED) for name in named]
        reasons += _credit_shortfalls(book, grant, credits, accounts, usage)
    reasons += quota_reasons(book, accounts, usage)
    decision = Decision(tuple(reasons), policy.versions(case) | credits.versions())
    decided = Decided(decision, usage, tuple(accounts), meter.places(accounts, usage, book.day))
    dates = (grant.claims.nbf, grant.claims.exp, case.standing.review)
    until = min(date for date in (*dates, MAX_TIME) if date is not None and date > book.now)
    return decided, None if credits.credits else until


def lowered(
    notice: Callable[[str], Notice | None], grant: VerifiedGrant, accounts: list[Account]
) -> list[Account]:
    """The accounts of a chain's links, which come first, as credit events leave them for what is new."""
    grantees = [link.claims.cnf.jkt for link in grant.chain]
    return credit.Standings(notice, grantees).accounts(accounts, grantees)


def _credit_shortfalls(
    book: Book, grant: VerifiedGrant, credits: credit.Standings, accounts: list[Account], usage: Usage
) -> list[Reason]:
    """Where lowered limits refuse what the grants' own would allow."""
    reasons = []
    less = credits.accounts(accounts, [link.claims.cnf.jkt for link in grant.chain])
    known = {
        (short.account.name, short.unit, short.span)
        for short in meter.shortfalls(accounts, usage, book.day, book.balances)
    }
    for short in meter.shortfalls(less, usage, book.day, book.balances):
        if (short.account.name, short.unit, short.span) not in known:
            fix = (
                f"a credit event leaves {short.left} {short.unit}, the job needs {short.asked}: "
                "use less, or ask the node's operator to repair the event"
            )
            reasons.append(Reason("credit", f"limits.{short.unit}.{short.span}", grant.claims.aud, fix))
    return reasons


def grant_accounts(grant: VerifiedGrant) -> list[Account]:
    """The account of every link of its chain: a use of a grant is a use of all it was delegated from."""
    return [
        Account(meter.grant_account(link.hash), link.claims.limits, link.claims.iss) for link in grant.chain
    ]


def quota_reasons(book: Book, accounts: list[Account], usage: Usage) -> list[Reason]:
    """What the meter has against reserving. Figures that tell of others' use are not named."""
    reasons = []
    for short in meter.shortfalls(accounts, usage, book.day, book.balances):
        field = f"limits.{short.unit}.{short.span}"
        if short.account.shared:
            whose = "this recipient's" if short.account.name.startswith("recipient:") else "the dataset's own"
            fix = f"{whose} budget of {short.unit} does not suffice: ask its holder"
        else:
            later = "wait until tomorrow (UTC), " if short.span == "per_day" else ""
            needs = f"the job needs {short.asked} {short.unit}, {short.left} are left"
            fix = f"{needs}: {later}use less, or ask for more"
        reasons.append(Reason("quota", field, short.account.owner, fix))
    return reasons
