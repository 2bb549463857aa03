"""Processes killed at every write: what was promised holds, what was not promised costs nobody anything.

A child runs jobs and is killed (SIGKILL) before the n-th write: a statement of the book, or an fsync, rename
or removal of the outbox. A power cut would also lose or tear what was written since the last commit
returned: the write-ahead log is cut and altered there too. Then the book is opened again and looked at. The
hooks sit in the child's ``sqlite3.connect`` and ``os``; the software under test knows nothing of them. A commit counts
as on the disk where it was made to wait for it, a file of the outbox where its content and then its name were synced.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker.job import Fault, JobState
from trustcompute.broker.store.sqlite import BOOK_FILE
from trustcompute.errors import JobForfeited, Refused, TrustcomputeError
from trustcompute.primitives.signing import token_hash

FSYNC = os.fsync
UNLINK = os.unlink
JOBS = 6
KILLS = 3  # in a row, for each seed


def frames(job: str) -> list[list[bytes]]:
    return [[b"header", b"fresh noise of " + job.encode()]]


def workload(world: Any, grant: str, tokens: list[str], say: Callable[..., None]) -> None:
    """Every token to its end: answered, but one voided and one forfeited; at last the grant is revoked."""
    broker = world.open()
    broker.register(world.asset())
    broker.issue(broker.verify(grant).claims)
    for number, token in enumerate(tokens):
        verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
        try:
            run_job(world, broker, verified, number, say)
        except (Refused, JobForfeited):
            pass
        except TrustcomputeError as error:
            if "start a new one" not in str(error):
                raise
    broker.sweep()
    broker.revoke(token_hash(grant), "over")
    say("revoked")
    broker.close()


def run_job(world: Any, broker: Any, verified: Any, number: int, say: Callable[..., None]) -> None:
    job = broker.reserve(verified, world.operation)
    say("reserved", job.id)
    if job.state is not JobState.POSTED:
        if number == 1:
            broker.abandon(job.id, "cancelled", Fault.PEER)
            say("voided", job.id)
            return
        broker.arm(job.id)
        say("armed", job.id)
        if number == 2:
            broker.abandon(job.id, "gone", Fault.PEER)
            say("forfeited", job.id)
            return
        kept = None if number % 3 else frames(job.id)  # with the charge, or before it in a file of its own
        if kept is None:
            broker.outbox.write(job.id, 0, 1, frames(job.id))
        job = broker.post(job.id, release=world.release(job.id), usage=job.reserved, answer=kept)
        say("posted", job.id)
    if job.countersigned is None:
        say("sent", job.id, broker.answer(job.id, 0, 1)[0][1].decode())
        if number % 2:
            broker.countersign(world.countersigned(verified.token, job))
            say("countersigned", job.id)


class Killer:
    """Counts writes, and kills the process before number ``target``. Knows what the disk must have kept by now."""

    def __init__(self, target: int | None, wal: Path) -> None:
        self.count, self._target, self._wal = 0, target, wal
        self.say: Callable[..., None] | None = None
        self._synced: set[str] = set()  # names of files whose content is on the disk
        self._waits = True  # a commit does, for the disk
        self._committing = False
        self._lasting = 0

    @property
    def lasting(self) -> int:
        """Bytes of the write-ahead log that a commit has waited for."""
        if self._committing:  # it has returned, and nothing was written since
            self._committing = False
            self._lasting = self._wal.stat().st_size if self._wal.exists() else 0
        return self._lasting

    def __call__(self, *_: Any) -> None:
        self.count += 1
        if self.count == self._target:
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        connect = sqlite3.connect

        def traced(*args: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*args, **options)
            connection.set_trace_callback(self._statement)
            return connection

        sqlite3.connect = traced  # type: ignore[assignment]
        for name in ("fsync", "replace", "unlink"):
            setattr(os, name, self._before(getattr(os, name)))

    def _statement(self, statement: str) -> None:
        self()
        _ = self.lasting
        if statement.startswith("PRAGMA synchronous"):
            self._waits = statement.endswith("FULL")
        self._committing = statement == "COMMIT" and self._waits

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if real is UNLINK and self.say is not None:
                self.say("unlinking")  # what was committed before is on the disk, said or not
            self()
            done = real(*args, **options)
            if real is FSYNC:
                self._after_sync(Path(f"/proc/self/fd/{args[0]}").readlink())
            elif real is UNLINK:
                self._synced.discard(Path(args[0]).name)
            else:
                self._renamed(Path(args[0]).name, Path(args[1]).name)
            return done

        return call

    def _renamed(self, old: str, new: str) -> None:
        self._synced.discard(new)
        if old in self._synced:
            self._synced ^= {old, new}

    def _after_sync(self, path: Path) -> None:
        """Say which files of the outbox are there for good: their content was synced, and then their directory."""
        if path.name != "outbox":
            self._synced.add(path.name)
            return
        for each in path.iterdir():
            if self.say is not None and not each.name.endswith(".tmp") and each.name in self._synced:
                self.say("synced", each.name)


def in_child(world: Any, grant: str, tokens: list[str], target: int | None) -> tuple[bool, list[list[Any]]]:
    """Run the workload in a forked process; returns whether it ended by itself, and what it said."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(receiving)
            killer = Killer(target, world.directory / (BOOK_FILE + "-wal"))
            killer.install()

            def say(*words: Any) -> None:
                os.write(sending, json.dumps([*words, killer.lasting]).encode() + b"\n")

            killer.say = say
            workload(world, grant, tokens, say)
            say("writes", killer.count)
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        said = [json.loads(line) for line in pipe]
    _, ended = os.waitpid(child, 0)
    assert ended == 0 or os.WTERMSIG(ended) == signal.SIGKILL, "the workload itself failed"
    return ended == 0, said


def cut_power(world: Any, said: list[list[Any]], chance: random.Random) -> None:
    """Lose or tear what reached the write-ahead log after the last commit that had returned."""
    wal = world.directory / (BOOK_FILE + "-wal")
    if not wal.exists() or not said:
        return
    synced, size = said[-1][-1], wal.stat().st_size
    if size <= synced:
        return
    keep = chance.randint(synced, size)
    data = bytearray(wal.read_bytes()[:keep])
    if keep > synced and chance.random() < 0.5:
        data[chance.randrange(synced, keep)] ^= 0xFF
    wal.write_bytes(data)


def look(world: Any, said: list[list[Any]]) -> Counter[str]:
    """Open the book again and hold it against everything that was said so far."""
    broker = world.open()
    report = broker.audit()  # log, meter, checkpoints and states agree
    heard = {(words[0], words[1]) for words in said if len(words) > 2 and words[0] != "synced"}
    calls = 0
    for _, job in {pair for pair in heard if pair[0] == "reserved"}:
        record = broker.job(job)
        if record is None:  # a reservation is kept in memory until more comes of it
            assert not {(word, job) for word in ("armed", "posted", "voided", "forfeited", "sent")} & heard
            continue
        assert not record.open
        if ("posted", job) in heard or ("sent", job) in heard:
            assert record.state is JobState.POSTED
        if ("voided", job) in heard:
            assert record.state is JobState.VOIDED
        if ("armed", job) in heard:
            assert record.state in (JobState.POSTED, JobState.FORFEITED), "no refund after arming"
        if record.state is JobState.POSTED:
            assert broker.receipt(job).verify(broker.log_key).fields["job"] == job
            if record.countersigned is None:
                assert broker.answer(job, 0, 1) == frames(job), "charged, but the answer is lost"
        calls += record.state in (JobState.POSTED, JobState.FORFEITED)
    for words in said:
        if words[0] == "sent":
            assert words[2] == frames(words[1])[0][1].decode()
    posted = world.balances(broker)
    assert posted.get(("grant", "calls"), (0, 0)) == (calls, 0), "every job is charged once or not at all"
    left = {name[:32] for name in broker.outbox.names()}
    kept = {job for _, job in heard if (record := broker.job(job)) and record.state is JobState.POSTED}
    assert left <= kept
    broker.close()
    return Counter(report.jobs)


def fresh(world: Any) -> tuple[str, list[str]]:
    from trustcompute.broker import grant as grants

    grant = grants.sign(world.claims(limits={}), world.bureau.key)
    return grant, [world.request(grant).sign(world.bank.key) for _ in range(JOBS)]


def test_the_workload_does_what_the_others_count_on(world: Any) -> None:
    grant, tokens = fresh(world)
    ended, said = in_child(world, grant, tokens, None)
    assert ended
    assert look(world, said) == {"posted": JOBS - 2, "voided": 1, "forfeited": 1}
    assert said[-1][0] == "writes" and said[-1][1] > 150


@pytest.mark.fault
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_write(world: Any, seed: int) -> None:
    chance = random.Random(seed)
    grant, tokens = fresh(world)
    said: list[list[Any]] = []
    kills = 0
    for attempt in itertools.count():
        target = chance.randint(1, 280 if attempt == 0 else 150) if attempt < KILLS else None
        ended, words = in_child(world, grant, tokens, target)
        said += words
        if ended:
            break
        kills += 1
        cut_power(world, words, chance)
        look(world, said)
    final = look(world, said)
    assert kills >= 1 and sum(final.values()) == JOBS


@pytest.mark.fault
@pytest.mark.slow
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-lost"])
def test_a_hundred_seeded_crashes(tmp_path: Path, power: bool) -> None:
    from tests.broker.campaign_crash import campaign

    states = campaign(tmp_path, range(100), power=power)
    assert states["posted"] > 25 and states["forfeited"] > 5 and states["voided"] > 5, (
        "crashes in every state"
    )
