"""psi.star.v1: which keys of one table three and more organisations all hold, and nothing of any two of them.

    hub (keys x)                                           leaf i of k - 1 (keys y)
                                         ◄───────   advertise   a signed public key
        roster      those of all leaves  ───────►                 → seeds with every other leaf
        ...the messages of psi.vole.v1, as far as they make F_i of x here, and F_i there...
                                         ◄───────   store       decodes y to F_i(y) + share_i(y)
        Σ_i Dec_i(x) + F_i(x) = Σ_i share_i(x) = 0 exactly for keys of all

F_i is an oblivious pseudorandom function that the hub has of its own keys and leaf i of any (``psi.vole``); share_i are
shares of zero (``psi.zero_sharing``). A programmable function for each leaf and a star of them: Kolesnikov, Matania,
Pinkas, Rosulek and Trieu, "Practical Multi-party Private Set Intersection from Symmetric-Key Techniques" (CCS 2017),
in its augmented semi-honest form, over the VOLE and the key-value store of Raghuraman and Rindal (CCS 2022).

What the hub sees of a key that some leaf lacks is random: that leaf's store decodes it to what nothing was written to,
and the shares of those that hold it are independent, for each contains a seed that only it and the leaf without it
have. So are the shares of any leaves but all, and who stops early has learnt nothing.

Adversary: semi-honest, and augmented: who colludes may also bring another set than its own. Leaves together, however
many, learn sizes. The hub together with some leaves learns which of its keys *all other* leaves hold: with two leaves,
the hub and one of them learn the hub's intersection with the other. A hub that cheats may test more keys than it
declared, as in ``psi.vole``, but cannot make or leave out a leaf: all are named in what each signs. A leaf that cheats
spoils or ends a star, and learns what a leaf does. Assumptions: those of ``psi.vole``, and computational
Diffie-Hellman on X25519. A key that some leaf lacks passes with probability 2⁻¹²⁸, any of n with
n·2⁻¹²⁸ at most. Memory accesses depend on a party's own keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels import OkvsShape
from trustcompute.primitives import okvs
from trustcompute.primitives.member import Member, Recognise
from trustcompute.primitives.parallel import map_rows
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import AtMost, Column, Message
from trustcompute.protocol.party import Party, send
from trustcompute.protocol.roster import advert_bytes, introducing, roster_bytes
from trustcompute.protocol.star import Coordinator, gather, in_step
from trustcompute.psi import vole, zero_sharing
from trustcompute.psi.ecdh import Found
from trustcompute.psi.matching import U8
from trustcompute.psi.zero_sharing import SHOWN, Holders

ID: Final = "psi.star.v1"
WIDTH: Final = 16  # bytes of a value: n·2⁻¹²⁸ for a wrong match among n keys is 2⁻⁹⁷ for the largest n
SEED: Final = 16  # the store's key
_ROWS: Final = 2**14


def suite(rows: int) -> vole.Suite:
    """The sizes of one leg, from the hub's number of keys."""
    return vole.Suite.for_keys(ID, rows, WIDTH)


def message_bytes(rows: int, leaf_rows: int, leaves: int) -> int:
    """The most bytes of all message bodies of one leg."""
    agreement = advert_bytes(SHOWN) + roster_bytes(leaves, SHOWN)
    return (
        agreement
        + vole.function_bytes(suite(rows))
        + vole.DIGEST
        + SEED
        + WIDTH * okvs.shape(leaf_rows).cells
    )


def leaf(
    about: Holders, member: Member, keys: U8, rng: Rng, *, executor: Executor | None = None
) -> Party[None]:
    """A holder. keys: uint8[m, 32], distinct digests, touched only once all messages of the hub are in."""
    about.place(member.name)
    shares = yield from zero_sharing.agreed(about, member, rng)
    function, sealing = yield from vole.function_of_own(suite(about.rows), rng, executor)
    seed = rng.array(SEED)  # after the keys are fixed
    store = programmed(keys, seed, partial(_shared, function=function, shares=shares), rng, executor)
    seen = np.frombuffer(vole.seal(sealing(), seed, store), dtype=np.uint8)
    yield from send("store", releases=True, seed=seed, value=store, seen=seen)


def hub(
    about: Holders,
    recognise: Recognise,
    keys: U8,
    sizes: Mapping[str, int],
    rngs: Mapping[str, Rng],
    *,
    executor: Executor | None = None,
) -> Coordinator[Found]:
    """The one in the middle, who learns. keys: uint8[about.rows, 32], distinct digests; sizes: distinct keys of
    every leaf, by name; rngs: a stream of its own for every leg."""
    leaves = about.parties
    yield from introducing(about, recognise, SHOWN, at_least=len(leaves))
    legs = {
        name: vole.evaluated_obliviously(keys, suite(about.rows), rngs[name], executor) for name in leaves
    }
    functions = yield from in_step(legs)
    total = np.zeros((about.rows, WIDTH), dtype=np.uint8)

    def add(name: str, got: Message) -> None:
        values, sealing = functions.pop(name)
        shape = okvs.shape(sizes[name])
        if len(got["value"]) != shape.cells:
            raise RemoteProtocolError(f"{name} sent a store of another size than its keys take")
        vole.check_seen(got["seen"], sealing(), got["seed"], got["value"])
        np.bitwise_xor(total, values, out=total)
        np.bitwise_xor(total, _decoded(keys, got["seed"], got["value"], shape, executor), out=total)

    largest = max(okvs.shape(rows).cells for rows in sizes.values())
    yield from gather(
        "store", leaves, at_least=len(leaves), take=add, releases=True,
        seed=Column("u1", (SEED,)), value=Column("u1", (AtMost(largest), WIDTH)),
        seen=Column("u1", (vole.DIGEST,)),
    )  # fmt: skip
    mask = np.logical_not(np.any(total, axis=1))
    return Found(int(mask.sum()), mask)


def programmed(keys: U8, seed: U8, values: Callable[[U8], U8], rng: Rng, executor: Executor | None) -> U8:
    """A store that decodes every key to its value and tells nothing else: uint8[cells, 16].

    Among all stores that do, each is as likely: cells that no equation needs would stay zero and show where no key is,
    so what is encoded is the difference to a random store.
    """
    shape, key = okvs.shape(len(keys)), seed.tobytes()
    store = rng.array(shape.cells * WIDTH).reshape(shape.cells, WIDTH)
    hashes = kernels.aes128_hash(key, keys)
    wanted = map_rows(values, keys, executor=executor, chunk=_ROWS)
    wanted ^= okvs.decode(hashes, store, key, shape, executor=executor)
    store ^= okvs.encode(hashes, wanted, key, shape, executor=executor)
    return store


def _shared(keys: U8, function: Callable[[U8], U8], shares: zero_sharing.Shares) -> U8:
    return function(keys) ^ shares.of(keys)


def _decoded(keys: U8, seed: U8, store: U8, shape: OkvsShape, executor: Executor | None) -> U8:
    key = seed.tobytes()
    return okvs.decode(kernels.aes128_hash(key, keys), store, key, shape, executor=executor)
