"""What the book can be told about money; run by the one writer, made by ``house``.

What may be entered depends on what follows from the log: each asks the house's ``fold``, which reads what is new (a
fold of its own reads it all). A refusal leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from trustcompute.broker import currency as currencies
from trustcompute.broker.clearing import split
from trustcompute.broker.clearing.agreement import VerifiedAgreement
from trustcompute.broker.clearing.claims import DisputeClaim, RevenueClaim
from trustcompute.broker.clearing.fold import Fold
from trustcompute.broker.clearing.netting import Netting
from trustcompute.broker.clearing.statement import Account, Period, Posting, Statement, closing_entries, cut
from trustcompute.broker.grant import Grant
from trustcompute.broker.store import NOTHING, Evidence, Touched
from trustcompute.broker.writer import Book, Command
from trustcompute.errors import Conflict, GrantError, ParameterError
from trustcompute.primitives import canonical, signing


@dataclass(frozen=True, slots=True)
class EnterAgreement:
    """From its entry on, grants of its asset to its consumer are issued on its plan; the same again does nothing."""

    agreement: VerifiedAgreement
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> str:
        made, claims = self.agreement, self.agreement.claims
        record = self.fold.at(book)
        known = record.agreements.get((claims.subject, claims.asset))
        if known is not None and known.agreement == made.hash:
            return made.hash
        if known is not None and known.made >= claims.iat:
            raise ParameterError("a later agreement about this asset was entered: agree anew")
        if not claims.iat <= book.now < claims.exp:
            raise GrantError("the agreement has ended, or is dated in the future", "exp")
        record.common.with_plan(claims.price, claims.split).check()
        fields = {
            "agreement": made.hash,
            "quote": claims.quote,
            "appraisals": list(claims.appraisals),
            "acceptance": made.acceptance,
            "plan": made.plan,
            "subject": claims.subject,
            "asset": claims.asset,
            "iat": claims.iat,
            "exp": claims.exp,
        }
        book.record("agreement.entered", fields)
        book.keep(Evidence(made.hash, "agreement", made.hash, made.token))
        return made.hash


@dataclass(frozen=True, slots=True)
class Priced:
    """Issue a grant whose plan is the agreed one, if one was agreed, and keeps exact amounts coarse enough."""

    claims: Grant
    issue: Command
    fold: Fold

    @property
    def touched(self) -> Touched:
        return self.issue.touched

    def apply(self, book: Book) -> object:
        record, claims = self.fold.at(book), self.claims
        record.common.with_plan(claims.price, claims.split).check()
        record.check_agreement(claims.cnf.jkt, claims.asset.id, claims.price, claims.split, book.now)
        return self.issue.apply(book)


@dataclass(frozen=True, slots=True)
class ClosePeriod:
    """Round what is owed for a period and record it; the same period again gives its statement."""

    period: Period
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> Statement:
        record = self.fold.at(book)
        statement = record.statement(self.period)
        if statement.closed:
            return statement
        if self.period.end > book.now:
            raise ParameterError(f"a period can be closed when it is over, not before {self.period.end}")
        record.check_pools(statement)
        parts, closing = closing_entries(statement)
        for part in parts:
            book.record("period.lines", part)
        book.record("period.closed", closing)
        return statement.as_closed()


@dataclass(frozen=True, slots=True)
class OpenDispute:
    """Hold back, or freeze, what some entries bill. by: thumbprint of who signed the token."""

    claims: DisputeClaim
    by: str
    token: str
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> str:
        record, name = self.fold.at(book), signing.token_hash(self.token)
        if name in record.disputes:
            return name
        for index in self.claims.entries:
            if self.by not in record.parties(record.disputable(index)):
                raise GrantError(f"the signer neither pays nor shares what entry {index} bills", "entries")
        fields = {"dispute": name, "by": self.by, "entries": list(self.claims.entries)}
        book.record("dispute.opened", fields, {"reason": self.claims.reason.encode()})
        book.keep(Evidence(name, "dispute", name, self.token))
        return name


@dataclass(frozen=True, slots=True)
class SettleDispute:
    """Let a part of what is disputed stand: 1 all, 0 nothing; what was billed beyond it comes back."""

    dispute: str
    owed: Fraction
    reason: str
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> list[Posting]:
        record = self.fold.at(book)
        dispute = record.disputes.get(self.dispute)
        if dispute is None:
            raise ParameterError("the log knows no such dispute: name it by its hash")
        if dispute.owed is not None:
            raise Conflict(
                f"the dispute was settled: {dispute.owed} of it stands; an adjustment can correct that"
            )
        record.common.with_part(self.owed).check()
        back = record.reversal(dispute, self.owed)
        fields = {"dispute": self.dispute, "owed": str(self.owed)}
        book.record("dispute.settled", fields, {"reason": self.reason.encode()})
        for posting in back:
            book.record(
                "adjustment.posted", _adjustment(posting.account, posting.amount) | {"dispute": self.dispute}
            )
        return back


@dataclass(frozen=True, slots=True)
class Adjust:
    """Post an amount that follows from no use: a correction, a refund, a penalty. refers: to an entry, if to one."""

    account: Account
    amount: Fraction
    reason: str
    refers: int | None
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> int:
        currencies.check(self.account.currency)
        if self.amount <= 0:
            raise ParameterError("an adjustment is positive: to give back, swap payer and payee")
        if self.account.payer == self.account.payee:
            raise ParameterError("nobody owes anything to themselves")
        self.fold.at(book).common.with_amount(self.amount).check()
        if self.refers is not None and not 0 <= self.refers < book.size:
            raise ParameterError(f"the log has {book.size} entries, none with index {self.refers}")
        fields = _adjustment(self.account, self.amount)
        if self.refers is not None:
            fields["refers"] = self.refers
        return book.record("adjustment.posted", fields, {"reason": self.reason.encode()})


@dataclass(frozen=True, slots=True)
class WeighPool:
    """How a pool is shared for one period; once, before it is closed. evidence: hash of what it rests on."""

    pool: str
    period: Period
    weights: Mapping[str, Fraction]
    method: str
    evidence: str | None
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> int:
        split.check_weights(self.weights)
        if not self.pool.startswith(split.POOL):
            raise ParameterError(f"a pool is named {split.POOL}NAME, as in the split of its grants")
        record = self.fold.at(book)
        record.common.with_weights(self.weights.values()).check()
        if (self.pool, self.period) in record.weights:
            raise ParameterError(
                f"{self.pool} was weighed for this period: weights do not change, adjust instead"
            )
        if record.closings and self.period.start < record.closings[-1].period.end:
            raise ParameterError(f"the log is closed until {record.closings[-1].period.end}")
        fields = {
            "pool": self.pool,
            "start": self.period.start,
            "end": self.period.end,
            "method": self.method,
            "weights": [[party, str(weight)] for party, weight in sorted(self.weights.items())],
        }
        return book.record("pool.weighed", fields | ({"evidence": self.evidence} if self.evidence else {}))


@dataclass(frozen=True, slots=True)
class DeclareRevenue:
    """The grantee's own figure, of which its plan takes a share. by: thumbprint of who signed the token."""

    claims: RevenueClaim
    by: str
    token: str
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> int:
        claims = self.claims
        record = self.fold.at(book)
        terms = record.terms.get(claims.grant)
        if terms is None or terms.price.rate is None:
            raise GrantError("the log knows no such grant with a share of revenue", "grant")
        if self.by != terms.grantee:
            raise GrantError("the grantee declares its revenue, nobody else", "key")
        if claims.iat > book.now:
            raise GrantError("the declaration is dated in the future: compare the two clocks", "iat")
        if record.overlapping(claims.grant, Period(claims.start, claims.end)):
            raise GrantError("revenue of a part of this time was declared before: adjust it instead", "start")
        name = signing.token_hash(self.token)
        book.keep(Evidence(name, "revenue", name, self.token))
        return book.record(
            "revenue.declared",
            {
                "grant": claims.grant,
                "start": claims.start,
                "end": claims.end,
                "amount": canonical.integer(claims.amount),
                "declaration": name,
            },
        )


@dataclass(frozen=True, slots=True)
class Net:
    """Record the payments for what is due of a closed period. members: who agreed to multilateral netting."""

    period: Period
    members: tuple[str, ...]
    fold: Fold = field(default_factory=Fold)
    touched: Touched = NOTHING

    def apply(self, book: Book) -> Netting:
        made = self.fold.at(book).netting(self.period, self.members)
        if not made.gross:
            raise ParameterError(
                "nothing of this period is due: its lines are paid, or frozen by open disputes"
            )
        rows = ([*each[:3], canonical.integer(each.amount)] for each in made.payments)
        for number, part in enumerate(cut(rows)):
            book.record("netting.payments", {"part": number, "lines": part})
        book.record(
            "netting.run",
            {
                "start": self.period.start,
                "end": self.period.end,
                "statement": made.statement,
                "members": list(made.members),
                "lines": len(made.gross),
                "payments": len(made.payments),
                "netting": made.hash,
            },
        )
        return made


def _adjustment(account: Account, amount: Fraction) -> dict[str, object]:
    return {**account._asdict(), "amount": str(amount)}
