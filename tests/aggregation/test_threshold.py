"""Sums that all contributors open together: one share a sum, everyone signs what is added, nobody's key is rogue."""

from __future__ import annotations

import numpy as np
import pytest
from acting import acting

from trustcompute import aggregation
from trustcompute.aggregation import Bounds, Noise, Spec, threshold
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import encode
from trustcompute.aggregation.round import Round
from trustcompute.errors import ParameterError, Refused, StoreError
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol import roster
from trustcompute.protocol.star import TooFew, run_star
from trustcompute.protocol.transcript import Binding

ROWS = [[1, 2, -3], [10, 20, -30], [100, 200, -300]]
NAMES = ("p0", "p1", "p2")
KINDS = ("advertise", "committed", "share", "sealed", "encrypted", "opened")


def vectors(length=3, reach=1000, **options):
    return Spec(**{"columns": {"value": Bounds(-reach, reach)}, "length": length, "max_parties": 8} | options)


class Party:
    """What a party keeps between aggregates."""

    def __init__(self):
        self.cohorts, self.given = Cohorts(), threshold.Given()


def star(spec=None, *, kept=None, session=b"s" * 16, rng=None, known=None, **changes):
    """A round in this process; changes: as ``acting`` has them."""
    spec = spec or vectors()
    about, known = Round(spec, NAMES, session), known or in_process(NAMES)
    kept = kept or {name: Party() for name in NAMES}
    parties = {
        name: acting(name, threshold.contributor(
            about, known[name], values=lambda row=row: np.array(row, dtype=np.int64),
            rng=rng(name) if rng else Rng.from_os(), cohorts=kept[name].cohorts, given=kept[name].given,
        ), **changes) for name, row in zip(NAMES, ROWS, strict=True)
    }  # fmt: skip
    middle = threshold.aggregator(about, known["p0"].recognise)
    return run_star(middle, parties, Binding("", threshold.ID, {}, "aggregator", "contributor"), patience=60)


def test_sums_are_exact_and_tables_give_those_of_the_masked_scheme():
    assert star().result[0].tolist() == [111, 222, -333]
    spec = Spec(
        columns={"delay": Bounds(-60, 1800)},
        statistics=["count", "sum", "mean", "variance"],
        by={"origin": ["EWR", "JFK", "LGA"]},
        max_rows=1000,
    )
    tables = [{"origin": ["EWR", "JFK", "EWR"], "delay": [at, -3, 95 + at]} for at in range(3)]
    found = aggregation.aggregate(tables, spec, scheme="rlwe-threshold")
    assert found.to_arrow().equals(aggregation.aggregate(tables, spec).to_arrow())
    assert found.scheme == threshold.ID
    assert "all 3 parties" in found.leakage.consumer


@pytest.mark.fault
@pytest.mark.parametrize("kind", KINDS)
def test_whoever_vanishes_stops_it_and_is_named(kind):
    with pytest.raises(TooFew, match="p1 is gone"):
        star(vanish={("p1", kind)})


def flipped(name):
    def flip(columns):
        changed = np.array(columns[name])
        changed.reshape(-1)[0] ^= 1
        return columns | {name: changed}

    return flip


@pytest.mark.parametrize(
    ("kind", "column", "words"),
    [
        ("advertise", "nonce", "signature of p1"),
        ("committed", "digest", "list of key shares does not show ours|share of p1 is not the one"),
        ("share", "value", "share of p1 is not the one"),
        ("share", "salt", "share of p1 is not the one"),
        ("sealed", "digest", "list of ciphertexts does not show ours|not the one that was committed"),
        ("encrypted", "value", "ciphertext of p1 is not the one"),
        ("encrypted", "signature", "signature of p1"),
    ],
)
def test_what_a_party_changes_on_its_way_is_found(kind, column, words):
    with pytest.raises((TooFew, threshold.RemoteProtocolError), match=words):
        star(tamper={("p1", kind): flipped(column)})


def swapped(columns):
    return {name: np.array(value)[[1, 0, 2]] for name, value in columns.items()}


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("roster", flipped("nonce"), "signature"),
        ("commitments", flipped("digest"), "list of key shares does not show ours"),
        ("shares", flipped("value"), "not the one that was committed to"),
        ("shares", swapped, "not the one that was committed to"),
        ("seals", flipped("digest"), "does not show ours|signature"),
        ("seals", swapped, "does not show ours|signature"),
        ("ciphertexts", flipped("value"), "not the one that was committed to"),
        ("ciphertexts", swapped, "not the one that was committed to"),
        ("ciphertexts", flipped("signature"), "signature"),
    ],
)
def test_an_aggregator_that_shows_one_party_something_else_opens_nothing(kind, change, words):
    """Nobody is made to open a ciphertext alone, or a sum with one party's part twice, or under a key of the
    aggregator's making."""
    with pytest.raises(TooFew, match=words):
        star(relay={("p0", kind): change})


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([1], "p0 is not the one"),
        ([1, 2], "p0 is not the one"),
        ([0, 1, 2], "does not show ours"),
    ],
)
def test_a_key_of_the_aggregators_making_opens_nothing(monkeypatch, places, words):
    """Commitments and shares of its own in the places of others, towards p0 alone: p0's key is not theirs. In all
    places, p0's own among them, it would be a key that the aggregator has."""
    suite = threshold.suite_of(vectors(), 3)
    original, seen = roster.verified_roster, {}

    def watching(*arguments):
        seen["roster"] = original(*arguments)
        return seen["roster"]

    def replaced(columns, made):
        """Rows of these places."""
        return {
            name: np.stack([made[name][at] if at in places else row for at, row in enumerate(rows)])
            for name, rows in columns.items()
        }

    def commitments(columns):
        a, salt = threshold.rlwe.common(seen["roster"].digest, suite), bytes(32)
        keys = [threshold.rlwe.key_share(suite, a, Rng.from_os()) for _ in NAMES]
        packed = [threshold.rlwe.pack(shown) for _, shown in keys]
        seen["secrets"] = [secret for secret, _ in keys]
        seen["shares"] = {"value": packed, "salt": [np.zeros(32, np.uint8)] * 3}
        digests = [threshold._share_digest(seen["roster"], at, salt, one) for at, one in enumerate(packed)]
        return replaced(columns, {"digest": [np.frombuffer(one, np.uint8) for one in digests]})

    def opened(columns):
        total = threshold.rlwe.unpack_ciphertext(columns["value"], suite)
        shares = [threshold.rlwe.decryption_share(one, total, Rng.from_os()) for one in seen["secrets"]]
        seen["opened"] = threshold.rlwe.combine(total, shares).tolist()
        return columns

    monkeypatch.setattr(roster, "verified_roster", watching)
    relay = {("p0", "commitments"): commitments, ("p0", "shares"): lambda got: replaced(got, seen["shares"])}
    with pytest.raises((TooFew, threshold.RemoteProtocolError), match=words):
        star(relay=relay, tamper={("p0", "encrypted"): opened})
    assert seen.get("opened") != ROWS[0]


def test_a_second_share_for_one_sum_is_refused_also_after_a_restart(tmp_path):
    """A party that is made to run again with the same randomness would flood one sum twice."""
    kept = {name: Party() for name in NAMES}
    for name in NAMES:
        kept[name].given = threshold.Given(tmp_path / name)
    seeds = {name: bytes([at]) * 32 for at, name in enumerate(NAMES)}
    fixed = {
        "kept": kept,
        "known": in_process(NAMES),
        "rng": lambda name: Rng.derive(seeds[name], info=b"test"),
    }
    assert star(**fixed).result[0].tolist() == [111, 222, -333]
    for name in NAMES:
        kept[name].given = threshold.Given(tmp_path / name)
    with pytest.raises(TooFew, match="a decryption share for this sum was given before"):
        star(**fixed)
    assert star(session=b"t" * 16, **fixed).result[0].tolist() == [111, 222, -333]


def test_a_share_does_not_leave_before_it_is_remembered(tmp_path):
    kept = {name: Party() for name in NAMES}
    kept["p1"].given = threshold.Given(tmp_path / "missing" / "given")
    with pytest.raises(TooFew, match="cannot write"):
        star(kept=kept)
    given = threshold.Given(tmp_path / "given")
    given.admit(b"a" * 32)
    with pytest.raises(Refused, match="was given before"):
        threshold.Given(tmp_path / "given").admit(b"a" * 32)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError):
        threshold.Given(tmp_path / "folder")


def test_sets_that_are_almost_the_same_are_refused():
    kept = {name: Party() for name in NAMES}
    kept["p1"].cohorts.admit(("p0", "p1", "p2", "p3"), 3)
    with pytest.raises(TooFew, match="differ from an earlier set by p3 alone"):
        star(kept=kept)


def test_malformed_and_oversized_ciphertexts_are_refused_before_arithmetic():
    for bad in (lambda c: c | {"value": np.full_like(c["value"], 255)}, lambda c: c | {"value": c["value"][:-1]},
                lambda c: c | {"value": np.concatenate([c["value"], c["value"]])}):  # fmt: skip
        with pytest.raises(TooFew, match="p1"):
            star(tamper={("p1", "encrypted"): bad})
    with pytest.raises(TooFew, match=r"residue beyond|size|dtype"):
        star(tamper={("p1", "opened"): lambda c: {"value": np.full_like(c["value"], 255)}})


def test_a_wrong_share_shows():
    with pytest.raises(threshold.VerificationError, match="outside what the specification allows"):
        star(tamper={("p1", "opened"): lambda c: {"value": np.zeros_like(c["value"])}})


def test_only_the_aggregator_receives_and_large_sums_need_room():
    with pytest.raises(ParameterError, match="masked"):
        aggregation.aggregate(ROWS, vectors(reveal="everyone"), scheme="rlwe-threshold")
    plan = aggregation.plan(vectors(), 3, quantum=True)
    assert plan.chosen == "rlwe-threshold"
    assert "opened by all contributors together" in str(plan)


def test_noise_is_inside_what_is_opened():
    spec = Spec(columns={"value": Bounds(0, 1)}, statistics=["sum"], noise=Noise("0.5"), max_rows=10)
    tables = [{"value": [1, 0, 1]}] * 3
    exact = sum(encode(one, spec, "p") for one in tables)
    found = [aggregation.aggregate(tables, spec, scheme="rlwe-threshold").sums - exact for _ in range(3)]
    assert 0 < np.abs(found).max() < 100
