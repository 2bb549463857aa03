"""psi.ecdh.v1, output ``rows``: set intersection from an oblivious pseudorandom function on ristretto255.

The receiver learns which of its keys the sender holds; the sender learns how many keys the receiver has.

    receiver (keys x)                                sender (keys y, fresh secret k)
        blinded    rᵢ·H(xᵢ)              ───────►
                                         ◄───────    table      F_k(y), truncated, sorted
                                         ◄───────    evaluated  k·rᵢ·H(xᵢ)
        F_k(xᵢ) = H'(xᵢ, rᵢ⁻¹ · evaluatedᵢ), looked up in the table
        matched    a bit per table row   ───────►    (only when both sides shall know)

F is the OPRF of RFC 9497 (mode 0x00, ristretto255-SHA512, §3.3.1) on 32-byte key digests. Its use for set
intersection is Jarecki and Liu, "Fast Secure Computation of Set Intersection" (SCN 2010).

Adversary: semi-honest, either one. Assumptions: one-more gap Diffie–Hellman, SHA-512 as a random oracle; about
126 bits computational and at least 40 bits statistical security (``matching.width``). The sender's secret serves
one job and is thrown away, so two jobs cannot be linked by their tables.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trustcompute.errors import RemoteProtocolError
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching
from trustcompute.psi.matching import U8

POINT = 32  # bytes of an encoded group element


@dataclass(frozen=True, slots=True)
class Params:
    """receiver_rows, sender_rows: distinct keys; answer: whether the receiver tells the sender the result.

    label: bytes of the label that each of the sender's keys carries (``psi.vole`` only).
    whole: both numbers of the whole job, where this run is one of its buckets: wrong matches of all buckets add up.
    """

    receiver_rows: int
    sender_rows: int
    answer: bool
    whole: tuple[int, int] | None = None
    label: int = 0

    @property
    def width(self) -> int:
        """Bytes of a compared value."""
        return matching.width(*(self.whole or (self.receiver_rows, self.sender_rows)))


@dataclass(frozen=True, slots=True)
class Found:
    """What a party learnt: how many keys match and, unless it is a count only, which of its own (bool[keys]).

    order: int64[count], those keys in an order that both sides have, where both learn which: that of the table that
    was sent, so of pseudorandom values of this run's secret.
    labels: uint8[count, width], the other side's labels of those keys, in the order of ``mask``; where it sent any.
    """

    count: int
    mask: npt.NDArray[np.bool_] | None
    order: npt.NDArray[np.int64] | None = None
    labels: U8 | None = None


def receiver(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found]:
    """The party that learns. keys: uint8[receiver_rows, 32], distinct digests."""
    blinds = oprf.random_scalars(rng, p.receiver_rows)
    yield from send("blinded", point=oprf.blind(keys, blinds, Mode.OPRF, executor=executor))

    table = (yield from receive("table", value=table_values(p)))["value"]
    evaluated = (yield from receive("evaluated", releases=True, point=points(p.receiver_rows)))["point"]

    values = oprf.finalize(keys, blinds, evaluated, executor=executor)[:, : p.width]
    return (yield from concluded(values, table, p, executor))


def sender(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found | None]:
    """The party that helps; it learns the result only where ``p.answer``.

    keys: uint8[sender_rows, 32], distinct digests, touched only once the peer has spoken.
    """
    blinded = (yield from receive("blinded", point=points(p.receiver_rows)))["point"]

    secret = oprf.generate_key(rng)
    evaluated = oprf.evaluate(secret, blinded, executor=executor)
    values = oprf.evaluate_inputs(secret, keys, Mode.OPRF, executor=executor)[:, : p.width]
    order, table = matching.in_order(values)
    yield from send("table", value=table)
    yield from send("evaluated", releases=True, point=evaluated)
    return (yield from told(order, p))


def concluded(
    values: U8,
    table: U8,
    p: Params,
    executor: Executor | None = None,
    opened: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], U8] | None = None,
) -> Party[Found]:
    """How a receiver ends: its values looked up in the table and, where ``p.answer``, the answer sent.

    opened: from its keys that match, and their rows of the table, the labels.
    """
    matching.check_width(table, p.receiver_rows, p.sender_rows)
    where = matching.found_in_order(values, table, executor=executor)
    mask = where >= 0
    mine = np.flatnonzero(mask)
    labels = None if opened is None else opened(mine, where[mine])
    if not p.answer:
        return Found(len(mine), mask, labels=labels)
    yield from send("matched", releases=True, bits=found_bits(where[mine], p))
    return Found(len(mine), mask, mine[np.argsort(where[mine])], labels)


def told(order: npt.NDArray[np.int64], p: Params) -> Party[Found | None]:
    """How a sender ends: where ``p.answer``, it hears which rows of its table match. order: the key of each row."""
    if not p.answer:
        return None
    mask, mine = np.zeros(p.sender_rows, dtype=np.bool_), order[(yield from matched_rows(p))]
    mask[mine] = True
    return Found(len(mine), mask, mine)


def found_bits(rows: npt.NDArray[np.int64], p: Params) -> U8:
    """The receiver's answer: a bit for each row of the table, so that its size does not tell how many match."""
    inside = np.zeros(p.sender_rows, dtype=np.bool_)
    inside[rows] = True
    return np.packbits(inside)


def matched_rows(p: Params) -> Party[npt.NDArray[np.bool_]]:
    """The receiver's answer, checked: which rows of the table that was sent it found (bool[sender_rows])."""
    column = Column("u1", (-(-p.sender_rows // 8),))
    bits = np.unpackbits((yield from receive("matched", releases=True, bits=column))["bits"])
    if bits[p.sender_rows :].any() or bits.sum() > p.receiver_rows:
        raise RemoteProtocolError("the peer reported more matches than either side has keys")
    return bits[: p.sender_rows].astype(np.bool_)


def table_values(p: Params) -> Column:
    """The sender's values, cut to the width."""
    return Column("u1", (p.sender_rows, p.width))


def points(rows: int) -> Column:
    """A column of encoded group elements."""
    return Column("u1", (rows, POINT))
