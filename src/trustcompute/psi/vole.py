"""psi.vole.v1, output ``rows``: set intersection from a vector oblivious linear evaluation and a key-value store.

    receiver (keys x)                                    sender (keys y, fresh Δ)
        hello       suite, an element         ───────►
                                              ◄───────   choices     pairs of elements: Δ, and an extension's secret
        masked      a short product, choices of noise,
                    seeds, A' = A - P         ───────►   B' = B + A'·Δ
                                              ◄───────   trees       sums that regrow all leaves but those of the noise
                                              ◄───────   table       H(Dec(B', y) - Δ·h(y)), truncated, shuffled
        H(Dec(C, x)), looked up in the table
        matched     a bit per table row       ───────►   (only when both sides shall know)

P is a key-value store that decodes every x to h(x), under seeds that the receiver draws once its keys are fixed. A, B
and C = A·Δ + B come from ``primitives.vole``. For a common key Dec(B', x) = Dec(C, x) - Δ·h(x); for every other one
Dec(P, y) ≠ h(y) leaves a multiple of Δ. Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield
VOLE" (CCS 2022, ePrint 2022/320), with an expand-convolute code in place of Silver.

Adversary: semi-honest, either one. Assumptions: regular dual LPN for the code, computational Diffie-Hellman on
ristretto255, AES with a fixed key as an ideal permutation, SHA-256 as a random oracle; 126 bits computational and at
least 39 bits statistical security (40 for a wrong match, 40 for a store that cannot be encoded, which ends the run).
Memory accesses depend on a party's own keys.
"""

from __future__ import annotations

import hashlib
import hmac
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels import FixedColumn, OkvsShape
from trustcompute.primitives import canonical, okvs, ot, vole
from trustcompute.primitives.parallel import map_rows
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching
from trustcompute.psi.ecdh import Found, Params, found_bits, matched_rows
from trustcompute.psi.matching import U8

ID: Final = "psi.vole.v1"
ROWS: Final = 2**15  # rows a task
TRANSFERS: Final = 2 * ot.WIDTH  # base transfers: the bits of Δ, and an extension's secret
SEEDS: Final = 32  # bytes: the key of hashes and store, the key of h
DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class Suite:
    """The sizes of everything, from the numbers of keys; its digest is the first thing the sides compare."""

    store: OkvsShape
    vole: vole.Shape
    width: int

    @classmethod
    def of(cls, p: Params) -> Suite:
        store = okvs.shape(p.receiver_rows)
        return cls(store, vole.Shape.of(store.cells), p.width)

    def digest(self) -> U8:
        document = {
            "suite": ID,
            "code": vole.CODE,
            "noise": [vole.WEIGHT, self.vole.leaves],
            "store": [self.store.bins, self.store.sparse, self.store.dense, self.store.capacity],
            "width": self.width,
        }
        return np.frombuffer(hashlib.sha256(canonical.dumps(document)).digest(), dtype=np.uint8)

    def masked(self) -> dict[str, Column]:
        """Columns of the receiver's second message."""
        return {
            "product": Column("u1", (ot.WIDTH, 16 * vole.WEIGHT)),
            "choice": Column("u1", (ot.WIDTH, ot.extension_bytes(self.vole.transfers))),
            "seed": Column("u1", (SEEDS,)),
            "difference": Column("u1", (self.store.cells, 16)),
        }

    def trees(self) -> dict[str, Column]:
        """Columns of the sender's sums."""
        return {
            "side": Column("u1", (self.vole.transfers, 2, 16)),
            "last": Column("u1", (vole.WEIGHT, 16)),
        }


def message_bytes(p: Params) -> int:
    """Bytes of all message bodies of a run, but for an answer."""
    suite = Suite.of(p)
    columns = [*suite.masked().values(), *suite.trees().values()]
    fixed = 2 * DIGEST + 32 + TRANSFERS * 2 * 32
    return fixed + p.sender_rows * p.width + sum(int(np.prod(_lengths(column))) for column in columns)


def _lengths(column: Column) -> list[int]:
    return [length for length in column.shape if isinstance(length, int)]


def receiver(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found]:
    """The party that learns. keys: uint8[receiver_rows, 32], distinct digests."""
    suite = Suite.of(p)
    secret, element = ot.start(rng)
    yield from send("hello", suite=suite.digest(), point=element)

    pairs = (yield from receive("choices", pair=Column("u1", (TRANSFERS, 2, 32))))["pair"]
    transfer_keys = ot.sent_keys(secret, pairs, executor=executor)
    noise = vole.Noise.draw(suite.vole, rng)
    product, c = vole.short_holder(transfer_keys[: ot.WIDTH], noise.values)
    choice, pads = ot.extend_receiver(transfer_keys[ot.WIDTH :], noise.choices(suite.vole))
    seed = rng.array(SEEDS)  # after the keys are fixed: they are this generator's argument
    hashes = _hashes(keys, seed, executor)
    store = okvs.encode(
        hashes, _values(hashes, seed, executor), _okvs_key(seed), suite.store, executor=executor
    )
    store ^= vole.compress(suite.vole, noise.vector(suite.vole), executor=executor)
    yield from send("masked", product=product, choice=choice, seed=seed, difference=store)
    seen = _seal(pairs, product, choice, seed, store)
    del store

    trees = yield from receive("trees", releases=False, **suite.trees())
    answer = yield from receive(
        "table", releases=True, value=Column("u1", (p.sender_rows, p.width)), seen=Column("u1", (DIGEST,))
    )
    table = answer["value"]
    if not hmac.compare_digest(_seal(seen, *trees.columns.values(), table), answer["seen"].tobytes()):
        raise RemoteProtocolError("a message of this run arrived altered: the sides saw different bytes")
    sums = np.where(noise.choices(suite.vole)[:, None], trees["side"][:, 1], trees["side"][:, 0]) ^ pads
    c_long = vole.compress(
        suite.vole, vole.regrow(suite.vole, noise, sums, trees["last"], c), executor=executor
    )
    decoded = okvs.decode(hashes, c_long, _okvs_key(seed), suite.store, executor=executor)
    matching.check_width(table, p.receiver_rows, p.sender_rows)
    where = matching.positions(_compared(decoded, seed, p, executor), table)
    matched = where >= 0
    if p.answer:
        yield from send("matched", releases=True, bits=found_bits(where[matched], p))
    return Found(int(matched.sum()), matched)


def sender(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found | None]:
    """The party that helps; it learns the result only where ``p.answer``.

    keys: uint8[sender_rows, 32], distinct digests, touched only once the peer has spoken twice.
    """
    suite = Suite.of(p)
    hello = yield from receive("hello", suite=Column("u1", (DIGEST,)), point=Column("u1", (1, 32)))
    if not np.array_equal(hello["suite"], suite.digest()):
        raise RemoteProtocolError("the peer runs another suite, or computed other sizes for it")

    secrets = np.unpackbits(rng.array(TRANSFERS // 8), bitorder="little").astype(np.bool_)
    delta, columns = secrets[: ot.WIDTH], secrets[ot.WIDTH :]
    chosen, pairs = ot.choose(secrets, rng)
    transfer_keys = ot.received_keys(chosen, hello["point"], executor=executor)
    yield from send("choices", pair=pairs)

    masked = yield from receive("masked", releases=False, **suite.masked())
    b_short = vole.short_keeper(transfer_keys[: ot.WIDTH], delta, masked["product"])
    pads = ot.extend_sender(transfer_keys[ot.WIDTH :], columns, masked["choice"], suite.vole.transfers)
    leaves, sums = vole.grow(suite.vole, rng)
    side, last = sums ^ pads, vole.corrections(suite.vole, sums, b_short)
    correlation = vole.Correlation(delta, vole.compress(suite.vole, leaves, executor=executor))
    del leaves, sums, pads
    values = _evaluated(keys, correlation, masked, p, executor)
    order = rng.permutation(p.sender_rows)
    table = values[order]
    seen = _seal(_seal(pairs, *masked.columns.values()), side, last, table)
    yield from send("trees", side=side, last=last)
    yield from send("table", releases=True, value=table, seen=np.frombuffer(seen, dtype=np.uint8))

    if not p.answer:
        return None
    mask = np.zeros(p.sender_rows, dtype=np.bool_)
    mask[order] = yield from matched_rows(p)
    return Found(int(mask.sum()), mask)


def _evaluated(
    keys: U8, correlation: vole.Correlation, masked: Message, p: Params, executor: Executor | None
) -> U8:
    """H(Dec(B', y) - Δ·h(y)) of the sender's keys."""
    seed = masked["seed"]
    store = okvs.shape(p.receiver_rows)
    hashes = _hashes(keys, seed, executor)
    delta, shifted = correlation.shift(masked["difference"], executor=executor)
    decoded = okvs.decode(hashes, shifted, _okvs_key(seed), store, executor=executor)
    product = partial(kernels.gf128_mul, b=delta)
    decoded ^= map_rows(product, _values(hashes, seed, executor), executor=executor, chunk=ROWS)
    return _compared(decoded, seed, p, executor)


def _okvs_key(seed: U8) -> bytes:
    return seed[:16].tobytes()


def _hashes(keys: U8, seed: U8, executor: Executor | None) -> U8:
    return map_rows(partial(kernels.aes128_hash, _okvs_key(seed)), keys, executor=executor, chunk=ROWS)


def _values(hashes: U8, seed: U8, executor: Executor | None) -> U8:
    return map_rows(partial(kernels.aes128_hash, seed[16:].tobytes()), hashes, executor=executor, chunk=ROWS)


def _compared(decoded: U8, seed: U8, p: Params, executor: Executor | None) -> U8:
    """What is sent and looked up: SHA-256 under the run's seeds, cut to the width of the job."""
    digests = partial(_digests, prefix=b"trustcompute psi.vole.v1 table\n\n" + seed.tobytes())
    return map_rows(digests, decoded, executor=executor, chunk=ROWS)[:, : p.width]


def _digests(rows: U8, prefix: bytes) -> U8:
    return kernels.digest_columns(prefix, [FixedColumn(0, rows)])


def _seal(*parts: U8 | bytes) -> bytes:
    """One digest of what a side saw, so that an altered byte ends the run and not in a wrong match."""
    digest = hashlib.sha256(b"trustcompute psi.vole.v1 seen\n")
    for part in parts:
        digest.update(np.ascontiguousarray(part).data if isinstance(part, np.ndarray) else part)
    return digest.digest()
