"""What was asked is committed to in the record: opened to a regulator, hidden from everybody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_verification import ASKED, BUCKET, CODES, VerificationWorld

from trustcompute.broker.grant import Bounds
from trustcompute.cli import main
from trustcompute.errors import JobInterrupted, ParameterError, VerificationError
from trustcompute.node import opened
from trustcompute.primitives.signing import token_hash
from trustcompute.verification import operation, querylog
from trustcompute.verification.answer import Questions
from trustcompute.verification.querylog import Opening


@pytest.fixture
def world(tmp_path):
    made = VerificationWorld(tmp_path, operations={BUCKET: Bounds(), "psi.ecdh.v1": Bounds()})
    yield made
    made.stop()


def asked(world, **options):
    session = world.session(**options)
    found = session.verify("planes", "seats >= 20", keys=ASKED)
    return session, found, found.receipt.verify(world.broker.log_key)


def test_an_opening_is_of_the_question_that_was_charged(world):
    session, found, entry = asked(world)
    shown = opened.verify(Opening.from_json(session.opening(found.job).to_json()), entry)
    assert (shown.job, shown.asker, shown.questions) == (found.job, "airline.example", 3)
    assert shown.said.predicate == "seats >= 20"
    assert shown.about(["N3", "N4", "absent"]) == [True, False, True]


def test_another_opening_than_the_committed_one_is_refused(world):
    session, found, entry = asked(world)
    opening = session.opening(found.job)
    fewer = Questions(opening.questions.subjects[:2])
    other = session.verify("planes", "seats >= 20", keys=["N9"])
    for wrong in (
        replace(opening, questions=fewer),
        replace(opening, salt=bytes(32)),
        replace(opening, request=session.opening(other.job).request),
        replace(session.opening(other.job), request=opening.request),
        replace(opening, table=opening.table + "A"),
    ):
        with pytest.raises(VerificationError):
            opened.verify(wrong, entry)
    body = opening.to_json()
    for data in (b"", body[:-1], body.replace(b'"v":1', b'"v":2'), body.replace(b'"salt":"', b'"salt":"0')):
        with pytest.raises(VerificationError):
            Opening.from_json(data)


def test_a_dictionary_of_all_keys_finds_nothing_in_record_or_request(world):
    session, found, entry = asked(world)
    opening = session.opening(found.job)
    record = b"".join(body for body in map(repr_of, world.broker.entries())) + opening.request.encode()
    for key in range(40):
        subject = Questions(opening.questions.subjects[:1])
        for text in (
            f'"N{key}"'.encode(),
            subject.subjects.tobytes(),
            subject.subjects.tobytes().hex().encode(),
        ):
            assert text not in record
    guesses = [Opening(opening.table, salt, opening.questions) for salt in (bytes(32), b"\1" * 32)]
    assert opening.commitment not in {one.commitment for one in guesses}
    again = querylog.committed(opening.table, opening.questions)
    assert again.commitment != opening.commitment  # the same question looks otherwise each time
    assert entry.fields["request"] == token_hash(opening.request)


def repr_of(entry):
    return repr(entry).encode()


def test_a_question_without_a_commitment_is_refused_for_nothing(world, monkeypatch):
    right = operation.parameters
    session = world.session()
    monkeypatch.setattr(querylog.Opening, "commitment", property(lambda self: "zz"))
    with pytest.raises(ParameterError, match="64 hex digits"):
        session.verify("planes", "seats >= 20", keys=ASKED)
    assert right is operation.parameters and world.used() == 0


@pytest.mark.fault
def test_a_job_that_goes_on_has_the_same_opening(world, tmp_path):
    plan = dict.fromkeys(range(9), "lose answer")
    with pytest.raises(JobInterrupted) as stopped:
        asked(world, plan=plan, state=tmp_path / "state")
    with pytest.raises(ParameterError, match="kept here"):
        world.session().verify("planes", "seats >= 20", keys=ASKED, job=stopped.value.job)
    session = world.session(state=tmp_path / "state")
    found = session.verify("planes", "seats >= 20", keys=ASKED, job=stopped.value.job)
    assert found.codes == CODES
    assert (
        opened.verify(session.opening(found.job), found.receipt.verify(world.broker.log_key)).questions == 3
    )


def test_the_command_says_what_was_asked(world, tmp_path, capsys):
    _, found, _ = asked(world, state=tmp_path / "state")
    state = tmp_path / "state"
    (tmp_path / "key").write_text(str(world.broker.log_key))
    command = ["verify", "opened", str(state / f"{found.job}.opening"), "--key", str(tmp_path / "key")]
    command += ["--receipt", str(state / f"{found.job}.receipt.json"), "--about", "N3", "--about", "N4"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "seats >= 20" in shown and "not asked about" in shown
    other = state / f"{world.session(state=state).verify('planes', 'present', keys=['N1']).job}.opening"
    assert main([*command[:2], str(other), *command[3:]]) == 4
