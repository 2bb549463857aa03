"""What would be decided, and what it would cost: dry runs that spend and record nothing.

Called by ``Broker.explain`` and ``Broker.quote``. From documents, the dataset's description and the meter alone, never
from data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from trustcompute.broker import clearing, credit, deciding, meter, policy
from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.policy import Decision
from trustcompute.broker.request import Request
from trustcompute.broker.writer import Book, Writer
from trustcompute.protocol.operation import Operation, Params, Sizes, Usage


@dataclass(frozen=True, slots=True)
class Quote:
    """What a job may cost. usage: the most it may use; price: of that, exact, in minor units of the currency.

    left: what is left of the grant's limits now, by unit and span (``total``, ``per_call``, ``per_day``).
    """

    usage: Usage
    price: Fraction
    currency: str | None
    left: Mapping[str, Mapping[str, int]]

    def to_document(self) -> dict[str, Any]:
        left = {
            unit: {span: str(amount) for span, amount in spans.items()} for unit, spans in self.left.items()
        }
        usage = meter.usage_document(self.usage)
        return {"usage": usage, "price": str(self.price), "currency": self.currency, "left": left}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would be decided, rule by rule, and what it would cost: ``Broker.explain``."""

    decision: Decision
    quote: Quote

    @property
    def allowed(self) -> bool:
        return self.decision.allowed

    @property
    def reasons(self) -> tuple[policy.Reason, ...]:
        return self.decision.reasons

    def to_document(self) -> dict[str, Any]:
        verdicts = [
            {
                "rule": verdict.rule,
                "allowed": verdict.allowed,
                "kept": verdict.kept,
                "reasons": [reason.to_document() for reason in verdict.reasons],
            }
            for verdict in self.decision.verdicts
        ]
        return {
            "allowed": self.allowed,
            "verdicts": verdicts,
            "versions": dict(self.decision.versions),
            "quote": self.quote.to_document(),
        }


def explain(writer: Writer, verified: VerifiedGrant, asked: Request, operation: Operation) -> Explanation:
    """What ``reserve`` would decide now. Raises ``ParameterError`` for parameters the operation does not take."""
    with writer.view() as (reader, tree):
        book = Book(reader, deciding.touched(verified, asked), writer.now(), tree.size)
        decided = deciding.decide(book, verified, asked, operation)
        own = [account for account in decided.accounts if not account.shared]
        left = meter.left(deciding.lowered(book.notice, verified, own), book.day, book.balances)
    price, usage = verified.claims.price, decided.usage
    return Explanation(decided.decision, Quote(usage, clearing.most(price, usage), price.currency, left))


def quote(
    writer: Writer, verified: VerifiedGrant, operation: Operation, params: Params, sizes: Sizes
) -> Quote:
    """What a job may use and cost, and what is left of the grant. Raises ``ParameterError`` as ``explain``."""
    usage = operation.bound(operation.check(params, sizes), sizes)
    claims = verified.claims
    accounts = deciding.grant_accounts(verified)
    with writer.view() as (reader, _):
        day = meter.day_of(writer.now())
        balances = reader.balances([account.name for account in accounts], [meter.TOTAL, day])
        parties = {link.claims.cnf.jkt for link in verified.chain}
        notices = reader.notices([credit.name_of(party) for party in parties])
    left = meter.left(deciding.lowered(notices.get, verified, accounts), day, balances)
    return Quote(usage, clearing.most(claims.price, usage), claims.price.currency, left)
