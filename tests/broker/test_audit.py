"""The audit finds what is wrong, names the first of it, and rebuilds what is right."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustcompute.broker import commands, credit, log, tiles
from trustcompute.broker.audit import EntryError, audit, read_log
from trustcompute.broker.clearing import Clearing
from trustcompute.broker.credit import Ceiling
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import Fault
from trustcompute.broker.store.sqlite import BOOK_FILE
from trustcompute.errors import AuditError, InputError, Refused, VerificationError
from trustcompute.primitives import checkpoint, merkle
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.signing import SigningKey, token_hash


@pytest.fixture
def busy(world: Any) -> Any:
    """A world whose log has an entry of every type, closed on disk."""
    broker = world.broker()
    grant = broker.issue(world.claims(limits={"calls": Limit(total=100, per_day=50)}))
    tokens = [world.request(grant).sign(world.bank.key) for _ in range(3)]
    for token in tokens:
        verified = broker.verify_request(token, peer=world.bank.name, grant=grant)
        job = broker.reserve(verified, world.operation)
        posted = broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    broker.countersign(world.countersigned(tokens[-1], posted))
    broker.post(posted.id, release=world.release(posted.id, run=1), usage=posted.reserved)
    jobs = [broker.reserve(world.verified(broker, grant), world.operation) for _ in range(4)]
    broker.abandon(jobs[0].id, "cancelled", Fault.PEER)
    broker.arm(jobs[1].id)
    broker.abandon(jobs[1].id, "gone", Fault.PEER)
    with pytest.raises(Refused):
        broker.reserve(world.verified(broker, grant, purpose="other"), world.operation)
    broker.redact(broker.incident("x", "bank.example"))
    alone = broker.issue(world.claims())
    broker.reserve(world.verified(broker, alone), world.operation)  # the others expire together
    world.clock.time += 3601
    broker.sweep()
    world.clock.time += 86400
    broker.close_period(0, world.clock.time // 86400 * 86400)
    broker.reserve(world.verified(broker, grant), world.operation)  # stays open
    other = broker.issue(world.claims())
    broker.revoke(token_hash(other), "over")
    broker.publish(world.denylist(version=1))
    third = broker.issue(world.claims(review=world.clock.time + 10))
    for do, more in (
        ("review", {"next_review": world.clock.time + 20}),
        ("suspend", {}),
        ("resume", {}),
        ("exit", {}),
    ):
        broker.order(world.order(do, third, **more), third)
    about = {"party": world.bank.thumbprint, "reason": "x", "audience": world.bureau.name}
    own = about | {"key": world.bureau.key}
    event = credit.lower(ceiling=Ceiling(percent=99), number=world.clock.time * 1000, **own)
    broker.credit(event)
    broker.credit(credit.repair(event=token_hash(event), number=world.clock.time * 1000 + 1, **own))
    world.key = broker.log_key
    broker.export(world.directory.parent / "export")
    world.note = broker.checkpoint()
    broker.close()
    return world


MONEY = ("dispute", "adjust", "netting", "pool", "revenue", "agreement", "certificate")  # in tests/clearing


def test_a_book_and_its_export_give_the_same_report(busy: Any) -> None:
    report = audit(busy.directory, busy.key)
    exported = audit(busy.directory.parent / "export", busy.key, known=[busy.note])
    assert report.meter and not exported.meter
    assert (
        exported.balances == report.balances and exported.root == report.root and exported.size == report.size
    )
    money = {name for name in log.TYPES if name.startswith(MONEY)}
    assert set(report.entries) == log.TYPES - {"key.rotated", "key.confirmed", "grant.accepted"} - money
    assert report.jobs == {"posted": 3, "voided": 1, "forfeited": 1, "denied": 1, "expired": 3}
    totals = {
        (key.account[:5], key.unit): posted for key, posted in report.balances.items() if key.window == -1
    }
    assert totals["grant", "calls"] == totals["datas", "calls"] == 4
    assert len(report.periods) == 1 and report.origin == "bureau.example/trustcompute"


def test_a_log_can_be_read_without_a_broker(busy: Any) -> None:
    entries = read_log(busy.directory)
    assert entries == read_log(busy.directory.parent / "export")
    (closing,) = Clearing.of(entries).closings
    assert closing.period.start == 0


def tamper(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    assert connection.execute(statement).rowcount > 0
    connection.close()


@pytest.mark.property
@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_changed_byte_of_an_entry_is_located(busy: Any, data: st.DataObject) -> None:
    path = busy.directory / BOOK_FILE
    connection = sqlite3.connect(path, isolation_level=None)
    size = connection.execute("SELECT count(*) FROM entries").fetchone()[0]
    index = data.draw(st.integers(0, size - 1))
    body, leaf = connection.execute("SELECT body, leaf FROM entries WHERE idx = ?", (index,)).fetchone()
    changed = bytearray(body)
    changed[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    hidden = data.draw(st.booleans())  # with a leaf hash to match
    new_leaf = merkle.leaf_hash(bytes(changed)) if hidden else leaf
    put = "UPDATE entries SET body = ?, leaf = ? WHERE idx = ?"
    connection.execute(put, (bytes(changed), new_leaf, index))
    try:
        with pytest.raises(EntryError) as caught:
            audit(busy.directory, busy.key)
    finally:
        connection.execute(put, (body, leaf, index))
        connection.close()
    # where the leaf hash was made to match, the commit (here of two entries at most) is what can be named
    assert caught.value.index in ((index, index - 1) if hidden else (index,))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE balances SET posted = posted - 1 WHERE unit = 'calls' AND time_window = -1 AND posted > 0",
            "calls of",
        ),
        ("UPDATE balances SET pending = 0 WHERE pending > 0", "not what the entries add up to"),
        ("DELETE FROM balances WHERE unit = 'rows'", "rows of"),
        ("INSERT INTO balances VALUES ('grant:x', -1, 'rows', 5, 0, 9)", "rows of grant:x"),
        ("UPDATE jobs SET state = 'voided' WHERE state = 'forfeited'", "which the log does not say"),
        ("UPDATE jobs SET state = 'armed' WHERE state = 'posted'", "ended in the log"),
        ("UPDATE jobs SET entry = 0 WHERE state = 'posted'", "which the log does not say"),
        ("UPDATE jobs SET countersigned = NULL", "which the log does not say"),
        ("DELETE FROM jobs WHERE state = 'denied'", "jobs that the book lacks"),
        ("DELETE FROM grants", "grants that the book lacks"),
        ("DELETE FROM revocations", "lacks a revocation"),
        (
            "DELETE FROM checkpoints WHERE size = (SELECT max(size) FROM checkpoints)",
            "no checkpoint of just these",
        ),
        ("DELETE FROM entries WHERE idx = (SELECT max(idx) FROM entries)", "no checkpoint of just these"),
        ("UPDATE checkpoints SET note = replace(note, 'bureau', 'bureav')", "not signed by the log"),
    ],
)
def test_a_book_that_contradicts_its_log_is_found(busy: Any, statement: str, message: str) -> None:
    tamper(busy.directory / BOOK_FILE, statement)
    with pytest.raises(VerificationError, match=message):
        audit(busy.directory, busy.key)


def test_a_log_that_was_cut_off_whole_contradicts_checkpoints_held_elsewhere(busy: Any) -> None:
    bodies = [entry.body for entry in read_log(busy.directory)][:-1]
    tree = merkle.Tree(merkle.leaf_hash(body) for body in bodies)
    note = checkpoint.sign(Checkpoint(busy.key.name, len(tree), tree.root()), busy.bureau.key)
    cut = busy.directory.parent / "cut"
    tiles.write(cut, [log.StoredEntry(n, tree.leaf(n), body) for n, body in enumerate(bodies)], tree, note)
    audit(cut, busy.key)  # alone, it cannot be told
    with pytest.raises(AuditError, match="rewritten or cut"):
        audit(cut, busy.key, known=[busy.note])


def test_exports_that_are_missing_or_malformed_are_refused(busy: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        audit(tmp_path / "nothing", busy.key)
    export = busy.directory.parent / "export"
    empty = checkpoint.sign(Checkpoint(busy.key.name, 0, merkle.EMPTY_ROOT), busy.bureau.key)
    (export / tiles.CHECKPOINT_FILE).write_text(empty)
    with pytest.raises(AuditError, match="the log is empty"):
        audit(export, busy.key)
    (export / tiles.CHECKPOINT_FILE).write_bytes(b"5\n")
    with pytest.raises(VerificationError, match="a signed note is"):
        audit(export, busy.key)
    (export / tiles.CHECKPOINT_FILE).write_bytes(b"\xff")
    with pytest.raises(VerificationError, match="UTF-8"):
        audit(export, busy.key)


def test_another_key_or_name_does_not_audit_the_log(busy: Any) -> None:
    for key in (NoteKey(busy.key.name, SigningKey.generate().public), NoteKey("other/log", busy.key.key)):
        with pytest.raises(VerificationError):
            audit(busy.directory, key)


# A dishonest operator can sign any log: what breaks the broker's promises is still found.

KEY = SigningKey.from_seed(bytes(32))
NAME = NoteKey("bureau.example/trustcompute", KEY.public)
GRANT: dict[str, Any] = {
    "grant": "g",
    "limits": {"calls": {"total": 2, "per_day": 2}},
    "price": {"kind": "free", "currency": None, "per_call": "0", "per_row": "0"},
    "split": [],
}
USE: dict[str, Any] = {
    "grant": "g",
    "dataset": "d",
    "payer": "p",
    "operation": "o",
    "usage": {"calls": 1},
    "window": 0,
    "accounts": ["grant:g", "dataset:d"],
}
OPENED: tuple[str, int, dict[str, Any]] = ("log.opened", 0, {"origin": NAME.name, "key": KEY.thumbprint})
START = [OPENED, ("asset.registered", 0, {"asset": "d", "limits": {}}), ("grant.issued", 0, GRANT)]
CHILDREN = [("grant.accepted", 0, GRANT | {"grant": name, "parent": "g"}) for name in ("h", "i")]


def use(job: str, time: int = 0, kind: str = "job.posted", **fields: Any) -> tuple[str, int, dict[str, Any]]:
    return kind, time, {"job": job, **USE, **fields}


def expired(*jobs: str, grant: str = "g") -> tuple[str, int, dict[str, Any]]:
    return "jobs.expired", 0, {"grant": grant, "jobs": [[job, "0" * 64] for job in jobs]}


def use_child(job: str, child: str = "h", **fields: Any) -> tuple[str, int, dict[str, Any]]:
    accounts = [f"grant:{child}", "grant:g", "dataset:d"]
    return use(job, **{"grant": child, "accounts": accounts, **fields})


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    def write(entries: list[tuple[str, int, dict[str, Any]]]) -> Path:
        bodies = [log.encode(kind, time, fields) for kind, time, fields in entries]
        tree = merkle.Tree(merkle.leaf_hash(body) for body in bodies)
        note = checkpoint.sign(Checkpoint(NAME.name, len(tree), tree.root()), KEY)
        stored = [log.StoredEntry(n, tree.leaf(n), body) for n, body in enumerate(bodies)]
        tiles.write(tmp_path, stored, tree, note)
        return tmp_path

    return write


def test_an_honest_log_passes(written: Any) -> None:
    entries = [*START, use("1"), use("2"), ("job.countersigned", 1, {"job": "2"})]
    report = audit(written(entries), NAME)
    assert report.jobs == {"posted": 2} and not report.meter
    report = audit(written([*START, *CHILDREN, use_child("1"), use_child("2", "i")]), NAME)
    calls = {key.account: posted for key, posted in report.balances.items() if posted and key.window == -1}
    assert calls == {"grant:h": 1, "grant:i": 1, "grant:g": 2, "dataset:d": 2}


@pytest.mark.parametrize(
    ("entries", "index", "message"),
    [
        ([START[1]], 0, "begins with log.opened"),
        ([OPENED, OPENED], 1, "begins with log.opened"),
        ([("log.opened", 0, {"origin": "other", "key": KEY.thumbprint})], 0, "another name or key"),
        ([*START, use("1"), use("1")], 4, "ended before"),
        ([*START, use("1"), use("1", kind="job.voided")], 4, "ended before"),
        ([*START, use("1", grant="h")], 3, "does not know"),
        ([*START, expired("1", "1")], 3, "job 1 had ended before"),
        ([*START, expired("1", "2"), use("2")], 4, "job 2 had ended before"),
        ([*START, expired("1")], 3, "it ends several jobs, and names fewer"),
        ([*START, expired("1", "2", grant="h")], 3, "does not know"),
        ([*START, ("jobs.expired", 0, {"grant": "g", "jobs": ["1", "2"]})], 3, "missing or malformed"),
        ([*START, use("1"), use("2"), use("3")], 5, "beyond its limit of calls"),
        ([*START, use("1", usage={"calls": 3})], 3, "beyond its limit of calls"),
        ([*START, ("grant.revoked", 0, {"grant": "g"}), use("1")], 4, "revoked grant"),
        (
            [*START, ("grant.revoked", 0, {"grant": "g"}), ("grant.revoked", 0, {"grant": "g"})],
            4,
            "revoked before",
        ),
        ([*START, START[2]], 3, "entered before"),
        ([*START, use("1", 5), use("2", 4)], 4, "dated before"),
        ([*START, ("job.released", 0, {"job": "1"})], 3, "not charged before"),
        (
            [*START, use("1", kind="job.voided"), ("job.countersigned", 0, {"job": "1"})],
            4,
            "not charged before",
        ),
        ([*START, use("1"), *[("job.countersigned", 0, {"job": "1"})] * 2], 5, "countersigned before"),
        ([*START, ("job.posted", 0, {"job": "1", "grant": "g"})], 3, "missing or malformed"),
        ([*START, use("1", usage={"euros": 1})], 3, "missing or malformed"),
        ([*START, use("1", usage={"calls": -1})], 3, "missing or malformed"),
        ([*START, use("1", usage={"calls": "1"})], 3, "missing or malformed"),
        ([*START, use("1"), use("2", usage={"calls": True})], 4, "missing or malformed"),
        ([*START, use("1", usage={"calls": [1]})], 3, "missing or malformed"),
        (
            [*START, use("1", dataset="unknown", accounts=["grant:g", "dataset:unknown"])],
            3,
            "not debited to its grant",
        ),
        ([*START, use("1", kind="job.forfeited", fault="peer"), use("2"), use("3")], 5, "beyond its limit"),
        (
            [OPENED, ("grant.issued", 0, GRANT | {"limits": {"calls": {"weekly": 5}}})],
            1,
            "missing or malformed",
        ),
        ([*START, use("1", accounts=["grant:g"])], 3, "not debited to its grant"),
        ([*START, use("1", accounts=["grant:g", "dataset:d", "dataset:d"])], 3, "not debited to its grant"),
        ([*START, *CHILDREN, use_child("1", accounts=["grant:h", "dataset:d"])], 5, "all its ancestors"),
        ([*START, *CHILDREN, use_child("1"), use_child("2", "i"), use_child("3", "i")], 7, "grant:g beyond"),
        ([*START, *CHILDREN, ("grant.revoked", 0, {"grant": "g"}), use_child("1")], 6, "revoked grant"),
        ([*START, ("grant.accepted", 0, GRANT | {"grant": "h", "parent": "x"})], 3, "parent was not entered"),
        ([*START, ("grant.accepted", 0, GRANT | {"grant": "h", "parent": "h"})], 3, "parent was not entered"),
    ],
)
def test_a_signed_log_that_breaks_the_rules_is_found(
    written: Any, entries: list[Any], index: int, message: str
) -> None:
    with pytest.raises(EntryError, match=message) as caught:
        audit(written(entries), NAME)
    assert caught.value.index == index


def test_lowering_a_datasets_limit_does_not_condemn_what_was_used_before(written: Any) -> None:
    def registered(total: int) -> tuple[str, int, dict[str, Any]]:
        return "asset.registered", 0, {"asset": "d", "limits": {"calls": {"total": total}}}

    audit(written([OPENED, registered(2), START[2], use("1"), use("2"), registered(1)]), NAME)
    with pytest.raises(EntryError, match="dataset:d beyond its limit"):
        audit(written([OPENED, registered(1), START[2], use("1"), use("2")]), NAME)


def test_a_damaged_entry_inside_a_large_commit_is_located(world: Any) -> None:
    broker = world.broker()
    incidents = [commands.Incident("x", "bank.example", None, str(number)) for number in range(50)]
    broker._writer.commit(incidents)
    broker.close()
    tamper(world.directory / BOOK_FILE, "UPDATE entries SET body = CAST('{}' AS BLOB) WHERE idx = 30")
    with pytest.raises(EntryError, match="hashed into the log") as caught:
        audit(world.directory, broker.log_key)
    assert caught.value.index == 30
