"""Agreements: quote, appraisals, agreement, acceptance; signed, each naming the one before by its hash.

Made by provider, appraisers and consumer; entered by ``house.agree``. What both have signed is a price plan and its
split for one asset and one grantee, named by a hash (``plan_hash``); while an agreement is in force, a grant of that
asset to that grantee is issued on that plan or not at all, and the audit holds the log against it.

    quote ← appraisal …          an offer, and what others think it is worth
      ↑
    agreement ← acceptance       what was settled on, signed by the provider, then by the consumer

A chain is written as its tokens, joined by ``~``. Adversary: any of them may have been altered, exchanged or left out
by the other party; each is signed, and the hashes pin them to each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final, Self, TypeVar

from pydantic import Field, model_validator

from trustcompute.broker.grant import (
    MAX_LIST,
    SEPARATOR,
    Digest,
    Identifier,
    Label,
    Name,
    PricePlan,
    Rational,
    SelfSigned,
    Share,
    Thumbprint,
    Time,
    read_signed,
    stated,
)
from trustcompute.errors import GrantError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey, VerifyKey

QUOTE_TYPE: Final = "tc-quote+jwt"
APPRAISAL_TYPE: Final = "tc-appraisal+jwt"
AGREEMENT_TYPE: Final = "tc-agreement+jwt"
ACCEPTANCE_TYPE: Final = "tc-acceptance+jwt"
MAX_APPRAISALS: Final = 8

Split = Annotated[tuple[Share, ...], Field(strict=False, max_length=MAX_LIST)]
Model = TypeVar("Model", "Quote", "Appraisal", "Agreement", "Acceptance")


class _Terms(SelfSigned):
    """aud: the provider's node; asset, subject: what for whom; price, split: in the form of a grant."""

    aud: Name
    asset: Identifier
    subject: Thumbprint
    price: PricePlan
    split: Split = ()
    iat: Time
    exp: Time

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.exp <= self.iat:
            raise ValueError("it must end after it is made")
        heights = (0, *sorted({step.amount for share in self.split for step in share.above}))
        whole = all(sum((share.beyond(each) for share in self.split), Fraction()) == 1 for each in heights)
        if not whole and (self.split or self.price.kind != "free"):
            raise ValueError("the shares must sum to exactly 1")
        return self


class Quote(_Terms):
    """What the provider asks, until ``exp``."""


class Appraisal(SelfSigned):
    """What somebody else thinks the quoted use is worth: low to high minor units per ``unit``, and how it was found."""

    quote: Digest
    unit: Label
    low: Rational
    high: Rational
    method: Label
    iat: Time

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if Fraction(self.low) > Fraction(self.high):
            raise ValueError("an appraisal goes from low to high")
        return self


class Agreement(_Terms):
    """What was settled on; in force until ``exp``. quote, appraisals: hashes of the documents that led to it."""

    quote: Digest
    appraisals: Annotated[tuple[Digest, ...], Field(strict=False, max_length=MAX_APPRAISALS)] = ()


class Acceptance(SelfSigned):
    """The consumer's own signature under an agreement."""

    agreement: Digest
    iat: Time


@dataclass(frozen=True, slots=True)
class VerifiedAgreement:
    """A chain whose signatures and hashes were checked; made by ``verify`` only. hash: of the agreement's token."""

    claims: Agreement
    hash: str
    acceptance: str
    appraisals: tuple[Appraisal, ...]
    token: str

    @property
    def plan(self) -> str:
        return plan_hash(self.claims.price, self.claims.split)


def plan_hash(price: PricePlan, split: Sequence[Share]) -> str:
    """SHA-256 (hex) of a plan and its split, in canonical form; shares in order of their parties."""
    shares = [share.to_document() for share in sorted(split, key=lambda share: share.party)]
    document = {"price": price.to_document(), "split": shares}
    return hashlib.sha256(canonical.dumps(document)).hexdigest()


def quote(
    *,
    audience: str,
    asset: str,
    subject: str,
    price: PricePlan,
    split: Sequence[Share],
    key: SigningKey,
    now: int,
    days: int = 30,
) -> str:
    """An offer, signed by the provider. subject: the consumer's thumbprint. Raises ``ParameterError``."""
    claims = {"aud": audience, "asset": asset, "subject": subject, "price": price, "split": tuple(split)}
    return _sign(QUOTE_TYPE, Quote, claims | {"iat": now, "exp": now + days * 86400}, key)


def appraise(quoted: str, *, low: str, high: str, unit: str, method: str, key: SigningKey, now: int) -> str:
    """Add somebody's appraisal to a quote. low, high: exact minor units per ``unit``."""
    first = quoted.partition(SEPARATOR)[0]
    claims = {"quote": signing.token_hash(first), "low": low, "high": high, "unit": unit, "method": method}
    return quoted + SEPARATOR + _sign(APPRAISAL_TYPE, Appraisal, claims | {"iat": now}, key)


def agree(
    quoted: str,
    *,
    key: SigningKey,
    now: int,
    price: PricePlan | None = None,
    split: Sequence[Share] | None = None,
    days: int = 365,
) -> str:
    """Turn a quote (with its appraisals) into an agreement for the consumer to accept; the quoted terms, or others.

    Raises ``ParameterError`` for a claim, ``GrantError`` where the quote is not this provider's or has expired.
    """
    first, *others = quoted.split(SEPARATOR)
    offered, _ = read_signed(first, QUOTE_TYPE, Quote)
    if offered.key != key.public.x:
        raise GrantError("the quote was signed by somebody else: only its signer can agree to it", "key")
    if offered.exp <= now:
        raise GrantError("the quote has expired: make a new one", "exp")
    claims = {name: getattr(offered, name) for name in ("aud", "asset", "subject", "price", "split")}
    claims |= {} if price is None else {"price": price}
    claims |= {} if split is None else {"split": tuple(split)}
    claims |= {"quote": signing.token_hash(first), "appraisals": tuple(map(signing.token_hash, others))}
    made = _sign(AGREEMENT_TYPE, Agreement, claims | {"iat": now, "exp": now + days * 86400}, key)
    return quoted + SEPARATOR + made


def accept(agreed: str, *, key: SigningKey, now: int) -> str:
    """Accept an agreement as the consumer it names. Raises ``GrantError`` where any part of it does not verify."""
    claims, _, hash_ = _check(agreed.split(SEPARATOR))
    if claims.subject != key.thumbprint:
        raise GrantError("the agreement names another consumer", "subject")
    claims_of = {"agreement": hash_, "iat": now}
    return agreed + SEPARATOR + _sign(ACCEPTANCE_TYPE, Acceptance, claims_of, key)


def verify(chain: str, *, provider: VerifyKey, audience: str) -> VerifiedAgreement:
    """Check a whole chain, offline. provider: who must have quoted. Raises ``GrantError`` with the field."""
    *signed, last = chain.split(SEPARATOR)
    claims, appraisals, hash_ = _check(signed)
    if VerifyKey.from_x(claims.key) != provider:
        raise GrantError("the agreement was signed by another provider", "key")
    if claims.aud != audience:
        raise GrantError(f"the agreement is for {claims.aud}, this node is {audience}", "aud")
    accepted, consumer = read_signed(last, ACCEPTANCE_TYPE, Acceptance)
    if accepted.agreement != hash_:
        raise GrantError("another agreement was accepted", "agreement")
    if consumer.thumbprint != claims.subject:
        raise GrantError("somebody else than the consumer accepted", "key")
    if not claims.iat <= accepted.iat < claims.exp:
        raise GrantError("it was accepted before it was made, or after it had ended", "iat")
    return VerifiedAgreement(claims, hash_, signing.token_hash(last), appraisals, chain)


def _check(tokens: Sequence[str]) -> tuple[Agreement, tuple[Appraisal, ...], str]:
    """Quote, appraisals and agreement: signatures, and that each names what it is about."""
    if not 2 <= len(tokens) <= MAX_APPRAISALS + 2:
        raise GrantError(f"a chain has a quote, up to {MAX_APPRAISALS} appraisals, an agreement", "token")
    first, *others, last = tokens
    offered, _ = read_signed(first, QUOTE_TYPE, Quote)
    claims, _ = read_signed(last, AGREEMENT_TYPE, Agreement)
    appraisals = tuple(read_signed(each, APPRAISAL_TYPE, Appraisal)[0] for each in others)
    name = signing.token_hash(first)
    if claims.quote != name or any(each.quote != name for each in appraisals):
        raise GrantError("the documents are not about the same quote", "quote")
    if claims.appraisals != tuple(map(signing.token_hash, others)):
        raise GrantError("the appraisals are not those that the agreement names", "appraisals")
    for field in ("aud", "asset", "subject", "key"):
        if getattr(claims, field) != getattr(offered, field):
            raise GrantError(f"the agreement and its quote differ in {field}", field)
    if not offered.iat <= claims.iat < offered.exp:
        raise GrantError("the agreement was not made while the quote was open", "iat")
    return claims, appraisals, signing.token_hash(last)


def _sign(header_type: str, model: type[Model], claims: dict[str, object], key: SigningKey) -> str:
    with stated(header_type):
        made = model.model_validate(claims | {"key": key.public.x})
    return signing.sign(header_type, made.to_document(), key)
