"""Answers are those of a plain look at the table, in every mode, for whatever table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from campaign import run_one
from scene import (
    HOLDER,
    answers_of,
    bucket_parties,
    built,
    check_for,
    download_parties,
    play,
    private_parties,
    promise,
    questions,
)

from trustcompute import verification
from trustcompute.errors import LocalProtocolError, ParameterError, StoreError, TableError, VerificationError
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import Proof, building, layout, pir, private, table
from trustcompute.verification.cells import Place

HELD = pa.table({"id": [f"N{i}" for i in range(150)], "seats": range(150), "maker": ["a", "b", "c"] * 50})


@pytest.mark.property
@pytest.mark.parametrize("seed", range(12))
def test_random_tables_answer_like_a_plain_look(seed):
    run_one(seed)


@pytest.mark.parametrize("mode", ["bucket", "private", "batch", "download"])
def test_one_call_checks_claims(mode):
    found = verification.verify(
        HELD, "seats >= 100", keys=["N99", "N100", "X", "N100"], subject="id", mode=mode
    )
    assert found.codes == ["mismatch", "match", "no record", "match"]
    assert found.matches.tolist() == [False, True, False, True]
    rows = {"id": ["N0", "N1", "Q"], "maker": ["a", "a", "a"], "seats": [0, 1, 2]}
    found = verification.verify(HELD, match=["maker", "seats"], rows=rows, subject="id", mode=mode)
    assert found.codes == ["match", "mismatch", "no record"]


@pytest.mark.parametrize("parties", [bucket_parties, private_parties, download_parties])
@pytest.mark.parametrize("predicate", ["seats >= 100", "match(maker)"])
def test_a_proof_opens_one_answer_offline_and_nothing_else(parties, predicate):
    made = built(HELD, predicate)
    if predicate.startswith("match"):
        rows = {"id": ["N1", "N2", "X"], "maker": ["b", "a", "a"]}
        asked = verification.verify.__globals__["question"].asked(made.descriptor, rows).questions
    else:
        asked = questions(made, ["N120", "N3", "X"])
    result, _, _ = play(*parties(made, asked))
    answers = answers_of(result)
    for answer in answers:
        document = answer.proof.to_json()
        assert Proof.from_json(document).verify(HOLDER.public, table=made.id).code is answer.code
        with pytest.raises(VerificationError):
            Proof.from_json(document).verify(SigningKey.generate().public)
        with pytest.raises(VerificationError, match="another table"):
            Proof.from_json(document).verify(HOLDER.public, table="0" * 64)
    spoiled(answers[0].proof)


def spoiled(proof):
    """A proof with any part altered opens nothing."""
    for field in dataclasses.fields(Proof):
        value = getattr(proof, field.name)
        if isinstance(value, bytes) and value:
            for at in (0, len(value) // 2, len(value) - 1):
                altered = bytearray(value)
                altered[at] ^= 4
                with pytest.raises(VerificationError):
                    dataclasses.replace(proof, **{field.name: bytes(altered)}).verify(HOLDER.public)
            with pytest.raises(VerificationError):
                dataclasses.replace(proof, **{field.name: value[:-1]}).verify(HOLDER.public)
            with pytest.raises(VerificationError):
                dataclasses.replace(proof, **{field.name: bytes(len(value))}).verify(HOLDER.public)
    for changed in ({"number": proof.number + 1}, {"position": 99}, {"place": 1 - proof.place}, {"place": 7}):
        with pytest.raises(VerificationError):
            dataclasses.replace(proof, **changed).verify(HOLDER.public)
    for document in (b"{}", b"[]", b"1", proof.to_json()[:-1]):
        with pytest.raises(VerificationError):
            Proof.from_json(document)


def test_two_predicates_about_one_subject_fall_in_the_same_bucket():
    held = {"id": [f"N{i}" for i in range(2000)], "seats": range(2000)}
    first, second = built(held, "seats >= 100"), built(held, "present", epoch=7)
    other = built(held, "seats < 5", version="2")
    numbers = [
        play(*bucket_parties(made, questions(made, ["N77", "N3"])))[2][0]["bucket"].tolist()
        for made in (first, second, other)
    ]
    assert numbers[0] == numbers[1] == numbers[2]
    assert first.descriptor.public != second.descriptor.public


def test_every_bucket_hides_a_key_among_k_records():
    made = built({"id": range(3000)}, "present", least_in_bucket=50)
    counts = [layout.occupied(made.masked.buckets[i : i + 1]) for i in range(made.descriptor.buckets.columns)]
    assert min(counts) >= 50 and len(counts) >= 16


def test_a_table_is_kept_loaded_and_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.setattr(building, "PIECE", 64)
    whole = built(HELD, "seats >= 100")
    seen = []

    def stop(one):
        seen.append((one.phase, one.done, one.total))
        if one.done == 128:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(HELD, "seats >= 100", directory=tmp_path, progress=stop)
    again = []
    made = built(HELD, "seats >= 100", directory=tmp_path, progress=lambda one: again.append(one.done))
    assert seen == [("evaluate", done, 150) for done in (0, 64, 128)] and again == [128, 150]
    (
        tmp_path / f"{next(tmp_path.iterdir()).name.split('.')[0]}.part"
    ).mkdir()  # as if stopped before it was removed
    loaded = built(
        HELD, "seats >= 100", directory=tmp_path, progress=lambda _: pytest.fail("evaluated again")
    )
    assert whole.id == made.id == loaded.id
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".part", ".tmp"))] == []
    asked = questions(loaded, ["N120"])
    assert play(*bucket_parties(loaded, asked))[0][0].text == "match"
    table.check(loaded.masked)
    [place] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert place.stat().st_mode & 0o777 == 0o700
    for name in table.FILES:
        kept = (place / name).read_bytes()
        (place / name).write_bytes(bytes([kept[0] ^ 1]) + kept[1:])
        with pytest.raises(VerificationError):
            table.check(table.load(place, HOLDER))
        (place / name).write_bytes(kept[:-1])
        with pytest.raises(VerificationError):
            table.load(place, HOLDER)
        (place / name).write_bytes(kept)
    with pytest.raises(VerificationError):
        table.load(place, SigningKey.generate())
    (place / "hint").unlink()
    with pytest.raises(StoreError):
        table.load(place, HOLDER)


def test_other_data_predicates_and_epochs_are_other_tables_under_other_keys():
    tables = [
        built(HELD, "seats >= 100"),
        built(HELD, "seats >= 101"),
        built(HELD, "seats >= 100", epoch=2),
        built(HELD, "seats >= 100", version="2"),
    ]
    assert len({made.id for made in tables}) == 4
    assert (
        len({made.descriptor.public for made in tables}) == 3
    )  # a version keeps the key, a cell's mask does not
    assert len({made.descriptor.salt for made in tables}) == 4


def test_a_prepared_query_serves_once():
    made = built(HELD, "present")
    said = made.descriptor
    ready = pir.prepare(made.masked.hint, bytes.fromhex(said.seed), said.columns.columns, Rng.from_os())
    pir.query(ready, 0)
    with pytest.raises(LocalProtocolError, match="once"):
        pir.query(ready, 1)
    assert str(ready.masked[0]) not in repr(ready)


def test_queries_that_are_prepared_together_are_each_their_own():
    made = built({"id": range(3000)}, "present")
    said, hint = made.descriptor, made.masked.hint
    seed, columns = bytes.fromhex(said.seed), said.columns.columns
    for count in (0, 1, 2, 5):
        ready = pir.prepare_many(hint, seed, columns, Rng.from_os(), count)
        asked = np.stack([pir.query(one, j) for j, one in enumerate(ready)]) if ready else []
        assert len(ready) == count and len({one.tobytes() for one in asked}) == count
        for j, (one, query) in enumerate(zip(ready, asked, strict=True)):
            got = pir.answer(made.masked.database, query[None])[0]
            assert np.array_equal(pir.column_of(one, got), made.masked.database.view(np.uint8)[:, j])


def test_a_question_takes_one_prepared_query_and_no_more():
    made = built(HELD, "present")
    said = made.descriptor
    seed, columns = bytes.fromhex(said.seed), said.columns.columns
    ready = iter(pir.prepare_many(made.masked.hint, seed, columns, Rng.from_os(), 4))
    asked = questions(made, ["N1", "N2", "X"])
    public = private.public_of(said, made.masked.splitters, made.masked.leaves, made.masked.hint)
    consumer = private.consumer(promise(made), asked, check_for(made), public, Rng.from_os(), prepared=ready)
    provider = private.provider(made, 3, False, Rng.from_os(), HOLDER)
    assert sorted(one.text for one in play(consumer, provider)[0].answers) == ["match", "match", "no record"]
    assert len(list(ready)) == 1


def test_the_number_of_questions_of_a_batch_does_not_tell_that_of_keys():
    made = built(HELD, "match(maker)")
    found = verification.plan(made.descriptor, 3, checked=True, mode="batch")
    assert (found.questions, found.mode, found.hidden_among) == (16, "batch", 150)
    assert verification.plan(made.descriptor, 17, checked=True, mode="batch").bytes == (
        verification.plan(made.descriptor, 32, checked=True, mode="batch").bytes
    )
    assert "at most" in found.leakage.provider and "16" in found.reason
    with pytest.raises(ParameterError, match="1024"):
        verification.plan(made.descriptor, 1025, checked=True, mode="batch")
    with pytest.raises(ParameterError, match="batch mode needs a check"):
        verification.plan(made.descriptor, 3, checked=False, mode="batch")
    said = [verification.plan(made.descriptor, 3, checked=True, mode=m).leakage for m in verification.MODES]
    assert len(set(said)) == 4


def test_a_masked_table_serves_once_received():
    made = built(HELD, "seats >= 100")
    first, _, _ = play(*download_parties(made, questions(made, ["N120"])))
    again, shown, _ = play(*download_parties(made, questions(made, ["N3", "X"]), columns=first.columns))
    assert sorted(one.text for one in again.answers) == ["mismatch", "no record"]
    assert [kind for kind, _ in shown] == ["asked"]


def test_what_cannot_be_asked_is_refused_before_anything_is_sent():
    for call, error in (
        (lambda: verification.verify(HELD, "seats >= 1", keys=["a", None], subject="id"), TableError),
        (lambda: verification.verify(HELD, "seats >= 1", keys=[], subject="id"), TableError),
        (lambda: verification.verify(HELD, "seats >= 1", keys=[1.5], subject="id"), TableError),
        (lambda: verification.verify(HELD, "seats >= 1", keys=[1], subject="id"), TableError),
        (lambda: verification.verify(HELD, "seats >= 1", subject="id"), ParameterError),
        (lambda: verification.verify(HELD, keys=["a"], subject="id"), ParameterError),
        (lambda: verification.verify(HELD, match=["maker"], rows={"id": ["a"]}, subject="id"), TableError),
        (lambda: verification.verify(HELD, "present", keys=["a"], subject=["id", "seats"]), TableError),
    ):
        with pytest.raises(error):
            call()


def test_a_column_proves_the_range_it_stands_for():
    made = built(HELD, "present")
    asked = questions(made, ["N5"])
    result, _, _ = play(*private_parties(made, asked))
    proof = result.answers[0].proof
    other = (proof.number + 1) % made.descriptor.columns.columns
    tree = result.public.tree
    path = b"".join(tree.inclusion_proof(other))
    column = np.ascontiguousarray(made.masked.database[:, other]).tobytes()
    moved = dataclasses.replace(proof, number=other, path=path, column=column)
    with pytest.raises(VerificationError, match="range"):
        moved.verify(HOLDER.public)
    assert proof.place == Place.COLUMN


def test_keys_of_several_columns_are_tuples():
    held = {"a": [1, 1, 2], "b": ["x", "y", "x"], "n": [5, 6, 7]}
    found = verification.verify(held, "n >= 6", keys=[(1, "x"), (1, "y"), (3, "x")], subject=["a", "b"])
    assert found.codes == ["mismatch", "match", "no record"]


def test_a_check_is_saved_and_loaded_and_is_the_auditors(tmp_path):
    made = built(HELD, "present")
    auditor = SigningKey.generate()
    check = verification.verify.__globals__["proof"].issue(
        made.id, made.masked.database, Rng.from_os(), auditor
    )
    check.save(tmp_path / "check")
    loaded = verification.Check.load(tmp_path / "check", auditor.public)
    assert loaded.table == made.id and np.array_equal(loaded.sums, check.sums)
    assert play(*private_parties(made, questions(made, ["N5"]), check=loaded))[0].answers[0].text == "match"
    with pytest.raises(VerificationError):
        verification.Check.load(tmp_path / "check", HOLDER.public)
    data = (tmp_path / "check").read_bytes()
    for at in (0, 30, len(data) - 1):
        (tmp_path / "check").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(VerificationError):
            verification.Check.load(tmp_path / "check", auditor.public)
    assert promise(made).id == check_for(made).table
