"""Grants: who may compute what on which data, for which purpose, how much, at what price, and who shares it.

Issued and verified by the broker; consumers keep the token and send it along. A grant is a compact JWS of
type ``tc-grant+jwt`` (``primitives.signing``) whose payload is a ``Grant``. What a grant does not say is
not granted: unknown, doubled and malformed claims are refused by name. Absent lists of scenarios and
territories and absent bounds and limits mean "not limited by this grant". This module knows a grant by itself;
chains of delegated ones, and verifying either, are in ``delegation``.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trustcompute.errors import GrantError, ParameterError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey, TokenError
from trustcompute.protocol.operation import MAX_AMOUNT, UNITS, OutputForm

GRANT_TYPE: Final = "tc-grant+jwt"
MAX_TIME: Final = 2**40  # seconds: some 34,000 years
MAX_DEPTH: Final = 8
MAX_LINKS: Final = MAX_DEPTH + 1  # of a chain: a root and its delegations
MAX_CHAIN: Final = 4 * signing.MAX_TOKEN  # characters; nine links of the usual size need a tenth of it
SEPARATOR: Final = "~"  # between the tokens of a chain, root first
MAX_LIST: Final = 64  # entries of any list of a grant; keeps the largest grant below signing.MAX_TOKEN
MAX_DENOMINATOR: Final = 10**12  # of a rate or a share: sums of exact amounts stay small numbers

_RATIONAL = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,12}|/[1-9][0-9]{0,12})?\Z")
_DIGITS = re.compile(r"[1-9][0-9]{15,18}\Z")

Model = TypeVar("Model", bound=BaseModel)


def _amount(value: object) -> object:
    if isinstance(value, str):
        if not _DIGITS.match(value) or int(value) <= canonical.MAX_INTEGER:
            raise ValueError("only an integer above 2^53 - 1 is written as a string of digits")
        return int(value)
    return value


def _rational(value: str) -> str:
    if not _RATIONAL.match(value):
        raise ValueError(
            'write a decimal such as "0.25" or a fraction such as "1/3", without sign or exponent'
        )
    if Fraction(value).denominator > MAX_DENOMINATOR:
        raise ValueError(f"the denominator may be {MAX_DENOMINATOR} at most")
    return value


def _label(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("a label has printable characters and no spaces around them")
    return value


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("each entry may occur once")
    return values


def text(pattern: str) -> StringConstraints:
    return StringConstraints(pattern=pattern)


Thumbprint = Annotated[str, text(r"^[A-Za-z0-9_-]{43}$")]
Digest = Annotated[str, text(r"^[0-9a-f]{64}$")]
PublicKey = Annotated[str, text(r"^[A-Za-z0-9_-]{43}$")]
Name = Annotated[str, text(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
Identifier = Annotated[str, text(r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
Party = Annotated[str, text(r"^[A-Za-z0-9_-][A-Za-z0-9._:/-]{0,127}$")]  # a thumbprint, or a name
OperationId = Annotated[str, text(r"^[a-z][a-z0-9_.-]{0,63}$")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_label)]
Time = Annotated[int, Field(ge=0, le=MAX_TIME)]
Count = Annotated[int, Field(ge=0, le=canonical.MAX_INTEGER)]
Amount = Annotated[
    int, BeforeValidator(_amount), Field(ge=0, le=MAX_AMOUNT), PlainSerializer(canonical.integer)
]
Rational = Annotated[str, AfterValidator(_rational)]
Grade = Literal["general", "important", "core"]
Right = Literal["hold", "process", "operate"]
Labels = Annotated[
    tuple[Label, ...], Field(strict=False, min_length=1, max_length=MAX_LIST), AfterValidator(distinct)
]


class Document(BaseModel):
    """A signed document's part: strict types, no unknown claims, immutable."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    def to_document(self) -> dict[str, Any]:
        """Claims as JSON values under their names on the wire."""
        return self.model_dump(mode="json", by_alias=True)


class Confirmation(Document):
    """The key that must sign requests (RFC 7800, ``cnf``); jkt: its RFC 7638 thumbprint."""

    jkt: Thumbprint


class AssetClaim(Document):
    """Which data. version or schema_hash ``None``: any version, any schema that the holder registers."""

    id: Identifier
    version: Label | None = None
    schema_hash: Digest | None = Field(default=None, alias="schema")
    classification: Label = Field(alias="class")
    grade: Grade
    personal: bool


class Bounds(Document):
    """Bounds on one operation's parameters.

    columns: those that may be named in a request; max_rows, min_rows: of the consumer's declared rows;
    min_group: the least value of the parameter ``min_group``; counterparties: thumbprints of those who,
    beside the subject, may ask for or receive a result.
    """

    columns: Labels | None = None
    max_rows: Count | None = None
    min_rows: Count | None = None
    min_group: Count | None = None
    counterparties: Annotated[tuple[Thumbprint, ...], Field(strict=False, max_length=MAX_LIST)] | None = None


class Limit(Document):
    """How much of one unit: in total, per job, and per UTC day. ``None``: not limited."""

    total: Amount | None = None
    per_call: Amount | None = None
    per_day: Amount | None = None


class PricePlan(Document):
    """What use costs, in minor units of the currency: exact decimals ("0.25") or fractions ("1/3")."""

    kind: Literal["per_use", "free"]
    currency: Annotated[str, text(r"^[A-Z]{3}$")] | None = None
    per_call: Rational = "0"
    per_row: Rational = "0"

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.kind == "free" and (self.currency or Fraction(self.per_call) or Fraction(self.per_row)):
            raise ValueError("a free plan has no currency and no rates")
        if self.kind == "per_use" and self.currency is None:
            raise ValueError("a plan per use needs a currency (ISO 4217)")
        return self


FREE: Final = PricePlan(kind="free")


class Share(Document):
    """A party's share of the price, exact: "7/10"."""

    party: Party
    share: Rational


class Grant(Document):
    """The claims of a grant. Times are seconds since 1970 (UTC); see the module for what absence means.

    payer: who agrees to pay beside the subject: the issuer, or whom the parent names.
    """

    iss: Thumbprint
    sub: Name
    cnf: Confirmation
    aud: Name
    jti: Annotated[str, text(r"^[A-Za-z0-9._:-]{1,64}$")]
    iat: Time
    nbf: Time
    exp: Time
    asset: AssetClaim
    right: Right
    operations: Annotated[dict[OperationId, Bounds], Field(min_length=1, max_length=MAX_LIST)]
    purposes: Labels
    scenarios: Labels | None = None
    outputs: Annotated[
        tuple[Annotated[OutputForm, Field(strict=False)], ...],
        Field(strict=False, min_length=1),
        AfterValidator(distinct),
    ]
    territory: Labels | None = None
    limits: dict[str, Limit]
    price: PricePlan
    split: Annotated[tuple[Share, ...], Field(strict=False, max_length=MAX_LIST)] = ()
    contingency: Digest
    review: Time | None = None
    depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 0
    parent: Digest | None = None
    key: PublicKey | None = None
    consent: Label | None = None
    payer: Thumbprint | None = None

    @classmethod
    def preset(cls, name: str, *, days: int = 90, **claims: Any) -> Grant:
        """A root grant of a common kind (``presets.PRESETS``), to be signed; ``claims`` as for ``new_grant``.

        Whom, which asset, what for and the contingency plan are always the caller's to say; operations, outputs,
        limits, right and depth are the preset's where they are left out. Raises ``ParameterError``.
        """
        from trustcompute.broker.presets import preset  # noqa: PLC0415 - made of what this module defines

        found = preset(name)
        terms: dict[str, Any] = {
            "operations": found.operations,
            "outputs": found.outputs,
            "limits": found.limits,
            "right": found.right,
            "depth": found.depth,
        }
        return new_grant(**{"days": days, **terms, **claims})

    def describe(self) -> str:
        """What the grant lets whom see, in plain words, on one page. For a chain: ``describe.describe``."""
        from trustcompute.broker.describe import describe  # noqa: PLC0415 - as above

        return describe([self])

    @field_validator("payer")
    @classmethod
    def _agreed(cls, payer: str | None, info: ValidationInfo) -> str | None:
        if payer not in (None, info.data.get("iss")) and info.data.get("parent") is None:
            raise ValueError("nobody but the issuer, who signs the grant, can agree here to pay")
        return payer

    @field_validator("exp")
    @classmethod
    def _in_order(cls, exp: int, info: ValidationInfo) -> int:
        if exp <= max(info.data.get("nbf", 0), info.data.get("iat", 0)):
            raise ValueError("a grant must end after it begins")
        return exp

    @field_validator("limits")
    @classmethod
    def _known_units(cls, limits: dict[str, Limit]) -> dict[str, Limit]:
        unknown = set(limits) - set(UNITS)
        if unknown:
            raise ValueError(f"the units are {', '.join(UNITS)}")
        return limits

    @field_validator("split")
    @classmethod
    def _whole(cls, split: tuple[Share, ...], info: ValidationInfo) -> tuple[Share, ...]:
        price = info.data.get("price")
        if len({share.party for share in split}) != len(split):
            raise ValueError("each party may have one share")
        if not split and price is not None and price.kind == "free":
            return split
        if sum((Fraction(share.share) for share in split), Fraction(0)) != 1:
            raise ValueError("the shares must sum to exactly 1")
        return split


@dataclass(frozen=True, slots=True)
class VerifiedGrant:
    """A grant whose issuer is trusted and whose signature was checked; made by ``delegation.verify`` only.

    claims: with what a delegated grant inherits; token, hash: of this link alone; parent: the link it was
    delegated from, ``None`` for a root. Whether it is in force (dates, revocation) is the policy's question,
    asked in every transaction.
    """

    claims: Grant
    token: str
    hash: str
    parent: VerifiedGrant | None = None

    @property
    def chain(self) -> tuple[VerifiedGrant, ...]:
        """This grant and its ancestors, the root last."""
        return (self, *(self.parent.chain if self.parent else ()))


def new_grant(
    *,
    issuer: str,
    audience: str,
    subject: str,
    subject_key: str,
    asset: AssetClaim,
    operations: Iterable[str] | Mapping[str, Bounds],
    purposes: Iterable[str],
    outputs: Iterable[OutputForm],
    contingency: str,
    now: int,
    days: int = 365,
    limits: Mapping[str, Limit] | None = None,
    price: PricePlan = FREE,
    split: Iterable[Share] = (),
    right: Right = "process",
    **claims: Any,
) -> Grant:
    """A root grant with a fresh id, valid from ``now`` for ``days``; other claims by name.

    issuer, subject_key: thumbprints; audience, subject: DNS names of the node and of the grantee;
    contingency: SHA-256 (hex) of the plan for when things go wrong. Raises ``ParameterError`` naming the
    claim.
    """
    bounds = dict(operations) if isinstance(operations, Mapping) else {name: Bounds() for name in operations}
    try:
        return Grant(
            iss=issuer,
            sub=subject,
            cnf=Confirmation(jkt=subject_key),
            aud=audience,
            jti=secrets.token_hex(16),
            iat=now,
            nbf=now,
            exp=now + days * 86400,
            asset=asset,
            right=right,
            operations=bounds,
            purposes=tuple(purposes),
            outputs=tuple(outputs),
            limits=dict(limits or {}),
            price=price,
            split=tuple(split),
            contingency=contingency,
            **claims,
        )
    except ValidationError as error:
        message, field = explain_validation(error, "grant")
        raise ParameterError(f"{message} ({field})") from error


def sign(claims: Grant, key: SigningKey) -> str:
    """The token. Raises ``ParameterError`` where the issuer is another, or the grant is too large."""
    if claims.iss != key.thumbprint:
        raise ParameterError(f"the grant names issuer {claims.iss}, but the key is {key.thumbprint}")
    return signing.sign(GRANT_TYPE, claims.to_document(), key)


def hash_of(token: str) -> str:
    """What a grant is called in requests, in the log and in the book: the hash of its last link's token.

    A delegated grant's token names its parent's hash, so the hash of the last link stands for the whole chain.
    """
    return signing.token_hash(token.rsplit(SEPARATOR, 1)[-1])


def read(token: str) -> Grant:
    """The claims of one link, as they are written, without any check of its signature.

    Raises ``GrantError`` with the field. For chains, with what a link inherits: ``delegation.read``.
    """
    return read_claims(token, GRANT_TYPE, Grant)[0]


def read_claims(
    token: str, header_type: str, model: type[Model], *, limit: int = signing.MAX_TOKEN
) -> tuple[Model, signing.Unverified]:
    """Parse a token and validate its claims, not its signature. Raises ``GrantError`` with the field."""
    try:
        unverified = signing.parse(token, header_type, limit=limit)
        claims = model.model_validate_json(unverified.payload, by_alias=True, by_name=False)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    except ValidationError as error:
        raise GrantError(*explain_validation(error, header_type)) from error
    return claims, unverified


def explain_validation(error: ValidationError, what: str) -> tuple[str, str]:
    """(message, path of the claim) of the first thing that is wrong; values are not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:200]
    return f"{what}: claim {field or 'as a whole'}: {first['msg']}", field
