"""The one code path that changes the book: a list of commands, one transaction, one checkpoint.

Group commit: callers of ``commit_one`` queue; whoever finds nobody at work commits for all who wait, then
hands over to the first of those who came meanwhile. So one caller waits for one fsync, and sixty-four share it.

The writer reads what all commands of the list touch, lets each decide and change the working copy
(``Book``) in turn, writes the differences and the new entries, signs one checkpoint over them and commits.
Each command sees what those before it did. A command that is refused leaves the others alone; a disk that
refuses takes back all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from trustcompute.broker import budget, log, meter
from trustcompute.broker.grant import Grant, read
from trustcompute.broker.job import JobRecord
from trustcompute.broker.log import StoredEntry
from trustcompute.broker.meter import Balance, BalanceKey
from trustcompute.broker.notice import RULES, Notice, topics
from trustcompute.broker.policy import Asset
from trustcompute.broker.rules import NO_RULES, Reference, RuleBook, Rules, kind_of, parsed
from trustcompute.broker.store import (
    Changes,
    Evidence,
    GrantRow,
    KeptAnswer,
    Ledger,
    Reader,
    Revocation,
    Rows,
    Touched,
)
from trustcompute.broker.watch import Watch
from trustcompute.errors import AuditError, LocalProtocolError, StoreError, TrustcomputeError
from trustcompute.primitives import checkpoint
from trustcompute.primitives.signing import SigningKey

if TYPE_CHECKING:
    from trustcompute.broker.deciding import Allowed

MAX_GROUP: Final = 256
MAX_RECENT: Final = 1024  # entries of jobs, some 1 KB each and 64 at most

Read = TypeVar("Read")


class Clock(Protocol):
    """Wall-clock time in seconds since 1970 (UTC)."""

    def now(self) -> int: ...


class Command(Protocol):
    """One thing to do to the book.

    ``apply`` returns its outcome. It raises before it has changed anything; an error that follows a change (a
    refusal that was logged) is returned as the outcome instead.
    """

    @property
    def touched(self) -> Touched: ...

    def apply(self, book: Book) -> Any: ...


class _Lazily(Generic[Read]):
    """Computed at its first use. As ``functools.cached_property``, without its lock: a book has one thread."""

    def __init__(self, compute: Callable[[Any], Read]) -> None:
        self._compute = compute

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, book: Any, owner: type) -> Read:
        value = book.__dict__[self._name] = self._compute(book)
        return value


class Book:
    """The working copy of what one transaction touches. now: its time, not before that of the last entry."""

    def __init__(
        self,
        reader: Rows,
        touched: Touched,
        now: int,
        size: int,
        allowed: dict[tuple[object, ...], Allowed] | None = None,
    ) -> None:
        """allowed: decisions of earlier transactions, which ``deciding`` holds against what it reads now."""
        self.allowed = {} if allowed is None else allowed
        self.now, self.day = now, meter.day_of(now)
        self.reader = reader
        self._size = size
        self._changes = Changes()
        self._pending: list[bytes] = []
        reader.expect(touched, (meter.TOTAL, self.day))
        self._touched = touched
        self.jobs = reader.jobs(touched.jobs)
        self._stored = frozenset(self.jobs)
        self._put: dict[str, JobRecord] = {}

    # Each kind is read at its first use, for all commands at once.

    @_Lazily
    def _grants(self) -> dict[str, GrantRow]:
        return self.reader.grants(self._links)

    @_Lazily
    def _revocations(self) -> dict[str, Revocation]:
        return self.reader.revocations(self._links)

    @_Lazily
    def _links(self) -> set[str]:
        """Grants that are named, and those of the jobs with all their ancestors, which the accounts name."""
        links = set(self._touched.grants)
        for job in self.jobs.values():
            links.add(job.grant)
            links |= meter.grants_of(job.accounts)
        return links

    @_Lazily
    def _notices(self) -> dict[str, Notice]:
        return self.reader.notices(
            [*self._touched.notices, *(each for link in self._links for each in topics(link))]
        )

    @_Lazily
    def rules(self) -> RuleBook:
        """The deny-lists and policies in force."""
        held = [each for each in self._notices.values() if each.state == RULES]
        return RuleBook.of((_reference(each), self._read(each)) for each in held) if held else NO_RULES

    def _read(self, notice: Notice) -> Rules:
        return parsed(notice.hash, lambda: notice.token or self.reader.notice(notice.hash).token)

    @_Lazily
    def _assets(self) -> dict[str, Asset]:
        return self.reader.assets(self._touched.datasets)

    @_Lazily
    def balances(self) -> dict[BalanceKey, Balance]:
        """Balances of all accounts that the commands may touch."""
        accounts = set(map(meter.grant_account, self._touched.grants))
        if self._touched.datasets:
            accounts |= budget.names_of(self._assets.values(), self._touched.recipients)
        windows = {meter.TOTAL, self.day}
        for job in self.jobs.values():
            accounts.update(job.accounts)
            windows.add(job.window)
        return self.reader.balances(accounts, windows)

    def put_balances(self, changed: Mapping[BalanceKey, Balance]) -> None:
        """What ``meter`` has worked out."""
        self.balances.update(changed)
        self._changes.balances.update(changed)

    @property
    def size(self) -> int:
        """Entries in the log, those of this transaction included."""
        return self._size + len(self._pending)

    @property
    def committed(self) -> int:
        """Entries in the log before this transaction."""
        return self._size

    def entries(self, start: int = 0) -> Iterator[log.Entry]:
        """The log from ``start`` on, with what this transaction has added so far."""
        stored = (each.body for each in self.reader.entries(start)) if start < self._size else ()
        bodies = itertools.chain(stored, tuple(self._pending[max(0, start - self._size) :]))
        return (log.decode(index, body) for index, body in enumerate(bodies, start=start))

    def known(self, grant: str) -> bool:
        """Whether the log has an entry that issued or accepted the grant."""
        return grant in self._grants

    def issuer(self, grant: str) -> str:
        """Thumbprint of who issued a known grant."""
        return read(self._grants[grant].token).iss

    def revoked(self, grant: str) -> bool:
        return grant in self._revocations

    def revoked_any(self, grants: Iterable[str]) -> bool:
        return not self._revocations.keys().isdisjoint(grants)

    def links(self, job: JobRecord) -> list[Grant]:
        """The claims, as they are written, of a job's grant and of all it was delegated from."""
        rows = (self._grants[link] for link in sorted(meter.grants_of(job.accounts)) if link in self._grants)
        return [_claims(row.token) for row in rows]

    def notice(self, name: str) -> Notice | None:
        """What holds under this name."""
        return self._notices.get(name)

    def put_notice(self, notice: Notice) -> None:
        self._notices[notice.name] = self._changes.notices[notice.name] = notice
        self.__dict__.pop("rules", None)  # made anew, with this one among them

    def asset(self, dataset: str) -> Asset | None:
        return self._assets.get(dataset)

    def put_job(self, job: JobRecord) -> JobRecord:
        self.jobs[job.id] = self._put[job.id] = job
        return job

    def put_grant(self, hash_: str, token: str, entry: int) -> None:
        row = self._grants[hash_] = GrantRow(hash_, token, entry)
        self._changes.grants.append(row)

    def put_revocation(self, grant: str, entry: int) -> None:
        row = self._revocations[grant] = Revocation(grant, entry)
        self._changes.revocations.append(row)

    def put_asset(self, asset: Asset) -> None:
        self._assets[asset.id] = asset
        self._changes.assets.append(asset)

    def keep(self, evidence: Evidence) -> None:
        self._changes.evidence.append(evidence)

    def keep_answer(self, answer: KeptAnswer) -> None:
        self._changes.answers.append(answer)

    def forget_answers(self, job: str) -> None:
        """Of a job that is acknowledged, or whose answers are too old."""
        self._changes.answered.append(job)

    def hand_over(self, key: str) -> None:
        """The book belongs to the key of this thumbprint from now on."""
        self._changes.key = key

    def forget(self, opening: log.Opening) -> None:
        """Delete what opens a commitment."""
        self._changes.forgotten.append((opening.index, opening.field))

    def record(
        self, kind: str, fields: Mapping[str, Any], concealed: Mapping[str, bytes] | None = None
    ) -> int:
        """Add an entry to the log; returns its index. concealed: values that enter as salted commitments."""
        index = self.size
        members = dict(fields)
        openings = []
        for name, value in (concealed or {}).items():
            members[name], opening = log.conceal(index, name, value)
            openings.append(opening)
        self._pending.append(log.encode(kind, self.now, members))
        self._changes.openings += openings
        return index

    def changes(self, record: log.Log) -> Changes | None:
        """All differences, with the entries sealed under a new checkpoint; ``None`` where nothing changed."""
        changes = self._changes
        changes.new_jobs = [job for job in self._put.values() if job.id not in self._stored]
        changes.jobs = [job for job in self._put.values() if job.id in self._stored]
        if self._pending:
            changes.entries, changes.checkpoint = record.append(self._pending, self.now)
        return changes if changes.any else None


@dataclass(frozen=True, slots=True)
class Ended:
    """What a receipt is made of. proof: of the entry, under the checkpoint ``note``."""

    entry: StoredEntry
    proof: list[bytes]
    note: str


@functools.lru_cache(maxsize=4096)
def _claims(token: str) -> Grant:
    return read(token)


def _reference(notice: Notice) -> Reference:
    kind, _, issuer = notice.name.partition("/")
    return Reference(kind=kind_of(kind), issuer=issuer, version=notice.version, hash=notice.hash)


class _Ticket:
    """A caller's place in the queue. It waits at the gate until its outcome is there, or it is to lead."""

    __slots__ = ("command", "done", "gate", "leads", "outcome")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.done = self.leads = False
        self.outcome: Any = None
        self.gate = threading.Lock()
        self.gate.acquire()

    def end(self, outcome: Any) -> None:
        self.outcome, self.done = outcome, True
        self.gate.release()


class Writer:
    """Holds the log's tree and the store together. Any thread may call it; one transaction runs at a time."""

    def __init__(
        self, store: Ledger, origin: str, key: SigningKey | None, clock: Clock, watch: Watch | None = None
    ) -> None:
        """Rebuilds the tree. key: ``None`` where the store is only read.

        Raises ``StoreError`` where the tree is not what the last checkpoint signed.
        """
        self._store, self._clock, self._watch = store, clock, watch
        self._mutex = threading.Lock()
        self._doubtful = False
        self._ended: OrderedDict[str, StoredEntry] = OrderedDict()  # what ended jobs, by their ids
        self._note = ""  # the newest checkpoint
        self._allowed: dict[tuple[object, ...], Allowed] = {}  # by what their requests say
        self._queue: deque[_Ticket] = deque()
        self._queue_mutex = threading.Lock()
        self._led = False  # somebody commits, and will look at the queue again
        with store.read() as reader:
            self._log = log.Log(origin, key, reader.leaves())
            self._agree(reader, self._log.size, reader.last_checkpoint())

    def commit(self, commands: Sequence[Command]) -> list[Any]:
        """Run 1 to 256 commands in one durable transaction; returns an outcome or an error for each.

        Raises ``StoreError`` where nothing could be written.
        """
        if not 1 <= len(commands) <= MAX_GROUP:
            raise LocalProtocolError(f"a transaction takes 1 to {MAX_GROUP} commands, not {len(commands)}")
        touched = Touched.by_all([command.touched for command in commands])
        started = time.perf_counter_ns()
        with self._mutex:
            try:
                with self._store.transaction() as transaction:
                    self._catch_up(transaction)
                    book = Book(transaction, touched, self.now(), self._log.size, self._allowed)
                    outcomes = [_attempt(command, book) for command in commands]
                    changes = book.changes(self._log)
                    if changes is not None:
                        transaction.write(changes)
            except BaseException:  # whether it reached the disk is looked up before the tree is used again
                self._doubtful = True
                raise
            self._remember(changes)
        if self._watch and changes is not None:  # no lock is held: a hook may ask the broker something
            self._watch.committed(changes, book.now, len(commands), time.perf_counter_ns() - started)
        return outcomes

    def _remember(self, changes: Changes | None) -> None:
        """Keep what receipts of the jobs that ended are made of; consumers ask for them at once."""
        if changes is None or changes.checkpoint is None:
            return
        self._note = changes.checkpoint
        first = changes.entries[0].index
        for job in (*changes.new_jobs, *changes.jobs):
            if job.entry is not None and job.entry >= first:
                self._ended[job.id] = changes.entries[job.entry - first]
        while len(self._ended) > MAX_RECENT:
            self._ended.popitem(last=False)

    def ended(self, job: str) -> Ended | None:
        """The entry that ended a job, and its proof under the newest checkpoint; ``None`` where it was long ago."""
        with self._mutex:
            entry = None if self._doubtful else self._ended.get(job)
            if entry is None:
                return None
            return Ended(entry, self._log.inclusion_proof(entry.index, self._log.size), self._note)

    def commit_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run any number of commands, in as few transactions as it takes; raises the first error there is."""
        outcomes = []
        for start in range(0, len(commands), MAX_GROUP):
            outcomes += self.commit(commands[start : start + MAX_GROUP])
        for outcome in outcomes:
            if isinstance(outcome, TrustcomputeError):
                raise outcome
        return outcomes

    def commit_one(self, command: Command) -> Any:
        """Run one command, in a transaction with those of other threads; returns its outcome, raises its error."""
        ticket = _Ticket(command)
        with self._queue_mutex:
            self._queue.append(ticket)
            ticket.leads, self._led = not self._led, True
        if not ticket.leads:
            self._wait(ticket)
        if not ticket.done:
            self._lead()
        if isinstance(ticket.outcome, BaseException):
            raise ticket.outcome
        return ticket.outcome

    def _wait(self, ticket: _Ticket) -> None:
        try:
            ticket.gate.acquire()
        except BaseException:  # interrupted: if it has not been taken up yet it never will be
            with self._queue_mutex, contextlib.suppress(ValueError):
                self._queue.remove(ticket)
            if ticket.leads:
                self._hand_over()
            raise

    def _hand_over(self) -> None:
        with self._queue_mutex:
            following = self._queue[0] if self._queue else None
            self._led = following is not None
            if following is not None:
                following.leads = True
                following.gate.release()

    def _lead(self) -> None:
        """Commit for the first of the queue, the caller among them, then let the next one lead."""
        with self._queue_mutex:
            group = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_GROUP))]
        try:
            self._commit_for(group)
        finally:
            self._hand_over()

    def _commit_for(self, group: Sequence[_Ticket]) -> None:
        try:
            outcomes = self.commit([ticket.command for ticket in group])
        except StoreError as error:
            outcomes = [StoreError(str(error)) for _ in group]
        except Exception as error:
            if len(group) > 1:  # one caller's mistake is not the others': each for itself
                for ticket in group:
                    self._commit_for([ticket])
                return
            outcomes = [error]
        except BaseException:  # the leader is interrupted: nobody may wait for ever
            for ticket in group:
                ticket.end(StoreError("the commit was interrupted: look the job up before you try again"))
            raise
        for ticket, outcome in zip(group, outcomes, strict=True):
            ticket.end(outcome)

    @contextlib.contextmanager
    def view(self) -> Iterator[tuple[Reader, log.Log]]:
        """The book and the tree, both of the same moment; nothing is written meanwhile."""
        with self._mutex, self._store.read() as reader:
            self._catch_up(reader)
            yield reader, self._log

    def job(self, job: str) -> JobRecord | None:
        """What the book says of a job; a reservation that is only remembered need not be written for it."""
        with self._mutex, self._store.read() if self._store.shared else self._store.transaction() as rows:
            return rows.jobs([job]).get(job)

    @property
    def size(self) -> int:
        """Entries of the log."""
        return self._log.size

    def close(self) -> None:
        """Let go of the book."""
        with self._mutex:
            self._store.close()

    def now(self) -> int:
        """The clock's time, or that of the last entry where the clock was set back."""
        return max(self._clock.now(), self._log.last_time)

    def _catch_up(self, reader: Rows) -> None:
        """Bring the tree to what the book holds: after a failure, and where other processes write it too."""
        if not self._doubtful and not self._store.shared:
            return
        note = reader.last_checkpoint()
        if self._doubtful or (note or "") != self._note:
            size = 0 if note is None else checkpoint.parse_unverified(note).size
            self._log.extend(reader.leaves(self._log.size))
            self._agree(reader, size, note)
            self._doubtful = False

    def _agree(self, reader: Rows, size: int, note: str | None) -> None:
        """Hold the tree, cut to this size, against the newest checkpoint."""
        try:
            last = log.decode(size - 1, reader.entry(size - 1)).time if size else 0
        except AuditError as error:
            raise StoreError(f"the book's last entry cannot be used: {error}") from error
        self._log.return_to(size, last)
        log.check_against(self._log, note)
        self._note = note or ""


def _attempt(command: Command, book: Book) -> Any:
    try:
        return command.apply(book)
    except StoreError:
        raise
    except TrustcomputeError as error:
        return error
