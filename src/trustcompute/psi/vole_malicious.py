"""psi.vole-malicious.v1, output ``rows``: ``psi.vole`` against a side that deviates from the protocol.

    receiver (keys x)                                    sender (keys y, fresh Δ)
        hello       suite, an element         ───────►
                                              ◄───────   choices     pairs of elements, a commitment to ws
        noise       a short product, choices,
                    a proof of the choices    ───────►
                                              ◄───────   trees       sums that regrow all leaves but those of the noise
        probe       A, folded                 ───────►
                                              ◄───────   committed   to what C, folded, must be
        proof       C, folded                 ───────►   equal?
                                              ◄───────   opened
        masked      seeds, wr, A' = A - P     ───────►   B' = B + A'·Δ
                                              ◄───────   table       H(Dec(B', y) - Δ·h(y) + w), sorted, ws
        H(Dec(C, x) + w), looked up in the table, where w = wr + ws

Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield VOLE" (CCS 2022, ePrint 2022/320), its protocol
against malicious parties, with the silent VOLE made actively secure as in Ferret (CCS 2020): transfers that prove their
choices (``ot.prove``) and a correlation that is checked (``vole.fold``) before anything that depends on the receiver's
keys leaves it.

Adversary: malicious, either one, who wants to learn more than its output; one that deviates makes the run end in an
error, or guesses bits (k bits of Δ, or of the noise's positions, with probability 2⁻ᵏ). A receiver can put more keys
into its store than it declared (at most one a cell: 1.36 times as many), the sender as many as its table has rows. A
sender can leave out keys, and nobody proves that a set is the one it registered. The receiver could lie about an
answer, so there is none (``reveal="both"``). Assumptions as for ``psi.vole``; with 2⁶⁴ work somebody finds two keys of
one hash. The first of the checks that fails ends the run.
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
from trustcompute.errors import LocalProtocolError, RemoteProtocolError
from trustcompute.primitives import okvs, ot, vole
from trustcompute.primitives.parallel import ahead, map_rows
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching
from trustcompute.psi import vole as vole_psi
from trustcompute.psi.ecdh import Found, Params
from trustcompute.psi.matching import U8
from trustcompute.psi.vole import (
    DIGEST,
    ROWS,
    SEEDS,
    TRANSFERS,
    base_transfers,
    begun,
    bytes_of,
    evaluated,
    greeted,
    looked_up,
    regrown_outputs,
    seal,
)

ID: Final = "psi.vole-malicious.v1"
WIDTH: Final = 16  # bytes of a compared value: what a simulator reads a deviating side's keys from
NONCE: Final = 32

_BLOCK: Final = Column("u1", (1, 16))
_HASH: Final = Column("u1", (DIGEST,))


@dataclass(frozen=True, slots=True)
class Suite(vole_psi.Suite):
    """``vole``'s, with one more row of the correlation, which the check gives away, and what is proved and opened."""

    rows: int

    @classmethod
    def of(cls, p: Params) -> Suite:
        if p.answer:
            raise LocalProtocolError(f"{ID} has no answer: whoever receives could lie")
        store = okvs.shape(p.receiver_rows)
        return cls(ID, store, vole.Shape.of(store.cells + 1), WIDTH, 0, p.sender_rows)

    @property
    def choices(self) -> int:
        """Transfers of the extension, those that pad and hide included."""
        return -(-self.vole.transfers // ot.WIDTH) * ot.WIDTH + ot.WIDTH

    def noise(self) -> dict[str, Column]:
        return {
            "product": Column("u1", (ot.WIDTH, 16 * vole.WEIGHT)),
            "choice": Column("u1", (ot.WIDTH, self.choices // 8)),
            "own": _BLOCK,
            "sums": Column("u1", (ot.WIDTH, 16)),
        }

    def masked(self) -> dict[str, Column]:
        return {
            "seed": Column("u1", (SEEDS,)),
            "share": Column("u1", (16,)),
            "difference": Column("u1", (self.store.cells, 16)),
        }

    def table(self) -> dict[str, Column]:
        return {
            "value": Column("u1", (self.rows, self.width)),
            "share": Column("u1", (16,)),
            "nonce": Column("u1", (NONCE,)),
            "seen": _HASH,
        }


def message_bytes(p: Params) -> int:
    """Bytes of all message bodies of a run."""
    suite = Suite.of(p)
    groups = (suite.noise(), suite.trees(), suite.masked(), suite.table())
    fixed = DIGEST + 32 + TRANSFERS * 2 * 32 + DIGEST + 16 + DIGEST + 16 + NONCE
    return fixed + sum(bytes_of(column) for columns in groups for column in columns.values())


def receiver(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found]:
    """The party that learns. keys: uint8[receiver_rows, 32], distinct digests."""
    suite = Suite.of(p)
    seed, encoding, noise, compressing, secret, element = begun(keys, suite, rng, executor)
    yield from send("hello", suite=suite.digest(), point=element)

    first = yield from receive("choices", pair=Column("u1", (TRANSFERS, 2, 32)), commitment=_HASH)
    pairs, promise = first["pair"], first["commitment"]
    transfer_keys = ot.sent_keys(secret, element, pairs, executor=executor)
    product, c = vole.short_holder(transfer_keys[: ot.WIDTH], noise.values)
    choices = ot.padded_choices(noise.choices(suite.vole), rng)
    choice, pads = ot.extend_receiver(transfer_keys[ot.WIDTH :], choices)
    seen = seal(suite.digest(), element, pairs, promise, product, choice)
    own, sums = ot.prove(transfer_keys[ot.WIDTH :], choices, seen[:16])
    yield from send("noise", product=product, choice=choice, own=own, sums=sums)

    trees = yield from receive("trees", releases=False, **suite.trees())
    pads = pads[: suite.vole.transfers]
    regrowing = ahead(executor, regrown_outputs, suite.vole, noise, *trees.columns.values(), pads, c)
    seen = seal(seen, own, sums, *trees.columns.values())
    a_long, c_long = compressing(), regrowing()
    del compressing, regrowing
    probe, proof = vole.fold(a_long, seen), vole.fold(c_long, seen)
    yield from send("probe", value=probe)
    commitment = (yield from receive("committed", value=_HASH))["value"]
    yield from send("proof", value=proof)
    nonce = (yield from receive("opened", nonce=Column("u1", (NONCE,))))["nonce"]
    _check_opened(commitment, b"fold", proof, nonce)

    store = encoding()
    store ^= a_long[: len(store)]
    share = rng.array(16)
    yield from send("masked", seed=seed, share=share, difference=store)
    sealing = ahead(executor, seal, seen, probe, commitment, proof, nonce, seed, share, store)
    del encoding, a_long, store

    answer = yield from receive("table", releases=True, **suite.table())
    table = answer["value"]
    if not hmac.compare_digest(seal(sealing(), table), answer["seen"].tobytes()):
        raise RemoteProtocolError("a message of this run arrived altered: the sides saw different bytes")
    _check_opened(promise, b"share", answer["share"], answer["nonce"])
    look_up = partial(
        looked_up, seed=seed, outputs=c_long[:-1], shape=suite.store, mask=share ^ answer["share"]
    )
    values = map_rows(look_up, keys, executor=executor, chunk=ROWS)
    _check_width(table)
    matching.check_width(table, p.receiver_rows, p.sender_rows)
    matched = matching.found_in_order(values, table, executor=executor) >= 0
    return Found(int(matched.sum()), matched)


def sender(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found | None]:
    """The party that helps and learns nothing but a size.

    keys: uint8[sender_rows, 32], distinct digests, touched only once the peer has proved that it followed the protocol.
    """
    suite = Suite.of(p)
    point = yield from greeted(suite)
    growing = ahead(executor, vole.grow, suite.vole, vole.roots(rng))
    delta, columns, transfer_keys, pairs = base_transfers(point, rng, executor)
    share, share_nonce, fold_nonce = rng.array(16), rng.array(NONCE), rng.array(NONCE)
    promise = _commitment(b"share", share, share_nonce)
    yield from send("choices", pair=pairs, commitment=promise)

    noise = yield from receive("noise", releases=False, **suite.noise())
    product, choice, own, sums = noise.columns.values()
    seen = seal(suite.digest(), point, pairs, promise, product, choice)
    ot.check_proof(transfer_keys[ot.WIDTH :], columns, choice, seen[:16], own, sums)
    b_short = vole.short_keeper(transfer_keys[: ot.WIDTH], delta, product)
    pads = ot.extend_sender(transfer_keys[ot.WIDTH :], columns, choice, suite.choices)[: suite.vole.transfers]
    leaves, side_sums = growing()
    compressing = ahead(executor, vole.compress, suite.vole, leaves)
    side, last = side_sums ^ pads, vole.corrections(suite.vole, side_sums, b_short)
    yield from send("trees", side=side, last=last)
    seen = seal(seen, own, sums, side, last)
    del leaves, growing, side_sums, pads

    probe = (yield from receive("probe", value=_BLOCK))["value"]
    b_long = compressing()
    shift = np.packbits(delta, bitorder="little").reshape(1, 16)
    expected = vole.fold(b_long, seen) ^ kernels.gf128_mul(probe, shift)
    commitment = _commitment(b"fold", expected, fold_nonce)
    yield from send("committed", value=commitment)
    proof = (yield from receive("proof", value=_BLOCK))["value"]
    if not hmac.compare_digest(proof.tobytes(), expected.tobytes()):
        raise RemoteProtocolError(
            "the peer's correlation does not hold: it deviated, or a message was altered"
        )
    yield from send("opened", nonce=fold_nonce)

    masked = yield from receive("masked", releases=False, **suite.masked())
    seed, theirs, difference = masked.columns.values()
    sealing = ahead(executor, seal, seen, probe, commitment, proof, fold_nonce, seed, theirs, difference)
    correlation = vole.Correlation(delta, b_long[:-1])
    del compressing, b_long
    shift, shifted = correlation.shift(difference, executor=executor)
    evaluate = partial(
        evaluated, seed=seed, delta=shift, shifted=shifted, shape=suite.store, mask=share ^ theirs
    )
    _, table = matching.in_order(map_rows(evaluate, keys, executor=executor, chunk=ROWS))
    answer = {"value": table, "share": share, "nonce": share_nonce}
    answer["seen"] = np.frombuffer(seal(sealing(), table), dtype=np.uint8)
    yield from send("table", releases=True, **answer)
    return None


def _commitment(what: bytes, value: U8, nonce: U8) -> U8:
    """SHA-256 of a value and 32 random bytes: binding and hiding with it as a random oracle."""
    text = (
        b"trustcompute psi.vole-malicious.v1 commitment\n" + what + b"\n" + value.tobytes() + nonce.tobytes()
    )
    return np.frombuffer(hashlib.sha256(text).digest(), dtype=np.uint8)


def _check_opened(commitment: U8, what: bytes, value: U8, nonce: U8) -> None:
    if not hmac.compare_digest(commitment.tobytes(), _commitment(what, value, nonce).tobytes()):
        raise RemoteProtocolError("the peer opened a commitment to something else: it deviated")


def _check_width(table: U8) -> None:
    if table.shape[1] < WIDTH:
        raise LocalProtocolError(
            f"against malicious senders {WIDTH} bytes are compared, not {table.shape[1]}"
        )
