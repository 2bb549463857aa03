"""Delegation: a grantee passes on part of what it was granted, never more, link by link.

Called by ``grant.verify`` on the node and by those who delegate. A chain is written as its tokens, root first, joined
by ``~``; each link names its parent's hash, is issued and signed by the key its parent names, and is *within* its
parent: sets are subsets, maxima no larger, minima no smaller, dates inside, depth smaller, the right no higher.
What a link leaves out it inherits. Prices and splits are the root's.

    hold → process → operate      one may delegate the right one has, or one further to the right; all but
                                  ``hold`` allow computing

Attenuation is checked here, claim by claim; that siblings cannot multiply a quota is the meter's doing, which
debits every ancestor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trustcompute.broker.grant import MAX_LINKS, RIGHTS, SEPARATOR, Bounds, Grant, Limit, hash_of
from trustcompute.errors import GrantError, ParameterError

_SETS: Final = ("purposes", "scenarios", "outputs", "territory")
_SAME: Final = ("aud", "price", "split", "consent")
_ASSET: Final = ("id", "version", "schema_hash", "classification", "grade", "personal")


def inherit(child: Grant, parent: Grant) -> Grant:
    """The child's claims with what it leaves out taken from its parent. Says nothing about attenuation."""
    changes: dict[str, Any] = {
        name: getattr(parent, name)
        for name in ("scenarios", "territory", "review", "consent")
        if getattr(child, name) is None
    }
    asset = {
        name: getattr(parent.asset, name)
        for name in ("version", "schema_hash")
        if getattr(child.asset, name) is None
    }
    changes["asset"] = child.asset.model_copy(update=asset)
    changes["operations"] = {
        name: _inherit_bounds(bounds, parent.operations[name]) if name in parent.operations else bounds
        for name, bounds in child.operations.items()
    }
    return child.model_copy(update=changes)


def check(child: Grant, parent: Grant) -> None:
    """Raise ``GrantError`` with the first claim in which ``child``, inherited, is not within ``parent``."""
    if child.iss != parent.cnf.jkt:
        raise GrantError("a grant is delegated by the key its parent names", "iss")
    if child.depth >= parent.depth:
        raise GrantError(f"the parent allows {parent.depth} further delegations: depth must be below that", "depth")
    for field in _beyond(child, parent):
        raise GrantError("a delegated grant may not allow more than its parent", field)


def _beyond(child: Grant, parent: Grant) -> Iterator[str]:
    """Fields in which the child asks for more than its parent has."""
    yield from (name for name in _SAME if getattr(child, name) != getattr(parent, name))
    yield from (f"asset.{name}" for name in _ASSET if not _pinned(child.asset, parent.asset, name))
    if RIGHTS.index(child.right) < RIGHTS.index(parent.right):
        yield "right"
    yield from (name for name in _SETS if not _subset(getattr(child, name), getattr(parent, name)))
    yield from (f"limits.{name}" for name in _beyond_limits(child.limits, parent.limits))
    for name, bounds in child.operations.items():
        if name not in parent.operations:
            yield f"operations.{name}"
        else:
            yield from (f"operations.{name}.{field}" for field in _beyond_bounds(bounds, parent.operations[name]))
    yield from _beyond_dates(child, parent)


def _beyond_dates(child: Grant, parent: Grant) -> Iterator[str]:
    if child.nbf < parent.nbf:
        yield "nbf"
    if child.exp > parent.exp:
        yield "exp"
    if not _at_most(child.review, parent.review):
        yield "review"


def _beyond_bounds(child: Bounds, parent: Bounds) -> Iterator[str]:
    yield from (name for name in ("columns", "counterparties") if not _subset(getattr(child, name), getattr(parent, name)))
    if not _at_most(child.max_rows, parent.max_rows):
        yield "max_rows"
    for name in ("min_rows", "min_group"):
        if (getattr(child, name) or 0) < (getattr(parent, name) or 0):
            yield name


def _beyond_limits(child: Mapping[str, Limit], parent: Mapping[str, Limit]) -> Iterator[str]:
    """Limits the child states itself; those it leaves out bind through the ancestors' accounts."""
    for unit, limit in child.items():
        above = parent.get(unit, Limit())
        for span in ("total", "per_call", "per_day"):
            stated, most = getattr(limit, span), getattr(above, span)
            if stated is not None and most is not None and stated > most:
                yield f"{unit}.{span}"


def _inherit_bounds(child: Bounds, parent: Bounds) -> Bounds:
    names = ("columns", "max_rows", "min_rows", "min_group", "counterparties")
    return child.model_copy(update={name: getattr(parent, name) for name in names if getattr(child, name) is None})


def _pinned(child: Any, parent: Any, name: str) -> bool:
    """Whether the child's claim about the asset is the parent's, or narrows one that was left open."""
    return getattr(parent, name) is None or getattr(child, name) == getattr(parent, name)


def _subset(child: tuple[Any, ...] | None, parent: tuple[Any, ...] | None) -> bool:
    return parent is None or (child is not None and set(child) <= set(parent))


def _at_most(child: int | None, parent: int | None) -> bool:
    return parent is None or (child is not None and child <= parent)


def delegate(parent: Grant, *, parent_token: str, key: str, **changes: Any) -> Grant:
    """Claims of a child of ``parent``, the same where ``changes`` say nothing else; to be signed by its subject.

    parent_token: the chain that ends in ``parent``; key: the delegator's public key (JWK x). changes: ``sub``,
    ``cnf``, ``jti`` and dates are required, and whatever shall be narrower. Raises ``GrantError`` for what would
    be more than the parent has, ``ParameterError`` for claims that are not well-formed.
    """
    if parent_token.count(SEPARATOR) + 2 > MAX_LINKS:
        raise ParameterError(f"a chain has at most {MAX_LINKS} links")
    claims = {name: getattr(parent, name) for name in type(parent).model_fields} | {
        "iss": parent.cnf.jkt,
        "parent": hash_of(parent_token),
        "key": key,
        "depth": max(parent.depth - 1, 0),
        "limits": {},
        "contingency": parent.contingency,
    }
    child = Grant(**(claims | changes))
    check(inherit(child, parent), parent)
    return child
