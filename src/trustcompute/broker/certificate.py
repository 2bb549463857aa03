"""Certificates of data assets: signed by the node that registered them, with a life that its log records.

Issued by ``register.Register``; held, shown and verified by anybody. A certificate (``tc-certificate+jwt``) says who
holds which right (hold, process, operate) in which asset. What happens to it afterwards are entries of the log:

    issued → circulated (to another holder) → applied (to a use) → … → changed (for a new one) | cancelled

A ``Dossier`` is a certificate, the receipt of every entry about it, and the checkpoint they are under: enough to verify
its state offline, and to have it recognised by another broker. Adversary: a holder may show an old dossier, in which
the last entries are missing. Each entry names the one before, so none can be left out between; that none came after
is shown by nobody but the log: ``as_of`` says how fresh a dossier is, and a regulator's copy of the log says the rest.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import Field, StringConstraints, model_validator

from trustcompute.broker.grant import (
    AssetClaim,
    Digest,
    Document,
    Label,
    Name,
    Right,
    Thumbprint,
    Time,
    read_claims,
    stated,
)
from trustcompute.broker.log import Entry
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import GrantError, ParameterError, VerificationError
from trustcompute.primitives import canonical, checkpoint, signing
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.signing import SigningKey, TokenError

CERTIFICATE_TYPE: Final = "tc-certificate+jwt"
DOSSIER_VERSION: Final = 1
MAX_EVENTS: Final = 1024  # of one certificate: a longer life goes on with a changed one
MAX_DOSSIER: Final = 16 * 2**20
KINDS: Final = ("issued", "circulated", "applied", "changed", "cancelled")


class Certificate(Document):
    """iss: thumbprint of the node's key, aud: its DNS name; replaces: hash of the certificate this one changes."""

    iss: Thumbprint
    aud: Name
    jti: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    holder: Thumbprint
    asset: AssetClaim
    right: Right
    source: Label
    iat: Time
    exp: Time | None = None
    replaces: Digest | None = Field(default=None)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.exp is not None and self.exp <= self.iat:
            raise ValueError("a certificate must end after it begins")
        return self


class State(StrEnum):
    """What a certificate is now. Changed and cancelled are ends."""

    VALID = "valid"
    CHANGED = "changed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Standing:
    """A certificate's state. holder: thumbprint of the present one; entries: indexes of all there are about it."""

    certificate: str
    asset: str
    right: str
    holder: str
    state: State
    end: int | None
    entries: tuple[int, ...]
    uses: tuple[str, ...] = ()
    replaced_by: str | None = None

    def after(self, index: int, fields: Mapping[str, Any], time: int) -> Standing:
        """The state after one more entry. Raises ``ParameterError`` where the rules do not allow it."""
        kind = str(fields["type"]).partition(".")[2]
        if self.state is not State.VALID:
            raise ParameterError(f"the certificate is {self.state}: nothing more can be done with it")
        if self.end is not None and time >= self.end and kind != "cancelled":
            raise ParameterError("the certificate has expired: cancel it, and have a new one issued")
        if fields["previous"] != self.entries[-1]:
            raise ParameterError("another entry about the certificate came between")
        if len(self.entries) == MAX_EVENTS:
            raise ParameterError(f"a certificate has at most {MAX_EVENTS} entries: change it for a new one")
        changes: dict[str, Any] = {"entries": (*self.entries, index)}
        if kind == "circulated":
            if fields["holder"] == self.holder:
                raise ParameterError("the certificate is with this holder already")
            changes["holder"] = fields["holder"]
        elif kind == "applied":
            changes["uses"] = (*self.uses, fields["use"])
        elif kind == "changed":
            changes |= {"state": State.CHANGED, "replaced_by": fields["by"]}
        else:
            changes["state"] = State.CANCELLED
        return Standing(**{name: getattr(self, name) for name in self.__slots__} | changes)


def new_certificate(
    *,
    issuer: SigningKey,
    node: str,
    holder: str,
    asset: AssetClaim,
    right: Right,
    source: str,
    now: int,
    days: int | None = None,
    replaces: str | None = None,
) -> str:
    """A signed certificate. source: where the asset comes from, in words. Raises ``ParameterError``."""
    with stated("certificate"):
        claims = Certificate(
            iss=issuer.thumbprint,
            aud=node,
            jti=secrets.token_hex(16),
            holder=holder,
            asset=asset,
            right=right,
            source=source,
            iat=now,
            exp=None if days is None else now + days * 86400,
            replaces=replaces,
        )
    return signing.sign(CERTIFICATE_TYPE, claims.to_document(), issuer)


def read(token: str, key: NoteKey) -> Certificate:
    """The claims of a certificate of the node that keeps this log. Raises ``GrantError`` with the field."""
    claims, unverified = read_claims(token, CERTIFICATE_TYPE, Certificate)
    try:
        unverified.verify(key.key)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    except VerificationError as error:
        raise GrantError("the certificate was not signed by this node, or was altered", "iss") from error
    if claims.iss != key.key.thumbprint or claims.aud != key.name.partition("/")[0]:
        raise GrantError("the certificate names another node than the one that signed it", "iss")
    return claims


def first(token: str, claims: Certificate, index: int) -> Standing:
    """The state of a certificate that was just issued."""
    name, asset = signing.token_hash(token), claims.asset.id
    return Standing(name, asset, claims.right, claims.holder, State.VALID, claims.exp, (index,))


@dataclass(frozen=True, slots=True)
class Verified:
    """A dossier that was verified. as_of: size of the log that its checkpoint covers."""

    claims: Certificate
    standing: Standing
    as_of: int


@dataclass(frozen=True, slots=True)
class Dossier:
    """A certificate and the receipts of all entries about it, under one checkpoint."""

    token: str
    receipts: tuple[Receipt, ...]

    def verify(self, key: NoteKey) -> Verified:
        """The certificate's state, offline, with nothing but the log's key. Raises ``VerificationError``."""
        claims = read(self.token, key)
        if not 1 <= len(self.receipts) <= MAX_EVENTS or len({each.checkpoint for each in self.receipts}) != 1:
            raise VerificationError("a dossier has a receipt for each entry, all under one checkpoint")
        entries = [receipt.verify(key) for receipt in self.receipts]
        opening, name = entries[0], signing.token_hash(self.token)
        if opening.type != "certificate.issued" or any(
            each.fields.get("certificate") != name for each in entries
        ):
            raise VerificationError("the receipts are not of this certificate, from its issue on")
        return Verified(
            claims,
            _replayed(first(self.token, claims, opening.index), entries[1:]),
            checkpoint.verify(self.receipts[0].checkpoint, key).size,
        )

    def to_json(self) -> bytes:
        receipts = [receipt.to_document() for receipt in self.receipts]
        return canonical.dumps({"v": DOSSIER_VERSION, "certificate": self.token, "receipts": receipts})

    @classmethod
    def from_json(cls, data: bytes) -> Dossier:
        """Raises ``VerificationError`` for what is no dossier."""
        document = canonical.loads(data, limit=MAX_DOSSIER)
        if not isinstance(document, dict) or set(document) != {"v", "certificate", "receipts"}:
            raise VerificationError("a dossier has exactly the members certificate, receipts, v")
        if type(document["v"]) is not int or document["v"] != DOSSIER_VERSION:  # ``True`` equals 1
            raise VerificationError(f"a dossier is of version {DOSSIER_VERSION}: v")
        if not isinstance(document["certificate"], str) or not isinstance(document["receipts"], list):
            raise VerificationError("a dossier's certificate is a token, its receipts are a list")
        return cls(document["certificate"], tuple(map(Receipt.from_document, document["receipts"])))


def _replayed(standing: Standing, entries: list[Entry]) -> Standing:
    for entry in entries:
        try:
            standing = standing.after(entry.index, entry.fields, entry.time)
        except (KeyError, ParameterError) as error:
            raise VerificationError(f"entry {entry.index} does not follow: {error}") from error
    return standing
