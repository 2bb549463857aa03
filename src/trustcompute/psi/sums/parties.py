"""psi.sum.v1: sums of the provider's columns over the keys both sides hold, and how many these are, but not which.

    consumer (keys x, fresh secret r)                provider (keys y with values v, fresh secret k, fresh RLWE key)
        asked      r·H(x), shuffled      ───────►
                                         ◄───────    held       k·H(y), shuffled
                                         ◄───────    table      the values encrypted, in the same order
        compared   H'(r·k·H(y)), sorted  ───────►
                                                     H'(k·r·H(x)), looked up: how many match
                                         ◄───────    matched    which of the sorted rows, if they are enough
        chosen     their sums, masked    ───────►
                                                     decrypted; groups too small are left out; noise is added
                                         ◄───────    sums       still masked
        the mask is taken off

Matching by commuting secrets: Huberman, Franklin and Hogg, "Enhancing Privacy and Trust in Electronic Communities" (EC
1999). Sums over matches under additive encryption: M. Ion et al., "On Deploying Secure Computing: Private
Intersection-Sum-with-Cardinality" (EuroS&P 2020); here under ring-LWE (``primitives.chosen_sums``). That the provider
matches, and not who learns, is so that a set of fewer keys than the least group is told nothing, not even how many.

Adversary: semi-honest, either one. Assumptions: decisional Diffie–Hellman on ristretto255, SHA-256 as a random oracle,
ring-LWE; about 126 bits for keys, 108 at least for values (``Suite.core_svp``), 40 bits statistical for matching
(``matching.width``) and 40 for the noise of encryption. The provider learns the count, and that of each listed group.
A consumer that deviates can choose other rows than those that match, and learn the values of a few.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from math import prod
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import chosen_sums, ristretto255
from trustcompute.primitives.chosen_sums import SEED, Choice, SecretKey, Shape
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column, Message
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching
from trustcompute.psi.ecdh import points
from trustcompute.psi.sums.terms import Terms

DST: Final = b"trustcompute psi.sum.v1 hash to group"  # separates H from every other use of the group
LABEL: Final = b"trustcompute psi.sum.v1 matched value".ljust(64, b"\0")  # separates H'; one block of SHA-256


@dataclass(frozen=True, eq=False)
class Holder:
    """The provider's input. keys: uint8[m, 32], distinct digests; cells: int64[m, ``terms.slots``], of each key."""

    keys: U8 = field(repr=False)
    cells: I64 = field(repr=False)


@dataclass(frozen=True, slots=True)
class GroupSum:
    """What is told of one group: its count and, in units of the columns' scales, its sums, in their order."""

    count: int
    sums: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Summed:
    """What the consumer learnt. count: of keys that match; groups: in the order of the terms, None where too few match.

    count is None where fewer keys match than the least group: then nothing else was told.
    """

    count: int | None
    groups: tuple[GroupSum | None, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """What the provider learnt. groups: how many keys match in each listed group, where there are groups and enough."""

    count: int
    groups: tuple[int, ...]


def message_bytes(terms: Terms, sizes: Sizes) -> int:
    """Bytes of all message bodies: a function of what is declared."""
    n, m, of = sizes.consumer, sizes.provider, terms.shape(sizes.consumer, sizes.provider)
    compared = m * matching.width(n, m) + -(-m // 8) + 1
    encrypted = SEED + prod(of.table_shape) + prod(of.chosen_shape)
    told = len(terms.groups) * (8 + 1 + len(terms.values) * of.answer_width)
    return ristretto255.WIDTH * (n + m) + compared + encrypted + told


def consumer(
    keys: U8, terms: Terms, sizes: Sizes, rng: Rng, executor: Executor | None = None
) -> Party[Summed]:
    """The party that learns. keys: uint8[sizes.consumer, 32], distinct digests."""
    of, m = terms.shape(sizes.consumer, sizes.provider), sizes.provider
    secret = ristretto255.random_scalars(rng, 1)  # r
    asked = ristretto255.hash_and_multiply(keys, DST, secret, executor=executor)
    yield from send("asked", point=asked[rng.permutation(sizes.consumer)])

    held = (yield from receive("held", point=points(m)))["point"]
    table = yield from receive("table", seed=Column("u1", (SEED,)), body=Column("u1", of.table_shape))
    both = ristretto255.multiply(held, secret, name="held elements", executor=executor)
    order, compared = matching.in_order(_values(both, sizes, executor))
    yield from send("compared", value=compared)

    count, matched = yield from _matched(terms, sizes)
    if count is None:
        return Summed(None, ())
    chosen, choice = chosen_sums.choose(
        of, (table["seed"], table["body"]), order[matched], open_slots=_counts(terms), rng=rng
    )
    yield from send("chosen", sum=chosen)
    groups, columns = len(terms.groups), len(terms.values)
    told = yield from receive(
        "sums",
        releases=True,
        shown=Column("u1", (groups,)),
        count=Column("i8", (groups,)),
        sum=Column("u1", (groups, columns, of.answer_width)),
    )
    found = (_group(terms, choice, at, count, told) for at in range(groups))
    return Summed(count, tuple(found))


def provider(
    hold: Callable[[], Holder], terms: Terms, sizes: Sizes, rng: Rng, executor: Executor | None = None
) -> Party[Counted]:
    """The party that holds the values. hold: called for its input once the peer has spoken."""
    n, m, of = sizes.consumer, sizes.provider, terms.shape(sizes.consumer, sizes.provider)
    asked = (yield from receive("asked", point=points(n)))["point"]

    holder = hold()
    secret, key = ristretto255.random_scalars(rng, 1), chosen_sums.keygen(of, rng)  # k, s
    shuffled = rng.permutation(m)
    held = ristretto255.hash_and_multiply(holder.keys[shuffled], DST, secret, executor=executor)
    seed, body = chosen_sums.encrypt(key, holder.cells[shuffled], rng)
    both = ristretto255.multiply_ahead(asked, secret, name="asked elements", executor=executor)
    yield from send("held", point=held)
    yield from send("table", seed=seed, body=body)

    compared = (yield from receive("compared", value=Column("u1", (m, matching.width(n, m)))))["value"]
    matching.check_width(compared, n, m)
    matched = np.zeros(m, dtype=np.bool_)
    where = matching.found_in_order(_values(both(), sizes, executor), compared)
    matched[where[where >= 0]] = True
    count = int(matched.sum())
    enough = count >= terms.min_group
    yield from send(
        "matched",
        releases=True,
        enough=np.array([enough], dtype=np.uint8),
        bits=np.packbits(matched & enough),
    )
    if not enough:
        return Counted(count, ())

    column = Column("u1", of.chosen_shape)
    chosen = (yield from receive("chosen", sum=column))["sum"]
    slots = chosen_sums.decrypt(key, chosen)
    counts = _group_counts(terms, of, slots, count)
    yield from send("sums", releases=True, **_told(terms, key, slots, counts, rng))
    return Counted(count, tuple(counts) if terms.counted else ())


def _values(elements: U8, sizes: Sizes, executor: Executor | None) -> U8:
    """H' of group elements."""
    width = matching.width(sizes.consumer, sizes.provider)
    return matching.compared(elements, LABEL, width, executor=executor)


def _matched(terms: Terms, sizes: Sizes) -> Party[tuple[int | None, npt.NDArray[np.bool_]]]:
    """How many keys match, None for too few, and which of the sorted rows."""
    m = sizes.provider
    message = yield from receive(
        "matched", releases=True, enough=Column("u1", (1,)), bits=Column("u1", (-(-m // 8),))
    )
    bits = np.unpackbits(message["bits"])
    count, enough = int(bits.sum()), int(message["enough"][0])
    least = terms.min_group if enough else 0
    most = min(sizes.consumer, m) if enough else 0
    if enough > 1 or bits[m:].any() or not least <= count <= most:
        raise RemoteProtocolError("the peer reported a number of matches that cannot be")
    return (count if enough else None), bits[:m].astype(np.bool_)


def _counts(terms: Terms) -> npt.NDArray[np.bool_]:
    """bool[slots]: those the provider is to see."""
    seen = np.zeros((len(terms.groups), terms.slots // len(terms.groups)), dtype=np.bool_)
    seen[:, 0] = terms.counted
    return seen.reshape(-1)


def _group_counts(terms: Terms, of: Shape, slots: list[int], count: int) -> list[int]:
    """How many keys match in each group."""
    if not terms.counted:
        return [count]
    counts = [chosen_sums.opened(of, slots[at]) for at in np.flatnonzero(_counts(terms))]
    if not all(0 <= one <= count for one in counts):
        raise RemoteProtocolError("the peer chose other rows than those that match")
    return counts


def _sum_slots(terms: Terms, group: int) -> range:
    each = terms.slots // len(terms.groups)
    return range(group * each + terms.counted, (group + 1) * each)


def _told(
    terms: Terms, key: SecretKey, slots: list[int], counts: list[int], rng: Rng
) -> dict[str, npt.NDArray[np.uint8] | I64]:
    """The columns of ``sums``: nothing of a group with too few keys."""
    groups, columns, width = len(terms.groups), len(terms.values), key.shape.answer_width
    shown = np.array([count >= terms.min_group for count in counts], dtype=np.uint8)
    told = np.zeros((groups, columns, width), dtype=np.uint8)
    for group in np.flatnonzero(shown):
        masked = [slots[at] for at in _sum_slots(terms, int(group))]
        noise = [
            0 if terms.noise is None else terms.noise.draw(bounds, columns, rng)
            for bounds in terms.values.values()
        ]
        told[group] = chosen_sums.rounded(key.shape, masked, noise)
    return {"shown": shown, "count": np.array(counts, dtype=np.int64) * shown, "sum": told}


def _group(terms: Terms, choice: Choice, at: int, whole: int, told: Message) -> GroupSum | None:
    """What was told of a group, checked against what can be."""
    count = int(told["count"][at])
    if not told["shown"][at]:
        return None
    sums = tuple(
        chosen_sums.unmask(choice, slot, told["sum"][at, column])
        for column, slot in enumerate(_sum_slots(terms, at))
    )
    possible = terms.min_group <= count <= whole and (terms.counted or count == whole)
    for total, (name, bounds) in zip(sums, terms.values.items(), strict=True):
        tail = terms.tail(name)
        possible &= count * bounds.least - tail <= total <= count * bounds.most + tail
    if not possible:
        raise RemoteProtocolError("the peer told a count or a sum that its own bounds rule out")
    return GroupSum(count, sums)
