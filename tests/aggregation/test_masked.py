"""aggregation.masked.v1 in one process: exact under every drop-out, and nothing below the threshold."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import aggregation
from trustcompute.aggregation import Bounds, Spec, masked
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import in_range
from trustcompute.aggregation.round import Round
from trustcompute.errors import (
    ParameterError,
    Refused,
    TransportError,
    VerificationError,
)
from trustcompute.primitives import masks
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.party import Receive, Send
from trustcompute.protocol.star import TooFew, run_star
from trustcompute.protocol.transcript import Binding

BINDING = Binding("", masked.ID, {}, "aggregator", "contributor")
TURNS = ("advertise", "shares", "masked", "signed", "unmask")


def vector_spec(length=5, **options):
    made = {"columns": {"value": Bounds(-1000, 1000)}, "length": length, "max_parties": 16} | options
    return Spec(**made)


class Star:
    """A round of vectors in this process. tamper: (kind, party) -> function of the message a party is about to send;
    relay: kind -> function of the message a party is about to be given."""

    def __init__(self, spec, vectors, cohorts=None):
        self.spec, self.vectors = spec, vectors
        self.names = [f"p{at:02d}" for at in range(len(vectors))]
        self.about = Round(spec, tuple(self.names), b"s" * 16)
        self.members = in_process(self.names)
        self.cohorts = cohorts or {name: Cohorts() for name in self.names}
        self.sent, self.given = {}, {}

    def party(self, name, vanish=None, tamper=None, relay=None):
        inner = masked.contributor(
            self.about,
            self.members[name],
            lambda: np.array(self.vectors[self.names.index(name)]),
            Rng.from_os(),
            self.cohorts[name],
        )
        step = next(inner)
        while True:
            if isinstance(step, Send):
                kind = step.message.kind
                if kind == vanish:
                    raise TransportError(f"{name} is gone")
                if tamper is not None and kind in tamper:
                    step = Send(Message(kind, tamper[kind](dict(step.message.columns))), step.releases)
                self.sent[name, kind] = step.message
                yield step
                answer = None
            else:
                assert isinstance(step, Receive)
                answer = yield step
                if relay is not None and step.kind in relay:
                    answer = Message(step.kind, relay[step.kind](dict(answer.columns)))
                self.given[name, step.kind] = answer
            try:
                step = inner.send(answer)
            except StopIteration as stop:
                return stop.value

    def run(self, vanish=None, tamper=None, relay=None):
        vanish, tamper, relay = vanish or {}, tamper or {}, relay or {}
        recognise = self.members[self.names[0]].recognise
        parties = {
            name: self.party(name, vanish.get(name), tamper.get(name), relay.get(name)) for name in self.names
        }
        return run_star(masked.aggregator(self.about, recognise), parties, BINDING, patience=60)


def sums_of(star, names):
    return sum((np.array(star.vectors[star.names.index(name)]) for name in names), np.zeros(star.spec.length))


@pytest.mark.property
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_every_pattern_of_drop_outs_is_recovered_exactly_or_refused(data):
    count = data.draw(st.integers(3, 7), label="parties")
    length = data.draw(st.integers(1, 20), label="length")
    values = st.lists(st.integers(-1000, 1000), min_size=length, max_size=length)
    star = Star(vector_spec(length), [data.draw(values) for _ in range(count)])
    vanish = {
        name: turn
        for name in star.names
        if (turn := data.draw(st.sampled_from([None, None, None, None, *TURNS]), label=name)) is not None
    }
    if count - len(vanish) < star.about.threshold:
        with pytest.raises(TooFew):
            star.run(vanish)
        return
    sums, survivors = star.run(vanish).result
    assert set(survivors) == {n for n in star.names if vanish.get(n) not in TURNS[:3]}
    assert np.array_equal(sums, sums_of(star, survivors))


@pytest.mark.parametrize("gone", [(0,), (1,), (2,), (3,), (0, 1)])
@pytest.mark.parametrize("turn", TURNS)
def test_the_threshold_of_four_is_three(gone, turn):
    star = Star(vector_spec(2), [[at, -at] for at in range(4)])
    vanish = {star.names[at]: turn for at in gone}
    if len(gone) == 2:
        with pytest.raises(TooFew, match="p00 is gone"):
            star.run(vanish)
        assert not any(kind == "unmask" for _, kind in star.sent) or turn == "unmask"
    else:
        sums, survivors = star.run(vanish).result
        assert np.array_equal(sums, sums_of(star, survivors))


def test_aggregate_of_tables_is_exact_and_names_who_breaks_the_rules():
    spec = Spec(columns={"x": Bounds(0, 10)}, max_rows=10)
    tables = {"ann": {"x": [1, 2]}, "bob": {"x": [3]}, "cyd": {"x": [10, 10, 10]}}
    found = aggregation.aggregate(tables, spec)
    assert (found.exact("count"), found.exact("sum", "x")) == (6, 36)
    assert found.parties == ("ann", "bob", "cyd")
    assert found.to_arrow().to_pylist() == [{"count": 6, "sum_x": 36, "mean_x": 6.0}]
    with pytest.raises(aggregation.Unusable, match="bob: rule bounds"):
        aggregation.aggregate(tables | {"bob": {"x": [11]}}, spec)
    with pytest.raises(aggregation.Unusable, match="dan: rule nulls"):
        aggregation.aggregate(tables | {"dan": {"x": [None, 1]}}, spec)
    with pytest.raises(ParameterError, match="at least 3"):
        aggregation.aggregate({"ann": {"x": [1]}, "bob": {"x": [2]}}, spec)
    with pytest.raises(ParameterError, match="scheme"):
        aggregation.aggregate(tables, spec, scheme="plain")


def test_weights_and_empty_groups():
    spec = Spec(
        columns={"x": Bounds("-1.5", "1.5", scale=2), "w": Bounds(0, 3)},
        weight="w",
        by={"g": ["a", "b"]},
        max_rows=9,
    )
    party = {"x": [1.5, -0.5], "w": [3, 1], "g": ["a", "a"]}
    row, empty = aggregation.aggregate([party] * 3, spec).to_arrow().to_pylist()
    assert row == {"g": "a", "count": 6, "sum_x": 12.0, "mean_x": 1.0, "weight_w": 12}
    assert empty == {"g": "b", "count": 0, "sum_x": 0.0, "mean_x": None, "weight_w": 0}


def test_wire_size_does_not_depend_on_the_values():
    small, large = (Star(vector_spec(50), [[value] * 50] * 3).run().costs["p01"] for value in (0, 999))
    assert small == large
    assert small.bytes_sent + small.bytes_received < masked.message_bytes(vector_spec(50), 3)
    wide = Star(vector_spec(1050), [[0] * 1050] * 3).run().costs["p01"]
    assert (
        abs(wide.bytes_received - small.bytes_received - 8000) < 10
    )  # 8 bytes a value, and digits of shapes


def test_what_leaves_looks_uniform_and_never_repeats():
    """Equal inputs, two rounds: no masked vector, key, box or share occurs twice."""
    seen = []
    for _ in range(2):
        star = Star(vector_spec(200), [[5] * 200] * 4)
        star.run()
        seen += [star.sent[name, "masked"]["value"].tobytes() for name in star.names]
        seen += [
            star.sent[name, "advertise"][key].tobytes()
            for name in star.names
            for key in ("mask_key", "box_key", "commitment")
        ]
        seen += [
            row.tobytes() for name in star.names for row in star.sent[name, "shares"]["box"] if row.any()
        ]
    assert len(set(seen)) == len(seen)
    words = np.concatenate([np.frombuffer(one, dtype="<u8") for one in seen if len(one) == 1600])
    assert len(np.unique(words)) == len(words)
    bits = np.unpackbits(words.view(np.uint8))
    assert abs(bits.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(bits))  # false alarm below 10^-6


def test_seeds_have_256_bits_and_shorter_ones_are_refused():
    assert masked.SEED == 32
    assert masks.SECRET_BYTES == 32
    with pytest.raises(ParameterError, match="32 bytes"):
        masks.Stream(b"x" * 31, b"purpose")


@pytest.mark.parametrize("turn", ["masked", "signed"])
def test_of_no_party_are_both_secrets_revealed(turn):
    star = Star(vector_spec(), [[1] * 5] * 6)
    star.run({"p05": turn})
    alive = 6 if turn == "signed" else 5
    for name in star.names[:5]:
        shares = star.sent[name, "unmask"]
        assert (len(shares["seed"]), len(shares["key"])) == (alive, 6 - alive)


def test_a_party_opens_one_set_only_and_only_against_signatures_of_the_threshold():
    """An aggregator that shows the parties different survivors gets no shares at all."""
    star = Star(vector_spec(), [[1] * 5] * 6)

    def fewer(columns):
        return {"member": np.array([1, 2, 3, 4, 5], dtype=np.uint8)}

    with pytest.raises(TooFew, match=r"signature of p0\d does not verify"):
        star.run(relay={name: {"survivors": fewer} for name in star.names[3:]})
    assert not any(kind == "unmask" for _, kind in star.sent)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("roster", lambda c: c | {"mask_key": c["mask_key"][::-1]}, "signature"),
        ("roster", lambda c: {k: v[:2] for k, v in c.items()}, "2 parties|as long as"),
        ("roster", lambda c: c | {"length": c["length"] + 1}, "as long as"),
        ("roster", lambda c: c | {"member": c["member"][::-1]}, "in order"),
        ("shared", lambda c: c | {"box": c["box"] ^ 1}, "altered"),
        ("shared", lambda c: {k: v[:2] for k, v in c.items()}, "needed"),
        ("shared", lambda c: c | {"member": np.array([0, 1, 1, 3], dtype=np.uint8)}, "different"),
        ("survivors", lambda c: {"member": c["member"][1:3]}, "needed"),
        ("survivors", lambda c: {"member": np.array([0, 1, 9], dtype=np.uint8)}, "left"),
        ("signatures", lambda c: {k: v[:2] for k, v in c.items()}, "nothing is opened"),
        ("signatures", lambda c: c | {"signature": c["signature"] ^ 1}, "signature"),
    ],
)
def test_what_an_aggregator_alters_a_contributor_refuses(kind, change, words):
    star = Star(vector_spec(), [[1] * 5] * 4)
    with pytest.raises(TooFew, match=words):
        star.run(relay={name: {kind: change} for name in star.names})
    assert not any(kind == "unmask" for _, kind in star.sent)


def test_an_impostor_is_left_out_by_the_aggregator_and_refused_by_the_others():
    star = Star(vector_spec(), [[1] * 5] * 4)
    forged = {"advertise": lambda c: c | {"mask_key": c["mask_key"] ^ 1}}
    run = star.run(tamper={"p03": forged})
    assert run.result[1] == ("p00", "p01", "p02")
    assert "signature of p03" in run.reasons["p03"]
    borrowed = {"advertise": lambda c: c | {"certificate": np.frombuffer(b"p00", dtype=np.uint8)}}
    assert (
        "signature of p00" in Star(vector_spec(), [[1] * 5] * 4).run(tamper={"p03": borrowed}).reasons["p03"]
    )


@pytest.mark.parametrize("column", ["seed", "key"])
def test_wrong_shares_are_found_out(column):
    star = Star(vector_spec(), [[1] * 5] * 4)
    wrong = {"unmask": lambda c: c | {column: c[column] ^ 1}}
    with pytest.raises(VerificationError, match="wrong one"):
        star.run(vanish={"p03": "masked"}, tamper={"p00": wrong})


def test_a_vector_that_breaks_the_protocol_shows_as_an_impossible_sum():
    star = Star(vector_spec(), [[1] * 5] * 4)
    with pytest.raises(VerificationError, match="outside"):
        star.run(tamper={"p01": {"masked": lambda c: {"value": c["value"] + 2**50}}})


def test_contributors_verify_the_opened_sum():
    spec = vector_spec(20, reveal="everyone")
    star = Star(spec, [[at] * 20 for at in range(4)])
    run = star.run()
    assert all(np.array_equal(run.outputs[name], run.result[0]) for name in star.names)
    for at in (0, 19, 20, 22):

        def forged(columns, at=at):
            value = columns["value"].copy()
            value[at] += 1
            return {"value": value}

        star = Star(spec, [[at] * 20 for at in range(4)])
        run = star.run(relay={"p02": {"opened": forged}})
        assert "p02" not in run.outputs
        assert "p01" in run.outputs


def test_scaling_an_opened_sum_with_its_tags_does_not_pass():
    spec = vector_spec(3, reveal="everyone")
    star = Star(spec, [[1, 2, 3]] * 3)
    run = star.run(relay={"p00": {"opened": lambda c: {"value": c["value"] * 2}}})
    assert "p00" not in run.outputs


def test_near_identical_survivors_are_refused_before_anything_is_opened():
    cohorts = {f"p{at:02d}": Cohorts() for at in range(6)}
    spec = vector_spec()
    Star(spec, [[1] * 5] * 6, cohorts).run()
    Star(spec, [[1] * 5] * 6, cohorts).run()  # the same set again
    star = Star(spec, [[1] * 5] * 6, cohorts)
    with pytest.raises(TooFew, match="differ from an earlier set by p05 alone"):
        star.run({"p05": "masked"})
    assert not any(kind in ("signed", "unmask") for _, kind in star.sent)


def test_cohorts_are_kept_on_disk(tmp_path):
    first = Cohorts(tmp_path / "opened")
    first.admit("abcdef", 3)
    again = Cohorts(tmp_path / "opened")
    again.check("abcdef", 3)
    again.admit("abc", 3)
    with pytest.raises(Refused, match="by d alone"):
        again.check("abcd", 3)
    again.check("abcd", 1)


def test_parties_with_different_specifications_do_not_mix():
    star = Star(vector_spec(), [[1] * 5] * 4)
    right, other = star.about, Round(vector_spec(min_parties=4), star.about.parties, star.about.session)
    parties = {name: star.party(name) for name in star.names[:3]}
    ones = np.ones(5, dtype=np.int64)
    parties["p03"] = masked.contributor(other, star.members["p03"], lambda: ones, Rng.from_os(), Cohorts())
    run = run_star(masked.aggregator(right, star.members["p00"].recognise), parties, BINDING, patience=60)
    assert run.result[1] == ("p00", "p01", "p02")
    assert "signature of p03 does not verify" in run.reasons["p03"]


def test_tags_are_linear_and_see_single_differences():
    key, drawn = hashlib.sha256(b"k").digest(), np.random.default_rng(1)
    a, b = (drawn.integers(-(2**40), 2**40, 20_000) for _ in range(2))
    assert np.array_equal(masks.tags(a + b, key), masks.tags(a, key) + masks.tags(b, key))
    a_changed = a.copy()
    a_changed[-1] += 2**48
    assert not np.array_equal(masks.tags(a, key), masks.tags(a_changed, key))


def test_a_mask_left_on_is_out_of_range():
    spec = vector_spec(1000)
    mask = np.zeros(1000, dtype=np.int64)
    masks.apply(mask, [masks.Stream(b"s" * 32, b"left on")])
    assert not any(in_range(mask[at : at + 1], spec) for at in range(1000))


@pytest.mark.statistical
@pytest.mark.parametrize("gone", [0, 1])
def test_the_variance_of_the_noise_is_that_of_the_survivors_shares(gone):
    """With nobody gone and with as many as the threshold allows. False alarm: 2·10⁻¹⁰ a slot (6.4 standard errors)."""
    spec = Spec(
        columns={"value": Bounds(0, 1)}, statistics=["sum"], by={"group": range(20_000)}, max_rows=10,
        max_parties=6, noise=aggregation.Noise("0.5"),
    )  # fmt: skip
    star = Star(spec, [np.zeros(spec.slots, dtype=np.int64)] * 6)
    assert star.about.threshold == 5
    run = star.run({"p00": "masked"} if gone else {})
    sums, survivors = run.result
    assert len(survivors) == 6 - gone
    width = len(spec.layout)
    for at, slot in enumerate(spec.layout):
        share = spec.noise.share(slot.reach, width, star.about.threshold)
        needed, drawn = spec.noise.variance(slot.reach, width), share * len(survivors)
        assert needed <= drawn  # exactly: what the loss was computed for is there
        if gone:
            assert drawn < needed + len(survivors) / 16  # and with the fewest no more than a share's rounding
        found, mu = sums.reshape(-1, width)[:, at].astype(float), float(drawn)
        error = mu * ((2 + 1 / mu) / len(found)) ** 0.5  # the fourth moment of a Skellam variable is 3μ² + μ
        assert abs(np.mean(found**2) - mu) < 6.4 * error
        assert abs(np.mean(found)) < 6.4 * (mu / len(found)) ** 0.5


def test_too_few_is_said_where_nobodys_table_is_at_fault(monkeypatch):
    def gone(*_):
        raise TransportError("the contributor is gone")
        yield

    monkeypatch.setattr(masked, "contributor", gone)
    with pytest.raises(TooFew, match="is gone"):
        aggregation.aggregate([[1], [2], [3]], vector_spec(1))
