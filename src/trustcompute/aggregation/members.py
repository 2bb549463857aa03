"""Who takes part in a round: names, the keys they sign with, and what one round is about.

Called by the schemes. A contributor trusts a public key because a certificate of its own authority names it (over
nodes), or because whoever runs all parties in one process made it (``in_process``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

from trustcompute.aggregation.spec import Spec
from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.primitives import canonical
from trustcompute.primitives.identity import Identity, peer_key, peer_name, verify_certificate
from trustcompute.primitives.signing import SigningKey, VerifyKey

MAX_CERTIFICATE: Final = 8192
_DOMAIN: Final = b"trustcompute aggregation round v1\n"

Recognise = Callable[[bytes], tuple[str, VerifyKey]]


@dataclass(frozen=True)
class Member:
    """A party's own identity. recognise: (name, key) of a certificate; raises ``VerificationError``."""

    name: str
    key: SigningKey = field(repr=False)
    certificate: bytes = field(repr=False)
    recognise: Recognise = field(repr=False)


def of_identity(identity: Identity) -> Member:
    """A node, or a client: others are recognised by certificates of the same authority."""
    leaf = identity.certificate
    return Member(identity.name, identity.key, leaf, partial(recognised, identity.authority))


def recognised(authority: bytes, certificate: bytes) -> tuple[str, VerifyKey]:
    """Name and key of a certificate that the authority signed."""
    leaf = verify_certificate(certificate, authority)
    return peer_name(leaf), peer_key(leaf)


def in_process(names: Sequence[str]) -> dict[str, Member]:
    """Members with keys of this call only."""
    keys = {name: SigningKey.generate() for name in names}
    known = {name.encode(): (name, key.public) for name, key in keys.items()}

    def recognise(certificate: bytes) -> tuple[str, VerifyKey]:
        if certificate not in known:
            raise VerificationError("no such party takes part")
        return known[certificate]

    return {name: Member(name, key, name.encode(), recognise) for name, key in keys.items()}


@dataclass(frozen=True)
class Round:
    """One aggregate: specification, all who are asked (in order), and 16 bytes that nobody uses again."""

    spec: Spec
    parties: tuple[str, ...]
    session: bytes

    @property
    def threshold(self) -> int:
        return self.spec.threshold(len(self.parties))

    @cached_property
    def context(self) -> bytes:
        """32 bytes that begin every statement a party signs and every purpose a secret serves."""
        about = {"spec": self.spec.digest, "parties": list(self.parties), "session": self.session.hex()}
        return hashlib.sha256(_DOMAIN + canonical.dumps(about)).digest()

    def place(self, name: str) -> int:
        if name not in self.parties:
            raise LocalProtocolError(f"{name} is not one of those who were asked")
        return self.parties.index(name)

    def statement(self, kind: bytes, *parts: bytes) -> bytes:
        """What is signed: every part behind its length."""
        return self.context + kind + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def verify(key: VerifyKey, signature: bytes, statement: bytes, who: str) -> None:
    """Raises ``RemoteProtocolError`` naming the party."""
    try:
        key.verify(signature, statement)
    except VerificationError as error:
        raise RemoteProtocolError(f"the signature of {who} does not verify") from error


def subset(places: Sequence[int], among: Sequence[int] | Mapping[int, object], what: str) -> tuple[int, ...]:
    """Ascending different places, all of them among those. Raises ``RemoteProtocolError``."""
    found = tuple(int(place) for place in places)
    if list(found) != sorted(set(found)) or not set(found) <= set(among):
        raise RemoteProtocolError(f"{what} must be different parties of those that were left, in order")
    return found
