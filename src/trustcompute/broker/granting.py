"""What the book is told of datasets and grants: commands, and the entries that come of them.

Entries say what statements and balances are rebuilt from: limits, prices, splits. Names of organisations enter as
salted commitments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.policy import Asset
from trustcompute.broker.store import Touched
from trustcompute.broker.writer import Book


@dataclass(frozen=True, slots=True)
class Register:
    """A dataset, or a new description of one; the same description again does nothing."""

    asset: Asset

    @property
    def touched(self) -> Touched:
        return Touched(datasets=(self.asset.id,))

    def apply(self, book: Book) -> None:
        if book.asset(self.asset.id) == self.asset:
            return
        book.record(
            "asset.registered",
            {
                "asset": self.asset.id,
                "version": self.asset.version,
                "schema": self.asset.schema_hash,
                "class": self.asset.classification,
                "grade": self.asset.grade,
                "personal": self.asset.personal,
                "limits": _limits(self.asset.limits),
                **({"epoch": self.asset.epoch} if self.asset.epoch else {}),
                **({"per_recipient": _limits(self.asset.per_recipient)} if self.asset.per_recipient else {}),
                **({"tables": list(self.asset.tables)} if self.asset.tables else {}),
            },
        )
        book.put_asset(self.asset)


@dataclass(frozen=True, slots=True)
class Issue:
    """A grant that this broker's identity has signed."""

    grant: VerifiedGrant

    @property
    def touched(self) -> Touched:
        return Touched(grants=(self.grant.hash,))

    def apply(self, book: Book) -> None:
        if not book.known(self.grant.hash):
            enter(book, "grant.issued", self.grant)


@dataclass(frozen=True, slots=True)
class Revoke:
    """For good, whether or not the grant was seen before; a second time does nothing."""

    grant: str
    reason: str

    @property
    def touched(self) -> Touched:
        return Touched(grants=(self.grant,))

    def apply(self, book: Book) -> None:
        if not book.revoked(self.grant):
            entry = book.record("grant.revoked", {"grant": self.grant}, {"reason": self.reason.encode()})
            book.put_revocation(self.grant, entry)


def enter(book: Book, kind: str, grant: VerifiedGrant) -> None:
    """Make a grant known to the log. kind: ``grant.issued`` or ``grant.accepted``."""
    entry = book.record(kind, grant_fields(grant), {"name": grant.claims.sub.encode()})
    book.put_grant(grant.hash, grant.token, entry)


def grant_fields(grant: VerifiedGrant) -> dict[str, Any]:
    """What the log says of a grant: what statements and balances are rebuilt from, limits, price, split."""
    claims = grant.claims
    return {
        "grant": grant.hash,
        **({"parent": grant.parent.hash} if grant.parent else {}),
        "issuer": claims.iss,
        "subject": claims.cnf.jkt,
        "asset": claims.asset.id,
        "operations": sorted(claims.operations),
        "right": claims.right,
        "nbf": claims.nbf,
        "exp": claims.exp,
        "limits": _limits(claims.limits),
        "price": claims.price.to_document(),
        "split": [share.to_document() for share in claims.split],
        "contingency": claims.contingency,
    }


def _limits(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {
        unit: {span: amount for span, amount in limit.to_document().items() if amount is not None}
        for unit, limit in limits.items()
    }
