"""Consent tokens: blind, genuine, for one predicate until they expire, spent once and durably."""

from __future__ import annotations

import numpy as np
import pytest

from trustcompute.errors import ParameterError, Refused, StoreError, VerificationError
from trustcompute.primitives.rng import Rng
from trustcompute.verification import consent
from trustcompute.verification.consent import About, Consents, Issued, Token

SEED, NOW = b"s" * 32, 1_700_000_000
ABOUT = About("people", "age >= 18", NOW + 86400)


def given(holder, count=2, about=ABOUT):
    wish = consent.wish(about, count, Rng.from_os())
    return [str(one) for one in wish.finish(holder.issue(about, wish.blinded, Rng.from_os(), now=NOW))]


def spend(holder, tokens, *, job="a", predicate=ABOUT.predicate, now=NOW, questions=None):
    count = len(tokens) if questions is None else questions
    holder.redeem(tokens, predicate, count, job=job, now=now)


def test_a_token_is_taken_once_and_again_by_the_same_job(tmp_path):
    holder = Consents(SEED, "people", tmp_path / "spent")
    tokens = given(holder)
    spend(holder, tokens)
    spend(holder, tokens)
    restarted = Consents(SEED, "people", tmp_path / "spent")
    for one in (holder, restarted):
        with pytest.raises(Refused) as refused:
            spend(one, tokens[1:], job="b")
        assert (refused.value.rule, refused.value.field) == ("consent", "params.consent")
        assert tokens[0] not in str(refused.value)
        spend(one, tokens)


def test_all_consents_of_a_job_are_taken_or_none(tmp_path):
    holder = Consents(SEED, "people", tmp_path / "spent")
    first, second = given(holder)
    spend(holder, [first])
    with pytest.raises(Refused, match="before"):
        spend(holder, [second, first], job="b")
    spend(holder, [second], job="c")
    with pytest.raises(Refused, match="before"):
        spend(holder, [(again := given(holder, 1)[0]), again], job="d")
    spend(holder, [again], job="e")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"predicate": "age >= 21"}, "another predicate"),
        ({"now": NOW + 86400}, "expired"),
        ({"now": NOW - 400 * 86400}, "expired"),
        ({"questions": 3}, "3 questions"),
        ({"questions": 0}, "0 questions"),
    ],
)
def test_a_token_is_good_for_nothing_else(options, why):
    holder = Consents(SEED, "people")
    with pytest.raises(Refused, match=why):
        spend(holder, given(holder), **options)


def test_what_the_holder_did_not_issue_is_refused():
    holder = Consents(SEED, "people")
    [text] = given(holder, 1)
    token = Token.parse(text)
    forged = [
        Token(token.expires + 1, token.nonce, token.proof),
        Token(token.expires, bytes(32), token.proof),
        Token(token.expires, token.nonce, bytes(32)),
    ]
    for one in (*map(str, forged), *given(Consents(b"t" * 32, "people"), 1)):
        with pytest.raises(Refused, match="genuine"):
            spend(holder, [one])
    other = given(Consents(SEED, "firms"), 1, About("firms", ABOUT.predicate, ABOUT.expires))
    with pytest.raises(Refused, match="genuine"):
        spend(holder, other)
    for wrong in ("", "1.a", text + "A", text[:-1], "x" + text, text.replace(".", ".="), 5):
        with pytest.raises(ParameterError):
            spend(holder, [wrong])


def test_the_holder_cannot_link_what_it_issued():
    """What it sees at issue are uniform elements: blinds of one and the same nonce share nothing."""
    holder = Consents(SEED, "people")
    rng = Rng.from_os()
    wish = consent.wish(ABOUT, 2, rng)
    again = consent.Wish(ABOUT, wish.nonces, consent.oprf.random_scalars(rng, 2), wish.blinded)
    blinded = consent.oprf.blind(ABOUT.inputs(wish.nonces), again.blinds, consent.Mode.VOPRF)
    assert not (blinded == wish.blinded).all(axis=1).any()
    again = consent.Wish(ABOUT, wish.nonces, again.blinds, blinded)
    issued = [holder.issue(ABOUT, one.blinded, rng, now=NOW) for one in (wish, again)]
    assert list(map(str, wish.finish(issued[0]))) == list(map(str, again.finish(issued[1])))


def test_a_holder_that_uses_another_key_is_found():
    holder, other = Consents(SEED, "people"), Consents(b"t" * 32, "people")
    wish = consent.wish(ABOUT, 2, Rng.from_os())
    right = holder.issue(ABOUT, wish.blinded, Rng.from_os(), now=NOW)
    wrong = other.issue(ABOUT, wish.blinded, Rng.from_os(), now=NOW)
    mixed = np.stack([right.evaluated[0], wrong.evaluated[1]])
    for issued in (
        Issued(right.public, wrong.evaluated, wrong.proof),
        Issued(right.public, mixed, right.proof),
        Issued(right.public, right.evaluated[:1], right.proof),
    ):
        with pytest.raises(VerificationError):
            wish.finish(issued)


def test_what_cannot_be_issued_is_refused(tmp_path):
    holder = Consents(SEED, "people")
    wish = consent.wish(ABOUT, 1, Rng.from_os())
    for about, now in (
        (ABOUT, NOW + 86400),
        (ABOUT, NOW - 366 * 86400),
        (About("firms", "present", NOW + 9), NOW),
    ):
        with pytest.raises(ParameterError):
            holder.issue(about, wish.blinded, Rng.from_os(), now=now)
    for call in (
        lambda: consent.wish(ABOUT, 0, Rng.from_os()),
        lambda: consent.wish(ABOUT, 129, Rng.from_os()),
        lambda: About("people", "age>=18", NOW),
        lambda: About("people", "present", -1),
    ):
        with pytest.raises(ParameterError):
            call()
    (tmp_path / "spent").write_bytes(b"{}\n")
    with pytest.raises(StoreError):
        Consents(SEED, "people", tmp_path / "spent")
    (tmp_path / "spent").write_bytes(b'{"job":"a"')  # a stop cut it off
    assert Consents(SEED, "people", tmp_path / "spent")._spent == {}
