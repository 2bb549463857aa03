"""The book on disk: who may open it, what it refuses, what happens when the disk refuses."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker.broker import Broker
from trustcompute.broker.store.sqlite import BOOK_FILE, SqliteStore
from trustcompute.errors import StoreError


def test_a_second_process_is_refused_while_the_first_has_the_book(world: Any) -> None:
    broker = world.broker()
    with pytest.raises(StoreError, match="another process has the book"):
        world.open()
    broker.close()
    world.open()


def test_a_book_belongs_to_one_log(world: Any) -> None:
    world.broker().close()
    with pytest.raises(StoreError, match=r"belongs to the log bureau\.example/trustcompute"):
        Broker.open(world.directory, world.bank, clock=world.clock)
    renewed = world.open()  # the lock was let go
    renewed.close()


def alter(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE book SET version = 9", "schema version 9, this release reads version 4: use the release"),
        ("PRAGMA application_id = 5", "not a book of this software"),
        ("DELETE FROM checkpoints", "not those of its last checkpoint"),
        ("UPDATE entries SET leaf = zeroblob(32) WHERE idx = 0", "not those of its last checkpoint"),
        ("DELETE FROM entries WHERE idx = 0", "lacks a row"),
        ("DELETE FROM entries WHERE idx = 1", "not those of its last checkpoint"),
        ("INSERT INTO entries VALUES (2, zeroblob(32), x'7b7d')", "release does not know"),
    ],
)
def test_a_book_of_another_release_or_a_damaged_one_is_refused(
    world: Any, statement: str, message: str
) -> None:
    world.broker().close()
    alter(world.directory / BOOK_FILE, statement)
    with pytest.raises(StoreError, match=message):
        world.open()


VERSION_1 = (
    "ALTER TABLE evidence RENAME TO newer",
    "CREATE TABLE evidence (hash TEXT PRIMARY KEY, kind TEXT NOT NULL, job TEXT NOT NULL, token TEXT NOT NULL) "
    "STRICT, WITHOUT ROWID",
    "CREATE INDEX evidence_of ON evidence (job)",
    "INSERT INTO evidence SELECT hash, kind, job, token FROM newer",
    "DROP TABLE newer",
    "DROP TABLE notices",
    "DROP TABLE answers",
    "ALTER TABLE jobs DROP COLUMN rules",
    "UPDATE book SET version = 1",
)


def test_a_book_of_an_older_release_is_upgraded_when_a_node_opens_it(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = world.posted(broker, grant)
    kept = broker.evidence(job.id)
    broker.close()
    alter(world.directory / BOOK_FILE, *VERSION_1)
    with pytest.raises(StoreError, match="version 1, this release reads version 4: open it with a node once"):
        SqliteStore.read_only(world.directory)
    again = world.open()
    assert again.evidence(job.id) == kept and again.audit().jobs == {"posted": 1}
    world.posted(again, grant)


def test_a_file_that_is_no_database_is_refused(world: Any) -> None:
    world.directory.mkdir()
    (world.directory / BOOK_FILE).write_bytes(b"not a database, but longer than a header of one" * 100)
    with pytest.raises(StoreError, match="restore it from a backup"):
        world.open()


def test_there_must_be_a_book_to_read(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no book"):
        SqliteStore.read_only(tmp_path)
    with pytest.raises(StoreError, match="cannot create"):
        (tmp_path / "file").write_text("")
        SqliteStore.open(tmp_path / "file" / "book", origin="o", key="k")


def test_readers_see_a_consistent_book_while_it_is_written(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    store = SqliteStore.read_only(world.directory)
    with store.read() as reader:
        before = len(list(reader.entries()))
        world.posted(broker, grant)
        assert len(list(reader.entries())) == before
    with store.read() as reader:
        assert len(list(reader.entries())) == before + 1
    with pytest.raises(StoreError, match="opened to read"), store.transaction() as transaction:
        transaction.count_failure("peer", 1)
    store.close()


def test_the_database_itself_refuses_an_overrun(world: Any) -> None:
    broker = world.broker()
    job = broker.reserve(world.verified(broker, broker.issue(world.claims())), world.operation)
    from trustcompute.broker.meter import Balance, BalanceKey
    from trustcompute.broker.store import Changes

    key = BalanceKey(job.accounts[0], -1, "rows")
    for wrong in (Balance(4901, 100, 5000), Balance(-1, 0, 5000), Balance(0, -1, 5000)):
        with pytest.raises(StoreError, match="contradicts"), broker._store.transaction() as transaction:
            transaction.write(Changes(balances={key: wrong}))
    assert broker.job(job.id) == job
    broker.audit()


def test_a_full_disk_takes_back_everything_and_the_book_goes_on(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    world.posted(broker, grant)
    connection = broker._store._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    before = [entry.type for entry in broker.entries()]
    verified = [world.verified(broker, grant) for _ in range(40)]
    reached = None
    for each in verified:
        try:
            job = broker.reserve(each, world.operation)
            reached = job.id
            broker.post(job.id, release=world.release(job.id), usage=job.reserved)
        except StoreError as error:
            assert "free disk space" in str(error) and "nothing was written" in str(error)
            break
    else:
        pytest.fail("the disk never filled")
    assert reached is not None and len(broker.entries()) >= len(before)
    broker.audit()
    connection.execute("PRAGMA max_page_count = 1000000")
    world.posted(broker, grant)
    broker.audit()


def test_a_commit_that_fails_is_taken_out_of_the_tree(world: Any) -> None:
    """As with a full disk, but at COMMIT, after the checkpoint was signed."""
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = broker.reserve(world.verified(broker, grant), world.operation)
    store = broker._store
    real = store._connection

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def execute(self, statement: str, *values: Any) -> Any:
            if statement == "COMMIT":
                raise sqlite3.OperationalError("database or disk is full")
            return real.execute(statement, *values)

    store._connection = Failing()  # type: ignore[assignment]
    with pytest.raises(StoreError, match="free disk space"):
        broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    store._connection = real
    assert broker.job(job.id) == job
    broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    broker.receipt(job.id).verify(broker.log_key)
    broker.audit()


def test_a_job_waits_for_the_disk_twice(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    world.posted(broker, grant)
    verified = world.verified(broker, grant)
    statements: list[str] = []
    broker._store._connection.set_trace_callback(statements.append)
    job = broker.reserve(verified, world.operation)
    assert "COMMIT" not in statements, "a reservation is kept back"
    broker.arm(job.id)
    broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    broker.receipt(job.id)
    assert statements.count("COMMIT") == 2
    assert sum(each.startswith("SELECT") for each in statements) == 1, "whether the job was known"


def _use_after_fork(broker: Broker, answer: Any) -> None:
    try:
        broker.job("0" * 32)
    except StoreError as error:
        answer.send(str(error))
    else:
        answer.send("no error")
    os._exit(0)


def test_a_forked_child_may_not_use_the_parents_book(world: Any) -> None:
    broker = world.broker()
    receiving, sending = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_use_after_fork, args=(broker, sending))
    child.start()
    assert "after a fork" in receiving.recv()
    child.join()
    broker.register(world.asset(version="2"))


def test_the_directory_is_its_owners_alone(world: Any) -> None:
    world.broker()
    assert stat.S_IMODE(world.directory.stat().st_mode) == 0o700


def test_durability_is_what_the_design_says(world: Any) -> None:
    broker = world.broker()
    connection = broker._store._connection
    assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    broker.reserve(world.verified(broker, broker.issue(world.claims())), world.operation)
    broker.audit()  # writes the reservation, and waits for no disk: what comes next does again
    assert connection.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_groups_of_commands_commit_under_one_checkpoint(world: Any) -> None:
    from trustcompute.broker import commands
    from trustcompute.errors import LocalProtocolError, Refused

    broker = world.broker()
    grant = broker.issue(world.claims())  # five calls a day
    verified = [world.verified(broker, grant) for _ in range(7)]
    before = sum(1 for _ in checkpoints(broker))
    outcomes = broker._writer.commit(
        [commands.Reserve(each, world.operation) for each in [*verified, verified[0]]]
    )
    assert [isinstance(each, Refused) for each in outcomes] == [False] * 5 + [True] * 2 + [False]
    assert outcomes[-1] == outcomes[0]
    posts = [commands.Post(job.id, world.release(job.id), job.reserved) for job in outcomes[:5]]
    charged = broker._writer.commit([*posts, posts[0]])
    assert charged[-1] == charged[0]
    assert sum(1 for _ in checkpoints(broker)) == before + 2
    assert broker.audit().jobs == {"posted": 5, "denied": 2}
    for size in (0, 257):
        with pytest.raises(LocalProtocolError, match="1 to 256"):
            broker._writer.commit([posts[0]] * size)


def test_jobs_are_found_without_reading_all_of_them(world: Any) -> None:
    connection = world.broker()._store._connection
    for query, index in (
        ("SELECT * FROM jobs WHERE state IN ('reserved', 'armed') ORDER BY id", "open_jobs"),
        ("SELECT * FROM jobs WHERE state = 'posted' AND countersigned IS NULL AND lease >= 5", "kept_jobs"),
    ):
        plan = connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
        assert index in plan[0][3]


def checkpoints(broker: Broker) -> list[str]:
    with broker._writer.view() as (reader, _):
        return list(reader.checkpoints())
