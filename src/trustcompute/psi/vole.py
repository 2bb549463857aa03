"""psi.vole.v1, output ``rows``: set intersection from a vector oblivious linear evaluation and a key-value store.

    receiver (keys x)                                    sender (keys y, fresh Δ)
        hello       suite, an element         ───────►
                                              ◄───────   choices     pairs of elements: Δ, and an extension's secret
        noise       a short product, choices  ───────►
                                              ◄───────   trees       sums that regrow all leaves but those of the noise
        masked      seeds, A' = A - P         ───────►   B' = B + A'·Δ
                                              ◄───────   table       H(Dec(B', y) - Δ·h(y)), truncated, sorted
        H(Dec(C, x)), looked up in the table (and labels, opened with another output of H)
        matched     a bit per table row       ───────►   (only when both sides shall know)

P is a key-value store that decodes every x to h(x), under seeds that the receiver draws once its keys are fixed. A, B
and C = A·Δ + B come from ``primitives.vole``. For a common key Dec(B', x) = Dec(C, x) - Δ·h(x); for every other one
Dec(P, y) ≠ h(y) leaves a multiple of Δ. Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield
VOLE" (CCS 2022, ePrint 2022/320), with an expand-convolute code in place of Silver.

Adversary: semi-honest, either one; ``psi.vole_malicious`` is for others. Assumptions: regular dual LPN for the code,
computational Diffie-Hellman on ristretto255, AES as an ideal cipher (H is Davies and Meyer's, under h(y)), SHA-256 as a
random oracle; 126 bits computational and at least 39 bits statistical security (40 for a wrong match, 40 for a store
that cannot be encoded, which ends the run). Memory accesses depend on a party's own keys.

What does not depend on the peer's next message is begun before it comes (``parallel.ahead``): both sides compute at the
same time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels import OkvsShape
from trustcompute.primitives import canonical, okvs, ot, vole
from trustcompute.primitives.parallel import ahead, map_rows
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import labels, matching
from trustcompute.psi.ecdh import Found, Params, concluded, told
from trustcompute.psi.matching import U8

ID: Final = "psi.vole.v1"
ROWS: Final = 2**14  # rows a task, so that what is computed of them on the way stays in a cache
TRANSFERS: Final = 2 * ot.WIDTH  # base transfers: the bits of Δ, and an extension's secret
SEEDS: Final = 32  # bytes: the key of hashes and store, the key of h
DIGEST: Final = 32
HASH: Final = "aes128-davies-meyer"


@dataclass(frozen=True, slots=True)
class Suite:
    """The sizes of everything, from the numbers of keys; its digest is the first thing the sides compare."""

    id: str
    store: OkvsShape
    vole: vole.Shape
    width: int
    label: int  # bytes; 0 where the sender's keys carry none

    @classmethod
    def of(cls, p: Params) -> Suite:
        return cls.for_keys(ID, p.receiver_rows, p.width, p.label)

    @classmethod
    def for_keys(cls, protocol: str, count: int, width: int, label: int = 0) -> Suite:
        """Of a protocol built on this function, for so many keys of the receiver's."""
        store = okvs.shape(count)
        return cls(protocol, store, vole.Shape.of(store.cells), width, label)

    def digest(self) -> U8:
        document = {
            "suite": self.id,
            "code": vole.CODE,
            "noise": [vole.WEIGHT, self.vole.leaves],
            "store": [self.store.bins, self.store.sparse, self.store.dense, self.store.capacity],
            "hash": HASH,
            "width": self.width,
        }
        if self.label:
            document["label"] = self.label
        return np.frombuffer(hashlib.sha256(canonical.dumps(document)).digest(), dtype=np.uint8)

    def noise(self) -> dict[str, Column]:
        """Columns of the receiver's choice of noise."""
        return {
            "product": Column("u1", (ot.WIDTH, 16 * vole.WEIGHT)),
            "choice": Column("u1", (ot.WIDTH, ot.extension_bytes(self.vole.transfers))),
        }

    def trees(self) -> dict[str, Column]:
        """Columns of the sender's sums."""
        return {
            "side": Column("u1", (self.vole.transfers, 2, 16)),
            "last": Column("u1", (vole.WEIGHT, 16)),
        }

    def masked(self) -> dict[str, Column]:
        """Columns of the receiver's store, masked."""
        return {"seed": Column("u1", (SEEDS,)), "difference": Column("u1", (self.store.cells, 16))}

    def answered(self, rows: int) -> dict[str, Column]:
        """Columns of the sender's values, and labels if there are any."""
        label = {"label": Column("u1", (rows, self.label))} if self.label else {}
        return {"value": Column("u1", (rows, self.width)), "seen": Column("u1", (DIGEST,)), **label}


def message_bytes(p: Params) -> int:
    """Bytes of all message bodies of a run, but for an answer."""
    suite = Suite.of(p)
    return function_bytes(suite) + sum(map(bytes_of, suite.answered(p.sender_rows).values()))


def function_bytes(suite: Suite) -> int:
    """Bytes of all message bodies before the sender's answer."""
    columns = [*suite.noise().values(), *suite.trees().values(), *suite.masked().values()]
    return DIGEST + 32 + TRANSFERS * 2 * 32 + sum(bytes_of(column) for column in columns)


def bytes_of(column: Column) -> int:
    """Of a column of bytes whose lengths are all known."""
    return prod(length for length in column.shape if isinstance(length, int))


def receiver(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found]:
    """The party that learns. keys: uint8[receiver_rows, 32], distinct digests."""
    suite = Suite.of(p)
    values, sealing = yield from evaluated_obliviously(keys, suite, rng, executor)
    answer = yield from receive("table", releases=True, **suite.answered(p.sender_rows))
    table, *sent = [answer[name] for name in ("value", *(["label"] if p.label else []))]
    check_seen(answer["seen"], sealing(), table, *sent)
    opened = None
    if p.label:
        opened = lambda mine, rows: labels.sealed(values[mine, 16:], sent[0][rows])  # noqa: E731
    return (yield from concluded(values[:, : p.width], table, p, executor, opened))


def sender(
    keys: U8,
    p: Params,
    rng: Rng,
    executor: Executor | None = None,
    labelled: Callable[[], U8] | None = None,
) -> Party[Found | None]:
    """The party that helps; it learns the result only where ``p.answer``.

    keys: uint8[sender_rows, 32], distinct digests, touched only once the peer has spoken three times. labelled: gives
    uint8[sender_rows, p.label], what who holds a key learns of it; wanted where there is such a width.
    """
    evaluate, sealing = yield from function_of_own(Suite.of(p), rng, executor)
    values = map_rows(evaluate, keys, executor=executor, chunk=ROWS)
    del evaluate
    order, table = matching.in_order(values[:, : p.width])
    label = {}
    if p.label:
        assert labelled is not None, "the width of a label was declared"
        padded = map_rows(labels.sealed, values[:, 16:], labelled(), executor=executor)
        label = {"label": np.take(padded, order, axis=0)}
    seen = np.frombuffer(seal(sealing(), table, *label.values()), dtype=np.uint8)
    yield from send("table", releases=True, value=table, seen=seen, **label)
    return (yield from told(order, p))


Sealing = Callable[[], bytes]
"""Waits for the digest of every byte a side has seen and sent so far."""


def evaluated_obliviously(
    keys: U8, suite: Suite, rng: Rng, executor: Executor | None
) -> Party[tuple[U8, Sealing]]:
    """The receiver, as far as all protocols built on this function go: its values of ``keys``, uint8[n, 16], and 16
    bytes more where there are labels."""
    seed, encoding, noise, compressing, secret, element = begun(keys, suite, rng, executor)
    yield from send("hello", suite=suite.digest(), point=element)

    pairs = (yield from receive("choices", pair=Column("u1", (TRANSFERS, 2, 32))))["pair"]
    transfer_keys = ot.sent_keys(secret, element, pairs, executor=executor)
    product, c = vole.short_holder(transfer_keys[: ot.WIDTH], noise.values)
    choice, pads = ot.extend_receiver(transfer_keys[ot.WIDTH :], noise.choices(suite.vole))
    yield from send("noise", product=product, choice=choice)

    trees = yield from receive("trees", releases=False, **suite.trees())
    regrowing = ahead(executor, regrown_outputs, suite.vole, noise, *trees.columns.values(), pads, c)
    store = encoding()
    store ^= compressing()
    del encoding, compressing
    yield from send("masked", seed=seed, difference=store)
    sealing = ahead(executor, seal, element, pairs, product, choice, *trees.columns.values(), seed, store)
    del store

    look_up = partial(looked_up, seed=seed, outputs=regrowing(), shape=suite.store, labelled=suite.label > 0)
    return map_rows(look_up, keys, executor=executor, chunk=ROWS), sealing


def function_of_own(
    suite: Suite, rng: Rng, executor: Executor | None
) -> Party[tuple[Callable[[U8], U8], Sealing]]:
    """The sender, as far as all protocols built on this function go: its own function of keys, uint8[m, 32] ->
    uint8[m, 16] (and 16 bytes more where there are labels), which for a key of the receiver's gives what that has."""
    point = yield from greeted(suite)
    growing = ahead(executor, vole.grow, suite.vole, vole.roots(rng))
    delta, columns, transfer_keys, pairs = base_transfers(point, rng, executor)
    yield from send("choices", pair=pairs)

    noise = yield from receive("noise", releases=False, **suite.noise())
    b_short = vole.short_keeper(transfer_keys[: ot.WIDTH], delta, noise["product"])
    pads = ot.extend_sender(transfer_keys[ot.WIDTH :], columns, noise["choice"], suite.vole.transfers)
    leaves, sums = growing()
    compressing = ahead(executor, vole.compress, suite.vole, leaves)
    side, last = sums ^ pads, vole.corrections(suite.vole, sums, b_short)
    yield from send("trees", side=side, last=last)
    del leaves, growing, sums, pads

    masked = yield from receive("masked", releases=False, **suite.masked())
    seed, difference = masked["seed"], masked["difference"]
    sealing = ahead(executor, seal, point, pairs, *noise.columns.values(), side, last, seed, difference)
    shift, shifted = vole.Correlation(delta, compressing()).shift(difference, executor=executor)
    evaluate = partial(
        evaluated, seed=seed, delta=shift, shifted=shifted, shape=suite.store, labelled=suite.label > 0
    )
    return evaluate, sealing


def check_seen(seen: U8, sealed: bytes, *parts: U8) -> None:
    """Raises ``RemoteProtocolError`` where the sides did not see the same bytes."""
    if not hmac.compare_digest(seal(sealed, *parts), seen.tobytes()):
        raise RemoteProtocolError("a message of this run arrived altered: the sides saw different bytes")


Later = Callable[[], U8]  # a result that is computed meanwhile


def begun(
    keys: U8, suite: Suite, rng: Rng, executor: Executor | None
) -> tuple[U8, Later, vole.Noise, Later, U8, U8]:
    """What a receiver has before it speaks: seed, store, noise, its A, and a base transfer's secret and element."""
    seed = rng.array(SEEDS)  # after the keys are fixed: they are the party's argument
    encoding = ahead(executor, encoded, keys, seed, suite.store)
    noise = vole.Noise.draw(suite.vole, rng)
    compressing = ahead(executor, noise_outputs, suite.vole, noise)
    return seed, encoding, noise, compressing, *ot.start(rng)


def greeted(suite: Suite) -> Party[U8]:
    """The receiver's first element, from one that computed the same sizes for the same suite."""
    hello = yield from receive("hello", suite=Column("u1", (DIGEST,)), point=Column("u1", (1, 32)))
    if not np.array_equal(hello["suite"], suite.digest()):
        raise RemoteProtocolError("the peer runs another suite, or computed other sizes for it")
    return hello["point"]


def base_transfers(point: U8, rng: Rng, executor: Executor | None) -> tuple[ot.Bits, ot.Bits, U8, U8]:
    """The sender's: Δ and the extension's secret (bool[128] each), the keys chosen by them, the pairs to be sent."""
    secrets = np.unpackbits(rng.array(TRANSFERS // 8), bitorder="little").astype(np.bool_)
    chosen, pairs = ot.choose(secrets, rng)
    keys = ot.received_keys(chosen, point, executor=executor)
    return secrets[: ot.WIDTH], secrets[ot.WIDTH :], keys, pairs


_NO_MASK: Final[U8] = np.zeros(16, dtype=np.uint8)


def hashed(keys: U8, seed: U8) -> tuple[U8, U8]:
    """What the store knows keys by, and h of it: uint8[n, 16] each."""
    hashes = kernels.aes128_hash(okvs_key(seed), keys)
    return hashes, kernels.aes128_hash(seed[16:32].tobytes(), hashes)


def encoded(keys: U8, seed: U8, shape: OkvsShape) -> U8:
    """P: the store that decodes every key to h of it, uint8[cells, 16]."""
    return okvs.encode(*hashed(keys, seed), okvs_key(seed), shape)


def noise_outputs(shape: vole.Shape, noise: vole.Noise) -> U8:
    """A, of the receiver's noise."""
    return vole.compress(shape, noise.vector(shape))


def regrown_outputs(  # noqa: PLR0917 - as the messages have them, for an executor
    shape: vole.Shape, noise: vole.Noise, side: U8, last: U8, pads: U8, c: U8
) -> U8:
    """C, from what the sender says of its trees."""
    sums = np.where(noise.choices(shape)[:, None], side[:, 1], side[:, 0]) ^ pads
    return vole.compress(shape, vole.regrow(shape, noise, sums, last, c))


def looked_up(  # noqa: PLR0917 - as the protocol names them
    keys: U8, seed: U8, outputs: U8, shape: OkvsShape, mask: U8 = _NO_MASK, labelled: bool = False
) -> U8:
    """H(Dec(C, x) + mask) of the receiver's keys, uint8[n, 16]. H is Davies and Meyer's, under h(x).

    labelled: beside it, H under another hash of x, the key of its label: uint8[n, 32].
    """
    hashes, values = hashed(keys, seed)
    decoded = kernels.okvs_decode(hashes, outputs, okvs_key(seed), shape)
    decoded ^= mask
    return _outputs(hashes, values, decoded, seed if labelled else None)


def evaluated(  # noqa: PLR0917 - as the protocol names them
    keys: U8, seed: U8, delta: U8, shifted: U8, shape: OkvsShape, mask: U8 = _NO_MASK, labelled: bool = False
) -> U8:
    """H(Dec(B', y) - Δ·h(y) + mask) of the sender's keys, uint8[n, 16]; labelled: as for ``looked_up``."""
    hashes, values = hashed(keys, seed)
    decoded = kernels.okvs_decode(hashes, shifted, okvs_key(seed), shape)
    decoded ^= kernels.gf128_mul(values, delta)
    decoded ^= mask
    return _outputs(hashes, values, decoded, seed if labelled else None)


def _outputs(hashes: U8, values: U8, decoded: U8, labelled: U8 | None) -> U8:
    compared = kernels.aes128_davies_meyer(values, decoded)
    if labelled is None:
        return compared
    tweak = hashlib.sha256(b"trustcompute psi.vole.v1 label\n" + labelled.tobytes()).digest()[:16]
    keys = kernels.aes128_davies_meyer(kernels.aes128_hash(tweak, hashes), decoded)
    return np.concatenate([compared, keys], axis=1)


def okvs_key(seed: U8) -> bytes:
    return seed[:16].tobytes()


def seal(*parts: U8 | bytes) -> bytes:
    """One digest of what a side saw, so that an altered byte ends the run and not in a wrong match."""
    digest = hashlib.sha256(b"trustcompute psi.vole.v1 seen\n")
    for part in parts:
        digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return digest.digest()
