"""What parties say about money, signed: that they dispute uses, that they made revenue.

Made by the parties, verified and entered by ``house``. Compact JWS of types ``tc-dispute+jwt`` and
``tc-revenue+jwt`` (``primitives.signing``). ``key`` is the signer's; what it may say is looked up in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from trustcompute.broker.grant import (
    Amount,
    Count,
    Digest,
    Label,
    Name,
    SelfSigned,
    Time,
    read_signed,
    stated,
)
from trustcompute.errors import GrantError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey

DISPUTE_TYPE: Final = "tc-dispute+jwt"
REVENUE_TYPE: Final = "tc-revenue+jwt"
MAX_DISPUTED: Final = 256  # entries of one dispute

Signed = TypeVar("Signed", "DisputeClaim", "RevenueClaim")


def _ascending(entries: tuple[int, ...]) -> tuple[int, ...]:
    if list(entries) != sorted(set(entries)):
        raise ValueError("entries are named once, in ascending order")
    return entries


class DisputeClaim(SelfSigned):
    """entries: indexes in the log of the node ``aud``; reason: in words, which the log only commits to."""

    aud: Name
    entries: Annotated[
        tuple[Count, ...],
        Field(strict=False, min_length=1, max_length=MAX_DISPUTED),
        AfterValidator(_ascending),
    ]
    reason: Label
    iat: Time


class RevenueClaim(SelfSigned):
    """amount: minor units of the plan's currency that the grantee made with the grant from start to end."""

    aud: Name
    grant: Digest
    start: Time
    end: Time
    amount: Amount
    iat: Time

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.start < self.end <= self.iat:
            raise ValueError("revenue is declared for a time that is over, from start to end")
        return self


def dispute(*, audience: str, entries: Sequence[int], reason: str, key: SigningKey, now: int) -> str:
    """A token that disputes uses. Raises ``ParameterError`` naming the claim."""
    with stated("dispute"):
        claims = DisputeClaim(
            aud=audience, entries=tuple(sorted(entries)), reason=reason, iat=now, key=key.public.x
        )
    return signing.sign(DISPUTE_TYPE, claims.to_document(), key)


def revenue(
    *, audience: str, grant: str, start: int, end: int, amount: int, key: SigningKey, now: int
) -> str:
    """A token that declares revenue. grant: the hash. Raises ``ParameterError`` naming the claim."""
    with stated("revenue"):
        claims = RevenueClaim(
            aud=audience, grant=grant, start=start, end=end, amount=amount, iat=now, key=key.public.x
        )
    return signing.sign(REVENUE_TYPE, claims.to_document(), key)


def verify(token: str, header_type: str, model: type[Signed], audience: str) -> tuple[Signed, str]:
    """The claims and the signer's thumbprint. Raises ``GrantError`` with the field."""
    claims, key = read_signed(token, header_type, model)
    if claims.aud != audience:
        raise GrantError(f"it is addressed to {claims.aud}, this node is {audience}", "aud")
    return claims, key.thumbprint
