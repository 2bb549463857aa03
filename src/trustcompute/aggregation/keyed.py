"""Sums under a key: contributors encrypt for a key holder, an aggregator that cannot decrypt adds, the key holder
opens.

Called by ``aggregate`` and by the node. One star for every ``Cipher`` (``paillier``, ``rlwe``, ``seal``): the
aggregator in the middle, the key holder and the contributors around it. Contributors need not meet: each says one
thing, once.

Who cheats: nobody (all follow the protocol), and aggregator and key holder do not tell each other what they see. An
aggregator that sends one ciphertext as a sum makes the key holder open it; a key holder that gets at single
ciphertexts opens them (docs/protocols/aggregation-keyed.md). Where that is too much to ask, use ``masked``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import Vector, add_noise, in_range, whole
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import member as members
from trustcompute.primitives.member import MAX_CERTIFICATE, Member, Recognise
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.message import AtMost, Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.roster import SIGNATURE, array, places, subset
from trustcompute.protocol.star import Coordinator, gather, message, scatter

LEG: Final = "key holder"
"""The key holder among the star's peers, whatever its name: it may bring data too, as a peer of its own."""

Opener = Callable[[U8, int], I64]
"""(a sum of so many ciphertexts, how many) -> int64[slots]. Holds a secret key."""


class Adder(Protocol):
    """Adds ciphertexts without opening them."""

    def add(self, ciphertext: U8) -> None:
        """Raises ``RemoteProtocolError`` for what is no ciphertext, before it is added."""

    def total(self) -> U8: ...


class Cipher(Protocol):
    """One scheme, fitted to one specification. Sizes are functions of the specification."""

    id: str
    key_bytes: int
    ciphertext_bytes: int

    def generate(self, rng: Rng) -> tuple[bytes, Opener]:
        """A fresh public key, at most ``key_bytes``, and what opens sums under it."""

    def encrypt(self, key: bytes, values: I64, rng: Rng) -> U8:
        """uint8[ciphertext_bytes]. Raises ``RemoteProtocolError`` for what is no key."""

    def adder(self, key: bytes) -> Adder: ...


@dataclass(frozen=True)
class Roles:
    """Who adds and who opens: names, and the aggregator's public key (``VerifyKey.x``). Never one key for both."""

    aggregator: str
    aggregator_key: str
    holder: str


def contributor(
    about: Round, member: Member, roles: Roles, cipher: Cipher, *, values: Callable[[], Vector], rng: Rng
) -> Party[None]:
    """One party. values: its vector, int64[spec.slots]."""
    about.place(member.name)
    vector = whole(values())
    if len(vector) != about.spec.slots:
        raise LocalProtocolError("a contributor brings one integer for each slot")
    add_noise(vector, about.spec, about.threshold, rng)
    yield from send("ready")
    got = yield from receive("key", releases=False, **_key_shapes(cipher))
    key = _verified_key(got, about, roles, cipher, member.recognise)
    yield from send("encrypted", releases=True, value=cipher.encrypt(key, vector, rng))


def key_holder(
    about: Round, member: Member, roles: Roles, cipher: Cipher, *, rng: Rng, cohorts: Cohorts
) -> Party[tuple[I64, tuple[str, ...]]]:
    """Makes the key, opens one sum. cohorts: of which parties it has opened sums before."""
    _check_apart(roles, member.key.public)
    key, opener = cipher.generate(rng)
    signature = member.key.sign(_key_statement(about, roles, cipher, key))
    yield from send("key", certificate=array(member.certificate), key=array(key), signature=array(signature))
    got = yield from receive(
        "summed",
        member=Column("u1", (AtMost(len(about.parties)),)),
        value=Column("u1", (cipher.ciphertext_bytes,)),
    )
    survivors = subset(got["member"].tolist(), range(len(about.parties)), "survivors")
    if len(survivors) < about.threshold:
        raise RemoteProtocolError(
            f"{len(survivors)} parties are left, and {about.threshold} are needed: nothing is opened"
        )
    names = tuple(about.parties[place] for place in survivors)
    cohorts.admit(names, about.spec.min_parties)
    sums = opener(np.asarray(got["value"]), len(survivors))
    if not in_range(sums, about.spec):
        raise VerificationError(
            "a sum lies outside what the specification allows: a contributor broke the protocol"
        )
    yield from send("opened", releases=True, value=sums)
    return sums, names


def aggregator(
    about: Round, roles: Roles, cipher: Cipher, recognise: Recognise
) -> Coordinator[tuple[I64, tuple[str, ...]]]:
    """The star's middle: adds what it cannot read. Returns the sums, as the key holder opened them, and whose."""
    enough = about.threshold
    shown = yield from gather(
        "key", [LEG], at_least=1, take=lambda _, got: got, releases=False, **_key_shapes(cipher)
    )
    key = _verified_key(shown[LEG], about, roles, cipher, recognise)
    ready = yield from gather("ready", about.parties, at_least=enough)
    yield from scatter(dict.fromkeys(ready, shown[LEG]))
    adder = cipher.adder(key)

    def add(_: str, got: Message) -> bool:
        adder.add(got["value"])
        return True

    names = yield from gather(
        "encrypted", ready, at_least=enough, take=add, releases=True,
        value=Column("u1", (cipher.ciphertext_bytes,)),
    )  # fmt: skip
    survivors = [about.place(name) for name in names]
    yield from scatter({LEG: message("summed", member=places(survivors), value=adder.total())})
    opened = yield from gather(
        "opened", [LEG], at_least=1, releases=True, value=Column("i8", (about.spec.slots,))
    )
    sums = np.array(opened[LEG]["value"])
    if not in_range(sums, about.spec):
        raise VerificationError("the key holder opened a sum outside what the specification allows")
    return sums, tuple(names)


def _key_shapes(cipher: Cipher) -> dict[str, Column]:
    return {
        "certificate": Column("u1", (AtMost(MAX_CERTIFICATE),)),
        "key": Column("u1", (AtMost(cipher.key_bytes),)),
        "signature": Column("u1", (SIGNATURE,)),
    }


def _key_statement(about: Round, roles: Roles, cipher: Cipher, key: bytes) -> bytes:
    named = (roles.holder, roles.aggregator, roles.aggregator_key, cipher.id)
    return about.statement(b"key", *(one.encode() for one in named), key)


def _check_apart(roles: Roles, holder: VerifyKey) -> None:
    if roles.holder == roles.aggregator or holder.x == roles.aggregator_key:
        raise RemoteProtocolError("whoever adds up must not open: the key holder is the aggregator itself")


def _verified_key(got: Message, about: Round, roles: Roles, cipher: Cipher, recognise: Recognise) -> bytes:
    """The key, if the key holder that was named signed it for this round: not one that an aggregator made."""
    try:
        name, public = recognise(got["certificate"].tobytes())
    except VerificationError as error:
        raise RemoteProtocolError(f"the key holder cannot be recognised: {error}") from error
    if name != roles.holder:
        raise RemoteProtocolError(f"the key is of {name}, and {roles.holder} was agreed to hold it")
    _check_apart(roles, public)
    key = got["key"].tobytes()
    members.verify(public, got["signature"].tobytes(), _key_statement(about, roles, cipher, key), name)
    return key


def message_bytes(cipher: Cipher) -> int:
    """The most bytes of message bodies of one contributor's exchange."""
    return MAX_CERTIFICATE + cipher.key_bytes + SIGNATURE + cipher.ciphertext_bytes


def opening_bytes(spec: Spec, parties: int, cipher: Cipher) -> int:
    """The same of the key holder's."""
    return message_bytes(cipher) + parties + 8 * spec.slots
