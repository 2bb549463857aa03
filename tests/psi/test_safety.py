"""What would break an intersection unseen: altered messages at every turn, and a group that tells of keys."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from by_hand import LEFT, RIGHT, digests
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.run import Runner, in_memory
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import dh, ecdh, lookup, operation, parties
from trustcompute.psi.table import evaluated

KEYS = {"columns": ["id"], "keys": "0" * 64}
SIZES = Sizes(5, 3)
QUICK = kernels.active().name == "native"


def parties_of(name):
    """(consumer, provider, binding) of a protocol, and of an output where it is not rows."""
    protocol, _, output = name.partition(" ")
    if protocol == lookup.OPERATION.id:
        table = evaluated(RIGHT, KEYS["keys"], Rng.from_os(), None)
        params = lookup.check(KEYS | {"table": table.id, "fetch": True}, SIZES)
        sides = (
            lookup.consumer(params, SIZES, LEFT, None, Rng.from_os()),
            lookup.provider(params, SIZES, table),
        )
    else:
        reveal = "consumer" if protocol in ("psi.vole-malicious.v1",) else "both"
        asked = KEYS | {"output": output or "rows", "reveal": reveal}
        params = operation.named(protocol).check(asked, SIZES)
        sides = (
            parties.consumer(protocol, params, SIZES, LEFT, Rng.from_os()),
            parties.provider(protocol, params, SIZES, RIGHT, Rng.from_os()),
        )
    return *sides, Binding("", protocol, params, "consumer", "provider")


def run(name, altered=None):
    """Drive both sides; the body of frame number ``altered`` loses a bit on its way. (both transcripts, frames)."""
    consumer, provider, binding = parties_of(name)
    leader, follower = Runner(consumer, binding, leads=True), Runner(provider, binding, leads=False)
    flown = 0

    def fly(frames):
        nonlocal flown
        arrived = []
        for frame in frames:
            body = bytearray(b"".join(frame.body))
            body[-1] ^= flown == altered
            flown += 1
            arrived.append(replace(frame, body=(memoryview(bytes(body)),)))
        return in_memory(arrived)

    while True:
        turn = leader.give()
        if leader.done and not turn.frames:
            return leader.transcript, follower.transcript, flown
        follower.take(turn.number, fly(turn.frames))
        leader.take(turn.number, fly(follower.give().frames))


# As many frames as a run of each has, which ``run`` counts.
FRAMES = {
    "psi.ecdh.v1": 4,
    "psi.ecdh.v1 count": 4,
    "psi.dh.v1": 5,
    "psi.lookup.v1": 3,
    "psi.vole.v1": 7,
    "psi.vole-malicious.v1": 10,
}
EVERY = [(name, frame) for name, frames in FRAMES.items() for frame in range(frames)]
SOME = [(name, frame) for name, frame in EVERY if "vole" not in name]


@pytest.mark.parametrize("name", FRAMES if QUICK else [name for name in FRAMES if "vole" not in name])
def test_both_sides_of_a_run_hold_the_same_transcript(name):
    ours, theirs, frames = run(name)
    assert ours == theirs
    assert frames == FRAMES[name]


@pytest.mark.parametrize(("name", "frame"), EVERY if QUICK else SOME)
def test_an_altered_message_at_any_turn_ends_the_run_or_shows_in_the_transcripts(name, frame):
    """A receipt names the provider's transcript, and the consumer holds it against its own."""
    try:
        ours, theirs, _ = run(name, altered=frame)
    except RemoteProtocolError:
        return
    assert ours != theirs


# The twist

P = 2**255 - 19


def on_the_curve(u: bytes) -> bool:
    """Whether an X25519 coordinate belongs to the curve, and not to its twist: y² = u³ + 486662·u² + u has a root."""
    x = int.from_bytes(u, "little") % 2**255 % P
    return pow(x * (x * x + 486662 * x + 1) % P, (P - 1) // 2, P) != P - 1


COUNT = 600 if QUICK else 150
PEOPLE = digests(range(1000, 1000 + COUNT))


def told(messages):
    """How often the bit of a message is that of the key it hides, as who guesses the key computes it."""
    bits = [on_the_curve(hashlib.sha256(bytes(key)).digest()) for key in PEOPLE]
    return sum(bit == on_the_curve(bytes(message)) for bit, message in zip(bits, messages, strict=True))


@pytest.mark.statistical
def test_hashes_taken_for_coordinates_tell_on_which_curve_a_key_lies():
    """The control: a ladder keeps the bit, so that half of a dictionary is ruled out for each key."""
    secret = X25519PrivateKey.generate()
    hashed = (X25519PublicKey.from_public_bytes(hashlib.sha256(bytes(key)).digest()) for key in PEOPLE[:60])
    bits = [on_the_curve(hashlib.sha256(bytes(key)).digest()) for key in PEOPLE[:60]]
    assert [on_the_curve(secret.exchange(point)) for point in hashed] == bits
    assert 5 < sum(bits) < 55


@pytest.mark.statistical
@pytest.mark.parametrize("protocol", [ecdh, dh])
def test_a_twist_bit_distinguisher_learns_nothing_of_what_is_sent(protocol):
    """Agreement is that of a coin: within 5 σ of one half (false alarm 1 in 1.7 million)."""
    p = ecdh.Params(COUNT, 1, answer=False)
    message = next(protocol.receiver(PEOPLE, p, Rng.from_os())).message["point"]
    assert abs(told(message) - COUNT / 2) < 5 * math.sqrt(COUNT) / 2
    kernels.ristretto255_check(message)  # every message is an element: there is no twist to be on


def test_no_two_runs_send_the_same_element_for_a_key():
    p = ecdh.Params(5, 3, answer=False)
    for protocol in (ecdh, dh):
        runs = [next(protocol.receiver(LEFT, p, Rng.from_os())).message["point"] for _ in range(3)]
        for one, other in itertools.combinations(runs, 2):
            assert not (one == other).all(axis=1).any()
        assert len(np.unique(np.concatenate(runs), axis=0)) == 15
