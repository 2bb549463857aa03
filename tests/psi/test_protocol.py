"""psi.ecdh.v1 and psi.dh.v1 as protocols: what is compared, what is released when, what a peer may send."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import LEFT, RIGHT, digests, fly

from trustcompute import kernels
from trustcompute.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.party import Receive, Send
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import cardinality, dh, ecdh, matching, parties
from trustcompute.psi.operation import INTERSECTIONS, named

KEYS = {"columns": ["id"], "keys": "0" * 64}
BINDING = Binding("", "psi.ecdh.v1", {}, "consumer", "provider")
LOW = bytes(32)  # the identity element
ONE = np.frombuffer((1).to_bytes(32, "little"), np.uint8).reshape(1, 32)
NOT_CANONICAL = bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f")


ECDH, DH = "psi.ecdh.v1", "psi.dh.v1"
MODES = [(ECDH, "rows"), (ECDH, "count"), (DH, "rows")]
SIZES = Sizes(5, 3)


def params(protocol=ECDH, **options):
    return named(protocol).check(KEYS | options, SIZES)


def both(options, consumer_rng=None, provider_rng=None, protocol=ECDH):
    return (
        parties.consumer(protocol, options, SIZES, LEFT, consumer_rng or Rng.from_os()),
        parties.provider(protocol, options, SIZES, RIGHT, provider_rng or Rng.from_os()),
    )


@pytest.mark.parametrize(
    ("n", "m", "width"),
    [
        (0, 0, 5),
        (1, 1, 5),
        (2, 1, 6),
        (2**17, 2**17, 10),
        (2**20, 2**20, 10),
        (2**20, 2**20 + 1, 11),
        (10**8, 10**8, 12),
    ],
)
def test_compared_bytes_keep_40_bits_of_statistical_security(n, m, width):
    assert matching.width(n, m) == width
    assert n * m * 2.0**40 <= 2.0 ** (8 * width)
    matching.check_width(np.zeros((1, width), np.uint8), n, m)
    with pytest.raises(LocalProtocolError, match="40 bits"):
        matching.check_width(np.zeros((1, width - 1), np.uint8), n, m)


def test_sizes_out_of_bounds_are_refused():
    for n in (-1, 2**40 + 1):
        with pytest.raises(ParameterError, match="distinct keys"):
            matching.width(n, 1)
    asked = {"columns": ["id"], "keys": "0" * 64}
    for operation in INTERSECTIONS:
        with pytest.raises(ParameterError, match="ask for more runs"):
            operation.check(asked, Sizes(2**31, 1))


@pytest.mark.parametrize("protocol", [ecdh, cardinality, dh])
def test_a_receiver_refuses_to_compare_a_table_that_is_too_narrow(protocol, monkeypatch):
    monkeypatch.setattr(ecdh.Params, "width", property(lambda self: 4))
    p = ecdh.Params(5, 3, answer=False)
    with pytest.raises(LocalProtocolError, match="statistical security"):
        run_local(
            protocol.receiver(LEFT, p, Rng.from_os()), protocol.sender(RIGHT, p, Rng.from_os()), BINDING
        )


@pytest.mark.parametrize(("protocol", "output"), MODES)
@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
def test_the_peer_still_waits_before_every_message_that_releases(protocol, output, reveal):
    """Nothing either side can compute from is out before a message marked ``releases``."""
    consumer, provider = both(params(protocol, output=output, reveal=reveal), protocol=protocol)
    sides, pending, results = [consumer, provider], [next(consumer), next(provider)], [None, None]
    released = [False, False]
    while pending != [None, None]:
        mine = 0 if isinstance(pending[0], Send) else 1
        message, peer = pending[mine], 1 - mine
        assert isinstance(message, Send)
        if message.releases:
            assert isinstance(pending[peer], Receive)
            assert results[peer] is None
            released[peer] = True
        assert isinstance(pending[peer], Receive)
        for side, value in ((peer, message.message), (mine, None)):
            try:
                pending[side] = sides[side].send(value)
            except StopIteration as stop:
                pending[side], results[side] = None, stop.value
                if stop.value is not None:
                    assert released[side], "a party returned an output that nothing had released"
    learners = {"consumer": [True, False], "provider": [False, True], "both": [True, True]}[reveal]
    assert [result is not None for result in results] == learners
    assert {result.count for result in results if result} == {2}


def test_a_provider_touches_neither_keys_nor_secret_before_the_peer_has_spoken():
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError("touched")

    for protocol, output in MODES:
        party = parties.provider(
            protocol, params(protocol, output=output), SIZES, Untouchable(), Untouchable()
        )
        assert isinstance(next(party), Receive)


def blinded_by(output, rng, keys=LEFT, protocol=ECDH):
    party = parties.consumer(protocol, params(protocol, output=output), SIZES, keys, rng)
    return next(party).message["point"]


@pytest.mark.parametrize(("protocol", "output"), MODES)
def test_secrets_are_fresh_for_every_run_and_determined_by_their_seed(protocol, output):
    one, other = (blinded_by(output, Rng.from_os(), protocol=protocol) for _ in range(2))
    assert not (one == other).all(axis=1).any()
    same = [blinded_by(output, Rng.derive(b"s" * 32, info=b"job"), protocol=protocol) for _ in range(2)]
    assert np.array_equal(*same)


@pytest.mark.parametrize("protocol", [ECDH, DH])
def test_every_key_is_blinded_on_its_own(protocol):
    twice = digests([7, 7, 7, 7, 7])
    blinded = blinded_by("rows", Rng.from_os(), twice, protocol)
    assert len(np.unique(blinded, axis=0)) == 5


def test_counting_by_dh_is_refused_and_says_where_it_is_done():
    with pytest.raises(ParameterError, match=r"psi\.ecdh\.v1"):
        params(DH, output="count")
    with pytest.raises(
        ParameterError,
        match=r"psi\.ecdh\.v1, psi\.dh\.v1, psi\.vole\.v1, psi\.vole-malicious\.v1, not 'psi\.x'",
    ):
        named("psi.x")


def with_public(point):
    """What psi.dh.v1 finds where the sender names another public element."""

    def change(number, message):
        return Message("public", {"point": point}) if message.kind == "public" else message

    return fly(both(params(DH), protocol=DH), change)[1][0]


@pytest.mark.parametrize("bad", [LOW, NOT_CANONICAL, b"\xff" * 32])
def test_a_public_element_that_is_none_is_refused(bad):
    with pytest.raises(RemoteProtocolError, match="base"):
        with_public(np.frombuffer(bad, np.uint8).reshape(1, 32))


def test_another_public_element_than_the_keys_finds_nothing():
    assert with_public(kernels.ristretto255_mul_base(ONE)).count == 0


def test_the_sender_shuffles_what_it_evaluates_for_a_count():
    """With both secrets known to the test, the permutation is visible, and differs from run to run."""
    orders = set()
    for seed in range(8):
        rng = Rng.derive(bytes([seed]) * 32, info=b"")
        consumer, provider = both(params(output="count"), provider_rng=rng)
        blinded = next(consumer).message
        next(provider)
        provider.send(blinded)
        evaluated = provider.send(None).message["point"]
        secret = cardinality.ristretto255.random_scalars(Rng.derive(bytes([seed]) * 32, info=b""), 1)
        unshuffled = kernels.ristretto255_mul(blinded["point"], secret)
        order = tuple(int(np.flatnonzero((unshuffled == row).all(axis=1))[0]) for row in evaluated)
        assert sorted(order) == list(range(5))
        orders.add(order)
    assert len(orders) > 4


def test_the_table_is_sorted_so_that_order_tells_nothing():
    _, provider = both(params())
    next(provider)
    table = provider.send(Message("blinded", {"point": blinded_by("rows", Rng.from_os())})).message["value"]
    assert table.tolist() == sorted(table.tolist())


@pytest.mark.parametrize(("protocol", "output"), MODES)
@pytest.mark.parametrize("bad", [LOW, NOT_CANONICAL, b"\xff" * 32])
def test_points_that_are_no_group_elements_are_refused_by_row(protocol, output, bad):
    def spoil(points):
        spoiled = points.copy()
        spoiled[3] = np.frombuffer(bad, np.uint8)
        return spoiled

    _, provider = both(params(protocol, output=output), protocol=protocol)
    next(provider)
    with pytest.raises(RemoteProtocolError, match="row 3"):
        provider.send(
            Message("blinded", {"point": spoil(blinded_by(output, Rng.from_os(), protocol=protocol))})
        )

    consumer, provider = both(params(protocol, output=output), protocol=protocol)
    next(provider)
    step = provider.send(next(consumer).message)
    consumer.send(None)
    while step.message.kind != "evaluated":
        consumer.send(step.message)
        step = provider.send(None)
    with pytest.raises(RemoteProtocolError, match="row 3"):
        consumer.send(Message("evaluated", {"point": spoil(step.message["point"])}))


@pytest.mark.parametrize("bits", [[0b00010000], [0b11100001]])
def test_an_answer_with_more_rows_than_the_table_has_is_refused(bits):
    consumer, provider = both(params(reveal="both"))
    next(provider)
    provider.send(next(consumer).message)
    provider.send(None)
    provider.send(None)
    with pytest.raises(RemoteProtocolError, match="more matches"):
        provider.send(Message("matched", {"bits": np.array(bits, np.uint8)}))


@pytest.mark.parametrize("count", [-1, 4])
def test_an_answer_that_cannot_be_a_count_is_refused(count):
    consumer, provider = both(params(output="count", reveal="both"))
    next(provider)
    provider.send(next(consumer).message)
    provider.send(None)
    provider.send(None)
    with pytest.raises(RemoteProtocolError, match="more matches"):
        provider.send(Message("count", {"value": np.array([count])}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": []}, "columns"),
        ({"columns": "id"}, "columns"),
        ({"columns": ["a", "a"]}, "different"),
        ({"columns": [1]}, "different"),
        ({"columns": ["x"] * 17}, "1 to 16"),
        ({"keys": "zz"}, "keys"),
        ({"output": "rows "}, "output"),
        ({"reveal": None}, "reveal"),
        ({"extra": 1}, "unknown"),
    ],
)
def test_parameters_are_checked_by_name(change, message):
    with pytest.raises(ParameterError, match=message):
        INTERSECTIONS[0].check(KEYS | change, SIZES)


@pytest.mark.parametrize(("protocol", "output"), MODES)
@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
def test_the_bound_covers_the_bytes_that_cross_and_depends_on_declarations_only(protocol, output, reveal):
    options = params(protocol, output=output, reveal=reveal)
    run = run_local(*both(options, protocol=protocol), BINDING)
    bound = named(protocol).bound(options, SIZES)
    headers = 300 * 5
    crossed = run.cost.bytes_sent + run.cost.bytes_received
    assert bound.bytes <= crossed <= bound.bytes + headers
    assert (bound.calls, bound.rows) == (1, 5)
    form = named(protocol).output(options)
    assert form == (OutputForm.MATCHED_IDS if output == "rows" else OutputForm.COUNT)
    leakage = named(protocol).leakage(options)
    assert ("which" in leakage.consumer) == (output == "rows" and reveal != "provider")
    assert ("both sides hold" in leakage.provider) == (output == "count" and reveal != "consumer")


@pytest.mark.parametrize("protocol", [ECDH, DH])
def test_another_secret_finds_nothing(protocol):
    """The table belongs to one evaluation key: values of two runs do not match each other."""
    tables = []
    for _ in range(2):
        _, provider = both(params(protocol), protocol=protocol)
        next(provider)
        blinded = blinded_by("rows", Rng.from_os(), protocol=protocol)
        tables.append(provider.send(Message("blinded", {"point": blinded})).message["value"])
    assert (matching.positions(*tables) == -1).all()
