from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker import log
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import AuditError, InputError, LocalProtocolError, VerificationError
from trustcompute.primitives import canonical, checkpoint, merkle
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.signing import SigningKey


@pytest.fixture
def made(world: Any) -> tuple[Receipt, NoteKey]:
    """A receipt from the middle of a log that has grown since."""
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    jobs = [world.posted(broker, grant).id for _ in range(6)]
    return broker.receipt(jobs[2]), broker.log_key


def test_a_receipt_verifies_offline_and_survives_a_file(
    made: tuple[Receipt, NoteKey], tmp_path: Path
) -> None:
    receipt, key = made
    path = tmp_path / "receipt.json"
    receipt.save(path)
    loaded = Receipt.load(path)
    assert loaded == receipt
    entry = loaded.verify(NoteKey.parse(str(key)))
    assert entry.type == "job.posted" and entry.index == receipt.index == 5
    assert entry.fields["usage"]["calls"] == 1


@pytest.mark.parametrize("bit", [0, 7])
def test_every_changed_byte_of_a_receipt_is_refused(made: tuple[Receipt, NoteKey], bit: int) -> None:
    receipt, key = made
    good = receipt.to_json()
    for position in range(len(good)):
        changed = bytearray(good)
        changed[position] ^= 1 << bit
        with pytest.raises(VerificationError):
            Receipt.from_json(bytes(changed)).verify(key)
            pytest.fail(f"byte {position} may be another")


def test_a_receipt_of_another_log_entry_or_key_is_refused(made: tuple[Receipt, NoteKey]) -> None:
    receipt, key = made
    stranger = SigningKey.generate()
    with pytest.raises(VerificationError, match="not signed by the log"):
        receipt.verify(NoteKey(key.name, stranger.public))
    with pytest.raises(VerificationError, match="not signed by the log"):
        receipt.verify(NoteKey("other.example/log", key.key))
    for wrong in (
        replace(receipt, index=receipt.index + 1),
        replace(receipt, index=-1),
        replace(receipt, proof=receipt.proof[:-1]),
        replace(receipt, proof=(*receipt.proof, bytes(32))),
        replace(receipt, entry=receipt.entry.replace(b'"calls":1', b'"calls":2')),
    ):
        with pytest.raises(VerificationError):
            wrong.verify(key)


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"extra": 1},
        {"entry": 5},
        {"index": "5"},
        {"index": True},
        {"proof": "x"},
        {"proof": ["not base64!"]},
        {"proof": [5]},
        {"proof": ["AAAA"] * 65},
        {"checkpoint": None},
    ],
)
def test_malformed_receipts_are_refused(made: tuple[Receipt, NoteKey], change: dict[str, Any]) -> None:
    receipt, key = made
    with pytest.raises(VerificationError):
        Receipt.from_json(canonical.dumps(receipt.to_document() | change)).verify(key)


def test_files_that_are_missing_or_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        Receipt.load(tmp_path / "none.json")
    (tmp_path / "huge.json").write_bytes(b" " * 600_000)
    with pytest.raises(VerificationError, match="may have"):
        Receipt.load(tmp_path / "huge.json")


def test_jobs_that_have_not_ended_have_no_receipt(world: Any) -> None:
    broker = world.broker()
    job = broker.reserve(world.verified(broker, broker.issue(world.claims())), world.operation)
    with pytest.raises(LocalProtocolError, match="no entry"):
        broker.receipt(job.id)


def test_old_receipts_stay_provable_as_the_log_grows(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    old = checkpoint.verify(broker.checkpoint(), broker.log_key)
    for _ in range(5):
        world.posted(broker, grant)
    new = checkpoint.verify(broker.checkpoint(), broker.log_key)
    proof = broker.consistency_proof(old.size, new.size)
    merkle.verify_consistency(old.size, new.size, proof, old.root, new.root)


# Entries


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"time":1,"type":"job.posted","v":2}',
        b'{"time":1,"type":"job.refunded","v":1}',
        b'{"time":-1,"type":"job.posted","v":1}',
        b'{"time":"1","type":"job.posted","v":1}',
        b'{"type":"job.posted","v":1}',
        b'{"time":1,"type":"job.posted", "v":1}',
        b'{"time":1,"type":"job.posted","v":1,"x":1.5}',
        b'{"time":1,"type":"job.posted","v":1,"x":"' + b"x" * 66_000 + b'"}',
    ],
)
def test_what_is_not_an_entry_is_not_read_as_one(body: bytes) -> None:
    with pytest.raises(AuditError, match="entry 7"):
        log.decode(7, body)


def test_what_is_not_an_entry_is_not_written() -> None:
    with pytest.raises(LocalProtocolError, match="no entries of type"):
        log.encode("job.refunded", 1, {})
    with pytest.raises(LocalProtocolError, match="65535 bytes"):
        log.encode("incident", 1, {"detail": "x" * 70_000})
