"""Everything a log says about money, fed entry by entry in order; statements and payments follow from it alone.

Used by the broker, the audit, ``trustcompute statement``, and whoever holds a copy of the log. What is billed: posted
jobs, jobs forfeited by the peer's own fault, yearly fees, shares of declared revenue, adjustments. A disputed use is
held back from the period it would be billed in, or, where that is closed, freezes its lines; what the dispute is
settled with falls into the period of the settlement. Nothing that a period was closed with is ever changed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from fractions import Fraction
from sys import intern
from typing import Any, Final

from trustcompute.broker import meter
from trustcompute.broker.certificate import Standing, State
from trustcompute.broker.clearing import netting, plan, split
from trustcompute.broker.clearing.agreement import plan_hash
from trustcompute.broker.clearing.denominators import Denominators
from trustcompute.broker.clearing.netting import Netting
from trustcompute.broker.clearing.statement import FORM, Account, Period, Posting, Statement, lines_of
from trustcompute.broker.clearing.sums import Rows, Sums, add
from trustcompute.broker.clearing.terms import Agreed, Closing, Dispute, Terms, Use
from trustcompute.broker.grant import PricePlan, Share
from trustcompute.broker.job import Fault
from trustcompute.broker.log import Entry
from trustcompute.errors import AuditError, GrantError, ParameterError
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Usage

FEE: Final = "fee"
REVENUE: Final = "revenue"
_NOBODY: Final = Usage()
_FREE: Final = Fraction()


@dataclass
class Clearing:
    """Everything the log says about money, fed entry by entry in order."""

    uses: list[Use] = field(default_factory=list)
    closings: list[Closing] = field(default_factory=list)
    disputes: dict[str, Dispute] = field(default_factory=dict)
    adjustments: list[tuple[int, Posting]] = field(default_factory=list)
    nettings: list[Netting] = field(default_factory=list)
    terms: dict[str, Terms] = field(default_factory=dict)
    weights: dict[tuple[str, Period], dict[str, Fraction]] = field(default_factory=dict)
    agreements: dict[tuple[str, str], Agreed] = field(default_factory=dict)  # newest, by subject and asset
    certificates: dict[str, Standing] = field(default_factory=dict)
    recognised: dict[str, dict[str, Any]] = field(default_factory=dict)  # of other logs
    common: Denominators = field(default_factory=Denominators)
    _meters: dict[str, plan.Meter] = field(default_factory=dict)
    _cutters: dict[str, split.Cutter] = field(default_factory=dict)
    _revoked: dict[str, int] = field(default_factory=dict)
    _disputed: dict[int, Dispute] = field(default_factory=dict)  # by index of the use
    _held: dict[int, Use] = field(default_factory=dict)  # left out when their period was closed
    _released: list[Use] = field(default_factory=list)  # of those, what settlements let stand
    _expected: list[Posting] = field(default_factory=list)  # adjustments that a settlement asks for
    _parts: list[list[Any]] = field(default_factory=list)
    _last: Statement | None = None  # made of all entries so far
    _declared: dict[str, list[Period]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Clearing:
        made = cls()
        for entry in entries:
            made.feed(entry)
        return made

    def copy(self) -> Clearing:
        """The same now; what either is fed later the other does not see."""
        made = Clearing(**{name: copy(getattr(self, name)) for name in self.__dataclass_fields__})
        made.closings = [replace(each, settled=set(each.settled)) for each in self.closings]
        made._meters = {root: replace(each) for root, each in self._meters.items()}
        made._cutters = {root: replace(each) for root, each in self._cutters.items()}
        made._declared = defaultdict(list, {grant: list(each) for grant, each in self._declared.items()})
        return made

    def feed(self, entry: Entry) -> None:
        """Take the next entry. Raises ``AuditError`` where what it says of money does not follow from the log."""
        kind = entry.type
        if self._expected and kind != "adjustment.posted":
            raise AuditError(f"entry {entry.index} stands where a settlement's adjustment should")
        rule = _RULES.get(kind)
        if rule is not None:
            if kind not in _PARTS:
                self._last = None
            rule(self, entry)

    # What follows from it

    def statement(self, period: Period, form: int = FORM) -> Statement:
        """The statement of a closed period, or of one that may be closed next (``ParameterError`` else)."""
        closing = self.closing(period)
        if closing is not None:
            return closing.statement
        if self._last is None or (self._last.period, self._last.form) != (period, form):
            self.check(period)
            self._last = self._made(period, form)
        return self._last

    def closing(self, period: Period) -> Closing | None:
        return next((each for each in self.closings if each.period == period), None)

    def check(self, period: Period) -> None:
        """Raises ``ParameterError`` where it overlaps a closed one, or leaves anything before it unbilled."""
        last = self._last_end()
        if period.start < last:
            raise ParameterError(
                f"the log is closed until {last}: a period starts there, not at {period.start}"
            )
        skipped = min((use.time for use in self._within(last, period.start)), default=None)
        adjusted = next((time for time, _ in self.adjustments if last <= time < period.start), None)
        if skipped is not None or adjusted is not None:
            raise ParameterError(
                f"a job of {adjusted if skipped is None else skipped} would never be billed: "
                f"start the period at {last} or then"
            )

    def check_pools(self, statement: Statement) -> None:
        """Raises ``ParameterError`` where a pool has money to share in the period, and no weights."""
        pool = next(
            (line.account.payee for line in statement.lines if line.account.payee.startswith(split.POOL)),
            None,
        )
        if pool is not None:
            raise ParameterError(
                f"{pool} has no weights for this period: record its contributions before it is closed"
            )

    def frozen(self, period: Period) -> set[Account]:
        """Lines of a closed period that an open dispute touches: not to be paid until it is settled."""
        found: set[Account] = set()
        for index, dispute in self._disputed.items():
            use = self.use(index)
            if dispute.owed is None and use is not None and period.start <= use.time < period.end:
                found |= {account for account, _ in self._shared(use, period)}
        return found & {line.account for line in self.statement(period).lines}

    def netting(self, period: Period, members: Iterable[str] = ()) -> Netting:
        """The payments for what is due of a closed period: not frozen, and not settled by an earlier run.

        Raises ``ParameterError`` for a period that is not closed.
        """
        closing = self.closing(period)
        if closing is None:
            raise ParameterError("only the lines of a closed period are paid: close it first")
        left_out = self.frozen(period) | closing.settled
        lines = {
            line.account: line.amount for line in closing.statement.lines if line.account not in left_out
        }
        return netting.net(period, closing.statement.hash, lines, tuple(members))

    def within(self, period: Period) -> list[Use]:
        """What falls due in a period, fees and released uses too, those that are held back as well; by time."""
        return sorted(self._within(period.start, period.end), key=lambda use: (use.time, use.index))

    def use(self, index: int) -> Use | None:
        """The use that an entry of the log bills, if it bills one."""
        place = bisect_left(self.uses, index, key=lambda use: use.index)
        return self.uses[place] if place < len(self.uses) and self.uses[place].index == index else None

    def disputable(self, index: int) -> Use:
        """The use of an entry. Raises ``ParameterError`` where it bills nothing or was disputed before."""
        use = self.use(index)
        if use is None:
            raise ParameterError(f"entry {index} bills nothing: dispute the entries of charged jobs")
        if index in self._disputed:
            raise ParameterError(f"entry {index} is disputed already, in {self._disputed[index].id}")
        return use

    def parties(self, use: Use) -> set[str]:
        """Who may dispute a use: its payer, and those who share it."""
        return {use.payer, *(share.party for share in self.terms[use.grant].split)}

    def reversal(self, dispute: Dispute, owed: Fraction) -> list[Posting]:
        """The adjustments that settling a dispute asks for: what closed periods billed beyond the part owed."""
        back: dict[Account, Fraction] = defaultdict(Fraction)
        for index in dispute.entries:
            use, period = self.use(index), self._closed_with(index)
            if use is not None and period is not None:
                for account, amount in self._shared(use, period):
                    back[Account(account.payee, account.payer, account.currency)] += amount * (1 - owed)
        return [Posting(dispute.index, account, amount) for account, amount in sorted(back.items()) if amount]

    def check_agreement(
        self, subject: str, asset: str, price: PricePlan, shares: tuple[Share, ...], now: int
    ) -> None:
        """Raises ``GrantError`` where an agreement for this grantee and asset is in force, on another plan."""
        agreed = self.agreements.get((subject, asset))
        if agreed is not None and now < agreed.end and agreed.plan != plan_hash(price, shares):
            raise GrantError(
                f"agreement {agreed.agreement[:16]} with this grantee for {asset} is on another plan: "
                "use its price and split, or agree anew",
                "price",
            )

    def overlapping(self, grant: str, period: Period) -> bool:
        """Whether revenue of the grant was declared for a part of the period before."""
        return any(each.start < period.end and period.start < each.end for each in self._declared[grant])

    # Entries

    def _granted(self, entry: Entry) -> None:
        fields = entry.fields
        shares = tuple(Share.model_validate(share) for share in fields["split"])
        terms = Terms(
            price=PricePlan.model_validate(fields["price"]),
            split=shares,
            root=self.terms[fields["parent"]].root if "parent" in fields else fields["grant"],
            grantee=fields.get("subject", ""),
            start=max(fields.get("nbf", 0), entry.time),
            end=fields.get("exp", 0),
            heights=split.heights(shares),
        )
        if entry.type == "grant.issued" and "asset" in fields:
            plan_ = terms.price, terms.split
            try:
                self.check_agreement(terms.grantee, fields["asset"], *plan_, entry.time)
            except GrantError as error:
                raise AuditError(f"entry {entry.index}: {error}") from error
        known = self.terms.get(fields["grant"])
        if known is not None and (known.price, known.split) != (terms.price, terms.split):
            raise AuditError(f"entry {entry.index} changes the plan of a grant that was entered before")
        self.terms[fields["grant"]] = terms
        self.common = self.common.with_plan(terms.price, terms.split)

    def _certified(self, entry: Entry) -> None:
        fields = entry.fields
        if fields["certificate"] in self.certificates:
            raise AuditError(f"entry {entry.index} issues a certificate a second time")
        replaced = self.certificates.get(fields["replaces"]) if "replaces" in fields else None
        if "replaces" in fields and (replaced is None or replaced.replaced_by != fields["certificate"]):
            raise AuditError(f"entry {entry.index} replaces a certificate that was not changed for it")
        self.certificates[fields["certificate"]] = Standing(
            fields["certificate"],
            fields["asset"],
            fields["right"],
            fields["holder"],
            State.VALID,
            fields["end"],
            (entry.index,),
        )

    def _certificate(self, entry: Entry) -> None:
        name = entry.fields["certificate"]
        try:
            known = self.certificates[name]
            self.certificates[name] = known.after(entry.index, entry.fields, entry.time)
        except (KeyError, ParameterError) as error:
            raise AuditError(f"entry {entry.index}: {error}") from error

    def _recognition(self, entry: Entry) -> None:
        fields = {name: value for name, value in entry.fields.items() if name not in ("type", "v", "time")}
        before = self.recognised.get(fields["certificate"])
        if before is not None and before["as_of"] > fields["as_of"]:
            raise AuditError(f"entry {entry.index} recognises an older state than was recognised before")
        self.recognised[fields["certificate"]] = fields

    def _agreed(self, entry: Entry) -> None:
        fields = entry.fields
        made = Agreed(entry.index, fields["agreement"], fields["plan"], fields["iat"], fields["exp"])
        key = fields["subject"], fields["asset"]
        if key in self.agreements and self.agreements[key].made >= made.made:
            raise AuditError(f"entry {entry.index} enters an agreement a second time, or an older one")
        self.agreements[key] = made

    def _revocation(self, entry: Entry) -> None:
        self._revoked.setdefault(entry.fields["grant"], entry.time)

    def _posted(self, entry: Entry) -> None:
        fields = entry.fields
        usage = meter.parse_usage(fields["usage"])
        grant = fields["grant"]
        terms = self.terms[grant]
        if terms.price.window is None:
            amount = plan.rate(terms.price, usage, fields.get("purpose", ""))
        else:
            counted = self._meters.setdefault(terms.root, plan.Meter(terms.price))
            amount = counted.rate(usage, fields.get("purpose", ""), entry.time)
        payer, operation = intern(fields["payer"]), intern(fields["operation"])  # a log has few, said often
        self._add(Use(entry.index, entry.time, payer, intern(grant), operation, usage, amount))

    def _forfeited(self, entry: Entry) -> None:
        if entry.fields["fault"] == Fault.PEER:
            self._posted(entry)

    def _revenue(self, entry: Entry) -> None:
        fields = entry.fields
        grant, terms = fields["grant"], self.terms[fields["grant"]]
        period = Period(fields["start"], fields["end"])
        if terms.price.rate is None or self.overlapping(grant, period):
            raise AuditError(
                f"entry {entry.index} declares revenue twice, or under a plan that has no share of it"
            )
        self._declared[grant].append(period)
        amount = Fraction(terms.price.rate) * canonical.parse_integer(fields["amount"])
        self._add(Use(entry.index, entry.time, terms.grantee, grant, REVENUE, _NOBODY, amount))

    def _add(self, use: Use) -> None:
        terms = self.terms[use.grant]
        if terms.heights and use.amount:
            window = terms.price.window or "grant"
            cutter = self._cutters.setdefault(terms.root, split.Cutter(terms.heights, window))
            use = use._replace(pieces=tuple(cutter.cut(use.amount, use.time)))
        self.uses.append(use)

    def _weighed(self, entry: Entry) -> None:
        fields = entry.fields
        key = fields["pool"], Period(fields["start"], fields["end"])
        weights = {party: Fraction(weight) for party, weight in fields["weights"]}
        try:
            split.check_weights(weights)
        except ParameterError as error:
            raise AuditError(f"entry {entry.index}: {error}") from error
        if key in self.weights or key[1].start < self._last_end():
            raise AuditError(
                f"entry {entry.index} weighs a pool for a period that was weighed or closed before"
            )
        self.weights[key] = weights
        self.common = self.common.with_weights(weights.values())

    def _opened(self, entry: Entry) -> None:
        fields = entry.fields
        dispute = Dispute(fields["dispute"], entry.index, entry.time, fields["by"], tuple(fields["entries"]))
        try:
            for index in dispute.entries:
                self.disputable(index)
        except ParameterError as error:
            raise AuditError(f"entry {entry.index}: {error}") from error
        self.disputes[dispute.id] = dispute
        self._disputed |= dict.fromkeys(dispute.entries, dispute)

    def _settled(self, entry: Entry) -> None:
        dispute, owed = self.disputes.get(entry.fields["dispute"]), Fraction(entry.fields["owed"])
        if dispute is None or dispute.owed is not None or not 0 <= owed <= 1:
            raise AuditError(f"entry {entry.index} settles no open dispute")
        self._expected = self.reversal(dispute, owed)
        self.common = self.common.with_part(owed)
        dispute = replace(dispute, owed=owed)
        self.disputes[dispute.id] = dispute
        self._disputed |= dict.fromkeys(dispute.entries, dispute)
        for index in dispute.entries:
            held = self._held.pop(index, None)
            if held is not None and owed:
                self._released.append(held.scaled(owed, entry.time))

    def _adjusted(self, entry: Entry) -> None:
        fields = entry.fields
        account = Account(fields["payer"], fields["payee"], fields["currency"])
        amount = Fraction(fields["amount"])
        if amount <= 0:
            raise AuditError(f"entry {entry.index} adjusts by nothing, or by a negative amount")
        if self._expected or "dispute" in fields:
            expected = self._expected.pop(0) if self._expected else None
            if expected is None or (expected.account, expected.amount) != (account, amount):
                raise AuditError(f"entry {entry.index} is not the adjustment that the settlement asks for")
        self.common = self.common.with_amount(amount)
        self.adjustments.append((entry.time, Posting(entry.index, account, amount)))

    def _lines(self, entry: Entry) -> None:
        self._parts += entry.fields["lines"]

    def _closed(self, entry: Entry) -> None:
        fields = entry.fields
        parts, self._parts = self._parts, []
        period = Period(fields["start"], fields["end"])
        try:
            made = self.statement(period, fields.get("form", 1))
        except ParameterError as error:
            raise AuditError(f"entry {entry.index} closes a period that cannot be closed: {error}") from error
        written = [[*line.account, canonical.integer(line.amount), str(line.residual)] for line in made.lines]
        self._last = None
        if made.closed or made.hash != fields["statement"] or parts != written:
            raise AuditError(
                f"entry {entry.index} closes a period with a statement that does not follow from the log"
            )
        self._held |= {
            posting.index: use for posting in made.held if (use := self.use(posting.index)) is not None
        }
        self.closings.append(Closing(period, entry.index, made.as_closed()))

    def _netted(self, entry: Entry) -> None:
        fields = entry.fields
        parts, self._parts = self._parts, []
        period = Period(fields["start"], fields["end"])
        closing = self.closing(period)
        made = self.netting(period, fields["members"]) if closing is not None else None
        written = (
            [] if made is None else [[*each[:3], canonical.integer(each.amount)] for each in made.payments]
        )
        if closing is None or made is None or made.hash != fields["netting"] or parts != written:
            raise AuditError(f"entry {entry.index} pays what does not follow from the log")
        closing.settled |= made.gross.keys()
        self.nettings.append(made)

    # Computing

    def _last_end(self) -> int:
        return self.closings[-1].period.end if self.closings else 0

    def _closed_with(self, index: int) -> Period | None:
        """The closed period that billed a use, if one did: not one that it was held back from."""
        use = self.use(index)
        if use is None or index in self._held:
            return None
        return next(
            (each.period for each in self.closings if each.period.start <= use.time < each.period.end), None
        )

    def _within(self, start: int, end: int) -> Iterator[Use]:
        """What falls due from start to end: uses, fees, and held uses that were released."""
        for uses in (self.uses, self._released):
            first = bisect_left(uses, start, key=lambda use: use.time)
            yield from uses[first : bisect_left(uses, end, key=lambda use: use.time)]
        yield from self._fees(start, end)

    def _fees(self, start: int, end: int) -> Iterator[Use]:
        for grant, terms in self.terms.items():
            if terms.price.fee is not None and terms.root == grant:
                until = min(end, terms.end, self._revoked.get(grant, end))
                fee = Fraction(terms.price.fee)
                for due in plan.fees(terms.start, until):
                    if due >= start:
                        yield Use(-1, due, terms.grantee, grant, FEE, _NOBODY, fee)

    def _made(self, period: Period, form: int) -> Statement:
        sums, rows, held = Sums(), Rows(), []
        for use in self._within(period.start, period.end):
            dispute = self._disputed.get(use.index) if self._disputed else None
            if dispute is not None and use.index not in self._held and not self._was_released(use):
                if dispute.owed is None:
                    held += [Posting(use.index, *each) for each in self._shared(use, period)]
                    continue
                sums.add(use.scaled(dispute.owed, use.time))
                rows.add(use.scaled(dispute.owed, use.time))
                continue
            sums.add(use)
            rows.add(use)
        owed: dict[Account, Fraction] = {}
        shares: dict[tuple[str, int], list[tuple[str, str, Fraction]]] = {}
        for (payer, grant, height), amount in sums.items():
            shared = shares.get((grant, height))
            if shared is None:
                shared = shares[grant, height] = [
                    (account.payee, account.currency, share)
                    for account, share in self._accounts(payer, grant, height, period)
                ]
            for payee, currency, share in shared:
                add(owed, Account(payer, payee, currency), amount if share == 1 else amount * share)
        adjusted = tuple(each for time, each in self.adjustments if period.start <= time < period.end)
        for posting in adjusted:
            add(owed, posting.account, posting.amount)
        carried = self.closings[-1].residuals if self.closings else {}
        for account, residual in carried.items():
            add(owed, account, residual)
        lines = lines_of(period, owed, carried, form)
        made = tuple(rows.rows(self.terms))
        return Statement(period, made, lines, False, adjusted, tuple(held), form)

    def _was_released(self, use: Use) -> bool:
        """Whether this is what a settlement let stand of a held use: its part was taken then."""
        known = self.use(use.index)
        return known is not None and known.time != use.time

    def _shared(self, use: Use, period: Period) -> Iterator[tuple[Account, Fraction]]:
        """The lines of one use, exact."""
        for height, amount in use.pieces or ((0, use.amount),):
            for account, share in self._accounts(use.payer, use.grant, height, period):
                if amount:
                    yield account, amount * share

    def _accounts(
        self, payer: str, grant: str, height: int, period: Period
    ) -> Iterator[tuple[Account, Fraction]]:
        terms = self.terms[grant]
        if terms.price.currency is None:
            return
        for party, share in split.shares_at(terms.split, height).items():
            pool = self.weights.get((party, period)) if party.startswith(split.POOL) else None
            for payee, weight in ({party: Fraction(1)} if pool is None else pool).items():
                yield Account(payer, payee, terms.price.currency), share * weight


_PARTS: Final = frozenset({"period.lines", "period.closed"})  # a closing is of what was before its parts
_RULES: Final[Mapping[str, Callable[[Clearing, Entry], None]]] = {
    "grant.issued": Clearing._granted,
    "grant.accepted": Clearing._granted,
    "grant.revoked": Clearing._revocation,
    "agreement.entered": Clearing._agreed,
    "certificate.issued": Clearing._certified,
    "certificate.circulated": Clearing._certificate,
    "certificate.applied": Clearing._certificate,
    "certificate.changed": Clearing._certificate,
    "certificate.cancelled": Clearing._certificate,
    "certificate.recognised": Clearing._recognition,
    "job.posted": Clearing._posted,
    "job.forfeited": Clearing._forfeited,
    "revenue.declared": Clearing._revenue,
    "pool.weighed": Clearing._weighed,
    "dispute.opened": Clearing._opened,
    "dispute.settled": Clearing._settled,
    "adjustment.posted": Clearing._adjusted,
    "period.lines": Clearing._lines,
    "period.closed": Clearing._closed,
    "netting.payments": Clearing._lines,
    "netting.run": Clearing._netted,
}
