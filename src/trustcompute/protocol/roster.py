"""The roster of a computation of many: what every party shows the others first, and that all were shown the same.

Called by ``aggregation.masked`` and ``psi.star``. An advert holds a party's certificate and its values for this
computation alone (public keys, say), signed under that certificate; the digest of all adverts goes into every later key
and signature.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import member as members
from trustcompute.primitives.member import MAX_CERTIFICATE, Member, Recognise
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.message import AtMost, Column, Message

SIGNATURE: Final = 64

Fields = Mapping[str, int]
"""What an advert shows beside the certificate: the name of each value and its length in bytes, in order."""


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
    """What a party shows the others: its certificate, and values by name."""

    certificate: bytes
    values: Mapping[str, bytes]
    signature: bytes

    def __getitem__(self, name: str) -> bytes:
        return self.values[name]

    def statement(self, about: Assembly) -> bytes:
        return about.statement(b"advertise", self.certificate, *self.values.values())

    def columns(self) -> dict[str, U8]:
        """As a message has them."""
        every = {"certificate": self.certificate} | dict(self.values) | {"signature": self.signature}
        return {name: array(value) for name, value in every.items()}


@dataclass(frozen=True)
class Roster:
    """Adverts by place, each verified, and the digest that says everybody was shown the same."""

    about: Assembly
    adverts: Mapping[int, Advert]
    keys: Mapping[int, VerifyKey]
    digest: bytes


def signed_advert(about: Assembly, member: Member, values: Mapping[str, bytes]) -> Advert:
    """A party's own."""
    unsigned = Advert(member.certificate, values, b"")
    return Advert(member.certificate, values, member.key.sign(unsigned.statement(about)))


def advert_shapes(fields: Fields) -> dict[str, Column]:
    fixed = {name: Column("u1", (size,)) for name, size in _fixed(fields).items()}
    return {"certificate": Column("u1", (AtMost(MAX_CERTIFICATE),))} | fixed


def _fixed(fields: Fields) -> dict[str, int]:
    return dict(fields) | {"signature": SIGNATURE}


def advert_bytes(fields: Fields) -> int:
    """The most bytes of an advert."""
    return MAX_CERTIFICATE + sum(_fixed(fields).values())


def checked_advert(
    about: Assembly, recognise: Recognise, fields: Fields, name: str, got: Message
) -> tuple[Advert, VerifyKey]:
    """An advert of the peer of that name, its signature verified."""
    values = {field: got[field].tobytes() for field in fields}
    advert = Advert(got["certificate"].tobytes(), values, got["signature"].tobytes())
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


def make_roster(about: Assembly, shown: Mapping[str, tuple[Advert, VerifyKey]]) -> Roster:
    """Of adverts that were checked, by name."""
    placed = {about.place(name): one for name, one in shown.items()}
    ordered = {place: placed[place][0] for place in sorted(placed)}
    parts = [
        bytes([place]) + b"".join(one.values.values()) + one.signature + one.certificate
        for place, one in ordered.items()
    ]
    digest = hashlib.sha256(about.statement(b"roster", *parts)).digest()
    return Roster(about, ordered, {place: key for place, (_, key) in placed.items()}, digest)


def roster_columns(roster: Roster, fields: Fields) -> dict[str, np.ndarray[Any, Any]]:
    adverts = list(roster.adverts.values())
    columns: dict[str, np.ndarray[Any, Any]] = {
        "member": places(list(roster.adverts)),
        "length": np.array([len(one.certificate) for one in adverts], dtype=np.int64),
        "certificate": array(b"".join(one.certificate for one in adverts)),
    }
    shown = [one.columns() for one in adverts]
    return columns | {name: np.stack([one[name] for one in shown]) for name in _fixed(fields)}


def roster_shapes(count: int, fields: Fields) -> dict[str, Column]:
    return {
        "member": Column("u1", (AtMost(count),)),
        "length": Column("i8", (AtMost(count),)),
        "certificate": Column("u1", (AtMost(count * MAX_CERTIFICATE),)),
    } | {name: Column("u1", (AtMost(count), size)) for name, size in _fixed(fields).items()}


def roster_bytes(count: int, fields: Fields) -> int:
    """The most bytes of a roster."""
    return count * (advert_bytes(fields) + 9)


def verified_roster(got: Message, about: Assembly, recognise: Recognise, fields: Fields) -> Roster:
    """Every advert verified: names, certificates, signatures, different values, enough of them."""
    listed = subset(got["member"].tolist(), range(len(about.parties)), "the roster")
    if len(listed) < about.threshold:
        raise RemoteProtocolError(f"the roster has {len(listed)} parties, and {about.threshold} are needed")
    if any(len(got[name]) != len(listed) for name in ("length", *_fixed(fields))):
        raise RemoteProtocolError("the roster's columns are not equally long")
    lengths = got["length"].tolist()
    if min(lengths) < 0 or max(lengths) > MAX_CERTIFICATE or sum(lengths) != len(got["certificate"]):
        raise RemoteProtocolError("the roster's certificates are not as long as it says")
    ends = np.cumsum([0, *lengths])
    shown: dict[str, tuple[Advert, VerifyKey]] = {}
    for row, place in enumerate(listed):
        values = {field: got[field][row].tobytes() for field in fields}
        certificate = got["certificate"][ends[row] : ends[row + 1]].tobytes()
        advert = Advert(certificate, values, got["signature"][row].tobytes())
        found, key = _recognised(about, recognise, advert)
        if found != place:
            raise RemoteProtocolError("the roster gives a party another's place")
        shown[about.parties[place]] = advert, key
    every = [value for advert, _ in shown.values() for value in advert.values.values()]
    if len(set(every)) < len(every):
        raise RemoteProtocolError("two parties of the roster have one key")
    return make_roster(about, shown)


def check_own(roster: Roster, name: str, own: Advert) -> None:
    """That the roster shows us as we showed ourselves."""
    if roster.adverts.get(roster.about.place(name)) != own:
        raise RemoteProtocolError("the roster does not show our own keys")


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
