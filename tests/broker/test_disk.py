"""A disk that is really full, or really read-only: a clear refusal at every step, and a book that is in order after."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.broker.disks import Disk, disk, why_not
from trustcompute.broker.audit import audit
from trustcompute.broker.broker import Broker
from trustcompute.broker.job import Fault
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.witness import Witness, request
from trustcompute.errors import InputError, StoreError
from trustcompute.primitives import journal

pytestmark = pytest.mark.fault


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Disk]:
    if missing := why_not(tmp_path / "disk"):
        pytest.skip(missing)
    with disk(tmp_path / "disk") as made:
        yield made


@pytest.fixture
def there(world: Any, mounted: Disk) -> Iterator[Any]:
    """The world, whose book is on the small disk."""
    moved = replace(world, directory=mounted.path / "book", opened=world.opened)
    yield moved
    for broker in moved.opened:
        with suppress(StoreError):
            broker.close()


def test_a_job_on_a_disk_that_fills_up_at_any_step_is_whole_or_not_at_all(there: Any, mounted: Disk) -> None:
    """A few blocks more are free each time, so that each write of a job is the one that finds none."""
    broker = there.broker()
    grant = broker.issue(there.claims(limits={}))
    there.posted(broker, grant)
    refused, posted = 0, 1
    for free in range(40):
        token = there.request(grant).sign(there.bank.key)
        mounted.fill(free)
        try:
            verified = broker.verify_request(token, peer=there.bank.name, grant=grant)
            job = broker.reserve(verified, there.operation)
            broker.arm(job.id)
            broker.outbox.write(job.id, 0, 1, [[b"header", bytes(5000)]])
            done = broker.post(job.id, release=there.release(job.id), usage=job.reserved)
            broker.countersign(there.countersigned(token, done))
        except StoreError as error:
            assert "free" in str(error), str(error)
            refused += 1
        mounted.empty()
        broker.audit()
        left = broker.reserve(verified, there.operation)  # the same request goes on where it stopped
        if left.open:
            broker.arm(left.id)
            broker.outbox.write(left.id, 0, 1, [[b"header", bytes(5000)]])
            left = broker.post(left.id, release=there.release(left.id), usage=left.reserved)
        broker.countersign(there.countersigned(token, left))
        posted += 1
        assert broker.audit().jobs == {"posted": posted}
        broker._store.scrub()  # the next one's write-ahead log begins small again
    assert 5 <= refused < 40, f"refused {refused} times: the disk was never full, or always"
    assert there.balances(broker)["grant", "calls"] == (posted, 0)
    broker.close()
    assert audit(there.directory, broker.log_key).meter


def test_orders_on_a_full_disk_are_refused_and_count_for_nothing(there: Any, mounted: Disk) -> None:
    broker = there.broker()
    grant = broker.issue(there.claims())
    job = broker.reserve(there.verified(broker, grant), there.operation)
    job = broker.arm(job.id)
    before = broker.checkpoint()
    broker._store.scrub()
    mounted.fill()
    attempts = {
        "issue": lambda: broker.issue(there.claims()),
        "publish": lambda: broker.publish(there.denylist(version=1)),
        "order": lambda: broker.order(there.order("suspend", grant), grant),
        "abandon": lambda: broker.abandon(job.id, "x", Fault.PEER),
        "incident": lambda: broker.incident("x", "peer"),
        "outbox": lambda: broker.outbox.write(job.id, 0, 1, [[bytes(9000)]]),
        "failure": lambda: broker.count_failure("peer"),
        "revoke": lambda: broker.revoke(job.grant, "over"),
    }
    for name, attempt in attempts.items():
        with pytest.raises(StoreError, match="free"):
            pytest.fail(f"{name} returned {attempt()!r}")
    for attempt in (
        lambda: broker.export(mounted.path / "tiles"),
        lambda: broker.backup(mounted.path / "copy"),
    ):
        with pytest.raises((StoreError, InputError), match=r"No space left|full"):
            attempt()
    assert not (mounted.path / "copy").exists() and broker.outbox.names() == set()
    mounted.empty()
    assert broker.checkpoint() == before and broker.job(job.id) == job and broker.rules() == []
    assert broker.audit().jobs == {}
    for attempt in attempts.values():
        attempt()
    broker.audit()


def test_a_book_on_a_full_disk_is_not_begun_and_an_old_one_can_be_read(there: Any, mounted: Disk) -> None:
    mounted.fill()
    with pytest.raises(StoreError, match=r"free|No space left"):
        there.open()
    mounted.empty()
    broker = there.broker()
    there.posted(broker, broker.issue(there.claims()))
    broker.close()
    mounted.fill()
    with Broker.open(there.directory, broker.log_key, read_only=True) as reader:
        assert reader.audit().jobs == {"posted": 1}
    mounted.empty()
    assert there.open().audit().jobs == {"posted": 1}


def test_a_read_only_disk_is_told_as_that_and_can_be_read(there: Any, mounted: Disk) -> None:
    broker = there.broker()
    job = there.posted(broker, broker.issue(there.claims()))
    broker.close()
    mounted.read_only()
    for attempt in (there.open, lambda: Outbox(mounted.path / "other")):
        with pytest.raises(StoreError, match=r"Read-only|permissions"):
            attempt()
    with pytest.raises(StoreError, match="Read-only"):
        Outbox(there.directory / "outbox").write(job.id, 0, 9, [[b"x"]])
    with Broker.open(there.directory, broker.log_key, read_only=True) as reader:
        assert reader.audit().jobs == {"posted": 1}
        assert reader.receipt(job.id).verify(broker.log_key).fields["job"] == job.id
        with pytest.raises(InputError, match="Read-only"):
            reader.export(mounted.path / "tiles")
    mounted.writable()
    again = there.open()
    there.posted(again, again.issue(there.claims()))
    assert again.audit().jobs == {"posted": 2}


def test_a_witness_that_cannot_remember_does_not_cosign(world: Any, mounted: Disk) -> None:
    broker = world.broker()
    witness = Witness(mounted.path / "seen", "w.example", world.bank.key, [broker.log_key], lambda: 1)
    body = request(0, broker.consistency_proof(0, 2), broker.checkpoint())
    mounted.fill()
    with pytest.raises(StoreError, match="free space"):
        witness.add_checkpoint(body)
    assert witness.seen(broker.log_key.name) is None
    mounted.read_only()
    with pytest.raises(StoreError, match="Read-only"):
        witness.add_checkpoint(body)
    mounted.writable()
    mounted.empty()
    assert witness.add_checkpoint(body).status == 200


def test_a_journal_on_a_full_disk_keeps_whole_lines_alone(mounted: Disk) -> None:
    path = mounted.path / "lines"
    journal.append(path, b"first")
    mounted.fill()
    with pytest.raises(StoreError, match="No space left on device; nothing was kept"):
        journal.append(path, b"x" * 5000)  # the rest of its block takes a part of it
    assert journal.lines(path) == [b"first"]
    mounted.empty()
    journal.append(path, b"second")
    with path.open("ab") as file:
        file.write(b"cut off by a st")
    assert journal.lines(path) == [b"first", b"second"] == path.read_bytes().splitlines()
    mounted.read_only()
    with pytest.raises(StoreError, match="Read-only"):
        journal.append(path, b"third")
    assert journal.lines(path) == [b"first", b"second"]


LIMITED = """
import sys
from pathlib import Path
from trustcompute.primitives import journal
from trustcompute.broker.outbox import Outbox
from trustcompute.errors import StoreError
box, path = Outbox(Path(sys.argv[1]) / "outbox"), Path(sys.argv[1]) / "lines"
journal.append(path, b"first")
for attempt in (lambda: journal.append(path, b"x" * 9000), lambda: box.write("0" * 32, 0, 1, [[bytes(9000)]])):
    try:
        attempt()
    except StoreError as error:
        print("refused:", error)
print(journal.lines(path), box.names())
"""


def test_a_limit_on_the_size_of_files_is_a_clear_refusal_too(tmp_path: Path) -> None:
    """Needs no root: what a quota of the operating system does."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = done.stdout.splitlines()
    assert [line.startswith("refused:") and "File too large" in line for line in said] == [
        True,
        True,
        False,
    ], done
    assert said[2] == "[b'first'] set()"
