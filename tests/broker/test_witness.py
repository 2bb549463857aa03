"""Witnesses: an honest one cosigns no second history; below the quorum nothing is believed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.broker import witness as witnessing
from trustcompute.broker.witness import HttpWitness, Quorum, Response, Witness, ask, request, serve
from trustcompute.errors import ParameterError, StoreError, TransportError, VerificationError
from trustcompute.primitives import checkpoint, merkle
from trustcompute.primitives.checkpoint import Checkpoint, CosignerKey, NoteKey
from trustcompute.primitives.signing import SigningKey

LOG = SigningKey.from_seed(bytes(32))
NAME = NoteKey("bureau.example/trustcompute", LOG.public)
NOW = 1_750_000_000


def tree(size: int, salt: bytes = b"") -> merkle.Tree:
    return merkle.Tree(merkle.leaf_hash(salt + bytes([n])) for n in range(size))


def note(of: merkle.Tree, size: int | None = None) -> str:
    size = len(of) if size is None else size
    return checkpoint.sign(Checkpoint(NAME.name, size, of.root(size)), LOG)


def make(folder: Path, name: str = "witness.example/w1", seed: int = 1) -> Witness:
    return Witness(folder, name, SigningKey.from_seed(bytes([seed]) * 32), [NAME], lambda: NOW)


@pytest.fixture
def one(tmp_path: Path) -> Witness:
    return make(tmp_path / "w")


def send(to: Witness, of: merkle.Tree, old: int, size: int | None = None) -> Response:
    size = len(of) if size is None else size
    return to.add_checkpoint(request(old, of.consistency_proof(old, size), note(of, size)))


def test_a_growing_log_is_cosigned_and_the_cosignature_verifies(one: Witness) -> None:
    log = tree(20)
    for old, size in ((0, 5), (5, 5), (5, 8), (8, 20)):
        answer = send(one, log, old, size)
        assert answer.status == 200
        cosigned = checkpoint.add_signature(note(log, size), answer.body.decode())
        assert checkpoint.verify_cosignature(cosigned, one.cosigner) == NOW
        assert checkpoint.verify(cosigned, NAME).size == size, "the log's own signature is still found"


def test_statuses_are_those_of_the_specification(one: Witness) -> None:
    log, fork = tree(20), tree(20, b"fork")
    assert send(one, log, 0, 10).status == 200
    assert send(one, log, 5, 12) == Response(409, b"10\n"), (
        "another old size than the witness has: its own comes back"
    )
    assert send(one, fork, 10, 10) == Response(409, b"10\n"), "same size, other root"
    assert send(one, fork, 10, 20).status == 422, "a proof that does not lead from the old root"
    assert one.add_checkpoint(request(10, [], note(log))).status == 422
    assert one.add_checkpoint(request(20, [], note(log, 10))).status == 400, "old beyond the checkpoint"
    unknown = checkpoint.sign(Checkpoint("other/log", 1, log.root(1)), LOG)
    assert one.add_checkpoint(request(0, [], unknown)).status == 404
    forged = checkpoint.sign(Checkpoint(NAME.name, 20, log.root()), SigningKey.generate())
    assert one.add_checkpoint(request(10, log.consistency_proof(10, 20), forged)).status == 403
    for malformed in (
        b"",
        b"old 1",
        b"old -1\n\n",
        b"old 01\n\n" + note(log).encode(),
        b"\xff",
        b"x" * 10**6,
    ):
        assert one.add_checkpoint(malformed).status == 400
    assert one.seen(NAME.name) == Checkpoint(NAME.name, 10, log.root(10)), "refusals change nothing"


def test_a_rolled_back_log_is_refused(one: Witness) -> None:
    log = tree(20)
    assert send(one, log, 0).status == 200
    assert send(one, log, 0, 10).status == 409
    with pytest.raises(VerificationError, match="refuses to cosign"):
        ask(one, note(log, 10), lambda old: log.consistency_proof(old, 10))


@pytest.mark.property
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 29))
@settings(max_examples=40, deadline=None)
def test_a_forked_log_is_refused_by_every_honest_witness(
    tmp_path_factory: pytest.TempPathFactory, first: int, second: int, split: int
) -> None:
    """Whatever two histories a log shows, and in whatever order, a witness cosigns one of them."""
    folder = tmp_path_factory.mktemp("w")
    honest = [make(folder / str(n), f"w{n}.example", n + 1) for n in range(3)]
    common = [merkle.leaf_hash(bytes([n])) for n in range(min(split, first - 1, second - 1))]
    histories = []
    for salt, size in ((b"a", first), (b"b", second)):
        leaves = [*common, *(merkle.leaf_hash(salt + bytes([n])) for n in range(len(common), size))]
        histories.append(merkle.Tree(leaves))
    for each in honest:
        ask(each, note(histories[0]), lambda old: histories[0].consistency_proof(old, first))
        for old in range(second + 1):
            assert send(each, histories[1], old).status in (400, 409, 422)


def test_a_witness_remembers_over_restarts_and_between_processes(tmp_path: Path) -> None:
    log = tree(20)
    assert send(make(tmp_path), log, 0, 10).status == 200
    again, other = make(tmp_path), make(tmp_path)
    assert send(again, log, 0, 12) == Response(409, b"10\n")
    assert send(other, log, 10, 20).status == 200
    assert send(again, log, 10, 20) == Response(409, b"20\n")


def test_what_cannot_be_remembered_is_not_cosigned(one: Witness, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(witnessing, "keep", full)
    with pytest.raises(StoreError):
        send(one, tree(5), 0)
    monkeypatch.undo()
    assert one.seen(NAME.name) is None


def test_a_damaged_memory_cosigns_nothing(one: Witness, tmp_path: Path) -> None:
    log = tree(5)
    send(one, log, 0, 3)
    next((tmp_path / "w").glob("*.checkpoint")).write_text("nonsense")
    with pytest.raises(StoreError, match="must not cosign"):
        send(one, log, 3)


def test_many_at_once_cosign_one_history(tmp_path: Path) -> None:
    """Check and persist are one step: of forks that race for a witness, one wins."""
    shared = make(tmp_path)
    forks = [tree(10, bytes([n])) for n in range(8)]
    answers: list[int] = []
    start = threading.Barrier(len(forks))

    def race(fork: merkle.Tree) -> None:
        start.wait()
        answers.append(send(shared, fork, 0).status)

    racers = [threading.Thread(target=race, args=(fork,)) for fork in forks]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(answers) == [200] + [409] * 7


@pytest.fixture
def served(one: Witness) -> Iterator[str]:
    server = serve(one, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_witness_answers_over_http(served: str, one: Witness) -> None:
    log = tree(20)
    remote = HttpWitness(served, one.cosigner)
    line = ask(remote, note(log, 10), lambda old: log.consistency_proof(old, 10))
    assert checkpoint.verify_cosignature(checkpoint.add_signature(note(log, 10), line), one.cosigner) == NOW
    ask(remote, note(log), lambda old: log.consistency_proof(old, 20))  # finds out by itself what it last had
    assert remote.add_checkpoint(b"nonsense").status == 400
    assert remote.add_checkpoint(b"x" * (witnessing.MAX_BODY + 1)).status == 413
    assert HttpWitness(served + "/elsewhere", one.cosigner).add_checkpoint(b"").status == 404
    with pytest.raises(ParameterError):
        HttpWitness("file:///etc/passwd", one.cosigner)
    with pytest.raises(TransportError):
        HttpWitness("http://127.0.0.1:9", one.cosigner, timeout=1).add_checkpoint(b"")


def test_an_impostors_answer_is_not_taken(one: Witness, tmp_path: Path) -> None:
    log = tree(5)
    expected = CosignerKey(one.cosigner.name, SigningKey.generate().public)
    remote = type("Impostor", (), {"cosigner": expected, "add_checkpoint": one.add_checkpoint})()
    with pytest.raises(VerificationError, match="another signature than its own"):
        ask(remote, note(log), lambda old: log.consistency_proof(old, 5))


def test_keys_of_witnesses_have_a_text_form(one: Witness) -> None:
    assert CosignerKey.parse(str(one.cosigner)) == one.cosigner
    for text in ("", "a+b", str(NAME), str(one.cosigner)[:-4]):
        with pytest.raises(VerificationError):
            CosignerKey.parse(text)


def test_receipts_fail_closed_below_the_quorum(world: Any, tmp_path: Path) -> None:
    broker = world.broker()
    keys = [SigningKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3)]
    three = [
        Witness(tmp_path / str(n), f"w{n}.example", key, [broker.log_key], lambda: NOW)
        for n, key in enumerate(keys)
    ]
    quorum = Quorum(tuple(each.cosigner for each in three), 2)
    grant = broker.issue(world.claims())
    job = world.posted(broker, grant).id
    with pytest.raises(VerificationError, match="cosigned yet"):
        broker.receipt(job, quorum)
    plain = broker.receipt(job)
    assert plain.verify(broker.log_key).fields["job"] == job
    with pytest.raises(VerificationError, match="0 of the witnesses cosigned"):
        plain.verify(broker.log_key, quorum)
    with pytest.raises(VerificationError, match="1 of the witnesses"):
        broker.cosign(three[:1], quorum)

    broker.cosign([HttpWitness("http://127.0.0.1:9", three[0].cosigner, timeout=1), *three[1:]], quorum)
    receipt = broker.receipt(job, quorum)
    assert receipt.verify(broker.log_key, quorum).fields["job"] == job
    later = world.posted(broker, grant).id
    with pytest.raises(VerificationError, match="under no cosigned checkpoint yet"):
        broker.receipt(later, quorum)
    assert broker.receipt(job, quorum).verify(broker.log_key, quorum), "an older receipt is still made"
    broker.cosign(three, quorum)
    assert broker.receipt(later, quorum).verify(broker.log_key, Quorum(quorum.witnesses, 3))


def test_a_quorum_counts_keys_not_names(one: Witness) -> None:
    twin = CosignerKey("other.example", one.cosigner.key)
    for witnesses, needed in (((one.cosigner, twin), 1), ((one.cosigner,), 2), ((one.cosigner,), 0)):
        with pytest.raises(ParameterError):
            Quorum(witnesses, needed)
