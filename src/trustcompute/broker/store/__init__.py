"""What the broker asks of a store, in terms of the book; each store module speaks one kind of SQL.

A transaction sees the book as it is, nobody else writes meanwhile, and ``write`` makes all changes durable
or none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple, Protocol

from trustcompute.broker.job import JobRecord, JobState
from trustcompute.broker.log import Opening, StoredEntry
from trustcompute.broker.meter import Balance, BalanceKey
from trustcompute.broker.notice import Notice
from trustcompute.broker.policy import Asset


class GrantRow(NamedTuple):
    """A grant the book knows. hash: of the token; entry: index of the entry that issued or accepted it."""

    hash: str
    token: str
    entry: int


class Revocation(NamedTuple):
    """grant: hash of the token; entry: index of the entry that revoked it."""

    grant: str
    entry: int


class Evidence(NamedTuple):
    """A token that the log names by its hash: a request or a countersignature. kind: which of the two."""

    hash: str
    kind: str
    job: str
    token: str


class KeptAnswer(NamedTuple):
    """A small answer that was charged. body: as the outbox would write it."""

    job: str
    run: int
    turn: int
    body: bytes


@dataclass
class Changes:
    """What one transaction writes. Jobs, balances, assets and notices replace what was there, the rest is new."""

    new_jobs: list[JobRecord] = field(default_factory=list)
    jobs: list[JobRecord] = field(default_factory=list)
    balances: dict[BalanceKey, Balance] = field(default_factory=dict)
    grants: list[GrantRow] = field(default_factory=list)
    revocations: list[Revocation] = field(default_factory=list)
    notices: dict[str, Notice] = field(default_factory=dict)
    assets: list[Asset] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    answers: list[KeptAnswer] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)  # jobs whose answers are forgotten
    openings: list[Opening] = field(default_factory=list)
    forgotten: list[tuple[int, str]] = field(default_factory=list)  # openings, by index and field
    entries: list[StoredEntry] = field(default_factory=list)
    checkpoint: str | None = None
    key: str | None = None  # thumbprint of the key that the book belongs to from now on

    @property
    def any(self) -> bool:
        """Whether there is something to write."""
        return bool(self.new_jobs or self.jobs or self.balances or self.evidence or self._lasting)

    @property
    def _lasting(self) -> bool:
        return bool(
            self.entries
            or self.grants
            or self.revocations
            or self.notices
            or self.assets
            or self.answered
            or self.openings
            or self.forgotten
        )

    @property
    def reserves_only(self) -> bool:
        """Whether this is reservations and nothing else: what a crash may take back, for it voids them anyway."""
        jobs = (*self.new_jobs, *self.jobs)
        return bool(jobs) and not self._lasting and all(job.state is JobState.RESERVED for job in jobs)


class Touched(NamedTuple):
    """What a command will look at: ids of jobs, hashes of grants, ids of datasets, names of notices, thumbprints of
    recipients.

    The notices about a grant and about the grants of a job come with these; all rules are always there.
    """

    jobs: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()

    @classmethod
    def by_all(cls, commands: Sequence[Touched]) -> Touched:
        """What any of several commands will look at."""
        if len(commands) == 1:
            return commands[0]
        return cls(
            *(tuple(dict.fromkeys(chain.from_iterable(names))) for names in zip(*commands, strict=True))
        )


NOTHING: Final = Touched()


class Rows(Protocol):
    """What a command may look at."""

    def expect(self, touched: Touched, windows: Collection[int]) -> None:
        """Told first what will be asked for. A store to which every question is a journey reads it all at once."""
        ...

    def jobs(self, ids: Collection[str]) -> dict[str, JobRecord]: ...

    def grants(self, hashes: Collection[str]) -> dict[str, GrantRow]: ...

    def revocations(self, hashes: Collection[str]) -> dict[str, Revocation]: ...

    def notices(self, names: Collection[str]) -> dict[str, Notice]:
        """Notices of these names, whole, and all rules (``denylist/…``, ``policy/…``) without their tokens."""
        ...

    def notice(self, hash_: str) -> Notice:
        """The notice whose token has this hash."""
        ...

    def assets(self, ids: Collection[str]) -> dict[str, Asset]: ...

    def balances(self, accounts: Collection[str], windows: Collection[int]) -> dict[BalanceKey, Balance]: ...

    def openings(self, index: int) -> list[Opening]: ...

    def entry(self, index: int) -> bytes: ...

    def entries(self, start: int = 0) -> Iterator[StoredEntry]:
        """The entries from ``start`` on, in order."""
        ...

    def leaves(self, start: int = 0) -> Iterator[bytes]:
        """Leaf hashes of the entries from ``start`` on, in order."""
        ...

    def last_checkpoint(self) -> str | None: ...


class Reader(Rows, Protocol):
    """A consistent view of the book."""

    def origin(self) -> str: ...

    def all_jobs(self) -> Iterator[JobRecord]: ...

    def open_jobs(self) -> list[JobRecord]:
        """Jobs that are reserved or armed, by id."""
        ...

    def late(self, now: int) -> list[str]:
        """Ids of open jobs whose lease ended before ``now``, in order."""
        ...

    def unacknowledged(self, since: int) -> list[str]:
        """Ids of posted jobs that nobody has countersigned, and whose answers are kept until ``since`` or longer."""
        ...

    def notices_in(self, state: str) -> list[Notice]:
        """All notices in this state, by name."""
        ...

    def all_balances(self) -> dict[BalanceKey, Balance]: ...

    def evidence(self, job: str) -> list[Evidence]: ...

    def all_evidence(self) -> Iterator[Evidence]: ...

    def answer(self, job: str, run: int, turn: int) -> bytes | None:
        """The body of an answer that is kept here, or None."""
        ...

    def answered(self) -> list[str]:
        """Jobs of which an answer is kept here."""
        ...

    def checkpoints(self) -> Iterator[str]:
        """All checkpoints, oldest first."""
        ...

    def failures(self) -> dict[tuple[str, int], int]:
        """Counts by (peer, hour since 1970)."""
        ...


class Desk(Rows, Protocol):
    """Where one transaction of the writer's works."""

    def write(self, changes: Changes) -> None:
        """Everything or nothing; called once, last."""
        ...


class Transaction(Reader, Desk, Protocol):
    """A view that may be written once."""

    def count_failure(self, peer: str, hour: int) -> None: ...


class Ledger(Protocol):
    """What the writer works on: a store, or the book in memory in front of one.

    shared: whether other processes may write the same book, so that what was read before may have changed.
    """

    @property
    def shared(self) -> bool: ...

    def read(self) -> AbstractContextManager[Reader]: ...

    def transaction(self) -> AbstractContextManager[Desk]:
        """Commits where the block ends, takes everything back where it raises."""
        ...

    def close(self) -> None: ...


class Store(Protocol):
    """A book on disk. Methods raise ``StoreError`` and may be called from any thread, one at a time.

    shared: whether other processes may write the same book, so that what was read before may have changed.
    """

    @property
    def shared(self) -> bool: ...

    def read(self) -> AbstractContextManager[Reader]: ...

    def scrub(self) -> None:
        """Overwrite what was deleted, as far as the store can."""
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Commits durably where the block ends, takes everything back where it raises."""
        ...

    def close(self) -> None: ...


class SoleStore(Store, Protocol):
    """A store that one process writes."""

    def peek(self) -> AbstractContextManager[Reader]:
        """The book as it is, outside of any transaction: for reading one thing."""
        ...

    def transaction(self, *, lasting: bool = True) -> AbstractContextManager[Transaction]:
        """lasting: ``False`` does not wait for the disk; the next transaction that lasts waits for both."""
        ...
