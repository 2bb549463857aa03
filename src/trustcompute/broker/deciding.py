"""Deciding on a request within a transaction: the policy, credit events, and what the meter has left.

Used by the command that reserves, and by the dry run (``quote``). Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from trustcompute.broker import budget, credit, meter, policy, standing
from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.meter import Account
from trustcompute.broker.notice import Notice
from trustcompute.broker.policy import Case, Decision, Reason
from trustcompute.broker.request import Request
from trustcompute.broker.writer import Book, Touched
from trustcompute.protocol.operation import Operation, Sizes, Usage

_BARRED: Final = "nothing new is allowed to this party: ask the node's operator to repair the credit event"


def touched(grant: VerifiedGrant, claims: Request) -> Touched:
    """What deciding on a request looks at."""
    datasets = {claims.dataset, grant.claims.asset.id}
    links = tuple(link.hash for link in grant.chain)
    return Touched(
        jobs=(claims.jti,),
        grants=links,
        datasets=tuple(sorted(datasets)),
        notices=tuple(
            credit.name_of(party) for party in sorted({party for _, party in _parties(grant, claims)})
        ),
        recipients=(claims.recipient,),
    )


def _parties(grant: VerifiedGrant, claims: Request) -> list[tuple[str, str]]:
    """Whose credit a decision looks at, by the field that names them."""
    named = [("grant", link.claims.cnf.jkt) for link in grant.chain]
    return [*named, ("asker", claims.asker), ("recipient", claims.recipient), ("payer", claims.payer)]


def decide(
    book: Book, grant: VerifiedGrant, claims: Request, operation: Operation
) -> tuple[Decision, Usage, list[Account]]:
    """The decision, the most the job may use, and what it would be debited to. Changes nothing.

    Raises ``ParameterError`` for parameters the operation does not take.
    """
    asset = book.asset(claims.dataset)
    usage, accounts, params = Usage(), [grant_account(link) for link in grant.chain], None
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
    return Decision(tuple(reasons), policy.versions(case) | credits.versions()), usage, accounts


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


def grant_account(grant: VerifiedGrant) -> Account:
    return Account(meter.grant_account(grant.hash), grant.claims.limits, grant.claims.iss)


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
