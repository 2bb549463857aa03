"""The roster of a round: what every party shows the others first, and that everybody was shown the same.

Called by ``masked``. An advert is signed by its party under a certificate that the others recognise; the digest of
all adverts goes into every later key and signature of the round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from trustcompute.aggregation import members
from trustcompute.aggregation.members import MAX_CERTIFICATE, Recognise, Round, subset
from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.message import AtMost, Column, Message

KEY: Final = 32
SIGNATURE: Final = 64
FIXED: Final = {"mask_key": KEY, "box_key": KEY, "commitment": 32, "signature": SIGNATURE}


@dataclass(frozen=True)
class Advert:
    """What a party shows the others: certificate, public keys for masks and for boxes, a commitment to its seed."""

    certificate: bytes
    mask_key: bytes
    box_key: bytes
    commitment: bytes
    signature: bytes

    def statement(self, about: Round) -> bytes:
        return about.statement(b"advertise", self.certificate, self.mask_key, self.box_key, self.commitment)


@dataclass(frozen=True)
class Roster:
    """Adverts by place, each verified, and the digest that says everybody was shown the same."""

    about: Round
    adverts: Mapping[int, Advert]
    keys: Mapping[int, VerifyKey]
    digest: bytes


def _fields(advert: Advert) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    return (advert.certificate, advert.mask_key, advert.box_key, advert.commitment, advert.signature)


def advert_shapes() -> dict[str, Column]:
    fixed = {name: Column("u1", (size,)) for name, size in FIXED.items()}
    return {"certificate": Column("u1", (AtMost(MAX_CERTIFICATE),))} | fixed


def advert_columns(advert: Advert) -> dict[str, U8]:
    return {name: array(getattr(advert, name)) for name in ("certificate", *FIXED)}


def checked_advert(about: Round, recognise: Recognise, name: str, got: Message) -> tuple[Advert, VerifyKey]:
    """An advert of the peer of that name, its signature verified."""
    advert = Advert(*(got[column].tobytes() for column in ("certificate", *FIXED)))
    place, key = _recognised(about, recognise, advert)
    if place != about.place(name):
        raise RemoteProtocolError(f"{name} shows the certificate of another party")
    return advert, key


def _recognised(about: Round, recognise: Recognise, advert: Advert) -> tuple[int, VerifyKey]:
    try:
        name, key = recognise(advert.certificate)
        place = about.place(name)
    except (VerificationError, LocalProtocolError) as error:
        raise RemoteProtocolError(f"a party of the roster cannot be recognised: {error}") from error
    members.verify(key, advert.signature, advert.statement(about), name)
    return place, key


def make_roster(about: Round, adverts: Mapping[int, Advert], keys: Mapping[int, VerifyKey]) -> Roster:
    ordered = {place: adverts[place] for place in sorted(adverts)}
    parts = [bytes([place]) + b"".join(_fields(one)[1:]) + one.certificate for place, one in ordered.items()]
    return Roster(about, ordered, dict(keys), hashlib.sha256(about.statement(b"roster", *parts)).digest())


def roster_columns(roster: Roster) -> dict[str, np.ndarray[Any, Any]]:
    adverts = list(roster.adverts.values())
    joined = b"".join(one.certificate for one in adverts)
    columns: dict[str, np.ndarray[Any, Any]] = {
        "member": places(list(roster.adverts)),
        "length": np.array([len(one.certificate) for one in adverts], dtype=np.int64),
        "certificate": array(joined),
    }
    return columns | {name: np.stack([array(getattr(one, name)) for one in adverts]) for name in FIXED}


def roster_shapes(count: int) -> dict[str, Column]:
    return {
        "member": Column("u1", (AtMost(count),)),
        "length": Column("i8", (AtMost(count),)),
        "certificate": Column("u1", (AtMost(count * MAX_CERTIFICATE),)),
    } | {name: Column("u1", (AtMost(count), size)) for name, size in FIXED.items()}


def verified_roster(got: Message, about: Round, recognise: Recognise) -> Roster:
    """Every advert verified: names, certificates, signatures, different keys, enough of them."""
    listed = subset(got["member"].tolist(), range(len(about.parties)), "the roster")
    if len(listed) < about.threshold:
        raise RemoteProtocolError(f"the roster has {len(listed)} parties, and {about.threshold} are needed")
    if any(len(got[name]) != len(listed) for name in ("length", *FIXED)):
        raise RemoteProtocolError("the roster's columns are not equally long")
    lengths = got["length"].tolist()
    if min(lengths) < 0 or max(lengths) > MAX_CERTIFICATE or sum(lengths) != len(got["certificate"]):
        raise RemoteProtocolError("the roster's certificates are not as long as it says")
    ends = np.cumsum([0, *lengths])
    adverts, keys = {}, {}
    for row, place in enumerate(listed):
        certificate = got["certificate"][ends[row] : ends[row + 1]].tobytes()
        advert = Advert(certificate, *(got[name][row].tobytes() for name in FIXED))
        found, keys[place] = _recognised(about, recognise, advert)
        if found != place:
            raise RemoteProtocolError("the roster gives a party another's place")
        adverts[place] = advert
    every = [key for one in adverts.values() for key in (one.mask_key, one.box_key)]
    if len(set(every)) < len(every):
        raise RemoteProtocolError("two parties of the roster have one key")
    return make_roster(about, adverts, keys)


def array(data: bytes) -> U8:
    """Bytes as a column."""
    return np.frombuffer(data, dtype=np.uint8)


def places(of: Sequence[int]) -> U8:
    """Places as a column."""
    return np.array(of, dtype=np.uint8)
