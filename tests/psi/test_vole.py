"""psi.vole.v1 as a protocol: what it finds, what its secrets depend on, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from by_hand import LEFT, RIGHT, columns_of, corrupted, digests, fly, repeat_last_turn, with_kernels

from trustcompute import kernels, psi
from trustcompute.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from trustcompute.primitives import okvs, ot, vole
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.party import Receive, Send
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import ecdh, matching, operation, parties
from trustcompute.psi import vole as protocol
from trustcompute.psi.ecdh import Params

BINDING = Binding("", "psi.vole.v1", {}, "consumer", "provider")
KEYS = {"columns": ["id"], "keys": "0" * 64}
QUICK = kernels.active().name == "native"
LARGE = pytest.mark.skipif(not QUICK, reason="only with the native kernels")


P = Params(5, 3, answer=False)


def both(p=P, left=LEFT, right=RIGHT, seeds=None):
    rngs = [Rng.from_os(), Rng.from_os()] if seeds is None else [Rng.derive(s * 32, info=b"") for s in seeds]
    return protocol.receiver(left, p, rngs[0]), protocol.sender(right, p, rngs[1])


def messages(p=P, left=LEFT, right=RIGHT, seeds=None, change=lambda number, message: message):
    return fly(both(p, left, right, seeds), change)


# What it finds

SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (2, 1), (1, 40), (40, 1), (33, 21)]


@pytest.mark.parametrize("reveal", ["left", "right", "both"])
@pytest.mark.parametrize(("n", "m"), SIZES if QUICK else SIZES[-1:])
def test_rows_for_any_two_sizes(reveal, n, m):
    left, right = {"id": np.arange(n)}, {"id": np.arange(n // 2, n // 2 + m)}
    shared = sorted(set(left["id"].tolist()) & set(right["id"].tolist()))
    found = psi.intersect(left, right, on="id", reveal=reveal, protocol="psi.vole.v1")
    assert (found.count, found.protocol) == (len(shared), "psi.vole.v1")
    assert found.left_rows is None if reveal == "right" else found.left_rows.tolist() == shared
    expected = [value - n // 2 for value in shared]
    assert found.right_rows is None if reveal == "left" else found.right_rows.tolist() == expected


@LARGE
@pytest.mark.parametrize(("n", "m"), [(6789, 7890), (10, 100_000), (100_000, 10), (40_001, 3)])
def test_rows_of_odd_and_lopsided_sizes(n, m):
    left, right = digests(range(n)), digests(range(n - 3, n - 3 + m))
    run = run_local(*both(Params(n, m, answer=True), left, right), BINDING)
    assert np.flatnonzero(run.consumer.mask).tolist() == list(range(n - 3, n))
    assert np.flatnonzero(run.provider.mask).tolist() == [0, 1, 2]


def test_an_executor_changes_nothing():
    from concurrent.futures import ThreadPoolExecutor

    count = 70_000 if QUICK else 50
    left, right = digests(range(count)), digests(range(count // 2, 2 * count))
    p = Params(len(left), len(right), answer=False)
    with ThreadPoolExecutor(2) as executor:
        run = run_local(
            protocol.receiver(left, p, Rng.from_os(), executor),
            protocol.sender(right, p, Rng.from_os(), executor),
            BINDING,
        )
    assert np.flatnonzero(run.consumer.mask).tolist() == list(range(count // 2, count))


@pytest.mark.parametrize("names", [("reference", "native"), ("native", "reference"), ("portable", "native")])
def test_reference_and_native_parties_talk_to_each_other(names, monkeypatch):
    run = run_local(*with_kernels(names, both(), monkeypatch), BINDING)
    assert run.consumer.mask.tolist() == [False, False, False, True, True]


def test_a_count_is_the_other_protocols():
    with pytest.raises(ParameterError, match=r"psi\.ecdh\.v1"):
        psi.intersect({"id": [1]}, {"id": [1]}, on="id", output="count", protocol="psi.vole.v1")
    with pytest.raises(ParameterError, match=r"auto, psi\.ecdh\.v1, .*psi\.vole\.v1"):
        psi.intersect({"id": [1]}, {"id": [1]}, on="id", protocol="psi.silver.v1")


# The operation


@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
def test_the_bound_covers_the_bytes_that_cross_and_depends_on_declarations_only(reveal):
    op, sizes = operation.named("psi.vole.v1"), Sizes(5, 3)
    params = op.check(KEYS | {"reveal": reveal}, sizes)
    run = run_local(
        parties.consumer(op.id, params, sizes, LEFT, Rng.from_os()),
        parties.provider(op.id, params, sizes, RIGHT, Rng.from_os()),
        BINDING,
    )
    bound, crossed = op.bound(params, sizes), run.cost.bytes_sent + run.cost.bytes_received
    assert bound.bytes - 8 * 3 <= crossed <= bound.bytes + 6 * 400
    assert op.output(params) == OutputForm.MATCHED_IDS
    assert (run.consumer is None) == (reveal == "provider")
    assert (run.provider is None) == (reveal == "consumer")


def test_a_million_keys_a_side_take_less_than_34_megabytes():
    assert protocol.message_bytes(Params(2**20, 2**20, answer=False)) < 34_000_000


def test_only_the_table_releases_and_a_provider_waits_for_the_peer():
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError("touched")

    assert isinstance(next(protocol.sender(Untouchable(), P, Untouchable())), Receive)
    released = []

    def noted(party):
        value = None
        while True:
            try:
                want = party.send(value)
            except StopIteration as stop:
                return stop.value
            if isinstance(want, Send):
                released.append((want.message.kind, want.releases))
            value = yield want

    fly([noted(party) for party in both()])
    kinds = ["hello", "choices", "noise", "trees", "masked", "table"]
    assert released == [(kind, kind == "table") for kind in kinds]


# What a run's secrets depend on


def test_every_secret_is_fresh_in_every_run():
    """A seed that does not change would let the sender prepare; a Δ that does not change could be solved for."""
    (one, _), (other, _) = messages(), messages()
    for first, second in zip(one, other, strict=True):
        for name in first.columns:
            if name != "suite":
                assert not np.array_equal(first[name], second[name]), (
                    f"{first.kind}.{name} is the same in two runs"
                )


def test_the_receiver_draws_its_seeds_after_its_keys_are_fixed_and_under_them():
    """With the randomness of the run, but not from anything the peer knew before it chose Δ."""
    (flown, _) = messages(seeds=(b"a", b"b"))
    (again, _) = messages(seeds=(b"a", b"b"))
    assert np.array_equal(flown[4]["seed"], again[4]["seed"])
    (others, _) = messages(seeds=(b"c", b"b"))
    assert not np.array_equal(flown[4]["seed"], others[4]["seed"])
    assert [message.kind for message in flown if "seed" in message.columns] == ["masked"]


def test_the_table_is_shuffled():
    right = digests(range(64))
    orders = set()
    for seed in (b"1", b"2", b"3"):
        flown, _ = messages(Params(1, 64, answer=True), digests([5]), right, seeds=(b"x", seed))
        orders.add(int(np.unpackbits(flown[6]["bits"]).argmax()))
    assert len(orders) > 1


def test_a_delta_serves_one_difference():
    correlation = vole.Correlation(np.ones(128, np.bool_), np.zeros((2, 16), np.uint8))
    difference = np.ones((2, 16), np.uint8)
    correlation.shift(difference)
    with pytest.raises(LocalProtocolError, match="another Δ"):
        correlation.shift(difference)
    assert "1" not in repr(correlation)


def test_a_second_difference_under_one_delta_is_refused_by_the_driver():
    repeat_last_turn(both(), BINDING, turns=2)


# What is refused


def test_a_table_that_is_too_narrow_is_not_compared(monkeypatch):
    monkeypatch.setattr(Params, "width", property(lambda self: 4))
    with pytest.raises(LocalProtocolError, match="statistical security"):
        run_local(*both(), BINDING)


@pytest.mark.parametrize(
    "change",
    [
        lambda monkeypatch: monkeypatch.setattr(vole, "CODE", "silver-5"),
        lambda monkeypatch: monkeypatch.setattr(protocol, "ID", "psi.vole.v0"),
        lambda monkeypatch: monkeypatch.setattr(Params, "width", property(lambda self: 4)),
    ],
)
def test_another_suite_is_refused_before_anything_is_sent(change, monkeypatch):
    receiver, sender = both()
    with monkeypatch.context() as other:
        change(other)
        hello = next(receiver).message
    next(sender)
    with pytest.raises(RemoteProtocolError, match="another suite"):
        sender.send(hello)


def test_another_protocol_is_refused():
    with pytest.raises(RemoteProtocolError):
        run_local(ecdh.receiver(LEFT, P, Rng.from_os()), both()[1], BINDING)
    with pytest.raises(RemoteProtocolError):
        run_local(both()[0], ecdh.sender(RIGHT, P, Rng.from_os()), BINDING)


COLUMNS = [
    (0, "suite"),
    (0, "point"),
    (1, "pair"),
    (2, "product"),
    (2, "choice"),
    (3, "side"),
    (3, "last"),
    (4, "seed"),
    (4, "difference"),
    (5, "value"),
    (5, "seen"),
]


def test_every_column_of_every_message_is_corrupted_below():
    assert columns_of(both()) == COLUMNS


@pytest.mark.parametrize(("number", "column"), COLUMNS)
@pytest.mark.parametrize("place", [0, -1])
def test_a_corrupted_byte_in_any_message_ends_the_run(number, column, place):
    with pytest.raises(RemoteProtocolError):
        messages(change=corrupted(number, column, place))


def test_answers_with_matches_that_cannot_be_are_refused():
    def spoil(number, message):
        return Message("matched", {"bits": np.array([1], np.uint8)}) if number == 6 else message

    with pytest.raises(RemoteProtocolError, match="more matches"):
        messages(Params(5, 3, answer=True), change=spoil)


# What it is made of


def test_base_transfers_give_each_side_its_keys():
    rng = Rng.from_os()
    choices = np.array([True, False, True, True])
    secret, element = ot.start(rng)
    chosen, pairs = ot.choose(choices, rng)
    received, sent = ot.received_keys(chosen, element), ot.sent_keys(secret, element, pairs)
    assert np.array_equal(received, np.where(choices[:, None], sent[:, 1], sent[:, 0]))
    assert len(np.unique(sent.reshape(-1, 16), axis=0)) == 8
    assert "True" not in repr(chosen)
    with pytest.raises(RemoteProtocolError, match="row 3 of the paired elements"):
        pairs[1, 1] = 255
        ot.sent_keys(secret, element, pairs)
    with pytest.raises(RemoteProtocolError, match="identity"):
        ot.received_keys(chosen, np.zeros((1, 32), np.uint8))


@pytest.mark.parametrize("count", [1, 7, 128, 200])
def test_extended_transfers_give_each_side_its_pads(count):
    rng = np.random.default_rng(count)
    keys, secret = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8), rng.integers(0, 2, 128).astype(bool)
    choices = rng.integers(0, 2, count).astype(bool)
    masked, received = ot.extend_receiver(keys, choices)
    own = np.where(secret[:, None], keys[:, 1], keys[:, 0])
    pads = ot.extend_sender(own, secret, masked, count)
    assert np.array_equal(received, np.where(choices[:, None], pads[:, 1], pads[:, 0]))
    assert not np.array_equal(pads[:, 0], pads[:, 1])


def correlated(outputs):
    """Both sides of a VOLE, from keys the test deals: (A, C, Δ, B, noise)."""
    rng, shape = Rng.from_os(), vole.Shape.of(outputs)
    dealt = np.random.default_rng(outputs)
    keys, delta = dealt.integers(0, 256, (128, 2, 16), dtype=np.uint8), dealt.integers(0, 2, 128).astype(bool)
    noise = vole.Noise.draw(shape, rng)
    product, c = vole.short_holder(keys, noise.values)
    b = vole.short_keeper(np.where(delta[:, None], keys[:, 1], keys[:, 0]), delta, product)
    factor = np.packbits(delta, bitorder="little").reshape(1, 16)
    assert np.array_equal(c, b ^ kernels.gf128_mul(noise.values, factor))
    leaves, sums = vole.grow(shape, vole.roots(rng))
    chosen = np.where(noise.choices(shape)[:, None], sums[:, 1], sums[:, 0])
    v = vole.regrow(shape, noise, chosen, vole.corrections(shape, sums, b), c)
    a_long, c_long, b_long = (vole.compress(shape, x.copy()) for x in (noise.vector(shape), v, leaves))
    return a_long, c_long, factor, b_long, noise


@pytest.mark.parametrize("outputs", [0, 1, 5000])
def test_the_correlation_holds_in_every_row(outputs):
    a, c, delta, b, _ = correlated(outputs)
    assert len(a) == len(b) == len(c) == outputs
    assert np.array_equal(c, b ^ kernels.gf128_mul(a, delta))


@pytest.mark.statistical
def test_outputs_look_uniform():
    """Means of the bits of 5,000 rows: each lies within 5 σ of one half (false alarm: below 1 in 4,000 for all)."""
    a, c, _, b, _ = correlated(5000)
    for rows in (a, b, c):
        means = np.unpackbits(rows, axis=1).mean(axis=0)
        assert np.abs(means - 0.5).max() < 5 * 0.5 / math.sqrt(5000)
        assert len(np.unique(rows, axis=0)) == 5000


@pytest.mark.statistical
def test_noise_has_the_weight_that_is_promised_and_lies_anywhere():
    """One error a block, uniform: 40 draws fill every eighth of a block (false alarm below 10^-400)."""
    shape = vole.Shape.of(20_000)
    counted = np.zeros(8)
    for _ in range(40):
        vector = vole.Noise.draw(shape, Rng.from_os()).vector(shape)
        weights = vector.any(axis=1).reshape(vole.WEIGHT, shape.leaves).sum(axis=1)
        assert (weights == 1).all()
        places = vector.any(axis=1).reshape(vole.WEIGHT, shape.leaves).argmax(axis=1)
        counted += np.bincount(places * 8 // shape.leaves, minlength=8)
    assert counted.min() > 0.7 * counted.mean()


def test_the_weight_follows_from_the_distance():
    assert vole.WEIGHT == 176
    assert vole.noise_weight(1, 5, 128) == 176 == 8 * math.ceil(math.ceil(-128 / math.log2(1 - 0.4)) / 8)
    assert vole.noise_weight(1, 4, 128) == 128
    assert vole.noise_weight(1, 20, 128) == 848
    assert vole.Shape.of(1).half >= vole.MIN_OUTPUTS
    for outputs in (0, 1, 4096, 4097, 1_418_560):
        assert vole.Shape.of(outputs).half >= outputs
    with pytest.raises(ParameterError):
        vole.Shape.of(-1)


@pytest.mark.parametrize(
    ("keys", "bins", "least", "most"),
    [
        (0, 1, 0, 1600),
        (1, 1, 0, 1600),
        (2**10, 1, 1.43, 1.45),
        (2**14, 1, 1.26, 1.28),
        (2**20, 64, 1.34, 1.36),
    ],
)
def test_sizes_of_stores(keys, bins, least, most):
    shape = okvs.shape(keys)
    assert shape.bins == bins
    assert least <= shape.cells / (keys if keys > 1 else 1) <= most
    assert shape.capacity >= keys / bins
    assert shape.dense >= 2
    with pytest.raises(ParameterError):
        okvs.shape(-1)


def test_a_bins_capacity_keeps_its_promise():
    """Against the exact binomial tail, of which Chernoff's bound is an upper one."""
    shape = okvs.shape(2**17)
    bits = okvs.FAILURE_BITS + 1 + math.log2(shape.bins)
    n, p = 2**17, 1 / shape.bins
    tail = -math.inf
    for k in range(shape.capacity + 1, shape.capacity + 2000):
        term = (
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
        )
        tail = max(tail, term) + math.log1p(math.exp(-abs(tail - term)))
    assert tail / math.log(2) < -bits


@pytest.mark.statistical
@LARGE
def test_how_often_stores_fail_where_they_may():
    """Two keys with the same three cells need a dense one: of 3,000 stores without any, as many fail as counting says.

    n keys in c cells: C(n, 2) / C(c, 3) pairs on average; 5 σ of a Poisson count (false alarm 1 in 10^6).
    """
    keys, cells, runs = 60, 600, 3000
    shape = kernels.OkvsShape(1, cells, 0, keys)
    rng, failed = np.random.default_rng(1), 0
    for _ in range(runs):
        rows = rng.integers(0, 256, (2, keys, 16), dtype=np.uint8)
        try:
            kernels.okvs_encode(rows[0], rows[1], rng.bytes(16), shape, range(1))
        except kernels.OkvsFailure:
            failed += 1
    expected = runs * math.comb(keys, 2) / math.comb(cells, 3)
    assert failed <= expected + 5 * math.sqrt(expected) + 3
    shape = kernels.OkvsShape(1, keys + 10, 3, keys)  # 45 keys in 70 cells
    for _ in range(50):
        rows = rng.integers(0, 256, (2, keys - 15, 16), dtype=np.uint8)
        kernels.okvs_encode(rows[0], rows[1], rng.bytes(16), shape, range(1))


def test_widths_are_those_of_the_whole_job():
    assert protocol.Suite.of(P).width == matching.width(5, 3)
