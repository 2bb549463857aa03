"""The meter, replayed: grants and datasets with their limits, and what every charge takes of each account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from trustcompute.broker import budget, credit, meter
from trustcompute.broker.audit.conditions import Conditions
from trustcompute.broker.audit.fault import EntryError
from trustcompute.broker.commands import ARMED_LEASE, RESERVED_LEASE
from trustcompute.broker.grant import Limit
from trustcompute.broker.log import Entry
from trustcompute.broker.meter import TOTAL, BalanceKey
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import MAX_AMOUNT, Usage

LEASES: Final = RESERVED_LEASE + ARMED_LEASE  # seconds from the reservation to the charge, at most
_PARTIES: Final = ("asker", "recipient", "payer")
MAX_ALIKE: Final = 2**17  # some 1 KB each
_Debit = tuple[
    str, list[int], list[int], int, int, int
]  # account, its cells, limits in total, per day, per call


def _bound(limit: Limit) -> tuple[int, int, int]:
    total, per_day, per_call = (
        MAX_AMOUNT if bound is None else bound for bound in (limit.total, limit.per_day, limit.per_call)
    )
    return total, per_day, per_call


class Accounts:
    """grants: with their parents; cells: what was posted, by account, window and unit."""

    def __init__(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self.grants: dict[str, str | None] = {}
        self.revoked: set[str] = set()
        self.cells: dict[BalanceKey, list[int]] = {}  # each of one number, which ``_Debit`` keeps at hand
        self._alike: dict[tuple[object, ...], dict[str, list[_Debit]]] = {}  # of charges alike, by unit
        self._links: dict[str, list[str]] = {}  # accounts of a grant and of its ancestors
        self._limits: dict[str, dict[str, Limit]] = {}
        self._forms: dict[str, dict[budget.Form, int | None]] = {}  # of datasets, and until when in force
        self._subjects: dict[str, str] = {}  # thumbprints, by grant

    @property
    def balances(self) -> dict[BalanceKey, int]:
        """What was posted, where anything was."""
        return {key: cell[0] for key, cell in self.cells.items() if cell[0]}

    def registered(self, entry: Entry) -> None:
        fields = entry.fields
        form = budget.Form(fields["asset"], fields.get("epoch", ""), "per_recipient" in fields)
        for name, document in ((form.limited, "limits"), (form.recipients, "per_recipient")):
            limits = _limits(fields.get(document, {}))
            # Lowering a limit does not undo what was used before: use must respect the highest so far.
            self._limits[name] = _highest(self._limits[name], limits) if name in self._limits else limits
        self._limits.setdefault(meter.dataset_account(form.dataset), {})
        forms = self._forms.setdefault(form.dataset, {})
        for other, until in forms.items():  # a job that was reserved before is debited as it was then
            forms[other] = entry.time if until is None else until
        forms[form] = None

    def granted(self, entry: Entry) -> None:
        grant = entry.fields["grant"]
        if grant in self.grants:
            raise EntryError("the grant was entered before", entry.index)
        parent = entry.fields.get("parent")
        if parent is not None and parent not in self.grants:
            raise EntryError("the grant's parent was not entered before it", entry.index)
        self.grants[grant] = parent
        if "subject" in entry.fields:  # missed only where a credit event asks for it
            self._subjects[grant] = entry.fields["subject"]
        self._limits[meter.grant_account(grant)] = _limits(entry.fields["limits"])

    def chain(self, grant: str | None) -> Iterator[str]:
        """A grant and its ancestors: the links that are debited together."""
        while grant is not None:
            yield grant
            grant = self.grants[grant]

    def revocation(self, entry: Entry) -> None:
        if entry.fields["grant"] in self.revoked:
            raise EntryError("the grant was revoked before", entry.index)
        self.revoked.add(entry.fields["grant"])

    def debit(self, entry: Entry, may: Callable[[str], None]) -> None:
        """Take what a job used. may: raises ``AuditError`` where nothing of the kind may be charged under a grant."""
        fields = entry.fields
        usage, window = meter.parse_usage(fields["usage"]), canonical.parse_integer(fields["window"])
        accounts = tuple(fields["accounts"])
        alike = entry.type, fields["grant"], fields["dataset"], fields.get("recipient"), window, accounts
        debits = self._alike.get(alike)
        if debits is None:
            may(fields["grant"])
            debits = {}
            if self._check_accounts(entry):
                self._alike[alike] = debits
        for unit, amount in meter.used(usage):
            found = debits.get(unit)
            if found is None:
                found = debits[unit] = [self._debit_of(name, window, unit) for name in accounts]
            for name, total, of_day, limit, per_day, per_call in found:
                total[0] += amount
                of_day[0] += amount
                if total[0] > limit or of_day[0] > per_day or amount > per_call:
                    raise EntryError(f"it takes {name} beyond its limit of {unit}", entry.index)
        if self._conditions.credits:
            self._in_credit(entry, usage, window)

    def forget(self) -> None:
        """What was checked of charges holds until anything but a job is entered."""
        if self._alike:
            self._alike.clear()

    def _check_accounts(self, entry: Entry) -> bool:
        """Raises ``EntryError`` for accounts that are not the job's; whether later jobs are debited in the same way."""
        accounts, links = entry.fields["accounts"], self._links_of(entry.fields["grant"])
        form = self._form_of(accounts[len(links) :], entry) if accounts[: len(links)] == links else None
        if form is None:
            raise EntryError(
                "it was not debited to its grant, all its ancestors and the dataset", entry.index
            )
        if len(self._alike) >= MAX_ALIKE:
            self._alike.clear()
        return self._forms[form.dataset][form] is None

    def _links_of(self, grant: str) -> list[str]:
        found = self._links.get(grant)
        if found is None:
            found = self._links[grant] = [meter.grant_account(link) for link in self.chain(grant)]
        return found

    def _form_of(self, accounts: list[str], entry: Entry) -> budget.Form | None:
        """The form of the dataset that has these accounts: as it is, or was when the job was reserved at the latest."""
        fields = entry.fields
        for form, until in self._forms.get(fields["dataset"], {}).items():
            named = accounts == list(form.names(fields["recipient"] if form.by_recipient else ""))
            if named and (until is None or entry.time - until <= LEASES):
                return form
        return None

    def _debit_of(self, name: str, window: int, unit: str) -> _Debit:
        total, of_day = (self.cells.setdefault(BalanceKey(name, each, unit), [0]) for each in (TOTAL, window))
        return name, total, of_day, *_bound(self._limits_of(name).get(unit, meter.NO_LIMIT))

    def _limits_of(self, account: str) -> dict[str, Limit]:
        """Of a recipient's account, those of all recipients."""
        kind, at, _ = account.rpartition("@")
        return self._limits[kind + at if account.startswith("recipient:") else account]

    def _in_credit(self, entry: Entry, usage: Usage, window: int) -> None:
        """Charges that were reserved on a later day than events that are still open were bound by them."""
        fields = entry.fields
        links = list(self.chain(fields["grant"]))
        for party in {*(self._subjects[link] for link in links), *(fields[name] for name in _PARTIES)}:
            if any(each.bar for each in self._conditions.ceilings(party, window)):
                raise EntryError("it was charged although a credit event barred a party to it", entry.index)
        for link in links:
            name = meter.grant_account(link)
            ceilings = self._conditions.ceilings(self._subjects[link], window)
            if not ceilings:
                continue
            for unit, amount in meter.used(usage):
                limit = credit.least(self._limits_of(name), ceilings).get(unit, meter.NO_LIMIT)
                total, per_day, per_call = _bound(limit)
                held = [self.cells[BalanceKey(name, each, unit)][0] for each in (TOTAL, window)]
                if held[0] > total or held[1] > per_day or amount > per_call:
                    raise EntryError(
                        f"it takes {name} beyond what a credit event left of {unit}", entry.index
                    )


def _limits(document: Mapping[str, Any]) -> dict[str, Limit]:
    return {unit: Limit.model_validate(limit) for unit, limit in document.items()}


def _highest(old: Mapping[str, Limit], new: Mapping[str, Limit]) -> dict[str, Limit]:
    """Per unit and span the higher of two limits, where both have one."""
    spans = ("total", "per_call", "per_day")
    found = {}
    for unit in old.keys() & new.keys():
        pairs = {span: (getattr(old[unit], span), getattr(new[unit], span)) for span in spans}
        found[unit] = Limit(**{span: None if None in pair else max(pair) for span, pair in pairs.items()})
    return found
