"""``aggregation.masked.v1``: sums that nobody can open alone, by masks that cancel. Drop-outs tolerated up to a
threshold.

Called by ``aggregate`` (all in one process) and by the node. K. Bonawitz et al., *Practical Secure Aggregation for
Privacy-Preserving Machine Learning* (CCS 2017), figure 4, with signatures of every party: each pair of parties
agrees on a mask that one adds and the other subtracts; each party adds a mask of its own; seeds of both are shared
among all, and of each party the shares of one are revealed, never of both. Fresh keys in every round.

Who cheats: the aggregator, in any way, together with fewer than a third of the parties, learns no more than one sum
over one set of at least ``threshold`` parties (docs/protocols/aggregation-masked.md). A contributor can spoil a
sum.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import Vector, add_noise, in_range, whole
from trustcompute.aggregation.pieces import Masked, add_up, cut, send_all
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import masks, shamir
from trustcompute.primitives import member as members
from trustcompute.primitives.masks import TAGS, Stream
from trustcompute.primitives.member import MAX_CERTIFICATE, Member, Recognise, agree
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import AtMost, Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.roster import (
    KEY,
    SIGNATURE,
    Assembly,
    Roster,
    array,
    introduced,
    introducing,
    places,
    subset,
)
from trustcompute.protocol.star import Coordinator, gather, message, scatter

ID: Final = "aggregation.masked.v1"
SEED: Final = 32
FORM: Final = {"mask_key": KEY, "box_key": KEY, "commitment": 32}
SECRETS: Final = (
    3 * SEED
)  # what a box holds: a share of the seed, a share of the mask key, a part of the tag key
BOX: Final = SECRETS + 16
_NONCE: Final = bytes(12)  # every box has a key of its own


def contributor(
    about: Round,
    member: Member,
    values: Callable[[], Vector],
    rng: Rng,
    cohorts: Cohorts,
) -> Party[I64 | None]:
    """One party. values: its vector, int64[spec.slots], called when the round begins; returns the sum where the
    specification reveals it to everyone."""
    me, vector = about.place(member.name), values()
    if len(vector) != about.spec.slots:
        raise LocalProtocolError("a contributor brings one integer for each slot")
    if about.spec.noise is not None:
        vector = noisy = whole(vector)
        add_noise(noisy, about.spec, about.threshold, rng)
    secrets = _Secrets.draw(rng)
    roster = yield from introduced(about, member, _shown(about, secrets))
    boxes, own = _seal(roster, me, secrets, rng)
    yield from send("shares", box=boxes)

    got = yield from receive("shared", releases=False, **_shared_shapes(len(roster.adverts)))
    sharing = subset(got["member"].tolist(), roster.adverts, "those who share")
    _check_enough(about, me, sharing)
    opened = _opened(roster, sharing, me, secrets, got["box"]) | {me: own}
    tag_key = _tag_key(roster, sharing, opened) if about.spec.reveal == "everyone" else b""
    pad = _pad(tag_key, member.name) if tag_key else np.empty(0, dtype=np.int64)
    streams = partial(_masks, roster, me, sharing, secrets)
    yield from send_all(Masked(vector, streams, tag_key, pad), member.name, passes=len(sharing))
    del vector

    got = yield from receive("survivors", member=Column("u1", (AtMost(len(sharing)),)))
    survivors = subset(got["member"].tolist(), sharing, "survivors")
    _check_enough(about, me, survivors)
    names = [about.parties[place] for place in survivors]
    cohorts.check(names, about.spec.min_parties)
    statement = _survivors_statement(roster, sharing, survivors)
    yield from send("signed", signature=array(member.key.sign(statement)))

    got = yield from receive("signatures", releases=False, **_signature_shapes(len(survivors)))
    _check_signatures(roster, survivors, statement, got)
    cohorts.admit(names, about.spec.min_parties)
    yield from send("unmask", releases=True, **_shares_to_reveal(sharing, survivors, opened))
    if about.spec.reveal != "everyone":
        return None

    opened_sum = np.empty(about.spec.slots + TAGS, dtype=np.int64)
    for start, stop in cut(len(opened_sum)):
        got = yield from receive("opened", value=Column("i8", (stop - start,)))
        opened_sum[start:stop] = got["value"]
    return _verified(about, survivors, tag_key, opened_sum)


def aggregator(about: Round, recognise: Recognise) -> Coordinator[tuple[I64, tuple[str, ...]]]:
    """The star's middle: relays, adds, opens. Returns the sums and whose they are."""
    enough, everyone = about.threshold, about.parties
    roster = yield from introducing(about, recognise, FORM, at_least=enough)
    count = len(roster.adverts)
    present = [everyone[place] for place in roster.adverts]
    boxes = yield from gather(
        "shares", present, at_least=enough, take=lambda _, got: got["box"], box=Column("u1", (count, BOX))
    )
    sharing = tuple(about.place(name) for name in boxes)
    rows = {place: row for row, place in enumerate(roster.adverts)}
    yield from scatter({
        name: message("shared", member=places(sharing),
                      box=np.stack([boxes[about.parties[other]][rows[about.place(name)]] for other in sharing]))
        for name in boxes
    })  # fmt: skip

    width = about.spec.slots + (TAGS if about.spec.reveal == "everyone" else 0)
    total = np.zeros(width, dtype=np.int64)
    names = yield from add_up(total, boxes, enough)
    survivors = tuple(about.place(name) for name in names)
    yield from scatter(dict.fromkeys(names, message("survivors", member=places(survivors))))

    statement = _survivors_statement(roster, sharing, survivors)
    signed = yield from gather(
        "signed", names, at_least=enough,
        take=lambda name, got: _checked_signature(roster, name, statement, got),
        signature=Column("u1", (SIGNATURE,)),
    )  # fmt: skip
    yield from scatter(dict.fromkeys(signed, message(
        "signatures", member=places([about.place(name) for name in signed]),
        signature=np.stack([array(one) for one in signed.values()]),
    )))  # fmt: skip

    shares = yield from gather(
        "unmask", signed, at_least=enough, releases=True,
        seed=Column("u1", (len(survivors), SEED)), key=Column("u1", (len(sharing) - len(survivors), KEY)),
    )  # fmt: skip
    _unmask(roster, sharing, survivors, {about.place(name): one for name, one in shares.items()}, total)
    sums = total[: about.spec.slots]
    if not in_range(sums, about.spec):
        raise VerificationError(
            "a sum lies outside what the specification allows: a contributor broke the protocol"
        )
    if about.spec.reveal == "everyone":
        for start, stop in cut(width):
            yield from scatter(dict.fromkeys(shares, message("opened", value=total[start:stop])))
    return sums, names


@dataclass(frozen=True)
class _Secrets:
    """Of one party in one round: private keys for masks and for boxes, the seed of its own mask, its part of the
    tag key."""

    mask: X25519PrivateKey = field(repr=False)
    box: X25519PrivateKey = field(repr=False)
    seed: bytes = field(repr=False)
    tag: bytes = field(repr=False)

    @classmethod
    def draw(cls, rng: Rng) -> _Secrets:
        keys = [X25519PrivateKey.from_private_bytes(rng.bytes(KEY)) for _ in range(2)]
        return cls(keys[0], keys[1], rng.bytes(SEED), rng.bytes(SEED))


def _shown(about: Round, secrets: _Secrets) -> dict[str, bytes]:
    return {
        "mask_key": secrets.mask.public_key().public_bytes_raw(),
        "box_key": secrets.box.public_key().public_bytes_raw(),
        "commitment": _commitment(about, secrets.seed),
    }


def _commitment(about: Assembly, seed: bytes) -> bytes:
    """Hiding, because a seed has 256 bits."""
    return hashlib.sha256(about.statement(b"seed", seed)).digest()


def _check_enough(about: Round, me: int, places: Sequence[int]) -> None:
    if me not in places or len(places) < about.threshold:
        raise RemoteProtocolError(
            f"{len(places)} parties are left, and {about.threshold} with us among them are needed: nothing is opened"
        )


def _box_key(roster: Roster, own: X25519PrivateKey, sender: int, recipient: int, peer: int) -> bytes:
    agreed = agree(own, roster.adverts[peer]["box_key"])
    info = roster.about.statement(b"box", roster.digest, bytes([sender, recipient]))
    return HKDF(hashes.SHA512(), length=32, salt=None, info=info).derive(agreed)


def _seal(roster: Roster, me: int, secrets: _Secrets, rng: Rng) -> tuple[U8, bytes]:
    """uint8[parties of the roster, BOX], for each its shares, encrypted, and our own, which stay: that row is empty."""
    count, own = len(roster.adverts), b""
    about = roster.about
    seeds = shamir.split(secrets.seed, len(about.parties), about.threshold, rng)
    keys = shamir.split(secrets.mask.private_bytes_raw(), len(about.parties), about.threshold, rng)
    boxes = np.zeros((count, BOX), dtype=np.uint8)
    for row, other in enumerate(roster.adverts):
        content = seeds[other].tobytes() + keys[other].tobytes() + secrets.tag
        if other == me:
            own = content
            continue
        key = _box_key(roster, secrets.box, me, other, other)
        boxes[row] = array(AESGCM(key).encrypt(_NONCE, content, roster.digest))
    return boxes, own


def _shared_shapes(count: int) -> dict[str, Column]:
    return {"member": Column("u1", (AtMost(count),)), "box": Column("u1", (AtMost(count), BOX))}


def _opened(
    roster: Roster, sharing: Sequence[int], me: int, secrets: _Secrets, boxes: U8
) -> dict[int, bytes]:
    """What every other party sealed for us."""
    if len(boxes) != len(sharing):
        raise RemoteProtocolError("the shares are not as many as those who share")
    pairs = zip(sharing, boxes, strict=True)
    return {place: _open(roster, place, me, secrets, box) for place, box in pairs if place != me}


def _open(roster: Roster, sender: int, me: int, secrets: _Secrets, box: U8) -> bytes:
    key = _box_key(roster, secrets.box, sender, me, sender)
    try:
        return AESGCM(key).decrypt(_NONCE, box.tobytes(), roster.digest)
    except InvalidTag:
        raise RemoteProtocolError(
            f"the shares from {roster.about.parties[sender]} were altered on their way"
        ) from None


def _pair(about: Assembly, own: X25519PrivateKey, own_public: bytes, other: bytes) -> Stream:
    """The mask two parties agree on."""
    first, second = sorted([own_public, other])
    return Stream(agree(own, other), about.statement(b"pair", first, second))


def _self(about: Assembly, seed: bytes) -> Stream:
    return Stream(seed, about.statement(b"self"))


def _masks(
    roster: Roster, me: int, sharing: Sequence[int], secrets: _Secrets
) -> tuple[list[Stream], list[Stream]]:
    """Streams that one party adds to its vector, and that it takes off it."""
    about, public = roster.about, roster.adverts[me]["mask_key"]
    pairs = {j: _pair(about, secrets.mask, public, roster.adverts[j]["mask_key"]) for j in sharing if j != me}
    added = [_self(about, secrets.seed)] + [stream for j, stream in pairs.items() if j > me]
    return added, [stream for j, stream in pairs.items() if j < me]


def _tag_key(roster: Roster, sharing: Sequence[int], opened: Mapping[int, bytes]) -> bytes:
    """A key that every contributor has and the aggregator has not: all brought a part of it."""
    parts = b"".join(opened[place][2 * SEED :] for place in sharing)
    info = b"tag key" + roster.digest + bytes(sharing)
    return HKDF(hashes.SHA512(), length=32, salt=None, info=info).derive(parts)


def _pad(tag_key: bytes, name: str) -> I64:
    """What hides one party's tags: used once."""
    return Stream(tag_key, b"pad " + name.encode()).next(TAGS, masks.room())


def _survivors_statement(roster: Roster, sharing: Sequence[int], survivors: Sequence[int]) -> bytes:
    return roster.about.statement(b"survivors", roster.digest, bytes(sharing), bytes(survivors))


def _signature_shapes(count: int) -> dict[str, Column]:
    return {"member": Column("u1", (AtMost(count),)), "signature": Column("u1", (AtMost(count), SIGNATURE))}


def _check_signatures(roster: Roster, survivors: Sequence[int], statement: bytes, got: Message) -> None:
    about = roster.about
    signers = subset(got["member"].tolist(), survivors, "signers")
    if len(signers) < about.threshold or len(got["signature"]) != len(signers):
        raise RemoteProtocolError(
            f"{len(signers)} parties signed who survives, and {about.threshold} are needed: nothing is opened"
        )
    for place, signature in zip(signers, got["signature"], strict=True):
        members.verify(roster.keys[place], signature.tobytes(), statement, about.parties[place])


def _checked_signature(roster: Roster, name: str, statement: bytes, got: Message) -> bytes:
    signature = got["signature"].tobytes()
    members.verify(roster.keys[roster.about.place(name)], signature, statement, name)
    return signature


def _shares_to_reveal(
    sharing: Sequence[int], survivors: Sequence[int], opened: Mapping[int, bytes]
) -> dict[str, U8]:
    """Of each survivor a share of its seed, of everyone else a share of its mask key: never both of one."""
    alive = set(survivors)
    seeds = [array(opened[place][:SEED]) for place in sharing if place in alive]
    keys = [array(opened[place][SEED : 2 * SEED]) for place in sharing if place not in alive]
    return {
        "seed": np.stack(seeds),
        "key": np.stack(keys) if keys else np.empty((0, KEY), dtype=np.uint8),
    }


def _unmask(
    roster: Roster,
    sharing: Sequence[int],
    survivors: Sequence[int],
    shares: Mapping[int, Message],
    total: I64,
) -> None:
    """Take every mask off the total that no other one cancels, in place."""
    about = roster.about
    holders = sorted(shares)[: about.threshold]
    recovery = shamir.Recovery(holders)
    gone = [place for place in sharing if place not in set(survivors)]
    taken: list[Stream] = []
    added: list[Stream] = []
    for row, place in enumerate(survivors):
        seed = recovery.recover(np.stack([shares[holder]["seed"][row] for holder in holders]))
        if not hmac.compare_digest(_commitment(about, seed), roster.adverts[place]["commitment"]):
            raise _wrong_shares(about, place)
        taken.append(_self(about, seed))
    for row, place in enumerate(gone):
        secret = recovery.recover(np.stack([shares[holder]["key"][row] for holder in holders]))
        own, public = X25519PrivateKey.from_private_bytes(secret), roster.adverts[place]["mask_key"]
        if own.public_key().public_bytes_raw() != public:
            raise _wrong_shares(about, place)
        for other in survivors:  # who added what it shares with the one that is gone, or took it off
            stream = _pair(about, own, public, roster.adverts[other]["mask_key"])
            (taken if other < place else added).append(stream)
    masks.apply(total, added, taken)


def _wrong_shares(about: Assembly, place: int) -> VerificationError:
    return VerificationError(
        f"the shares of {about.parties[place]}'s secret do not fit what it had committed to: a party sent a wrong one"
    )


def _verified(about: Round, survivors: Sequence[int], tag_key: bytes, opened: I64) -> I64:
    """The opened sum, if its tags are those of the contributors."""
    sums, shown = opened[: about.spec.slots], opened[about.spec.slots :]
    expected = masks.tags(sums, tag_key)
    for place in survivors:
        expected += _pad(tag_key, about.parties[place])
    if not hmac.compare_digest(expected.tobytes(), shown.tobytes()) or not in_range(sums, about.spec):
        raise RemoteProtocolError("the sum that was opened is not the sum of what the contributors sent")
    return sums


def message_bytes(spec: Spec, parties: int) -> int:
    """The most bytes of message bodies of one contributor's exchange: a function of what is declared. Pieces that are
    sent again, because somebody vanished, are not counted."""
    advert = MAX_CERTIFICATE + sum(FORM.values()) + SIGNATURE
    width = 8 * (spec.slots + (TAGS if spec.reveal == "everyone" else 0))
    per_party = (advert + 9) + 2 * BOX + 1 + 1 + (1 + SIGNATURE) + KEY + SEED
    opened = 8 * (spec.slots + TAGS) if spec.reveal == "everyone" else 0
    asked = 8 * (len(cut(width // 8)) + 1)
    return advert + parties * per_party + SIGNATURE + width + asked + opened
