"""Requests: one computation, asked for under a grant and signed with the key the grant names.

The consumer's session builds and signs them; the provider's broker verifies them; ``countersign`` is what the
consumer sends on arrival of an answer, before it checks anything. Tokens are compact JWS of types
``tc-request+jwt`` and ``tc-countersignature+jwt``.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from trustcompute.broker.grant import (
    Count,
    Digest,
    Document,
    Identifier,
    Label,
    Name,
    OperationId,
    Thumbprint,
    Time,
    VerifiedGrant,
    hash_of,
    read_claims,
    stated,
)
from trustcompute.errors import GrantError, ParameterError, VerificationError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey

REQUEST_TYPE: Final = "tc-request+jwt"
COUNTERSIGNATURE_TYPE: Final = "tc-countersignature+jwt"
LIFETIME: Final = 7 * 86400  # as long as an answer is kept: a retry sends the same request again
CLOCK_SKEW: Final = 120  # seconds that a peer's clock may be ahead
MAX_ANSWERS: Final = 256  # runs of one job

JobId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
X = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")]


@dataclass(frozen=True, slots=True)
class Parties:
    """Thumbprints of who asks, who receives and who pays; where left out, whoever signs the request.

    Others than the grant's subject must be named by the grant: as ``counterparties`` of the operation, or as ``payer``.
    """

    asker: str | None = None
    recipient: str | None = None
    payer: str | None = None


ONE_PARTY: Final = Parties()


class DeclaredSizes(Document):
    """consumer: distinct keys or rows that the consumer declares to bring."""

    consumer: Count


class Request(Document):
    """The claims of a request. Asker, recipient and payer are thumbprints, usually all the signer's."""

    jti: JobId
    op: OperationId
    dataset: Identifier
    params: dict[str, Any]
    sizes: DeclaredSizes
    purpose: Label
    scenario: Label | None = None
    territory: Label | None = None
    aud: Name
    san: Name
    key: X
    iat: Time
    exp: Time
    grant: Digest
    asker: Thumbprint
    recipient: Thumbprint
    payer: Thumbprint

    def sign(self, key: SigningKey) -> str:
        """The token. Raises ``ParameterError`` where the request names another key."""
        if self.key != key.public.x:
            raise ParameterError("the request names another key than the one that signs it")
        return signing.sign(REQUEST_TYPE, self.to_document(), key)


class Countersignature(Document):
    """request: hash of the request's token; answers: hashes of the answers' turns, by run and turn."""

    job: JobId
    request: Digest
    answers: Annotated[tuple[Digest, ...], Field(strict=False, min_length=1, max_length=MAX_ANSWERS)]
    iat: Time


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose signature, key, audience, peer and time were checked; made by ``verify`` only."""

    claims: Request
    token: str
    hash: str
    grant: VerifiedGrant
    key: VerifyKey

    @property
    def job(self) -> str:
        return self.claims.jti


def read(token: str) -> Request:
    """The claims of a request of one's own, unverified. Raises ``GrantError`` for what is no request."""
    return read_claims(token, REQUEST_TYPE, Request)[0]


def new_job() -> str:
    """A fresh job id: 128 bits in hex, ordered by time, 74 of them random (UUID version 7, RFC 9562 §5.7)."""
    stamp = time.time_ns() // 1_000_000 & (1 << 48) - 1
    random = secrets.randbits(74)
    value = stamp << 80 | 0x7 << 76 | random >> 62 << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return f"{value:032x}"


def new_request(
    *,
    grant: str,
    operation: str,
    dataset: str,
    params: Mapping[str, Any],
    rows: int,
    purpose: str,
    audience: str,
    san: str,
    key: VerifyKey,
    job: str | None = None,
    scenario: str | None = None,
    territory: str | None = None,
    parties: Parties = ONE_PARTY,
    now: int | None = None,
    lifetime: int = LIFETIME,
) -> Request:
    """An unsigned request by the holder of ``key``. grant: the token; rows: declared.

    Raises ``ParameterError`` naming the claim that is not acceptable.
    """
    issued = int(time.time()) if now is None else now
    with stated("request"):
        return Request(
            jti=job or new_job(),
            op=operation,
            dataset=dataset,
            params=dict(params),
            sizes=DeclaredSizes(consumer=rows),
            purpose=purpose,
            scenario=scenario,
            territory=territory,
            aud=audience,
            san=san,
            key=key.x,
            iat=issued,
            exp=issued + lifetime,
            grant=hash_of(grant),
            asker=parties.asker or key.thumbprint,
            recipient=parties.recipient or key.thumbprint,
            payer=parties.payer or key.thumbprint,
        )


def verify(token: str, *, grant: VerifiedGrant, audience: str, peer: str, now: int) -> VerifiedRequest:
    """Check a request against its grant, this node's name and the peer's TLS name. Raises ``GrantError``."""
    claims, unverified = read_claims(token, REQUEST_TYPE, Request)
    key = _key(claims.key)
    if key.thumbprint != grant.claims.cnf.jkt:
        raise GrantError("the request is signed with another key than the grant names", "key")
    try:
        unverified.verify(key)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    if claims.grant != grant.hash:
        raise GrantError("the request was made under another grant", "grant")
    if claims.aud != audience:
        raise GrantError(f"the request is for {claims.aud}, this node is {audience}", "aud")
    if claims.san != peer or claims.san != grant.claims.sub:
        raise GrantError("the request, the grant and the connection must name the same peer", "san")
    if claims.iat > now + CLOCK_SKEW:
        raise GrantError("the request is dated in the future: compare the two clocks", "iat")
    if not claims.iat < claims.exp <= claims.iat + LIFETIME:
        raise GrantError(f"a request is valid for at most {LIFETIME} seconds", "exp")
    if claims.exp <= now:
        raise GrantError("the request has expired: sign a new one", "exp")
    return VerifiedRequest(claims, token, signing.token_hash(token), grant, key)


@functools.lru_cache(maxsize=1024)
def _key(x: str) -> VerifyKey:
    try:
        return VerifyKey.from_x(x)
    except VerificationError as error:
        raise GrantError(str(error), "key") from error


def countersign(
    *, job: str, request: str, answers: Sequence[str], key: SigningKey, now: int | None = None
) -> str:
    """The consumer's acknowledgement of an answer, as a token.

    request: the request's token; answers: SHA-256 (hex) of each turn that released something, by run and turn.
    """
    claims = Countersignature(
        job=job,
        request=signing.token_hash(request),
        answers=tuple(answers),
        iat=int(time.time()) if now is None else now,
    )
    return signing.sign(COUNTERSIGNATURE_TYPE, claims.to_document(), key)


def read_countersignature(token: str) -> tuple[Countersignature, signing.Unverified]:
    """Claims of a countersignature, to find the job and verify with its key. Raises ``GrantError``."""
    return read_claims(token, COUNTERSIGNATURE_TYPE, Countersignature)
