"""Netting: from a statement's lines to the payments that settle it; every net position stays what it was.

Between two parties, what they owe each other is set off. Among those who agreed to it (opt-in), all their lines
together are: each has one net position per currency, and at most n - 1 payments settle n of them. Earmarked accounts
(``public:NAME``) are never set off. The gross lines stay in the statement.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from trustcompute.broker import currency as currencies
from trustcompute.broker.clearing.split import PUBLIC
from trustcompute.broker.clearing.statement import Account, Period
from trustcompute.primitives import canonical


class Payment(NamedTuple):
    """payer pays payee amount > 0 minor units."""

    payer: str
    payee: str
    currency: str
    amount: int


@dataclass(frozen=True, slots=True)
class Netting:
    """One run over the lines of a closed period that were neither frozen nor settled before.

    gross: what was due, by line; members: who agreed to multilateral netting; payments: sorted.
    """

    period: Period
    statement: str
    members: tuple[str, ...]
    gross: Mapping[Account, int]
    payments: tuple[Payment, ...]

    def positions(self) -> dict[tuple[str, str], int]:
        """Net amount by (party, currency), from the payments: the same as from the gross lines."""
        return positions(self.payments)

    def to_document(self) -> dict[str, Any]:
        return {
            "start": self.period.start,
            "end": self.period.end,
            "statement": self.statement,
            "members": list(self.members),
            "gross": [
                [*account, canonical.integer(amount)] for account, amount in sorted(self.gross.items())
            ],
            "payments": [[*each[:3], canonical.integer(each.amount)] for each in self.payments],
        }

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical document: what the log records of the run."""
        return hashlib.sha256(canonical.dumps(self.to_document())).hexdigest()

    def instructions(self) -> Iterator[dict[str, str]]:
        """One record per payment, for whoever sends it to a bank. ``id`` repeats only with the same payment."""
        for each in self.payments:
            named = canonical.dumps([self.statement, *each[:3], canonical.integer(each.amount)])
            yield {
                "id": hashlib.sha256(named).hexdigest()[:32],
                "debtor": each.payer,
                "creditor": each.payee,
                "currency": each.currency,
                "amount": currencies.decimal(each.amount, each.currency),
                "reference": f"statement {self.statement[:16]}",
            }


def net(
    period: Period, statement: str, lines: Mapping[Account, int], members: Collection[str] = ()
) -> Netting:
    """Set off what can be. lines: amounts >= 0 or residual corrections of -1; members: of multilateral netting."""
    joined = {member for member in members if not member.startswith(PUBLIC)}
    mutual: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))  # currency -> party -> net
    pairs: dict[tuple[str, str, str], int] = defaultdict(int)
    payments: list[Payment] = []
    for account, amount in lines.items():
        payer, payee, currency = account
        if payer == payee or not amount:
            continue
        if payer in joined and payee in joined:
            net_of = mutual[currency]
            net_of[payer] -= amount
            net_of[payee] += amount
        elif (payer.startswith(PUBLIC) or payee.startswith(PUBLIC)) and amount > 0:
            payments.append(Payment(payer, payee, currency, amount))
        elif payer < payee:
            pairs[payer, payee, currency] += amount
        else:
            pairs[payee, payer, currency] -= amount
    for (one, other, currency), amount in pairs.items():
        if amount:
            payments.append(
                Payment(one, other, currency, amount)
                if amount > 0
                else Payment(other, one, currency, -amount)
            )
    for currency, net_of in mutual.items():
        payments += _match(net_of, currency)
    return Netting(period, statement, tuple(sorted(joined)), dict(lines), tuple(sorted(payments)))


def positions(payments: Iterable[Payment | tuple[str, str, str, int]]) -> dict[tuple[str, str], int]:
    """What each (party, currency) receives less what it pays."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for payer, payee, currency, amount in payments:
        found[payer, currency] -= amount
        found[payee, currency] += amount
    return dict(found)


def _match(net_of: Mapping[str, int], currency: str) -> Iterator[Payment]:
    """The largest debtor pays the largest creditor: each payment settles at least one of them for good."""
    debtors = [(amount, party) for party, amount in net_of.items() if amount < 0]
    creditors = [(-amount, party) for party, amount in net_of.items() if amount > 0]
    heapq.heapify(debtors)
    heapq.heapify(creditors)
    while debtors:
        (owes, debtor), (due, creditor) = heapq.heappop(debtors), heapq.heappop(creditors)
        amount = min(-owes, -due)
        yield Payment(debtor, creditor, currency, amount)
        if -owes > amount:
            heapq.heappush(debtors, (owes + amount, debtor))
        if -due > amount:
            heapq.heappush(creditors, (due + amount, creditor))
