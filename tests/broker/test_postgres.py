"""The book in PostgreSQL: what differs from a file. What does not is tested by the modules of both stores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

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
    monkeypatch.setattr(postgres, "SCHEMA_VERSION", 4)
    steps = {
        2: ("ALTER TABLE failures ADD COLUMN seen bigint",),
        3: ("ALTER TABLE failures DROP COLUMN seen",),
    }
    monkeypatch.setattr(postgres, "_UPGRADES", steps)
    with pytest.raises(StoreError, match=r"schema version 2, .* stop the nodes of the older release"):
        shared.open()
    broker.close()
    again = shared.open()
    again.count_failure("peer")
    assert again.audit().size == 2
    again.close()
    monkeypatch.setattr(postgres, "SCHEMA_VERSION", 3)
    with pytest.raises(StoreError, match=r"schema version 4, .* use the release that wrote it"):
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


def test_leases_run_on_the_databases_clock(shared: Any) -> None:
    broker = shared.open(clock=None)
    (now,) = execute(shared, "SELECT extract(epoch FROM now())::bigint")[0]
    assert abs(broker.entries()[0].time - now) <= 5
