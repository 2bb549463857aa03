"""The roster of a computation of many: what every party shows the others first, and that all were shown the same.
``introduced`` and ``introducing`` are how the messages go.

Called by ``aggregation.masked``, ``aggregation.threshold`` and ``psi.star``, whose parties show fixed lengths of
different things: a *form*. An advert is signed by its party under a certificate that the others recognise; the digest
of all adverts goes into every later key and signature.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import member as members
from trustcompute.primitives.member import MAX_CERTIFICATE, Member, Recognise
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.message import AtMost, Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.star import Coordinator, gather, scatter

KEY: Final = 32
SIGNATURE: Final = 64

Form = Mapping[str, int]
"""Names and lengths of what a party shows."""


class Assembly(ABC):
    """One computation of many. parties: the names of all who are asked, in order."""

    parties: tuple[str, ...]

    @property
    @abstractmethod
    def threshold(self) -> int:
        """How many of them there must be at least."""

    @property
    @abstractmethod
    def context(self) -> bytes:
        """32 bytes that begin every statement a party signs and every purpose a secret serves."""

    def place(self, name: str) -> int:
        if name not in self.parties:
            raise LocalProtocolError(f"{name} is not one of those who were asked")
        return self.parties.index(name)

    def statement(self, kind: bytes, *parts: bytes) -> bytes:
        """What is signed: every part behind its length."""
        return self.context + kind + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


@dataclass(frozen=True)
class Advert:
    """What a party shows the others: its certificate, and in the order of the form what the scheme asks for."""

    certificate: bytes
    shown: Mapping[str, bytes]
    signature: bytes

    def __getitem__(self, name: str) -> bytes:
        return self.shown[name]

    def statement(self, about: Assembly) -> bytes:
        return about.statement(b"advertise", self.certificate, *self.shown.values())


def new_advert(about: Assembly, member: Member, shown: Mapping[str, bytes]) -> Advert:
    """Our own, signed."""
    made = Advert(member.certificate, shown, b"")
    return replace(made, signature=member.key.sign(made.statement(about)))


@dataclass(frozen=True)
class Roster:
    """Adverts by place, each verified, and the digest that says everybody was shown the same."""

    about: Assembly
    adverts: Mapping[int, Advert]
    keys: Mapping[int, VerifyKey]
    digest: bytes


def introduced(about: Assembly, member: Member, shown: Mapping[str, bytes]) -> Party[Roster]:
    """A party's first two messages: it shows itself, and sees all others. The roster shows it as it showed itself."""
    own, form = new_advert(about, member, shown), {name: len(value) for name, value in shown.items()}
    yield from send("advertise", releases=False, **advert_columns(own))
    got = yield from receive("roster", releases=False, **roster_shapes(len(about.parties), form))
    roster = verified_roster(got, about, member.recognise, form)
    if roster.adverts.get(about.place(member.name)) != own:
        raise RemoteProtocolError("the roster does not show our own keys")
    return roster


def introducing(about: Assembly, recognise: Recognise, form: Form, *, at_least: int) -> Coordinator[Roster]:
    """The middle's: it waits for the adverts of so many and shows these to each of them."""
    adverts = yield from gather(
        "advertise", about.parties, at_least=at_least,
        take=lambda name, got: checked_advert(about, recognise, name, got, form), releases=False,
        **advert_shapes(form),
    )  # fmt: skip
    places = {about.place(name): one for name, one in adverts.items()}
    roster = make_roster(
        about,
        {place: advert for place, (advert, _) in places.items()},
        {place: key for place, (_, key) in places.items()},
    )
    yield from scatter(dict.fromkeys(adverts, Message("roster", roster_columns(roster))))
    return roster


def _fixed(form: Form) -> dict[str, int]:
    return {**form, "signature": SIGNATURE}


def advert_shapes(form: Form) -> dict[str, Column]:
    fixed = {name: Column("u1", (size,)) for name, size in _fixed(form).items()}
    return {"certificate": Column("u1", (AtMost(MAX_CERTIFICATE),))} | fixed


def advert_columns(advert: Advert) -> dict[str, U8]:
    whole = {"certificate": advert.certificate, **advert.shown, "signature": advert.signature}
    return {name: array(value) for name, value in whole.items()}


def checked_advert(
    about: Assembly, recognise: Recognise, name: str, got: Message, form: Form
) -> tuple[Advert, VerifyKey]:
    """An advert of the peer of that name, its signature verified."""
    shown = {column: got[column].tobytes() for column in form}
    advert = Advert(got["certificate"].tobytes(), shown, got["signature"].tobytes())
    place, key = _recognised(about, recognise, advert)
    if place != about.place(name):
        raise RemoteProtocolError(f"{name} shows the certificate of another party")
    return advert, key


def _recognised(about: Assembly, recognise: Recognise, advert: Advert) -> tuple[int, VerifyKey]:
    try:
        name, key = recognise(advert.certificate)
        place = about.place(name)
    except (VerificationError, LocalProtocolError) as error:
        raise RemoteProtocolError(f"a party of the roster cannot be recognised: {error}") from error
    members.verify(key, advert.signature, advert.statement(about), name)
    return place, key


def make_roster(about: Assembly, adverts: Mapping[int, Advert], keys: Mapping[int, VerifyKey]) -> Roster:
    ordered = {place: adverts[place] for place in sorted(adverts)}
    parts = [
        bytes([place]) + b"".join(one.shown.values()) + one.signature + one.certificate
        for place, one in ordered.items()
    ]
    return Roster(about, ordered, dict(keys), hashlib.sha256(about.statement(b"roster", *parts)).digest())


def roster_columns(roster: Roster) -> dict[str, np.ndarray[Any, Any]]:
    adverts = list(roster.adverts.values())
    joined = b"".join(one.certificate for one in adverts)
    columns: dict[str, np.ndarray[Any, Any]] = {
        "member": places(list(roster.adverts)),
        "length": np.array([len(one.certificate) for one in adverts], dtype=np.int64),
        "certificate": array(joined),
    }
    shown = {name: np.stack([array(one[name]) for one in adverts]) for name in adverts[0].shown}
    return columns | shown | {"signature": np.stack([array(one.signature) for one in adverts])}


def roster_shapes(count: int, form: Form) -> dict[str, Column]:
    return {
        "member": Column("u1", (AtMost(count),)),
        "length": Column("i8", (AtMost(count),)),
        "certificate": Column("u1", (AtMost(count * MAX_CERTIFICATE),)),
    } | {name: Column("u1", (AtMost(count), size)) for name, size in _fixed(form).items()}


def verified_roster(got: Message, about: Assembly, recognise: Recognise, form: Form) -> Roster:
    """Every advert verified: names, certificates, signatures, enough of them, and no two show the same."""
    listed = subset(got["member"].tolist(), range(len(about.parties)), "the roster")
    if len(listed) < about.threshold:
        raise RemoteProtocolError(f"the roster has {len(listed)} parties, and {about.threshold} are needed")
    if any(len(got[name]) != len(listed) for name in ("length", *_fixed(form))):
        raise RemoteProtocolError("the roster's columns are not equally long")
    lengths = got["length"].tolist()
    if min(lengths) < 0 or max(lengths) > MAX_CERTIFICATE or sum(lengths) != len(got["certificate"]):
        raise RemoteProtocolError("the roster's certificates are not as long as it says")
    ends = np.cumsum([0, *lengths])
    adverts, keys = {}, {}
    for row, place in enumerate(listed):
        certificate = got["certificate"][ends[row] : ends[row + 1]].tobytes()
        shown = {name: got[name][row].tobytes() for name in form}
        advert = Advert(certificate, shown, got["signature"][row].tobytes())
        found, keys[place] = _recognised(about, recognise, advert)
        if found != place:
            raise RemoteProtocolError("the roster gives a party another's place")
        adverts[place] = advert
    every = [value for one in adverts.values() for value in one.shown.values()]
    if len(set(every)) < len(every):
        raise RemoteProtocolError("two parties of the roster have one key")
    return make_roster(about, adverts, keys)


def advert_bytes(form: Form) -> int:
    """The most bytes of an advert."""
    return MAX_CERTIFICATE + sum(_fixed(form).values())


def roster_bytes(count: int, form: Form) -> int:
    """The most bytes of a roster of so many."""
    return count * (advert_bytes(form) + 9)


def subset(places: Sequence[int], among: Sequence[int] | Mapping[int, object], what: str) -> tuple[int, ...]:
    """Ascending different places, all of them among those. Raises ``RemoteProtocolError``."""
    found = tuple(int(place) for place in places)
    if list(found) != sorted(set(found)) or not set(found) <= set(among):
        raise RemoteProtocolError(f"{what} must be different parties of those that were left, in order")
    return found


def array(data: bytes) -> U8:
    """Bytes as a column."""
    return np.frombuffer(data, dtype=np.uint8)


def places(of: Sequence[int]) -> U8:
    """Places as a column."""
    return np.array(of, dtype=np.uint8)
