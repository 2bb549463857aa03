"""The meter's tables held against what the entries of the log amount to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from trustcompute.broker import credit, meter
from trustcompute.broker.audit.replay import Replay
from trustcompute.broker.job import JobRecord
from trustcompute.broker.meter import TOTAL, BalanceKey
from trustcompute.broker.store import Reader
from trustcompute.errors import AuditError


def compare(replay: Replay, reader: Reader) -> None:
    """Raises ``AuditError`` unless the meter's tables say what the entries say."""
    jobs, countersigned, accounts = dict(replay.jobs), dict(replay.countersigned), replay.accounts
    pending: dict[BalanceKey, int] = defaultdict(int)
    for job in reader.all_jobs():
        if job.open:
            _expect(job.id not in replay.jobs, f"job {job.id} is {job.state} in the book, ended in the log")
            for key, amount in _holds(job):
                pending[key] += amount
            continue
        _expect(
            jobs.pop(job.id, None) == (job.state, job.entry)
            and countersigned.pop(job.id, None) == job.countersigned,
            f"job {job.id} is {job.state} in the book, which the log does not say",
        )
    _expect(not jobs, f"the log has jobs that the book lacks: {', '.join(sorted(jobs)[:3])}")
    held = reader.all_balances()
    posted = accounts.balances
    for key in {*held, *pending, *posted}:
        balance = held.get(key, meter.Balance())
        _expect(
            (balance.posted, balance.pending) == (posted.get(key, 0), pending.get(key, 0)),
            f"the {key.unit} of {key.account}, window {key.window}, are not what the entries add up to",
        )
    _expect(
        set(reader.grants(accounts.grants)) == set(accounts.grants),
        "the log has grants that the book lacks",
    )
    _expect(
        set(reader.revocations(accounts.revoked)) == accounts.revoked,
        "the book lacks a revocation",
    )
    held_notices = reader.notices(replay.conditions.notices)
    for party, events in replay.conditions.credits.items():
        said = credit.text_of(credit.Open(event, ceiling) for event, (_, ceiling) in events.items())
        notice = held_notices.get(credit.name_of(party))
        _expect(
            notice is not None and notice.token == said,
            "the book's open credit events are not those of the log",
        )
    notices = {name: (each.state, each.entry) for name, each in held_notices.items()}
    _expect(
        notices == replay.conditions.notices,
        "the book's rules or the standing of its grants are not those of the log",
    )


def _holds(job: JobRecord) -> Iterator[tuple[BalanceKey, int]]:
    for account in job.accounts:
        for unit, amount in job.reserved.items():
            for window in (job.window, TOTAL):
                yield BalanceKey(account, window, unit), amount


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AuditError(message)
