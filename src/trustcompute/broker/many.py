"""Many whole jobs in groups, each step of a group one durable transaction. Called by ``Broker.run_many``.

A group is reserved, armed, answered and charged as a whole; two transactions that last serve up to 256 jobs. What went
wrong with a job stands in its place and leaves the others alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trustcompute.broker import commands, receipt
from trustcompute.broker.job import Fault, JobRecord, JobState, Release
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.request import VerifiedRequest
from trustcompute.broker.writer import MAX_GROUP, Command, Writer
from trustcompute.errors import GrantError, JobForfeited, TrustcomputeError
from trustcompute.protocol.operation import Operation, Usage


@dataclass(frozen=True, slots=True)
class Work:
    """One job for ``run_many``. request: verified, or why it is not, which is then the job's outcome."""

    request: VerifiedRequest | GrantError
    operation: Operation


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job releases, and what it used of all it reserved."""

    release: Release
    usage: Usage


Outcome = Receipt | TrustcomputeError


def run(writer: Writer, work: Iterable[Work], answer: Callable[[JobRecord], Answer]) -> list[Outcome]:
    """See ``Broker.run_many``."""
    done: list[Outcome] = []
    waiting = iter(work)
    while group := list(itertools.islice(waiting, MAX_GROUP)):
        done += _run_group(writer, group, answer)
    return done


def _run_group(writer: Writer, work: Sequence[Work], answer: Callable[[JobRecord], Answer]) -> list[Outcome]:
    found: list[Any] = [each.request for each in work]
    asked = {
        place: commands.Reserve(each.request, each.operation)
        for place, each in enumerate(work)
        if not isinstance(each.request, TrustcomputeError)
    }
    _step(writer, found, asked)
    _step(writer, found, {n: commands.Arm(each.id) for n, each in _open(found).items()})
    charges: dict[int, Command] = {}
    try:
        for place, job in _open(found).items():
            charges[place] = _charge(job, answer)
    except BaseException:
        left = {n: commands.Abandon(each.id, "failed", Fault.PROVIDER) for n, each in _open(found).items()}
        _step(writer, found, left)
        raise
    _step(writer, found, charges)
    return [_outcome(writer, each) for each in found]


def _step(writer: Writer, found: list[Any], group: Mapping[int, Command]) -> None:
    """Commit a group, and put each outcome in its place."""
    outcomes = writer.commit(list(group.values())) if group else []
    for place, outcome in zip(group, outcomes, strict=True):
        found[place] = outcome


def _open(found: Sequence[Any]) -> dict[int, JobRecord]:
    return {n: each for n, each in enumerate(found) if isinstance(each, JobRecord) and each.open}


def _charge(job: JobRecord, answer: Callable[[JobRecord], Answer]) -> Command:
    try:
        made = answer(job)
    except TrustcomputeError as error:
        return commands.Abandon(job.id, error.code, Fault.PROVIDER)
    return commands.Post(job.id, made.release, made.usage)


def _outcome(writer: Writer, found: Any) -> Outcome:
    if isinstance(found, TrustcomputeError):
        return found
    if found.state is not JobState.POSTED:
        return JobForfeited(f"job {found.id} is {found.state} ({found.detail}): start a new one", found.id)
    return receipt.of(writer, found.id)
