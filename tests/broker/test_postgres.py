"""The book in PostgreSQL: what differs from a file. What does not is tested by the modules of both stores."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.broker.postgresql import USER
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import JobState
from trustcompute.errors import Refused, StoreError


@pytest.fixture
def shared(world: Any, postgres: Any) -> Iterator[Any]:
    world.database = postgres.new_schema()
    return world


def second(world: Any) -> Broker:
    other = replace(world, directory=world.directory.with_name("second"))
    return other.open()


def execute(world: Any, statement: str) -> Any:
    import psycopg

    with psycopg.connect(world.database, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def test_two_processes_keep_one_book_and_one_log(shared: Any) -> None:
    first = shared.broker()
    grant = first.issue(shared.claims(limits={"calls": Limit(total=5)}))
    waiting = first.reserve(shared.verified(first, grant, rows=1), shared.operation)
    other = second(shared)
    assert other.job(waiting.id).state is JobState.RESERVED, "the second leaves the first's open jobs alone"
    for broker in (other, first, other, first):
        shared.posted(broker, grant, rows=1)
    with pytest.raises(Refused, match="quota"):
        other.reserve(shared.verified(other, grant, rows=1), shared.operation)
    other.arm(waiting.id)
    first.post(waiting.id, release=shared.release(waiting.id), usage=waiting.reserved)
    assert first.checkpoint() == other.checkpoint()
    assert first.audit() == other.audit() and first.audit().jobs == {"posted": 5, "denied": 1}
    assert other.receipt(waiting.id).verify(first.log_key).fields["job"] == waiting.id
    other.revoke(waiting.grant, "over")
    with pytest.raises(Refused, match="revoked"):
        first.reserve(shared.verified(first, grant, rows=1), shared.operation)


def test_who_opens_the_book_alone_settles_what_was_left(shared: Any) -> None:
    first = shared.broker()
    grant = first.issue(shared.claims())
    reserved, armed = (
        first.reserve(shared.verified(first, grant, rows=1), shared.operation) for _ in range(2)
    )
    first.arm(armed.id)
    first.close()
    again = shared.open()
    assert again.job(reserved.id).state is JobState.VOIDED and again.job(armed.id).state is JobState.FORFEITED
    again.audit()


def test_a_connection_that_was_cut_is_an_error_once(shared: Any) -> None:
    broker = shared.broker()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state = 'idle'"
    execute(shared, cut)
    with pytest.raises(StoreError, match="check that it runs"):
        broker.incident("x", "peer")
    assert broker.incident("x", "peer") == 2
    broker.audit()


def test_a_book_of_an_older_release_is_upgraded(shared: Any) -> None:
    first = shared.broker()
    grant = first.issue(shared.claims())
    shared.posted(first, grant, rows=1)
    first.close()
    for statement in (
        "DROP TABLE notices",
        "DROP TABLE answers",
        "ALTER TABLE jobs DROP COLUMN rules",
        "UPDATE book SET version = 1",
    ):
        execute(shared, statement)
    again = shared.open()
    shared.posted(again, grant, rows=1)
    again.publish(shared.denylist(version=1))
    assert again.audit().jobs == {"posted": 2}


def test_a_book_of_another_log_or_release_is_refused(shared: Any) -> None:
    shared.broker().close()
    with pytest.raises(StoreError, match=r"belongs to the log bureau\.example/trustcompute"):
        Broker.open(shared.directory, shared.bank, database=shared.database)
    execute(shared, "UPDATE book SET version = 9")
    with pytest.raises(StoreError, match="schema version 9"):
        shared.open()


def test_an_older_book_is_upgraded_by_whoever_has_it_alone(
    shared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trustcompute.broker.store import postgres

    broker = shared.broker()
    monkeypatch.setattr(postgres, "SCHEMA_VERSION", 5)
    steps = {
        3: ("ALTER TABLE failures ADD COLUMN seen bigint",),
        4: ("ALTER TABLE failures DROP COLUMN seen",),
    }
    monkeypatch.setattr(postgres, "_UPGRADES", steps)
    with pytest.raises(StoreError, match=r"schema version 3, .* stop the nodes of the older release"):
        shared.open()
    broker.close()
    again = shared.open()
    again.count_failure("peer")
    assert again.audit().size == 2
    again.close()
    monkeypatch.setattr(postgres, "SCHEMA_VERSION", 3)
    with pytest.raises(StoreError, match=r"schema version 5, .* use the release that wrote it"):
        shared.open()


def test_the_database_checks_the_limits_once_more(shared: Any) -> None:
    import psycopg

    broker = shared.broker()
    shared.posted(broker, broker.issue(shared.claims()))
    with pytest.raises(psycopg.errors.CheckViolation):
        execute(shared, "UPDATE balances SET posted = lim + 1 WHERE lim < 9223372036854775807")


def test_no_server_is_a_clear_refusal(world: Any) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="the database cannot be used"):
        Broker.open(world.directory, world.bureau, database="host=/nonexistent user=x connect_timeout=2")


GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "keep-the-record.md"


def test_a_regulators_role_may_select_and_nothing_else(shared: Any, postgres: Any) -> None:
    """With the statements of the guide, word by word but for the names of the schema and the role."""
    import psycopg

    broker = shared.broker()
    job = shared.posted(broker, broker.issue(shared.claims()))
    broker.incident("x", "peer.example")
    (schema,) = execute(shared, "SELECT current_schema")[0]
    role = f"regulator_{schema}"
    (statements,) = re.findall(r"```sql\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    for statement in statements.strip().splitlines():
        execute(shared, statement.replace("public", schema).replace("regulator", role))
    theirs = shared.database.replace(f"user={USER}", f"user={role}")
    with Broker.open(
        shared.directory, broker.log_key, read_only=True, database=theirs, clock=shared.clock
    ) as reader:
        assert reader.audit() == broker.audit() and reader.audit_evidence().requests == 1
        assert reader.receipt(job.id).verify(broker.log_key).fields["job"] == job.id
        assert reader.statement(0, shared.clock.now()) == broker.statement(0, shared.clock.now())
        assert reader.budget("companies") == broker.budget("companies")
        with pytest.raises(StoreError, match="permission denied for table openings"):
            reader.openings(len(reader.entries()) - 1)
        with pytest.raises(StoreError, match="opened to read"):
            reader.revoke(job.grant, "x")
    with psycopg.connect(theirs, autocommit=True) as connection:
        tables = [
            row[0]
            for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = current_schema")
        ]
        assert len(tables) >= 11
        for table in tables:
            for wrong in (
                f"DELETE FROM {table}",
                f"INSERT INTO {table} DEFAULT VALUES",
                f"DROP TABLE {table}",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(wrong)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE mine (x int)")
        held = connection.execute("SELECT pg_try_advisory_lock(1, 1)").fetchone()
        assert held == (True,), "which the guide warns of"
    with (
        Broker.open(shared.directory, shared.bureau, database=theirs, clock=shared.clock) as other,
        pytest.raises(StoreError, match="permission denied"),
    ):
        other.incident("x", "peer")  # nor is it a node's
    shared.posted(broker, broker.issue(shared.claims()))
    execute(shared, f"DROP OWNED BY {role}")
    execute(shared, f"DROP ROLE {role}")


def test_a_back_up_is_the_servers_business(shared: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="backed up with its server's tools: pg_dump, pg_basebackup"):
        shared.broker().backup(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_leases_run_on_the_databases_clock(shared: Any) -> None:
    broker = shared.open(clock=None)
    (now,) = execute(shared, "SELECT extract(epoch FROM now())::bigint")[0]
    assert abs(broker.entries()[0].time - now) <= 5
