"""The random stream: what determines it, what a fork and a copy do to it, uniform permutations."""

from __future__ import annotations

import copy
import math
import os
from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng

SEED = bytes(range(32))


def test_a_derived_stream_is_pinned() -> None:
    """Jobs resume by replay: a release that changed the stream would change the secrets of a running job."""
    key = HKDF(hashes.SHA512(), length=32, salt=b"trustcompute/rng/1", info=b"job").derive(SEED)
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor().update(bytes(100))
    assert Rng.derive(SEED, info=b"job").bytes(100) == stream
    assert stream.hex().startswith("24aeb4c575f8991ba7a85dea5405b546")


def test_the_stream_depends_on_seed_and_info_only() -> None:
    stream = Rng.derive(SEED, info=b"a").bytes(64)
    assert Rng.derive(SEED, info=b"a").bytes(64) == stream
    assert Rng.derive(SEED, info=b"b").bytes(64) != stream
    assert Rng.derive(SEED[:-1] + b"\0", info=b"a").bytes(64) != stream


def test_how_it_is_cut_does_not_matter() -> None:
    whole, pieces = Rng.derive(SEED, info=b"cut"), Rng.derive(SEED, info=b"cut")
    count = 2**20 + 100  # more than the piece that is encrypted at once
    parts = [pieces.bytes(7), pieces.array(0).tobytes(), pieces.array(count - 20).tobytes(), pieces.bytes(13)]
    assert whole.bytes(count) == b"".join(parts)


def test_arrays_are_writable_bytes() -> None:
    array = Rng.from_os().array(10)
    assert (array.shape, array.dtype, array.flags.writeable) == ((10,), np.uint8, True)


def test_streams_from_the_operating_system_differ() -> None:
    assert Rng.from_os().bytes(32) != Rng.from_os().bytes(32)


def in_a_fork(draw: object) -> bytes:
    """What ``draw`` returns in a forked child, or the name of what it raises."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = draw()  # type: ignore[operator]
        except Exception as error:
            answer = type(error).__name__.encode()
        os.write(writer, answer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return bytes(answer)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_shares_no_randomness() -> None:
    rng = Rng.from_os()
    rng.bytes(1)
    in_child, here = in_a_fork(lambda: rng.bytes(32)), rng.bytes(32)
    assert len(in_child) == 32
    assert in_child != here
    derived = Rng.derive(SEED, info=b"fork")
    assert in_a_fork(lambda: derived.bytes(32)) == b"LocalProtocolError"
    assert derived.bytes(32) == Rng.derive(SEED, info=b"fork").bytes(32)


def test_it_is_neither_copied_nor_shown() -> None:
    rng = Rng.derive(SEED, info=b"shown")
    assert repr(rng) == "Rng(derived)"
    with pytest.raises(TypeError, match="never pickled"):
        copy.copy(rng)
    with pytest.raises(TypeError, match="from_os"):
        Rng()


@pytest.mark.parametrize("seed", [b"", bytes(31), "x" * 32, bytearray(32)])
def test_short_seeds_are_refused(seed: bytes) -> None:
    with pytest.raises(ParameterError, match="at least 32 bytes"):
        Rng.derive(seed, info=b"")


def test_negative_draws_are_refused() -> None:
    with pytest.raises(ParameterError):
        Rng.from_os().array(-1)


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_permutations_hold_every_index_once(count: int) -> None:
    order = Rng.from_os().permutation(count)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(count))


def test_equal_keys_are_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = [np.zeros(24, np.uint8), np.arange(24, dtype=np.uint8)[::-1].copy()]
    monkeypatch.setattr(Rng, "array", lambda _self, _count: draws.pop(0))
    assert Rng.from_os().permutation(3).tolist() == [2, 1, 0]
    assert not draws


@pytest.mark.statistical
def test_permutations_are_uniform() -> None:
    """Chi-squared over all 120 orders of 5 (119 degrees of freedom).

    The stream is fixed, so this cannot fail by chance; another one would exceed the bound at most once in 10⁶
    (Laurent and Massart 2000, Lemma 1).
    """
    rng, draws = Rng.derive(SEED, info=b"uniform"), 24_000
    counts = Counter(tuple(rng.permutation(5).tolist()) for _ in range(draws))
    expected = draws / 120
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    exponent = math.log(10**6)
    assert len(counts) == 120
    assert statistic < 119 + 2 * math.sqrt(119 * exponent) + 2 * exponent
