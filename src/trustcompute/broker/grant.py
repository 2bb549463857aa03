"""Grants: who may compute what on which data, for which purpose, how much, at what price, and who shares it.

Issued and verified by the broker; consumers keep the token and send it along. A grant is a compact JWS of
type ``tc-grant+jwt`` (``primitives.signing``) whose payload is a ``Grant``. What a grant does not say is
not granted: unknown, doubled and malformed claims are refused by name. Absent lists of scenarios and
territories and absent bounds and limits mean "not limited by this grant". This module knows a grant by itself;
chains of delegated ones, and verifying either, are in ``delegation``.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
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
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from trustcompute.broker import currency
from trustcompute.errors import GrantError, ParameterError, VerificationError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey
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
Signed = TypeVar("Signed", bound="SelfSigned")


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


def _currency(code: str) -> str:
    if code not in currency.DIGITS:
        raise ValueError("a currency is an active code of ISO 4217, such as EUR or CNY")
    return code


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


class SelfSigned(Document):
    """A document that carries the key which signed it. key: ``x`` of its JWK; read with ``read_signed``."""

    key: PublicKey


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


class Similar(Document):
    """Runs on sets that differ from an earlier one by ``keys`` keys or fewer, but do differ: ``runs`` at most."""

    keys: Count
    runs: Count


class Bounds(Document):
    """Bounds on one operation's parameters.

    columns: those that may be named in a request; predicates: those that may be verified; max_rows, min_rows: of the
    consumer's declared rows; min_group: the least value of the parameter ``min_group``; counterparties: thumbprints
    of those who, beside the subject, may ask for or receive a result; similar: how often the consumer may come back
    with a set like an earlier one (``node.differencing``).
    """

    columns: Labels | None = None
    predicates: Labels | None = None
    max_rows: Count | None = None
    min_rows: Count | None = None
    min_group: Count | None = None
    counterparties: Annotated[tuple[Thumbprint, ...], Field(strict=False, max_length=MAX_LIST)] | None = None
    similar: Similar | None = None


class Limit(Document):
    """How much of one unit: in total, per job, and per UTC day. ``None``: not limited."""

    total: Amount | None = None
    per_call: Amount | None = None
    per_day: Amount | None = None


class Tier(Document):
    """A rate for each unit up to ``upto`` of the plan's window (beyond the tier before); ``None``: for all others."""

    upto: Annotated[int, Field(ge=1, le=canonical.MAX_INTEGER)] | None = None
    rate: Rational


class PricePlan(Document):
    """What use costs, in minor units of the currency: exact decimals ("0.25") or fractions ("1/3").

    kind             costs, beside ``per_call`` and ``per_row``
    ``free``         nothing; use is metered all the same
    ``conditional``  nothing for the purposes ``free_for``, and nothing for the first ``free_calls`` and
                     ``free_rows`` of each window
    ``per_use``      nothing else
    ``tiered``       each ``unit`` the rate of the tier that it falls into, counted from the window's begin
    ``annual``       ``fee`` for every year that begins, payable by the grantee; delegated grants are covered
    ``revenue_share``  ``rate`` of the revenue that the grantee declares

    window: over which tiers and allowances count: the life of the grant with all that were delegated from it, or
    UTC calendar months or years. It is not the period of statements, which whoever closes them could choose.
    """

    kind: Literal["free", "conditional", "per_use", "tiered", "annual", "revenue_share"]
    currency: Annotated[str, AfterValidator(_currency)] | None = None
    per_call: Rational = "0"
    per_row: Rational = "0"
    free_for: Labels | None = None
    free_calls: Count | None = None
    free_rows: Count | None = None
    unit: Literal["calls", "rows"] | None = None
    tiers: Annotated[tuple[Tier, ...], Field(strict=False, min_length=1, max_length=MAX_LIST)] | None = None
    window: Literal["grant", "month", "year"] | None = None
    fee: Rational | None = None
    rate: Rational | None = None

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.kind == "free" and (self.currency or Fraction(self.per_call) or Fraction(self.per_row)):
            raise ValueError("a free plan has no currency and no rates")
        if self.kind != "free" and self.currency is None:
            raise ValueError(f"a plan of kind {self.kind} needs a currency (ISO 4217)")
        needed, allowed = _TERMS[self.kind]
        for name in _PLANNED:
            if getattr(self, name) is None and name in needed:
                raise ValueError(f"a plan of kind {self.kind} needs {name}")
            if getattr(self, name) is not None and name not in needed | allowed:
                raise ValueError(f"a plan of kind {self.kind} has no {name}")
        self._check_terms()
        return self

    def _check_terms(self) -> None:
        if self.kind == "conditional":
            counted = self.free_calls is not None or self.free_rows is not None
            if not counted and self.free_for is None:
                raise ValueError("a conditional plan says what is free: free_for, free_calls or free_rows")
            if counted != (self.window is not None):
                raise ValueError("free_calls and free_rows need a window, and nothing else does")
        if self.rate is not None and Fraction(self.rate) > 1:
            raise ValueError("a share of revenue is at most 1")
        ends = [tier.upto for tier in self.tiers or ()]
        closed = [end for end in ends[:-1] if end is not None]
        if ends and (ends[-1] is not None or len(closed) < len(ends) - 1 or closed != sorted(set(closed))):
            raise ValueError("tiers rise in upto, and the last has none")

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Terms that a plan has not are not written: a plan keeps the form that it had before there were such terms."""
        written: dict[str, Any] = dump(self)
        return {name: value for name, value in written.items() if value is not None or name not in _PLANNED}


_PLANNED: Final = ("free_for", "free_calls", "free_rows", "unit", "tiers", "window", "fee", "rate")
_TERMS: Final[Mapping[str, tuple[set[str], set[str]]]] = {  # of a kind: needed, allowed
    "free": (set(), set()),
    "conditional": (set(), {"free_for", "free_calls", "free_rows", "window"}),
    "per_use": (set(), set()),
    "tiered": ({"unit", "tiers", "window"}, set()),
    "annual": ({"fee"}, set()),
    "revenue_share": ({"rate"}, set()),
}
FREE: Final = PricePlan(kind="free")


class Step(Document):
    """Of what a grant has cost beyond ``amount`` minor units, the party's share is this one."""

    amount: Annotated[int, Field(ge=1, le=canonical.MAX_INTEGER)]
    share: Rational


class Share(Document):
    """A party's share of the price, exact: "7/10"; with ``above`` another of what the grant costs beyond an amount.

    party: a thumbprint or a name. ``pool:NAME`` is divided by recorded contributions before a period closes;
    ``public:NAME`` is an earmarked account that is never set off against anything.
    """

    party: Party
    share: Rational
    above: Annotated[tuple[Step, ...], Field(strict=False, max_length=MAX_LIST)] = ()

    @field_validator("above")
    @classmethod
    def _rising(cls, above: tuple[Step, ...]) -> tuple[Step, ...]:
        amounts = [step.amount for step in above]
        if amounts != sorted(set(amounts)):
            raise ValueError("the steps of a share rise in amount")
        return above

    @model_serializer(mode="wrap")
    def _without_absent(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        return {name: value for name, value in written.items() if name != "above" or value}

    def beyond(self, amount: int) -> Fraction:
        """The share of what a grant costs beyond ``amount``."""
        reached = [step.share for step in self.above if step.amount <= amount]
        return Fraction(reached[-1] if reached else self.share)


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
        for amount in (0, *sorted({step.amount for share in split for step in share.above})):
            if sum((share.beyond(amount) for share in split), Fraction(0)) != 1:
                beyond = f" beyond {amount}" if amount else ""
                raise ValueError(f"the shares{beyond} must sum to exactly 1")
        return split


@dataclass(frozen=True, slots=True, eq=False)
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
    with stated("grant"):
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


def read_signed(token: str, header_type: str, model: type[Signed]) -> tuple[Signed, VerifyKey]:
    """Parse and verify a document that carries its signer's key; whose key that may be is for the caller to say.

    Raises ``GrantError`` with the field.
    """
    claims, unverified = read_claims(token, header_type, model)
    try:
        key = VerifyKey.from_x(claims.key)
        unverified.verify(key)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    except VerificationError as error:
        raise GrantError(str(error), "key") from error
    return claims, key


@contextlib.contextmanager
def stated(what: str) -> Iterator[None]:
    """For making a document: raises ``ParameterError`` naming the claim where it is not an acceptable one."""
    try:
        yield
    except ValidationError as error:
        message, field = explain_validation(error, what)
        raise ParameterError(f"{message} ({field})") from error


def explain_validation(error: ValidationError, what: str) -> tuple[str, str]:
    """(message, path of the claim) of the first thing that is wrong; values are not repeated."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])[:200]
    return f"{what}: claim {field or 'as a whole'}: {first['msg']}", field
