"""A book that is only read: a live one, a copy, and one on a medium where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker.broker import Broker
from trustcompute.broker.job import Fault
from trustcompute.broker.store.sqlite import BOOK_FILE
from trustcompute.errors import GrantError, ParameterError, StoreError
from trustcompute.primitives.checkpoint import NoteKey

BOTH_STORES = True


def to_read(world: Any, key: NoteKey | None = None, directory: Path | None = None, **options: Any) -> Broker:
    """The world's book, as a regulator opens it who has nothing but the log's key."""
    key = key or NoteKey(f"{world.bureau.name}/trustcompute", world.bureau.key.public)
    reader = Broker.open(
        directory or world.directory,
        key,
        database=world.database,
        read_only=True,
        **{"clock": world.clock} | options,
    )
    world.opened.append(reader)
    return reader


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def test_everything_that_only_looks_works_beside_the_node(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = world.posted(broker, grant)
    reader = to_read(world)
    assert reader.job(job.id) == job
    assert reader.receipt(job.id) == broker.receipt(job.id)
    assert reader.checkpoint() == broker.checkpoint() and reader.audit() == broker.audit()
    assert reader.statement(0, world.clock.time + 1) == broker.statement(0, world.clock.time + 1)
    assert reader.budget("companies") == broker.budget("companies")
    asked = world.request(grant)
    verified = reader.verify(grant)
    assert reader.explain(verified, asked, world.operation).allowed
    assert [each.kind for each in reader.evidence(job.id)] == ["request"]
    later = world.posted(broker, grant)  # what the node writes from here on is seen too
    assert reader.job(later.id) == later
    assert reader.checkpoint() == broker.checkpoint()


WRITES: dict[str, Callable[[Any, Broker, str, Any], object]] = {
    "register": lambda world, reader, grant, job: reader.register(world.asset(version="next")),
    "issue": lambda world, reader, grant, job: reader.issue(world.claims()),
    "revoke": lambda world, reader, grant, job: reader.revoke("0" * 64, "no reason"),
    "publish": lambda world, reader, grant, job: reader.publish(world.policy(version=1)),
    "reserve": lambda world, reader, grant, job: reader.reserve(
        world.verified(reader, grant), world.operation
    ),
    "arm": lambda world, reader, grant, job: reader.arm(job.id),
    "post": lambda world, reader, grant, job: reader.post(
        job.id, release=world.release(job.id), usage=job.reserved
    ),
    "run_many": lambda world, reader, grant, job: reader.run_many(
        [world.work(reader, grant)], lambda job: pytest.fail("nothing was armed")
    ),
    "abandon": lambda world, reader, grant, job: reader.abandon(job.id, "stopped", Fault.PEER),
    "incident": lambda world, reader, grant, job: reader.incident("replay", "peer"),
    "redact": lambda world, reader, grant, job: reader.redact(0),
    "sweep": lambda world, reader, grant, job: reader.sweep(),
    "recover": lambda world, reader, grant, job: reader.recover(),
    "close": lambda world, reader, grant, job: reader.close_period(0, world.clock.time),
    "adjust": lambda world, reader, grant, job: reader.clearing.adjust(
        payer="a", payee="b", currency="CNY", amount="1", reason="none"
    ),
    "certificate": lambda world, reader, grant, job: reader.certificates.issue(
        holder=world.bank.thumbprint, asset=world.claims().asset, right="hold", source="records"
    ),
    "failure": lambda world, reader, grant, job: reader.count_failure("peer"),
    "cosign": lambda world, reader, grant, job: reader.cosign([], None),  # type: ignore[arg-type]
    "outbox": lambda world, reader, grant, job: reader.outbox,
    "identity": lambda world, reader, grant, job: reader.identity,
}


def test_whatever_would_write_is_refused_and_nothing_is_written(world: Any) -> None:
    from trustcompute.broker.many import Work

    broker = world.broker()
    grant = broker.issue(world.claims())
    job = broker.reserve(world.verified(broker, grant), world.operation)
    checkpoint, open_jobs = broker.checkpoint(), [job]
    reader = to_read(world)
    world.work = lambda reader, grant: Work(world.verified(reader, grant), world.operation)
    for name, attempt in WRITES.items():
        with pytest.raises(StoreError, match="opened to read, and nothing is written: ask the node"):
            pytest.fail(f"{name} returned {attempt(world, reader, grant, job)!r}")
    token = world.request(grant, audience="other.example").sign(world.bank.key)
    with pytest.raises(GrantError, match=r"the request is for other\.example"):  # and nothing is counted
        reader.verify_request(token, peer=world.bank.name, grant=grant)
    assert broker.failures() == {} and broker.checkpoint() == checkpoint
    with broker._writer.view() as (rows, _):
        assert rows.open_jobs() == open_jobs


def test_a_reader_neither_makes_a_book_nor_settles_one(world: Any) -> None:
    with pytest.raises(StoreError, match="there is no book"):
        to_read(world)
    assert not world.directory.exists()
    broker = world.broker()
    job = broker.reserve(world.verified(broker, broker.issue(world.claims())), world.operation)
    broker.arm(job.id)
    broker.close()
    with to_read(world) as reader:
        found = reader.job(job.id)
        assert found is not None and found.state == "armed"  # which a node would forfeit
    assert world.open().job(job.id).state == "forfeited"


def test_a_book_is_read_with_its_own_key(world: Any) -> None:
    world.broker().close()
    with pytest.raises(StoreError, match=r"not signed by bureau\.example/trustcompute with the key"):
        to_read(world, NoteKey("bureau.example/trustcompute", world.bank.key.public))
    with pytest.raises((StoreError, ParameterError), match=r"elsewhere\.example"):
        to_read(world, NoteKey("elsewhere.example/trustcompute", world.bureau.key.public))
    with pytest.raises(ParameterError, match=r"is named NODE/trustcompute, not bureau\.example"):
        to_read(world, NoteKey("bureau.example", world.bureau.key.public))
    with pytest.raises(ParameterError, match="open it read_only, or with its identity"):
        Broker.open(
            world.directory,
            NoteKey("bureau.example/trustcompute", world.bureau.key.public),
            database=world.database,
        )


def sqlite_only(world: Any) -> None:
    if world.database is not None:
        pytest.skip("a book in a file")


def test_a_copy_is_read_and_stays_as_it_was(world: Any, tmp_path: Path) -> None:
    sqlite_only(world)
    broker = world.broker()
    job = world.posted(broker, broker.issue(world.claims()))
    broker.backup(tmp_path / "copy")
    before = files_of(tmp_path / "copy")
    with to_read(world, directory=tmp_path / "copy") as reader:
        assert reader.receipt(job.id).verify(broker.log_key).fields["job"] == job.id
        assert reader.audit().jobs == {"posted": 1}
    after = files_of(tmp_path / "copy")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) <= {f"{BOOK_FILE}-shm", f"{BOOK_FILE}-wal"}
    assert not after.get(f"{BOOK_FILE}-wal")


READ = """
import os, sys
from pathlib import Path
from trustcompute.broker.broker import Broker
from trustcompute.errors import StoreError
from trustcompute.primitives.checkpoint import NoteKey
os.setuid(65534)
try:
    with Broker.open(Path(sys.argv[1]), NoteKey.parse(sys.argv[2]), read_only=True) as reader:
        print(len(reader.entries()), dict(reader.audit().jobs))
except StoreError as error:
    print("refused:", error)
"""


def test_a_directory_that_cannot_be_written_is_read_as_it_is(world: Any) -> None:
    """As root may write everywhere, another process reads it as somebody else."""
    sqlite_only(world)
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody who may not write the directory")
    broker = world.broker()
    world.posted(broker, broker.issue(world.claims()))
    with tempfile.TemporaryDirectory() as made:  # pytest's own directories are for their owner alone
        broker.backup(Path(made, "copy"))
        for path in (Path(made), *Path(made).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o444)
        command = [sys.executable, "-c", READ, str(Path(made, "copy")), str(broker.log_key)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.strip() == f"{len(broker.entries())} {{'posted': 1}}", done.stdout + done.stderr
        assert {path.name for path in Path(made, "copy").iterdir()} == {BOOK_FILE, "outbox"}
