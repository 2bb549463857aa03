"""The clearing house: what can be done about money on a broker's book. Reached as ``broker.clearing``.

    house.close(start, end)      round, and record lines and residuals
    house.dispute(token)         hold back or freeze what entries bill; ``settle`` it with the part that stands
    house.adjust(…)              a new entry; nothing that was recorded is changed
    house.weigh(pool, …)         how a pool is shared for a period
    house.declare(token)         revenue that a plan has a share of
    house.net(start, end)        the payments for what is due
    house.agree(chain)           the plan that grants of an asset to a consumer are issued on

Adversary: whoever keeps the book may try to bill what was not used, to hold back what is owed, or to close a period
twice. All that is billed follows from entries, which the audit replays; disputes are signed by those who raise them.
Who may settle is not enforced: the book's keeper does, and the log shows it to everybody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from fractions import Fraction
from typing import Any

from trustcompute.broker.clearing import agreement, claims, commands
from trustcompute.broker.clearing.dispute import Bundle
from trustcompute.broker.clearing.fold import Fold
from trustcompute.broker.clearing.netting import Netting
from trustcompute.broker.clearing.record import Clearing
from trustcompute.broker.clearing.statement import Account, Period, Posting, Statement
from trustcompute.broker.grant import MAX_DENOMINATOR, SEPARATOR, Grant
from trustcompute.broker.log import Entry, decode
from trustcompute.broker.receipt import prove
from trustcompute.broker.writer import Command, Writer
from trustcompute.errors import ParameterError
from trustcompute.primitives.signing import VerifyKey

MAX_REASON = 200
MAX_MEMBERS = 1024
MAX_MONEY = 10**18  # minor units of one adjustment


class ClearingHouse:
    """See the module. Made by the broker; shares its writer."""

    def __init__(self, writer: Writer, name: str, key: VerifyKey) -> None:
        """name, key: of the node, to which disputes and declarations are addressed, and who agrees."""
        self._writer, self._name, self._key, self.fold = writer, name, key, Fold()

    def record(self) -> Clearing:
        """What the log says of money now; later entries do not change it."""
        return self.fold.now(self._writer)

    def entries(self) -> Iterator[Entry]:
        """The log, parsed."""
        with self._writer.view() as (reader, _):
            bodies = [stored.body for stored in reader.entries()]
        return (decode(index, body) for index, body in enumerate(bodies))

    def _enter(self, command: Command) -> Any:
        """Run a command, with its record up to date before it gets the writer."""
        self.fold.catch_up(self._writer)
        return self._writer.commit_one(command)

    def evidence(self, index: int) -> Bundle:
        """The papers of the charge that is entry ``index``: for the other side, or an arbiter.

        Raises ``ParameterError`` for an entry that charges nothing.
        """
        with self._writer.view() as (reader, tree):
            found = decode(index, reader.entry(index)) if 0 <= index < tree.size else None
            if found is None or found.type not in ("job.posted", "job.forfeited"):
                raise ParameterError(f"entry {index} charges nothing")
            job = str(found.fields["job"])
            tokens = {each.kind: each.token for each in reader.evidence(job)}
            links = [name.partition(":")[2] for name in found.fields["accounts"] if name.startswith("grant:")]
            rows = reader.grants(links)
            record = reader.jobs([job]).get(job)
            acknowledged = None if record is None else record.countersigned
            return Bundle(
                receipt=prove(reader, tree, index),
                grant=SEPARATOR.join(rows[link].token for link in reversed(links)),
                request=tokens["request"],
                countersignature=tokens.get("countersignature"),
                countersigned=None if acknowledged is None else prove(reader, tree, acknowledged),
            )

    def agree(self, chain: str) -> str:
        """Enter an accepted agreement (``agreement.accept``); returns its hash. The same again changes nothing.

        From then on until it ends, grants of its asset to its consumer are issued on its plan. Raises ``GrantError``
        with the field for a chain that does not verify.
        """
        made = agreement.verify(chain, provider=self._key, audience=self._name)
        name: str = self._enter(commands.EnterAgreement(made, self.fold))
        return name

    def agreement(self, name: str) -> str:
        """The chain of an agreement that was entered, by its hash. Raises ``ParameterError`` for an unknown one."""
        with self._writer.view() as (reader, _):
            found = [each.token for each in reader.evidence(name) if each.kind == "agreement"]
        if not found:
            raise ParameterError("the log knows no such agreement: name it by its hash")
        return found[0]

    def issue(self, claims: Grant, issue: Command) -> None:
        """Run the command that issues a grant, if its plan may be: ``GrantError`` against an agreement on another."""
        self._enter(commands.Priced(claims, issue, self.fold))

    def statement(self, start: int, end: int) -> Statement:
        """What is owed for start <= time < end, from the log alone; of an open period, so far."""
        return self.record().statement(Period(start, end))

    def close(self, start: int, end: int) -> Statement:
        """Close a period: round, record lines and residuals. The same period again returns its statement.

        Raises ``ParameterError`` for one that overlaps a closed one, ends in the future, skips anything billed, or
        has a pool without weights.
        """
        period = Period(start, end)
        self.fold.prepare(self._writer, period)
        made: Statement = self._enter(commands.ClosePeriod(period, self.fold))
        return made

    def dispute(self, token: str) -> str:
        """Enter a party's dispute (``claims.dispute``); returns its hash. The same token again changes nothing.

        Raises ``GrantError`` with the field where it is not signed by who pays or shares what is disputed,
        ``ParameterError`` for entries that bill nothing or are disputed already.
        """
        claimed, by = claims.verify(token, claims.DISPUTE_TYPE, claims.DisputeClaim, self._name)
        name: str = self._enter(commands.OpenDispute(claimed, by, token, self.fold))
        return name

    def settle(self, dispute: str, *, owed: str, reason: str) -> list[Posting]:
        """End a dispute: ``owed`` (exact, "0" to "1") of it stands. Returns the adjustments that were posted.

        What was held back is billed now, in the period of this entry, to that part; what a closed period had billed
        beyond it is given back by adjustments; what is of a period still open is billed there, to that part.
        """
        part = exact(owed)
        if part > 1:
            raise ParameterError("what stands of a dispute is a part of it, from 0 to 1")
        back: list[Posting] = self._enter(commands.SettleDispute(dispute, part, _reason(reason), self.fold))
        return back

    def adjust(
        self, *, payer: str, payee: str, currency: str, amount: str, reason: str, refers: int | None = None
    ) -> int:
        """Post an exact amount of minor units (> 0) that follows from no use; returns its entry's index."""
        if any(not party.isascii() or not 0 < len(party) <= 128 for party in (payer, payee)):
            raise ParameterError("a party is a thumbprint or a name of at most 128 ASCII characters")
        command = commands.Adjust(
            Account(payer, payee, currency), exact(amount), _reason(reason), refers, self.fold
        )
        index: int = self._enter(command)
        return index

    def weigh(
        self,
        pool: str,
        start: int,
        end: int,
        weights: Mapping[str, Fraction],
        *,
        method: str,
        evidence: str | None = None,
    ) -> int:
        """Record how a pool is shared for a period: positive weights that sum to exactly 1.

        method: how they were found, for example ``shapley``; evidence: SHA-256 (hex) of the report behind them.
        """
        command = commands.WeighPool(
            pool, Period(start, end), dict(weights), _reason(method), evidence, self.fold
        )
        index: int = self._enter(command)
        return index

    def declare(self, token: str) -> int:
        """Enter a grantee's revenue (``claims.revenue``), of which its plan takes a share; returns the index."""
        claimed, by = claims.verify(token, claims.REVENUE_TYPE, claims.RevenueClaim, self._name)
        index: int = self._enter(commands.DeclareRevenue(claimed, by, token, self.fold))
        return index

    def net(self, start: int, end: int, members: Collection[str] = ()) -> Netting:
        """Record the payments for what is due of a closed period: not frozen, not in an earlier run.

        members: those who agreed that what they owe each other is netted among all of them.
        """
        if len(members) > MAX_MEMBERS:
            raise ParameterError(f"at most {MAX_MEMBERS} parties net multilaterally, not {len(members)}")
        made: Netting = self._enter(commands.Net(Period(start, end), tuple(sorted(members)), self.fold))
        return made


def exact(text: str) -> Fraction:
    """An exact amount, as a decimal or a fraction. Raises ``ParameterError`` for what is negative or no number."""
    try:
        amount = Fraction(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ParameterError('write a decimal such as "12.5" or a fraction such as "1/3"') from error
    if not 0 <= amount <= MAX_MONEY or amount.denominator > MAX_DENOMINATOR:
        raise ParameterError(f"an amount is from 0 to {MAX_MONEY}, its denominator at most {MAX_DENOMINATOR}")
    return amount


def _reason(text: str) -> str:
    if not 0 < len(text) <= MAX_REASON or not text.isprintable():
        raise ParameterError(f"a reason has 1 to {MAX_REASON} printable characters")
    return text
