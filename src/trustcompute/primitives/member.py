"""Who takes part in a computation of many: names, the keys they sign with, and how others recognise them.

Called by ``protocol.roster``, by the layers whose computations have more than two parties, and by the node. A party
trusts a public key because a certificate of its own authority names it (over nodes), or because whoever runs all
parties in one process made it (``in_process``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from trustcompute.errors import RemoteProtocolError, VerificationError
from trustcompute.primitives.identity import Identity, peer_key, peer_name, verify_certificate
from trustcompute.primitives.signing import SigningKey, VerifyKey

MAX_CERTIFICATE: Final = 8192

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


def verify(key: VerifyKey, signature: bytes, statement: bytes, who: str) -> None:
    """Raises ``RemoteProtocolError`` naming the party."""
    try:
        key.verify(signature, statement)
    except VerificationError as error:
        raise RemoteProtocolError(f"the signature of {who} does not verify") from error


def agree(own: X25519PrivateKey, public: bytes) -> bytes:
    """What two parties share, 32 bytes (RFC 7748 §6.1). Raises for a public key of low order."""
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise RemoteProtocolError("a party of the roster has a public key of low order") from error
