"""psi.ecdh.v1, output ``count``: how many keys two sides share, and not which.

    receiver (keys x, fresh secret r)                sender (keys y, fresh secret k)
        blinded    r·H(x)                ───────►
                                         ◄───────    table      H'(k·H(y)), truncated, sorted
                                         ◄───────    evaluated  k·r·H(x), shuffled
        how many of H'(r⁻¹ · evaluated) are in the table
        count                            ───────►    (only when both sides shall know)

One secret blinds all keys, so the receiver can take it off without knowing which key an element came from:
Huberman, Franklin and Hogg, "Enhancing Privacy and Trust in Electronic Communities" (EC 1999); De Cristofaro,
Gasti and Tsudik, "Fast and Private Computation of Cardinality of Set Intersection and Union" (CANS 2012).

Adversary: semi-honest, either one. Assumptions: decisional Diffie–Hellman on ristretto255, SHA-512 as a random
oracle; about 126 bits computational and at least 40 bits statistical security. Leakage: sizes and the count.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.primitives import ristretto255
from trustcompute.primitives.parallel import map_rows
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching
from trustcompute.psi.ecdh import Found, Params, points
from trustcompute.psi.matching import U8

DST: Final = b"trustcompute psi.ecdh.v1 count"  # separates H from every other use of the group


def receiver(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found]:
    """The party that counts. keys: uint8[receiver_rows, 32], distinct digests."""
    blind = ristretto255.random_scalars(rng, 1)
    yield from send("blinded", point=ristretto255.hash_and_multiply(keys, DST, blind, executor=executor))

    table = (yield from receive("table", value=Column("u1", (p.sender_rows, p.width))))["value"]
    evaluated = (yield from receive("evaluated", releases=True, point=points(p.receiver_rows)))["point"]

    unblind = kernels.scalar255_invert(blind)
    elements = ristretto255.multiply(evaluated, unblind, name="evaluated elements", executor=executor)
    matching.check_width(table, p.receiver_rows, p.sender_rows)
    count = int((matching.found_in_order(values(elements, p, executor), table) >= 0).sum())
    if p.answer:
        yield from send("count", releases=True, value=np.array([count], dtype=np.int64))
    return Found(count, None)


def sender(keys: U8, p: Params, rng: Rng, executor: Executor | None = None) -> Party[Found | None]:
    """The party that helps; it learns the count only where ``p.answer``. keys: uint8[sender_rows, 32], distinct."""
    blinded = (yield from receive("blinded", point=points(p.receiver_rows)))["point"]

    secret = ristretto255.random_scalars(rng, 1)
    evaluated = ristretto255.multiply(blinded, secret, name="blinded elements", executor=executor)
    elements = ristretto255.hash_and_multiply(keys, DST, secret, executor=executor)
    _, table = matching.in_order(values(elements, p, executor))
    yield from send("table", value=table)
    yield from send("evaluated", releases=True, point=evaluated[rng.permutation(p.receiver_rows)])

    if not p.answer:
        return None
    count = int((yield from receive("count", releases=True, value=Column("i8", (1,))))["value"][0])
    if not 0 <= count <= min(p.receiver_rows, p.sender_rows):
        raise RemoteProtocolError("the peer reported more matches than either side has keys")
    return Found(count, None)


def values(elements: U8, p: Params, executor: Executor | None) -> U8:
    """H' of group elements (uint8[n, 32]): the Finalize hash of RFC 9497 with an empty input, cut to the width."""
    nothing = np.empty((len(elements), 0), dtype=np.uint8)
    return map_rows(kernels.oprf_finalize, nothing, elements, executor=executor)[:, : p.width]
