"""Watching: what happens in the book, told to hooks as typed events, after it is on the disk.

``Broker.open(..., hooks=...)`` makes a ``Watch``, which the writer tells every commit. Times are seconds since 1970,
amounts integers in the units of ``protocol.operation.Usage``. Events name parties by thumbprint and grants by hash;
they carry no parameters and no values. ``metrics`` turns them into instruments of Prometheus or OpenTelemetry.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from trustcompute.broker import meter
from trustcompute.broker.job import JobRecord, JobState
from trustcompute.broker.meter import Balance, BalanceKey
from trustcompute.broker.store import Changes
from trustcompute.protocol.operation import MAX_AMOUNT, Usage

THRESHOLDS: Final = (50, 80, 95, 100)  # percent of a limit
HOUR: Final = 3600
HORIZON: Final = 86400  # seconds: a budget that lasts longer at its pace is nobody's worry today
LEAST_SPAN: Final = 60  # seconds of history that a pace is told from
MAX_WATCHED: Final = 4096  # balances

Watched = TypeVar("Watched")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """time: of the book, in seconds since 1970."""

    time: int


@dataclass(frozen=True, slots=True)
class Denied(Event):
    """A request was refused by ``rule``, which looked at ``field``. asker: thumbprint; grant: hash."""

    job: str
    grant: str
    asker: str
    operation: str
    dataset: str
    rule: str
    field: str


@dataclass(frozen=True, slots=True)
class JobEnded(Event):
    """A job was charged, forfeited, voided, or has expired. used: what it was debited."""

    job: str
    grant: str
    operation: str
    dataset: str
    state: JobState
    used: Usage


@dataclass(frozen=True, slots=True)
class LeaseExpired(Event):
    """A job's lease ran out: one that was reserved costs nothing, one that was armed its whole reservation."""

    job: str
    grant: str
    operation: str
    dataset: str
    armed: bool


@dataclass(frozen=True, slots=True)
class BudgetLeft(Event):
    """A limited balance changed. span: ``total`` or ``per_day``; posted: used; pending: reserved."""

    account: str
    unit: str
    span: str
    posted: int
    pending: int
    limit: int

    @property
    def left(self) -> int:
        return max(self.limit - self.posted - self.pending, 0)


@dataclass(frozen=True, slots=True)
class BudgetLow(BudgetLeft):
    """Use and reservations have reached ``percent`` of the limit, one of ``THRESHOLDS``."""

    percent: int


@dataclass(frozen=True, slots=True)
class BurnRate(Event):
    """A total would be used up in ``seconds_left`` at the pace of the last hour, ``per_hour`` units an hour."""

    account: str
    unit: str
    per_hour: int
    left: int
    seconds_left: int


@dataclass(frozen=True, slots=True)
class SplitView(Event):
    """A witness (by its name) holds a log that ours, of ``size`` entries, does not begin with, or end as."""

    witness: str
    size: int


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """A transaction is on the disk: how many commands shared it, the entries it logged, how long it took."""

    commands: int
    entries: int
    nanoseconds: int


class Hook(Protocol):
    """Called with every event, in the thread that caused it, which waits: return at once."""

    def __call__(self, event: Event, /) -> None: ...


class Watch:
    """Turns commits into events. The writer calls it with no lock held."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = tuple(hooks)
        self._levels: OrderedDict[BalanceKey, int] = OrderedDict()  # the last threshold that was told
        self._paces: OrderedDict[BalanceKey, _Pace] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def committed(self, changes: Changes, time: int, commands: int, nanoseconds: int) -> None:
        """Tell what a commit has changed."""
        for event in self._events(changes, time):
            self.tell(event)
        self.tell(Committed(time, commands, len(changes.entries), nanoseconds))

    def tell(self, event: Event) -> None:
        """Call every hook; one that raises is logged by its type and the error's, and the others go on."""
        for hook in self._hooks:
            try:
                hook(event)
            except Exception as error:
                logger.warning("a hook (%s) failed: %s", type(hook).__name__, type(error).__name__)

    def _events(self, changes: Changes, time: int) -> Iterator[Event]:
        first = changes.entries[0].index if changes.entries else 0
        for job in (*changes.new_jobs, *changes.jobs):
            if changes.entries and job.entry is not None and job.entry >= first:
                yield from _ended(job, time)
        for key, balance in changes.balances.items():
            if balance.limit < MAX_AMOUNT and not _past(key, time):
                yield from self._budget(key, balance, time)

    def _budget(self, key: BalanceKey, balance: Balance, time: int) -> Iterator[Event]:
        span = "total" if key.window == meter.TOTAL else "per_day"
        told = (time, key.account, key.unit, span, *balance)
        yield BudgetLeft(*told)
        level = _level(balance)
        if level > self._levels.get(key, 0):
            yield BudgetLow(*told, level)
        _put(self._levels, key, level)
        if key.window == meter.TOTAL:
            pace = self._paces.get(key) or _Pace()
            _put(self._paces, key, pace)
            yield from pace.look(key, balance, time)


class _Pace:
    """How fast one balance was used in the last hour, by the minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, int]] = deque()  # (time, posted), at most one a minute
        self._told = -HOUR

    def look(self, key: BalanceKey, balance: Balance, time: int) -> Iterator[BurnRate]:
        while self._seen and self._seen[0][0] < time - HOUR:
            self._seen.popleft()
        if not self._seen or time - self._seen[-1][0] >= LEAST_SPAN:
            self._seen.append((time, balance.posted))
        since, before = self._seen[0]
        span, used = time - since, balance.posted - before
        if span < LEAST_SPAN or used <= 0 or time - self._told < HOUR:
            return
        seconds = balance.left * span // used
        if seconds < HORIZON:
            self._told = time
            yield BurnRate(time, key.account, key.unit, used * HOUR // span, balance.left, seconds)


def _ended(job: JobRecord, time: int) -> Iterator[Event]:
    about = (time, job.id, job.grant)
    if job.state is JobState.DENIED:
        for reason in job.reasons[:1]:
            yield Denied(*about, job.asker, job.operation, job.dataset, reason.rule, reason.field)
        return
    yield JobEnded(*about, job.operation, job.dataset, job.state, job.charged or Usage())
    if job.detail == "lease":
        yield LeaseExpired(*about, job.operation, job.dataset, job.state is JobState.FORFEITED)


def _level(balance: Balance) -> int:
    held = balance.posted + balance.pending
    return max((each for each in THRESHOLDS if held * 100 >= each * balance.limit), default=0)


def _past(key: BalanceKey, time: int) -> bool:
    """A job that was reserved before midnight settles a day that nobody waits for."""
    return key.window not in (meter.TOTAL, meter.day_of(time))


def _put(watched: OrderedDict[BalanceKey, Watched], key: BalanceKey, value: Watched) -> None:
    watched[key] = value
    watched.move_to_end(key)
    while len(watched) > MAX_WATCHED:
        watched.popitem(last=False)
