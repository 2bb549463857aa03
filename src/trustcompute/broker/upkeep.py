"""What a book needs from time to time: leases that ran out, jobs an earlier process left, answers nobody is owed.

Called by ``Broker.sweep`` and, when a book is opened, ``Broker.recover``.
"""

from __future__ import annotations

from collections.abc import Sequence

from trustcompute.broker import commands, meter, standing
from trustcompute.broker.job import Fault, JobRecord
from trustcompute.broker.order import End
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.writer import MAX_GROUP, Writer


def sweep(writer: Writer, outbox: Outbox) -> list[JobRecord]:
    """End jobs whose lease has run out, and grants given up under which none is open; forget old answers."""
    now = writer.now()
    with writer.view() as (reader, _):
        late, ending = reader.late(now), reader.notices_in(standing.ENDING)
    ended: list[JobRecord] = []
    for some in (late[start : start + MAX_GROUP] for start in range(0, len(late), MAX_GROUP)):
        ended += writer.commit_one(commands.Expire(tuple(some)))
    end(writer, [each.name.partition("/")[2] for each in ending])
    prune(writer, outbox)
    return ended


def recover(writer: Writer, outbox: Outbox) -> list[JobRecord]:
    """Settle what an earlier process left: reserved is voided, armed forfeited, posted stays."""
    with writer.view() as (reader, _):
        left = reader.open_jobs()
    ended = writer.commit_all([commands.Abandon(job.id, "restart", Fault.PROVIDER) for job in left])
    prune(writer, outbox)
    return ended


def end(writer: Writer, ending: Sequence[str]) -> None:
    """End the grants among these, all given up, under which no job is open."""
    if not ending:
        return
    with writer.view() as (reader, _):
        busy: set[str] = set().union(*(meter.grants_of(job.accounts) for job in reader.open_jobs()))
    writer.commit_all([End(grant) for grant in ending if grant not in busy])


def prune(writer: Writer, outbox: Outbox) -> None:
    """Keep in the outbox and in the book what is charged, not countersigned and not too old, and open jobs' files.

    A charged job may have runs left, whose answers are written before the book says so.
    """
    names = outbox.names()  # before the book is looked at: a job is in it before its first file is
    now = writer.now()
    with writer.view() as (reader, _):
        kept = {*(job.id for job in reader.open_jobs()), *reader.unacknowledged(now)}
        old = [job for job in reader.answered() if job not in kept]
    outbox.remove({name for name in names if name[:32] not in kept})
    if old:
        writer.commit_one(commands.ForgetAnswers(tuple(old)))
