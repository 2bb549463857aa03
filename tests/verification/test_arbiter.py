"""Disputes: a lying holder and a lying client are both found, from u and the signed v alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scene import HOLDER, PLACE, SEED, built, check_for, play, private_parties, questions

from trustcompute.cli import main
from trustcompute.errors import VerificationError
from trustcompute.primitives.identity import CertificateAuthority
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import Disputed, Evidence, building, judge, parse, pir, proof, statement, truth
from trustcompute.verification.table import About, Masked, Table

HELD = {"id": list(range(64)), "seats": list(range(64))}


@pytest.fixture(scope="module")
def made():
    return built(HELD, "seats >= 30")


def spoiled(made):
    """A holder whose table says something else than its descriptor."""
    masked = made.masked
    cells = np.array(masked.database)
    cells[40] ^= 1
    parts = (masked.buckets, cells, masked.hint, masked.splitters, masked.leaves)
    return Table(Masked(masked.descriptor, masked.token, *parts), made.key)


def dispute(made, served):
    found, _, sent = play(
        *private_parties(made, questions(made, [7, 50]), served=served, check=check_for(made))
    )
    assert isinstance(found, Disputed), found
    return found.evidence, sent


def test_a_holder_that_answers_wrongly_is_at_fault(made):
    evidence, sent = dispute(made, spoiled(made))
    judged = judge(Evidence.from_bytes(evidence.to_bytes()), made.masked, HOLDER.public)
    assert (judged.at_fault, judged.wrong) == ("holder", (0, 1))
    assert np.array_equal(evidence.asked, sent[-1]["word"])  # what the holder has seen, and no more


def test_a_complaint_about_a_right_answer_is_the_complainants_fault(made):
    evidence, _ = dispute(made, spoiled(made))
    right = tables_answer(made, evidence.asked)
    signed = statement.sign(made.id, [evidence.asked], [right], HOLDER).tobytes()
    judged = judge(replace(evidence, answered=right, signature=signed), made.masked, HOLDER.public)
    assert (judged.at_fault, judged.wrong) == ("complainant", ())


def tables_answer(made, asked):
    return pir.answer(made.masked.database, asked)


@pytest.mark.parametrize("part", ["asked", "answered", "signature"])
def test_evidence_that_was_altered_is_the_complainants_fault(made, part):
    evidence, _ = dispute(made, spoiled(made))
    if part == "signature":
        altered = replace(evidence, signature=bytes([evidence.signature[0] ^ 1]) + evidence.signature[1:])
    else:
        words = np.array(getattr(evidence, part))
        words[0, 3] ^= 1
        altered = replace(evidence, **{part: words})
    judged = judge(altered, made.masked, HOLDER.public)
    assert judged.at_fault == "complainant" and "did not sign" in judged.reason


def test_nothing_is_decided_about_another_table_or_holder(made):
    evidence, _ = dispute(made, spoiled(made))
    with pytest.raises(VerificationError, match="another table"):
        judge(evidence, built(HELD, "seats >= 30", epoch=2).masked, HOLDER.public)
    with pytest.raises(VerificationError, match="columns"):
        judge(evidence, spoiled(made).masked, HOLDER.public)
    with pytest.raises(VerificationError, match="descriptor"):
        judge(evidence, made.masked, SigningKey.generate().public)


def test_evidence_is_read_strictly(made):
    evidence, _ = dispute(made, spoiled(made))
    body = evidence.to_bytes()
    for wrong in (b"", body[:-1], body + b"\0", body[:20], b"x" + body[1:], body[:60]):
        with pytest.raises(VerificationError):
            Evidence.from_bytes(wrong)
    with pytest.raises(VerificationError):
        Evidence.from_bytes(replace(evidence, token="a.b.c").to_bytes())


def test_an_asker_whose_own_check_is_wrong_finds_out(made):
    """A check that belongs to another table complains about right answers: the arbiter says so."""
    bad = proof.issue(made.id, spoiled(made).masked.database, Rng.from_os(), HOLDER)
    found, _, _ = play(*private_parties(made, questions(made, [7]), check=bad))
    assert isinstance(found, Disputed)
    assert judge(found.evidence, made.masked, HOLDER.public).at_fault == "complainant"


def test_the_command_says_who_is_at_fault(tmp_path, capsys):
    holder = CertificateAuthority.create("test").issue("holder.example")
    (tmp_path / "holder.pem").write_bytes(holder.certificate)
    about = About(dataset="held", version="1", subject=("id",), predicate=parse("seats >= 30"), place=PLACE)
    decided = truth.decide(HELD, ("id",), about.predicate)
    made = building.build(about, decided, SEED, holder.key, directory=tmp_path / "tables")
    [place] = [path for path in (tmp_path / "tables").iterdir() if path.is_dir()]
    asked = Rng.from_os().array(4 * made.descriptor.columns.columns).view("<u4").reshape(1, -1)
    answered = tables_answer(made, asked)
    answered[0, 0] += 1
    signed = statement.sign(made.id, [asked], [answered], holder.key).tobytes()
    (tmp_path / "dispute").write_bytes(Evidence(made.masked.token, asked, answered, signed).to_bytes())
    command = ["verify", "arbiter", str(tmp_path / "dispute"), str(place)]
    assert main([*command, "--holder", str(tmp_path / "holder.pem")]) == 0
    assert "holder" in capsys.readouterr().out
    assert main([*command, "--holder", str(tmp_path / "holder.pem"), "--json"]) == 0
    assert '"wrong": [\n    0\n  ]' in capsys.readouterr().out
