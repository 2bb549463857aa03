"""Keeping a book for years: back-ups while it runs, redaction that breaks no proof, orphans by the thousand."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker import backup, commands
from trustcompute.broker.broker import Broker
from trustcompute.broker.job import Fault, JobState
from trustcompute.broker.store.sqlite import BOOK_FILE
from trustcompute.errors import AuditError, ParameterError, StoreError
from trustcompute.primitives import commitment


def test_a_back_up_is_taken_while_jobs_run_and_can_be_opened(world: Any, tmp_path: Path) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    stop, done = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            job = broker.reserve(world.verified(broker, grant, rows=1), world.operation)
            answer = [[b"answer"]] if len(done) % 2 else None  # in the book, or in a file
            if answer is None:
                broker.outbox.write(job.id, 0, 1, [[b"answer"]])
            release = world.release(job.id)
            done.append(broker.post(job.id, release=release, usage=job.reserved, answer=answer).id)

    worker = threading.Thread(target=work)
    worker.start()
    while len(done) < 5:
        pass
    broker.backup(tmp_path / "copy")
    stop.set()
    worker.join()
    broker.close()

    key = broker.log_key
    restored = Broker.open(tmp_path / "copy", world.bureau, clock=world.clock)
    assert 5 <= restored.audit().jobs["posted"] <= len(done)
    for job in done[: restored.audit().jobs["posted"]]:
        assert restored.answer(job, 0, 1) == [[b"answer"]]
        assert restored.receipt(job).verify(key)
    restored.close()


def test_a_back_up_older_than_what_others_hold_is_told(world: Any, tmp_path: Path) -> None:
    broker = world.broker()
    broker.backup(tmp_path / "old")
    broker.incident("x", "peer")
    broker.backup(tmp_path / "new")
    newest = broker.checkpoint()
    assert backup.check(tmp_path / "new", broker.log_key, newest).size == broker.audit().size
    with pytest.raises(AuditError, match="rewritten or cut"):
        backup.check(tmp_path / "old", broker.log_key, newest)


def test_a_back_up_goes_into_an_empty_directory_and_leaves_nothing_half_done(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = world.broker()
    with pytest.raises(StoreError, match="not empty"):
        broker.backup(world.directory)
    monkeypatch.setattr(
        shutil, "copy2", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    broker.outbox.write("0" * 32, 0, 1, [[b"answer"]])
    with pytest.raises(StoreError, match="No space left"):
        broker.backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_redaction_destroys_the_value_and_no_proof(world: Any) -> None:
    broker = world.broker()
    index = broker.incident("x", "somebody-with-a-name.example")
    before = broker.checkpoint()
    (opening,) = broker.openings(index)
    committed = json.loads(broker.entries()[index].body)["peer"]
    commitment.verify(bytes.fromhex(committed), "peer", opening.value, opening.salt)
    broker.redact(index)
    broker.redact(index)  # a second time changes nothing
    assert broker.openings(index) == []
    entries = broker.entries()
    assert json.loads(entries[index].body)["peer"] == committed and entries[-1].type == "entry.redacted"
    assert [entry.type for entry in entries].count("entry.redacted") == 1
    broker.audit()
    assert broker.consistency_proof(index + 1, len(entries)) and before != broker.checkpoint()
    with pytest.raises(ParameterError, match="none with index"):
        broker.redact(10**6)
    broker.close()
    for path in world.directory.iterdir():
        if path.is_file():
            data = path.read_bytes()
            assert opening.value not in data and opening.salt not in data, f"{path.name} still has it"


@pytest.mark.parametrize("world", ["sqlite", "postgres"], indirect=True)
def test_orphans_are_swept_in_groups(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    work = [commands.Reserve(world.verified(broker, grant, rows=1), world.operation) for _ in range(600)]
    jobs = broker._writer.commit_all(work)
    broker._writer.commit_all([commands.Arm(job.id) for job in jobs[:300]])
    before = broker.audit().checkpoints
    assert broker.sweep() == [], "nothing is late yet"
    world.clock.time += commands.ARMED_LEASE + 1
    ended = broker.sweep()
    assert [job.state for job in ended].count(JobState.EXPIRED) == 300
    assert [job.state for job in ended].count(JobState.FORFEITED) == 300
    report = broker.audit()
    assert report.checkpoints - before == 3, "600 jobs in three transactions"
    assert report.entries["jobs.expired"] < 4, "what comes to nothing together shares an entry"
    assert broker.audit_evidence().requests == 600
    lapsed = next(job for job in ended if job.state is JobState.EXPIRED)
    shown = broker.receipt(lapsed.id).verify(broker.log_key).fields
    assert [lapsed.id, lapsed.request] in shown["jobs"] and shown["grant"] == lapsed.grant
    assert world.balances(broker)["grant", "calls"] == (300, 0)


@pytest.mark.fault
def test_a_full_disk_is_a_clear_refusal_and_no_corrupt_book(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    world.posted(broker, grant)
    connection = broker._store._connection
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")  # as if the file system had no block left
    size = broker.audit().size
    with pytest.raises(StoreError, match="free disk space; nothing was written"):
        for _ in range(200):
            broker.incident("x" * 100, "peer")
    connection.execute("PRAGMA max_page_count = 1000000")
    written = broker.audit().size
    assert size <= written < size + 200
    world.posted(broker, grant)
    assert broker.audit().jobs == {"posted": 2}


@pytest.mark.fault
def test_a_read_only_disk_is_a_clear_refusal(world: Any, tmp_path: Path) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    broker._store._connection.execute(
        "PRAGMA query_only = ON"
    )  # root may write to any file, so not by its mode
    job = broker.reserve(world.verified(broker, grant), world.operation)  # needs no disk yet
    with pytest.raises(StoreError, match="nothing was written"):
        broker.arm(job.id)
    broker._store._connection.execute("PRAGMA query_only = OFF")
    broker.abandon(job.id, "the disk was read-only", Fault.PROVIDER)
    world.posted(broker, grant)
    assert broker.audit().jobs == {"posted": 1, "voided": 1}
    broker.close()
    read_only = sqlite3.connect(f"file:{world.directory / BOOK_FILE}?mode=ro", uri=True)
    assert read_only.execute("PRAGMA integrity_check").fetchone() == ("ok",)
