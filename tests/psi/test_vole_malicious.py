"""psi.vole-malicious.v1: what it finds, and that whoever deviates makes the run end."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import LEFT, RIGHT, columns_of, corrupted, digests, fly, repeat_last_turn, with_kernels

from trustcompute import kernels, psi
from trustcompute.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from trustcompute.primitives import ot, vole
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.party import Receive
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import operation, parties
from trustcompute.psi import vole_malicious as protocol
from trustcompute.psi.ecdh import Params

BINDING = Binding("", protocol.ID, {}, "consumer", "provider")
KEYS = {"columns": ["id"], "keys": "0" * 64}
QUICK = kernels.active().name == "native"
P = Params(5, 3, answer=False)


def both(p=P, left=LEFT, right=RIGHT):
    return protocol.receiver(left, p, Rng.from_os()), protocol.sender(right, p, Rng.from_os())


def messages(change=lambda number, message: message, sides=None):
    return fly(sides or both(), change)


SIZES = [(0, 0), (0, 5), (5, 0), (1, 1), (1, 40), (33, 21), (678, 789)]


@pytest.mark.parametrize("reveal", ["left", "right"])
@pytest.mark.parametrize(("n", "m"), SIZES if QUICK else SIZES[5:6])
def test_rows_for_any_two_sizes(reveal, n, m):
    left, right = {"id": np.arange(n)}, {"id": np.arange(n // 2, n // 2 + m)}
    shared = sorted(set(left["id"].tolist()) & set(right["id"].tolist()))
    found = psi.intersect(left, right, on="id", reveal=reveal, protocol=protocol.ID)
    assert (found.count, found.protocol) == (len(shared), protocol.ID)
    if reveal == "left":
        assert found.left_rows.tolist() == shared
        assert found.right_rows is None
    else:
        assert found.right_rows.tolist() == [value - n // 2 for value in shared]
        assert found.left_rows is None


@pytest.mark.skipif(not QUICK, reason="only with the native kernels")
def test_an_executor_changes_nothing():
    from concurrent.futures import ThreadPoolExecutor

    left, right = digests(range(70_000)), digests(range(35_000, 140_000))
    p = Params(len(left), len(right), answer=False)
    with ThreadPoolExecutor(2) as executor:
        run = run_local(
            protocol.receiver(left, p, Rng.from_os(), executor),
            protocol.sender(right, p, Rng.from_os(), executor),
            BINDING,
        )
    assert np.flatnonzero(run.consumer.mask).tolist() == list(range(35_000, 70_000))
    assert run.provider is None


@pytest.mark.parametrize("names", [("reference", "native"), ("native", "reference")])
def test_reference_and_native_parties_talk_to_each_other(names, monkeypatch):
    run = run_local(*with_kernels(names, both(), monkeypatch), BINDING)
    assert run.consumer.mask.tolist() == [False, False, False, True, True]


def test_there_is_no_answer_that_could_be_a_lie():
    op = operation.named(protocol.ID)
    with pytest.raises(ParameterError, match="believe what it is told"):
        op.check(KEYS | {"reveal": "both"}, Sizes(5, 3))
    with pytest.raises(LocalProtocolError, match="could lie"):
        next(protocol.receiver(LEFT, Params(5, 3, answer=True), Rng.from_os()))


@pytest.mark.parametrize("reveal", ["consumer", "provider"])
def test_the_bound_covers_the_bytes_that_cross(reveal):
    op, sizes = operation.named(protocol.ID), Sizes(5, 3)
    params = op.check(KEYS | {"reveal": reveal}, sizes)
    run = run_local(
        parties.consumer(op.id, params, sizes, LEFT, Rng.from_os()),
        parties.provider(op.id, params, sizes, RIGHT, Rng.from_os()),
        BINDING,
    )
    bound, crossed = op.bound(params, sizes), run.cost.bytes_sent + run.cost.bytes_received
    assert bound.bytes <= crossed <= bound.bytes + 11 * 400


def test_a_million_keys_a_side_take_less_than_40_megabytes():
    assert protocol.message_bytes(Params(2**20, 2**20, answer=False)) < 40_000_000


def test_nothing_that_depends_on_keys_is_touched_before_the_peer_has_proved_itself():
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError("touched")

    sides = [protocol.receiver(LEFT, P, Rng.from_os()), protocol.sender(Untouchable(), P, Rng.from_os())]
    kinds = []

    def until_masked(number, message):
        kinds.append(message.kind)
        if message.kind == "masked":
            raise KeyboardInterrupt
        return message

    with pytest.raises(KeyboardInterrupt):
        messages(until_masked, sides)
    assert kinds == ["hello", "choices", "noise", "trees", "probe", "committed", "proof", "opened", "masked"]
    assert isinstance(next(protocol.sender(Untouchable(), P, Untouchable())), Receive)


# Whoever deviates

COLUMNS = [
    *((0, "suite"), (0, "point")),
    *((1, "pair"), (1, "commitment")),
    *((2, "product"), (2, "choice"), (2, "own"), (2, "sums")),
    *((3, "side"), (3, "last")),
    *((4, "value"), (5, "value"), (6, "value"), (7, "nonce")),
    *((8, "seed"), (8, "share"), (8, "difference")),
    *((9, "value"), (9, "share"), (9, "nonce"), (9, "seen")),
]


def test_every_column_of_every_message_is_corrupted_below():
    assert columns_of(both()) == COLUMNS


@pytest.mark.parametrize(("number", "column"), COLUMNS if QUICK else COLUMNS[::5])
def test_a_corrupted_byte_in_any_message_ends_the_run(number, column):
    with pytest.raises(RemoteProtocolError):
        messages(corrupted(number, column))


def deviating(monkeypatch, module, name, changed):
    """One side's function replaced: the other side does not call it."""
    honest = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: changed(honest, *args, **kwargs))


def different_products(honest, keys, values):
    """Would learn bits of Δ from which keys match. Passes if it guesses 64 of them."""
    product, c = honest(keys, values)
    product = product.copy()
    product[::2, 5] ^= 1
    return product, c


def different_choices(honest, keys, choices):
    """Would learn bits of the extension's secret, then both sums of a tree."""
    masked, pads = honest(keys, choices)
    masked = masked.copy()
    masked[::2, 3] ^= 4
    return masked, pads


@pytest.mark.parametrize(
    ("module", "name", "changed", "message"),
    [
        (vole, "short_holder", different_products, "correlation does not hold"),
        (ot, "extend_receiver", different_choices, "transfers do not hold together"),
    ],
)
def test_a_receiver_that_does_not_do_the_same_for_every_bit_is_caught(
    module, name, changed, message, monkeypatch
):
    deviating(monkeypatch, module, name, changed)
    with pytest.raises(RemoteProtocolError, match=message):
        messages()


def test_a_sender_whose_trees_do_not_fit_cannot_open_what_it_committed_to(monkeypatch):
    """It would learn about the noise's positions from whether the run goes on. Here it skips its own check."""

    def wrong(honest, shape, sums, b):
        last = honest(shape, sums, b)
        last[7] ^= 1
        return last

    def skipped(honest, one, other):
        return True if len(one) == 16 else honest(one, other)

    deviating(monkeypatch, vole, "corrections", wrong)
    deviating(monkeypatch, protocol.hmac, "compare_digest", skipped)
    kinds = []
    with pytest.raises(RemoteProtocolError, match="opened a commitment to something else"):
        messages(lambda number, message: kinds.append(message.kind) or message)
    assert kinds[-1] == "opened", "nothing of the receiver's keys has left it"


def test_a_sender_cannot_choose_its_share_of_the_mask_after_the_receivers(monkeypatch):
    honest, flown = protocol._commitment, []

    def to_something_else(what, value, nonce):
        early = (
            what == b"share" and not flown
        )  # the sender commits; what is checked later is computed honestly
        return honest(what, np.zeros(16, np.uint8) if early else value, nonce)

    def followed(number, message):
        if number > 0:
            flown.append(message.kind)
        return message

    monkeypatch.setattr(protocol, "_commitment", to_something_else)
    with pytest.raises(RemoteProtocolError, match="opened a commitment"):
        messages(followed)
    assert flown[-1] == "table"


def test_a_second_difference_under_one_delta_is_refused_by_the_driver():
    repeat_last_turn(both(), BINDING, turns=4)


@pytest.mark.parametrize(("module", "name", "value"), [(vole, "CODE", "silver-5"), (protocol, "WIDTH", 10)])
def test_another_suite_or_a_shorter_output_is_refused_before_anything_is_sent(
    module, name, value, monkeypatch
):
    receiver, sender = both()
    with monkeypatch.context() as other:
        other.setattr(module, name, value)
        hello = next(receiver).message
    next(sender)
    with pytest.raises(RemoteProtocolError, match="another suite"):
        sender.send(hello)


# What it is made of


@pytest.mark.parametrize("count", [0, 1, 4096, 5000])
def test_folding_shows_a_single_wrong_row(count):
    rng = np.random.default_rng(count)
    a, b = (rng.integers(0, 256, (count + 1, 16), dtype=np.uint8) for _ in range(2))
    delta, challenge = rng.integers(0, 256, (1, 16), dtype=np.uint8), rng.bytes(32)
    c = b ^ kernels.gf128_mul(a, delta)
    shifted = kernels.gf128_mul(vole.fold(a, challenge), delta)
    assert np.array_equal(vole.fold(c, challenge), vole.fold(b, challenge) ^ shifted)
    c[count // 2, 3] ^= 1
    assert not np.array_equal(vole.fold(c, challenge), vole.fold(b, challenge) ^ shifted)


def test_a_proof_of_choices_hides_them_and_holds():
    rng, drawn = np.random.default_rng(3), Rng.from_os()
    keys, secret = rng.integers(0, 256, (128, 2, 16), dtype=np.uint8), rng.integers(0, 2, 128).astype(bool)
    own_keys, challenge = np.where(secret[:, None], keys[:, 1], keys[:, 0]), bytes(range(16))
    sums = set()
    for _ in range(4):
        choices = ot.padded_choices(np.ones(200, np.bool_), drawn)
        assert len(choices) == 384
        assert choices[:200].all()
        masked, _ = ot.extend_receiver(keys, choices)
        own, columns = ot.prove(keys, choices, challenge)
        ot.check_proof(own_keys, secret, masked, challenge, own, columns)
        sums.add(own.tobytes())
        with pytest.raises(RemoteProtocolError):
            ot.check_proof(own_keys, secret, masked, bytes(16), own, columns)
    assert len(sums) == 4
