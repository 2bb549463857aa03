"""Delegation: a grantee passes on part of what it was granted, never more, link by link.

The broker verifies chains, grantees make them, sessions read them. A chain is written as its tokens, root first,
joined by ``~``; each link names its parent's hash, is issued and signed by the key its parent names, and is
*within* its parent: sets are subsets, maxima no larger, minima no smaller, dates inside, depth smaller, the right
no higher. What a link leaves out it inherits. Audience, price and split are the root's.

    hold → process → operate      one may delegate the right one has, or one further to the right; all but
                                  ``hold`` allow computing

Attenuation is checked here, claim by claim; that siblings cannot multiply a quota is the meter's doing, which
debits every ancestor. Source of the idea: macaroons (Birgisson et al., NDSS 2014) and SPKI (RFC 2693 §6.3); here
every link is a signed document of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from trustcompute.broker.grant import (
    GRANT_TYPE,
    MAX_CHAIN,
    MAX_LINKS,
    SEPARATOR,
    AssetClaim,
    Bounds,
    Confirmation,
    Document,
    Grant,
    Limit,
    Right,
    VerifiedGrant,
    hash_of,
    read_claims,
    sign,
    stated,
)
from trustcompute.errors import GrantError, ParameterError, VerificationError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey

Part = TypeVar("Part", bound=Document)

RIGHTS: Final[tuple[Right, ...]] = (
    "hold",
    "process",
    "operate",
)  # in the order in which they may be delegated

_SAME: Final = ("aud", "price", "split")
_INHERITED: Final = ("scenarios", "territory", "review", "consent")
_SETS: Final = ("purposes", "scenarios", "outputs", "territory")
_ASSET: Final = ("id", "version", "schema_hash", "classification", "grade", "personal")
_BOUNDS: Final = ("columns", "predicates", "max_rows", "min_rows", "min_group", "counterparties", "similar")
_SPANS: Final = ("total", "per_call", "per_day")


def verify(token: str, trusted: Mapping[str, VerifyKey], audience: str) -> VerifiedGrant:
    """Check a grant, or a chain of delegated ones: form, issuers, signatures, attenuation, audience.

    trusted: keys of root issuers by thumbprint. Raises ``GrantError`` with the field of the first link that is
    wrong, counted from the root.
    """
    verified: VerifiedGrant | None = None
    for link in _links(token):
        verified = _verify_link(link, verified, trusted)
    assert verified is not None  # splitting a text gives one part at least
    if verified.claims.aud != audience:
        raise GrantError(f"the grant is for {verified.claims.aud}, this node is {audience}", "aud")
    return verified


def read(token: str) -> Grant:
    """The claims of a grant, with what it inherits, without any check of signatures: for its holder.

    Raises ``GrantError`` with the field.
    """
    return read_chain(token)[-1]


def read_chain(token: str) -> list[Grant]:
    """The claims of all links, root first, as ``read`` does."""
    chain: list[Grant] = []
    for link in _links(token):
        claims, _ = read_claims(link, GRANT_TYPE, Grant)
        chain.append(inherit(claims, chain[-1]) if chain else claims)
    return chain


def delegate(
    parent: str,
    *,
    issuer: VerifyKey,
    subject: str,
    subject_key: str,
    now: int,
    days: int | None = None,
    **narrower: Any,
) -> Grant:
    """Claims of a grant delegated from ``parent`` (a token or chain), to be signed with ``extend``.

    issuer: the key that ``parent`` names; subject, subject_key: name and thumbprint of the new grantee; days: from
    ``now``, the parent's end if left out; narrower: claims by name, taken from the parent where left out.
    Raises ``ParameterError`` naming a claim that is malformed, ``GrantError`` with the field for more than the parent
    allows.
    """
    unknown = set(narrower) - set(Grant.model_fields)
    if unknown:
        raise ParameterError(
            f"a grant has no claim {min(unknown)!r}; it has: {', '.join(Grant.model_fields)}"
        )
    above = read(parent)
    claims = {name: getattr(above, name) for name in Grant.model_fields} | {
        "iss": issuer.thumbprint,
        "sub": subject,
        "jti": secrets.token_hex(16),
        "iat": now,
        "nbf": max(now, above.nbf),
        "exp": above.exp if days is None else now + days * 86400,
        "depth": max(above.depth - 1, 0),
        "parent": hash_of(parent),
        "key": issuer.x,
        "payer": None,
    }
    with stated("grant"):
        claims["cnf"] = Confirmation(jkt=subject_key)
        child = Grant(**(claims | narrower))
    check(inherit(child, above), above)
    return child


def extend(parent: str, claims: Grant, key: SigningKey) -> str:
    """The chain of ``parent`` and a grant delegated from it. Raises ``ParameterError`` where it gets too long."""
    chain = parent + SEPARATOR + sign(claims, key)
    if chain.count(SEPARATOR) + 1 > MAX_LINKS or len(chain) > MAX_CHAIN:
        raise ParameterError(f"a chain has at most {MAX_LINKS} grants and {MAX_CHAIN} characters")
    return chain


def inherit(child: Grant, parent: Grant) -> Grant:
    """The child's claims with what it leaves out taken from its parent. Says nothing about attenuation."""
    asset = _filled(child.asset, parent.asset, ("version", "schema_hash"))
    operations = {
        name: _filled(bounds, parent.operations.get(name, bounds), _BOUNDS)
        for name, bounds in child.operations.items()
    }
    limits = {
        unit: _filled(child.limits.get(unit, Limit()), parent.limits.get(unit, Limit()), _SPANS)
        for unit in {**parent.limits, **child.limits}
    }
    whole = {"asset": asset, "operations": operations, "limits": limits}
    return _filled(child, parent, _INHERITED).model_copy(update=whole)


def check(child: Grant, parent: Grant) -> None:
    """Raise ``GrantError`` with the first claim in which ``child``, inherited, is not within ``parent``."""
    if child.iss != parent.cnf.jkt:
        raise GrantError("a grant is delegated by the key that its parent names", "iss")
    if child.depth >= parent.depth:
        allowed = f"{parent.depth} further delegations" if parent.depth else "no delegation"
        raise GrantError(f"the parent allows {allowed}: depth must be below {parent.depth}", "depth")
    if child.payer not in (None, child.iss, parent.payer):
        raise GrantError("nobody but the issuer, and whom the parent names, has agreed to pay", "payer")
    for field in _beyond(child, parent):
        raise GrantError("a delegated grant may not allow more than its parent", field)


def _links(token: str) -> list[str]:
    links = token.split(SEPARATOR, MAX_LINKS)
    if len(token) > MAX_CHAIN or len(links) > MAX_LINKS:
        raise GrantError(f"a chain has at most {MAX_LINKS} grants and {MAX_CHAIN} characters", "token")
    return links


def _verify_link(token: str, parent: VerifiedGrant | None, trusted: Mapping[str, VerifyKey]) -> VerifiedGrant:
    claims, unverified = read_claims(token, GRANT_TYPE, Grant)
    if claims.parent != (parent and parent.hash):
        raise GrantError("the grant in front of this one is not the parent that it names", "parent")
    key = _root_key(claims, trusted) if parent is None else _delegator_key(claims)
    try:
        unverified.verify(key)
    except TokenError as error:
        raise GrantError(str(error), error.field) from error
    if parent is not None:
        claims = inherit(claims, parent.claims)
        check(claims, parent.claims)
    return VerifiedGrant(claims, token, signing.token_hash(token), parent)


def _root_key(claims: Grant, trusted: Mapping[str, VerifyKey]) -> VerifyKey:
    if claims.key is not None:
        raise GrantError("only a delegated grant carries the key of its issuer", "key")
    key = trusted.get(claims.iss)
    if key is None:
        raise GrantError("this node does not trust the issuer of the grant", "iss")
    return key


def _delegator_key(claims: Grant) -> VerifyKey:
    """A delegated grant brings its issuer's key; that its parent names that key is for ``check`` to see."""
    try:
        key = VerifyKey.from_x(claims.key or "")
    except VerificationError as error:
        raise GrantError("a delegated grant carries the key of its issuer", "key") from error
    if key.thumbprint != claims.iss:
        raise GrantError("the key is not that of the issuer", "key")
    return key


def _filled(child: Part, parent: Part, names: tuple[str, ...]) -> Part:
    absent = {name: getattr(parent, name) for name in names if getattr(child, name) is None}
    return child.model_copy(update=absent)


def _beyond(child: Grant, parent: Grant) -> Iterator[str]:
    """Fields in which the child asks for more than its parent has."""
    yield from (name for name in _SAME if getattr(child, name) != getattr(parent, name))
    if not _pinned(child.consent, parent.consent):
        yield "consent"
    for name in _ASSET:
        if not _pinned(getattr(child.asset, name), getattr(parent.asset, name)):
            yield f"asset.{AssetClaim.model_fields[name].alias or name}"
    if RIGHTS.index(child.right) < RIGHTS.index(parent.right):
        yield "right"
    yield from (name for name in _SETS if not _subset(getattr(child, name), getattr(parent, name)))
    yield from _beyond_limits(child, parent)
    yield from _beyond_operations(child, parent)
    if child.nbf < parent.nbf:
        yield "nbf"
    if child.exp > parent.exp:
        yield "exp"
    if not _at_most(child.review, parent.review):
        yield "review"


def _beyond_limits(child: Grant, parent: Grant) -> Iterator[str]:
    for unit, limit in parent.limits.items():
        below = child.limits.get(unit, Limit())
        for span in _SPANS:
            if not _at_most(getattr(below, span), getattr(limit, span)):
                yield f"limits.{unit}.{span}"


def _beyond_operations(child: Grant, parent: Grant) -> Iterator[str]:
    for name, bounds in child.operations.items():
        if name in parent.operations:
            yield from (
                f"operations.{name}.{field}" for field in _beyond_bounds(bounds, parent.operations[name])
            )
        else:
            yield f"operations.{name}"


def _beyond_bounds(child: Bounds, parent: Bounds) -> Iterator[str]:
    if not _subset(child.columns, parent.columns):
        yield "columns"
    if not _subset(child.predicates, parent.predicates):
        yield "predicates"
    if not _at_most(child.max_rows, parent.max_rows):
        yield "max_rows"
    for name in ("min_rows", "min_group"):
        if (getattr(child, name) or 0) < (getattr(parent, name) or 0):
            yield name
    if parent.similar is not None and (
        child.similar is None
        or child.similar.runs > parent.similar.runs
        or child.similar.keys < parent.similar.keys
    ):
        yield "similar"
    # Unlike the other lists, an absent list of counterparties allows nobody, not everybody.
    if not set(child.counterparties or ()) <= set(parent.counterparties or ()):
        yield "counterparties"


def _pinned(child: object, parent: object) -> bool:
    """Whether a claim is the parent's, or settles one that was left open."""
    return parent is None or child == parent


def _subset(child: tuple[Any, ...] | None, parent: tuple[Any, ...] | None) -> bool:
    return parent is None or (child is not None and set(child) <= set(parent))


def _at_most(child: int | None, parent: int | None) -> bool:
    return parent is None or (child is not None and child <= parent)
