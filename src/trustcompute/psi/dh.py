"""psi.dh.v1: set intersection by Diffie–Hellman in bulk, with blinds that are added and not multiplied.

The receiver learns which of its keys the sender holds; the sender learns how many keys the receiver has.

    receiver (keys x)                                sender (keys y, fresh secret k)
        blinded    2·(H(xᵢ) + rᵢ·G)      ───────►
                                         ◄───────    table      H'(4k·H(y)), truncated, sorted
                                         ◄───────    public     2k·G
                                         ◄───────    evaluated  k·blindedᵢ
        H'(2·(evaluatedᵢ - rᵢ·public)) = H'(4k·H(xᵢ)), looked up in the table
        matched    a bit per table row   ───────►    (only when both sides shall know)

Multiples of G and of 2k·G come from tables of their multiples and cost a quarter of a multiplication, so the receiver
does half of one a key where blinds that are multiplied cost it two. Everything is sent doubled: doubles
are encoded without square roots.

Blinding by addition: Jarecki, Krawczyk and Xu, "On the (In)Security of the Diffie-Hellman Oblivious PRF with
Multiplicative Blinding" (PKC 2021), which shows why it is for semi-honest senders: one that answers with another
multiple of G than of its table makes outputs depend on the blinds. Matching by Diffie–Hellman: Huberman, Franklin
and Hogg, "Enhancing Privacy and Trust in Electronic Communities" (EC 1999).

Adversary: semi-honest, either one. The receiver's keys are hidden perfectly, whatever the sender computes. The
sender's: decisional Diffie–Hellman on ristretto255 and a random oracle H, about 126 bits; at least 40 bits
statistical security (``matching.width``). The secret serves one job, so two jobs cannot be linked by their tables.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.primitives import ristretto255
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching
from trustcompute.psi.ecdh import Found, Params, concluded, points, table_values, told
from trustcompute.psi.matching import U8

DST: Final = b"trustcompute psi.dh.v1 hash to group"  # separates H from every other use of the group
LABEL: Final = b"trustcompute psi.dh.v1 matched value".ljust(64, b"\0")  # separates H'; one block of SHA-256


def receiver(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found]:
    """The party that learns. keys: uint8[receiver_rows, 32], distinct digests."""
    blinds = ristretto255.random_scalars(rng, p.receiver_rows)
    yield from send("blinded", point=ristretto255.hash_and_blind(keys, DST, blinds, executor=executor))

    table = (yield from receive("table", value=table_values(p)))["value"]
    public = (yield from receive("public", point=points(1)))["point"]
    evaluated = (yield from receive("evaluated", releases=True, point=points(p.receiver_rows)))["point"]

    elements = ristretto255.unblind(evaluated, public, blinds, name="evaluated elements", executor=executor)
    return (yield from concluded(values(elements, p, executor), table, p, executor))


def sender(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found | None]:
    """The party that helps; it learns the result only where ``p.answer``.

    keys: uint8[sender_rows, 32], distinct digests, touched only once the peer has spoken.
    """
    blinded = (yield from receive("blinded", point=points(p.receiver_rows)))["point"]

    secret = ristretto255.random_scalars(rng, 1)  # k
    twice, four_times = (kernels.scalar255_mul(secret, _small(factor)) for factor in (2, 4))
    evaluated = ristretto255.multiply(blinded, secret, name="blinded elements", executor=executor)
    elements = ristretto255.hash_and_multiply(keys, DST, four_times, executor=executor)
    order, table = matching.in_order(values(elements, p, executor))
    yield from send("table", value=table)
    yield from send("public", point=kernels.ristretto255_mul_base(twice))
    yield from send("evaluated", releases=True, point=evaluated)
    return (yield from told(order, p))


def values(elements: U8, p: Params, executor: Executor | None) -> U8:
    """H' of group elements (uint8[n, 32])."""
    return matching.compared(elements, LABEL, p.width, executor=executor)


def _small(factor: int) -> U8:
    return np.frombuffer(factor.to_bytes(32, "little"), dtype=np.uint8).reshape(1, 32)
