"""The replay: every entry in order, judged by the rules that the broker promises to keep.

What belongs together is replayed in one place: the log's keys (``custody``), what stands above and beside grants
(``conditions``), the meter (``accounts``), money (``clearing.record``). Here: order, jobs, and the tree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from trustcompute.broker import log
from trustcompute.broker.audit.accounts import Accounts
from trustcompute.broker.audit.conditions import Conditions
from trustcompute.broker.audit.custody import Custody
from trustcompute.broker.audit.fault import EntryError
from trustcompute.broker.clearing import Clearing, Period
from trustcompute.broker.job import JobState
from trustcompute.broker.log import Entry
from trustcompute.broker.meter import BalanceKey
from trustcompute.errors import AuditError, TrustcomputeError
from trustcompute.primitives import checkpoint, merkle
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found to be in order. jobs: by final state; balances: posted, by account, window and unit.

    meter: whether the book's tables were compared too (an exported log has none).
    """

    origin: str
    size: int
    root: bytes
    checkpoints: int
    entries: Mapping[str, int]
    jobs: Mapping[str, int]
    balances: Mapping[BalanceKey, int]
    periods: tuple[Period, ...]
    meter: bool


_STATES: Final = {
    f"job.{state}": state for state in JobState if state not in (JobState.RESERVED, JobState.ARMED)
}


class Replay:
    """What the entries so far amount to."""

    def __init__(self, key: NoteKey, tree: merkle.Tree | None = None, first: NoteKey | None = None) -> None:
        """tree: of all entries, where they were checked against it before; first: as ``Custody`` takes it."""
        notices: dict[str, tuple[str, int]] = {}
        self._origin = key.name
        self.custody = Custody(key, first, notices)
        self.conditions = Conditions(self.custody, notices)
        self.accounts = Accounts(self.conditions)
        self.clearing = Clearing()
        self.jobs: dict[str, tuple[JobState, int]] = {}
        self.countersigned: dict[str, int] = {}
        self._tree = tree or merkle.Tree()
        self._time = 0
        self._checkpoints = 0
        self._types: Counter[str] = Counter()
        self._rules: dict[str, Callable[[Entry], object]] = {
            "log.opened": self.custody.opened,
            "key.rotated": self.custody.rotated,
            "key.confirmed": self.custody.confirmed,
            "asset.registered": self.accounts.registered,
            "grant.issued": self.accounts.granted,
            "grant.accepted": self.accounts.granted,
            "grant.revoked": self.accounts.revocation,
            "grant.suspended": self.conditions.standing,
            "grant.resumed": self.conditions.standing,
            "grant.ending": self.conditions.standing,
            "grant.ended": self.conditions.standing,
            "grant.reviewed": self.conditions.reviewed,
            "rules.published": self.conditions.published,
            "credit.lowered": self.conditions.lowered,
            "credit.repaired": self.conditions.repaired,
            "job.denied": self._ended,
            "job.voided": self._ended,
            "job.expired": self._ended,
            "jobs.expired": self._expired,
            "job.posted": self._posted,
            "job.forfeited": self._forfeited,
            "job.released": self._released,
            "job.countersigned": self._countersigned,
        }

    def run(
        self, entries: Iterable[tuple[bytes, bytes | None]], notes: Iterator[str], known: Sequence[str]
    ) -> Replay:
        """Feed all entries, each with the leaf hash the book holds, if any, and all checkpoints in order."""
        note, agreed = self._next(notes), 0
        waiting: list[bytes] = []  # entries of one commit, read before they are believed
        for index, (body, leaf) in enumerate(entries):
            computed = merkle.leaf_hash(body)
            if leaf is not None and leaf != computed:
                raise EntryError("its bytes are not those that were hashed into the log", index)
            self._tree.append(computed)
            waiting.append(body)
            if note is not None and note.size == index + 1:
                if note.root != self._tree.root():
                    raise EntryError(f"from here to entry {index} the log is not what was signed", agreed)
                for number, each in enumerate(waiting, start=agreed):
                    self.replay(log.decode(number, each))
                waiting, agreed = [], index + 1
                self._checkpoints += 1
                note = self._next(notes)
        if note is not None or waiting or not agreed:
            raise AuditError(f"the log has {len(self._tree)} entries, and no checkpoint of just these")
        self.hold_against(known, agreed)
        return self

    def hold_against(self, known: Sequence[str], size: int) -> None:
        """Raises ``AuditError`` unless the log has all that these checkpoints cover."""
        self.custody.check()
        for held in (self.custody.held(each) for each in known):
            if held.size > size or held.root != self._tree.root(held.size):
                raise AuditError(
                    f"another checkpoint of size {held.size} was signed: the log was rewritten or cut"
                )

    def report(self, *, meter_compared: bool, checkpoints: int | None = None) -> AuditReport:
        return AuditReport(
            origin=self._origin,
            size=len(self._tree),
            root=self._tree.root(),
            checkpoints=self._checkpoints if checkpoints is None else checkpoints,
            entries=dict(self._types),
            jobs=Counter(state.value for state, _ in self.jobs.values()),
            balances=self.accounts.balances,
            periods=tuple(closing.period for closing in self.clearing.closings),
            meter=meter_compared,
        )

    def _next(self, notes: Iterator[str]) -> Checkpoint | None:
        note = next(notes, None)
        return None if note is None else checkpoint.verify(note, self.custody.signer)

    def replay(self, entry: Entry) -> None:
        """Take the next entry. Raises ``AuditError``."""
        index, kind, time = entry.index, entry.type, entry.time
        if time < self._time:
            raise EntryError("it is dated before the entry in front of it", index)
        if (index == 0) != (kind == "log.opened"):
            raise EntryError("a log begins with log.opened, and has no other", index)
        self._time = time
        self._types[kind] += 1
        if not kind.startswith("job"):
            self.accounts.forget()
        try:
            self._rules.get(kind, _nothing)(entry)
            self.clearing.feed(entry)
        except AuditError:
            raise
        except (KeyError, TypeError, ValueError, TrustcomputeError) as error:
            raise EntryError(f"a field is missing or malformed ({type(error).__name__})", index) from error

    def _ended(self, entry: Entry) -> None:
        self._end(entry, (entry.fields["job"],), _STATES[entry.type])

    def _expired(self, entry: Entry) -> None:
        """Reservations that came to nothing together."""
        jobs = [job for job, _ in entry.fields["jobs"]]
        if len(jobs) < 2:
            raise EntryError("it ends several jobs, and names fewer", entry.index)
        self._end(entry, jobs, JobState.EXPIRED)

    def _end(self, entry: Entry, jobs: Iterable[str], state: JobState) -> None:
        self.conditions.decided(entry)
        if entry.fields["grant"] not in self.accounts.grants:
            raise EntryError("its jobs ran under a grant that the log does not know", entry.index)
        for job in jobs:
            if job in self.jobs:
                raise EntryError(f"job {job} had ended before", entry.index)
            self.jobs[job] = state, entry.index

    def _posted(self, entry: Entry) -> None:
        self._ended(entry)
        self.accounts.debit(entry, partial(self._chargeable, entry.index))

    def _chargeable(self, index: int, grant: str) -> None:
        for link in self.accounts.chain(grant):
            if link in self.accounts.revoked:
                raise EntryError("it was charged under a revoked grant", index)
            if self.conditions.ended(link):
                raise EntryError("it was charged under a grant that had ended", index)

    def _forfeited(self, entry: Entry) -> None:
        self._ended(entry)
        self.accounts.debit(entry, _nothing)  # what was armed is lost, whatever became of its grant

    def _released(self, entry: Entry) -> None:
        self._posted_job(entry)

    def _countersigned(self, entry: Entry) -> None:
        job = self._posted_job(entry)
        if job in self.countersigned:
            raise EntryError(f"job {job} was countersigned before", entry.index)
        self.countersigned[job] = entry.index

    def _posted_job(self, entry: Entry) -> str:
        job = str(entry.fields["job"])
        if self.jobs.get(job, (None, 0))[0] is not JobState.POSTED:
            raise EntryError(f"job {job} was not charged before", entry.index)
        return job


def _nothing(_: object) -> None:
    """What binds nobody to anything."""
