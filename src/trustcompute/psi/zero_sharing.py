"""Shares of zero of every key, that no messages agree on: pairs of holders agree on a seed each, once.

Called by ``psi.star``. Every holder shows the others a public key, signed under its certificate (``protocol.roster``).
Two of them derive one seed from theirs; a holder's share of a key is the sum of a pseudorandom function of the key
under all its seeds. Each seed is in two shares, so that the shares of all holders add up to zero; whoever lacks the
seed that two holders have cannot tell their shares from random ones.

Kolesnikov, Matania, Pinkas, Rosulek and Trieu, "Practical Multi-party Private Set Intersection from Symmetric-Key
Techniques" (CCS 2017): the unconditional zero sharing. The function is AES-128 chained over the two blocks of a key's
digest (``kernels.aes128_hash``): told from a random one with advantage at most 2q²·2⁻¹²⁸ over AES after q keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trustcompute import kernels
from trustcompute.primitives import canonical
from trustcompute.primitives.member import Member, agree
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.party import Party
from trustcompute.protocol.roster import Assembly, Roster, introduced
from trustcompute.psi.matching import U8

KEY: Final = 32
SHOWN: Final = {"key": KEY}  # what a holder advertises
SEED: Final = 16
_DOMAIN: Final = b"trustcompute psi star v1\n"


@dataclass(frozen=True)
class Holders(Assembly):
    """The leaves of one star. parties: their names, in order; session: 16 bytes that nobody uses again; keys: the
    digest of the key specification all of them use; rows: distinct keys of the hub."""

    parties: tuple[str, ...]
    session: bytes
    keys: str
    rows: int

    @property
    def threshold(self) -> int:
        return len(self.parties)

    @cached_property
    def context(self) -> bytes:
        about = {
            "keys": self.keys,
            "parties": list(self.parties),
            "rows": self.rows,
            "session": self.session.hex(),
        }
        return hashlib.sha256(_DOMAIN + canonical.dumps(about)).digest()


@dataclass(frozen=True)
class Shares:
    """One holder's seeds, one for each other holder."""

    seeds: Sequence[bytes] = field(repr=False)

    def of(self, keys: U8) -> U8:
        """This holder's shares: uint8[n, 32] -> uint8[n, 16]."""
        first, *others = self.seeds
        total = kernels.aes128_hash(first, keys)
        for seed in others:
            total ^= kernels.aes128_hash(seed, keys)
        return total


def agreed(about: Holders, member: Member, rng: Rng) -> Party[Shares]:
    """A holder's part of agreeing, through a middle that only passes on: two messages."""
    own = X25519PrivateKey.from_private_bytes(rng.bytes(KEY))
    roster = yield from introduced(about, member, {"key": own.public_key().public_bytes_raw()})
    others = [advert["key"] for place, advert in roster.adverts.items() if place != about.place(member.name)]
    return Shares([_seed(roster, own, public) for public in others])


def _seed(roster: Roster, own: X25519PrivateKey, public: bytes) -> bytes:
    """The same for both: the roster's digest names all keys, the agreement those of the two."""
    info = roster.about.statement(b"seed", roster.digest)
    return HKDF(hashes.SHA512(), length=SEED, salt=None, info=info).derive(agree(own, public))
