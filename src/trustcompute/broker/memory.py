"""The book in memory: what the only process that writes a book need neither read again nor write at once.

``Memory`` stands between the writer and a store that nobody else writes. It remembers rows as they were last
committed (also that there is none: no grant is revoked without passing through here), within bounds, and it keeps
reservations back: one is written with the next change that must last, usually when its job is armed. That is safe
because a crash voids a reservation anyway: the request comes again, and is decided again. Whatever adds to the log,
arms or charges is on the disk before ``write`` returns.

After a failure nothing is believed that could have changed: rows are read again, and whether what was kept back
reached the disk is looked up.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from trustcompute.broker.job import JobRecord
from trustcompute.broker.log import Opening, StoredEntry
from trustcompute.broker.meter import Balance, BalanceKey
from trustcompute.broker.notice import RULES, Notice
from trustcompute.broker.policy import Asset
from trustcompute.broker.store import Changes, Evidence, GrantRow, Reader, Revocation, SoleStore, Touched
from trustcompute.errors import StoreError

MAX_ROWS: Final = 4096  # of each kind; a grant has some 2 KB, at most 32
MAX_BACK: Final = 4096  # reservations that are kept back

Row = TypeVar("Row")
Found = TypeVar("Found")


class Known(OrderedDict[str, "Row | None"]):
    """Rows by name, ``None`` for what the store has not; what was read first is forgotten first."""

    def among(
        self, names: Collection[str], load: Callable[[Collection[str]], Mapping[str, Row]]
    ) -> dict[str, Row]:
        """Those of the names that there are. load: reads what is not remembered."""
        missing = [name for name in names if name not in self]
        if missing:
            found = load(missing)
            for name in missing:
                self[name] = found.get(name)
        return {name: row for name in names if (row := self[name]) is not None}


class Memory:
    """A ``broker.store.Ledger`` in front of a store, and at once its transaction. See the module.

    The writer lets one thread in at a time.
    """

    shared = False

    def __init__(self, store: SoleStore) -> None:
        self._store = store
        self._doubtful = False
        self._held_jobs: dict[str, JobRecord] = {}  # reservations not yet written, and what comes with them
        self._held_balances: dict[BalanceKey, Balance] = {}
        self._held_evidence: list[Evidence] = []
        self._jobs: Known[JobRecord] = Known()
        self._grants: Known[GrantRow] = Known()
        self._revocations: Known[Revocation] = Known()
        self._notices: Known[Notice] = Known()
        self._rules: dict[str, Notice] | None = None  # all of them, without their tokens
        self._assets: Known[Asset] = Known()
        self._balances: OrderedDict[tuple[str, int], dict[BalanceKey, Balance]] = OrderedDict()
        self._remembered: tuple[OrderedDict[Any, Any], ...] = (
            self._jobs,
            self._grants,
            self._revocations,
            self._notices,
            self._assets,
            self._balances,
        )

    def transaction(self) -> Memory:
        """What ``write`` is given is durable when it returns, or kept back; where the block raises, in doubt."""
        self._settle()
        return self

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._doubtful |= error is not None

    @contextlib.contextmanager
    def read(self) -> Iterator[Reader]:
        """The store's own view, after everything kept back was written."""
        self.flush()
        with self._store.read() as reader:
            yield reader

    def flush(self) -> None:
        """Write what was kept back. It need not last, so no disk is waited for."""
        self._settle()
        if self._held_jobs:
            with self:
                with self._store.transaction(lasting=False) as transaction:
                    transaction.write(self._with_back(Changes()))
                self._forget_back()

    def close(self) -> None:
        """Close the store; what was kept back is written if it can be."""
        with contextlib.suppress(StoreError):
            self.flush()
        self._store.close()

    def write(self, changes: Changes) -> None:
        """Keep a reservation back; write anything else, with what was kept back before it."""
        if changes.reserves_only and len(self._held_jobs) < MAX_BACK:
            self._held_jobs |= {job.id: job for job in (*changes.new_jobs, *changes.jobs)}
            self._held_balances |= changes.balances
            self._held_evidence += changes.evidence
        else:
            with self._store.transaction() as transaction:
                transaction.write(self._with_back(changes))
            self._forget_back()
        self._take(changes)

    # What a command asks for

    def expect(self, touched: Touched, windows: Collection[int]) -> None:
        """Nothing: most of it is here."""

    def jobs(self, ids: Collection[str]) -> dict[str, JobRecord]:
        return self._jobs.among(ids, self._load_jobs)

    def grants(self, hashes: Collection[str]) -> dict[str, GrantRow]:
        return self._grants.among(hashes, lambda missing: self._peek(lambda store: store.grants(missing)))

    def revocations(self, hashes: Collection[str]) -> dict[str, Revocation]:
        return self._revocations.among(
            hashes, lambda missing: self._peek(lambda store: store.revocations(missing))
        )

    def notices(self, names: Collection[str]) -> dict[str, Notice]:
        if self._rules is None:
            self._rules = self._peek(lambda store: store.notices(()))
        found = self._notices.among(names, lambda missing: self._peek(lambda store: store.notices(missing)))
        return self._rules | found

    def notice(self, hash_: str) -> Notice:
        return self._peek(lambda store: store.notice(hash_))

    def assets(self, ids: Collection[str]) -> dict[str, Asset]:
        return self._assets.among(ids, lambda missing: self._peek(lambda store: store.assets(missing)))

    def balances(self, accounts: Collection[str], windows: Collection[int]) -> dict[BalanceKey, Balance]:
        wanted = [(account, window) for account in accounts for window in windows]
        missing = [place for place in wanted if place not in self._balances]
        if missing:
            self._load_balances(missing)
        found: dict[BalanceKey, Balance] = {}
        for place in wanted:
            found |= self._balances[place]
        return found

    def openings(self, index: int) -> list[Opening]:
        return self._peek(lambda store: store.openings(index))

    def entry(self, index: int) -> bytes:
        return self._peek(lambda store: store.entry(index))

    def entries(self, start: int = 0) -> Iterator[StoredEntry]:
        with self._store.peek() as reader:
            yield from reader.entries(start)

    def leaves(self, start: int = 0) -> Iterator[bytes]:
        with self._store.peek() as reader:
            yield from reader.leaves(start)

    def last_checkpoint(self) -> str | None:
        return self._peek(lambda store: store.last_checkpoint())

    def _load_jobs(self, ids: Collection[str]) -> dict[str, JobRecord]:
        held = {job: self._held_jobs[job] for job in ids if job in self._held_jobs}
        others = [job for job in ids if job not in held]
        return held | (self._peek(lambda store: store.jobs(others)) if others else {})

    def _load_balances(self, places: list[tuple[str, int]]) -> None:
        accounts, windows = {account for account, _ in places}, {window for _, window in places}
        fresh: dict[tuple[str, int], dict[BalanceKey, Balance]] = {place: {} for place in places}
        stored = self._peek(lambda store: store.balances(accounts, windows))
        for key, balance in (stored | self._held_balances).items():  # what was kept back is newer
            if key[:2] in fresh:
                fresh[key[:2]][key] = balance
        self._balances |= fresh

    def _peek(self, ask: Callable[[Reader], Found]) -> Found:
        with self._store.peek() as reader:
            return ask(reader)

    # What was kept back, and what is remembered

    def _with_back(self, changes: Changes) -> Changes:
        """The changes, and what was kept back: its jobs as they are by now."""
        if not self._held_jobs:
            return changes
        later = {job.id: job for job in changes.jobs}
        held = [later.get(job.id, job) for job in self._held_jobs.values()]
        return replace(
            changes,
            new_jobs=held + changes.new_jobs,
            jobs=[job for job in changes.jobs if job.id not in self._held_jobs],
            balances=self._held_balances | changes.balances,
            evidence=self._held_evidence + changes.evidence,
        )

    def _forget_back(self) -> None:
        self._held_jobs, self._held_balances, self._held_evidence = {}, {}, []

    def _take(self, changes: Changes) -> None:
        """Remember what has become true."""
        for job in (*changes.new_jobs, *changes.jobs):
            self._jobs[job.id] = job
        for grant in changes.grants:
            self._grants[grant.hash] = grant
        for revocation in changes.revocations:
            self._revocations[revocation.grant] = revocation
        for name, notice in changes.notices.items():
            self._notices[name] = notice
            if self._rules is not None:
                self._rules.pop(name, None)
                if notice.state == RULES:
                    self._rules[name] = notice._replace(token="")
        for asset in changes.assets:
            self._assets[asset.id] = asset
        for key, balance in changes.balances.items():
            if key[:2] in self._balances:
                self._balances[key[:2]][key] = balance
        for rows in self._remembered:
            while len(rows) > MAX_ROWS:
                rows.popitem(last=False)

    def _settle(self) -> None:
        """After a failure: forget what was remembered, and look up whether what was kept back was written."""
        if not self._doubtful:
            return
        for rows in self._remembered:
            rows.clear()
        self._rules = None
        first = next(iter(self._held_jobs), None)
        if first is not None and self._peek(lambda store: store.jobs([first])):
            self._forget_back()
        self._doubtful = False
