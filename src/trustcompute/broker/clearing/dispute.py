"""Evidence: what is needed to settle a dispute over one charged job, offline, from both sides' papers.

The book's keeper makes a bundle (``house.evidence``); either side, or an arbiter, checks it with the log's key, and
beside it the receipt that the other side holds. What follows is found here, not asserted by anybody: who asked, under
which grant, that it was acknowledged, what it costs, or that the log signed two histories.

Adversary: both sides may show only what suits them. A bundle cannot be forged without the other's key; what is
missing from it (an acknowledgement, above all) counts as missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from trustcompute.broker import delegation, meter, request
from trustcompute.broker.clearing import plan
from trustcompute.broker.grant import Grant, VerifiedGrant, hash_of, read_claims
from trustcompute.broker.log import Entry
from trustcompute.broker.receipt import MAX_RECEIPT, Receipt
from trustcompute.broker.request import Request
from trustcompute.errors import AuditError, VerificationError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.signing import VerifyKey

BUNDLE_VERSION: Final = 1
MAX_BUNDLE: Final = 2 * MAX_RECEIPT + 8 * signing.MAX_TOKEN
_FIELDS: Final = {"v", "receipt", "grant", "request", "countersignature", "countersigned"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a bundle proves. entry: the charge; amount: exact, in minor units, ``None`` where it depends on earlier use.

    acknowledged: the consumer signed for the answer before it looked at it; contradicted: the other side's receipt
    and this one are both signed by the log and cannot both be of it. supports: whom this speaks for.
    """

    entry: Entry
    grant: Grant
    amount: Fraction | None
    acknowledged: bool
    contradicted: bool

    @property
    def supports(self) -> str:
        if self.contradicted:
            return "payer"
        return "provider" if self.acknowledged else "neither"

    def in_words(self) -> list[str]:
        """One sentence for each thing that was found."""
        fields = self.entry.fields
        said = [
            f"entry {self.entry.index} charges {fields['operation']} on {fields['dataset']} for {fields['purpose']}",
            "the payer's own key asked for it, under the grant that the entry names",
        ]
        if self.amount is not None:
            said.append(
                f"at the grant's price it costs {self.amount} minor units of {self.grant.price.currency}"
            )
        if self.contradicted:
            said.append("the log signed another entry in its place: its keeper altered the record")
        elif self.acknowledged:
            said.append("the payer signed for the answer when it arrived")
        else:
            said.append("nobody signed for the answer: that it arrived is not shown")
        return said


@dataclass(frozen=True, slots=True)
class Bundle:
    """The papers of one charge. grant: its chain; countersigned: receipt of the acknowledgement's entry."""

    receipt: Receipt
    grant: str
    request: str
    countersignature: str | None = None
    countersigned: Receipt | None = None

    def check(self, key: NoteKey, theirs: Receipt | None = None) -> Finding:
        """What the bundle proves to whoever knows the log's key. Raises ``VerificationError`` for a false paper.

        theirs: a receipt that the other side holds for the same place in the log.
        """
        entry = self.receipt.verify(key)
        if entry.type not in ("job.posted", "job.forfeited"):
            raise VerificationError(f"entry {entry.index} is a {entry.type}, which charges nothing")
        grant = self._check_grant(entry, key)
        asked = self._check_request(entry, grant)
        acknowledged = self.countersignature is not None
        if self.countersignature is not None:
            self._check_countersignature(entry, asked, key, self.countersignature)
        usage = meter.parse_usage(entry.fields["usage"])
        price = grant.claims.price
        amount = plan.rate(price, usage, asked.purpose) if price.window is None else None
        contradicted = theirs is not None and _contradicts(theirs, entry, self.receipt, key)
        return Finding(entry, grant.claims, amount, acknowledged, contradicted)

    def _check_grant(self, entry: Entry, key: NoteKey) -> VerifiedGrant:
        if hash_of(self.grant) != entry.fields["grant"]:
            raise VerificationError("the grant is not the one that was charged")
        trusted = {key.key.thumbprint: key.key}
        return delegation.verify(self.grant, trusted, key.name.partition("/")[0])

    def _check_request(self, entry: Entry, grant: VerifiedGrant) -> Request:
        claims, unverified = read_claims(self.request, request.REQUEST_TYPE, Request)
        asker = VerifyKey.from_x(claims.key)
        unverified.verify(asker)
        if signing.token_hash(self.request) != entry.fields["request"]:
            raise VerificationError("the request is not the one that was charged")
        if asker.thumbprint != grant.claims.cnf.jkt or claims.grant != grant.hash:
            raise VerificationError("the request was not signed by the grantee, or is of another grant")
        charged = (entry.fields["operation"], entry.fields["dataset"], entry.fields["payer"])
        if charged != (claims.op, claims.dataset, claims.payer):
            raise VerificationError("what was charged is not what was asked for")
        return claims

    def _check_countersignature(self, entry: Entry, asked: Request, key: NoteKey, token: str) -> None:
        claims, unverified = request.read_countersignature(token)
        unverified.verify(VerifyKey.from_x(asked.key))
        answered = entry.fields.get("frames") in claims.answers
        if claims.job != asked.jti or claims.request != entry.fields["request"] or not answered:
            raise VerificationError("the acknowledgement is of another answer")
        if self.countersigned is not None:
            recorded = self.countersigned.verify(key)
            if recorded.fields.get("token") != signing.token_hash(token):
                raise VerificationError("the log's entry is of another acknowledgement")

    def to_document(self) -> dict[str, Any]:
        return {
            "v": BUNDLE_VERSION,
            "receipt": self.receipt.to_document(),
            "grant": self.grant,
            "request": self.request,
            "countersignature": self.countersignature,
            "countersigned": None if self.countersigned is None else self.countersigned.to_document(),
        }

    def to_json(self) -> bytes:
        """Canonical JSON."""
        return canonical.dumps(self.to_document())

    @classmethod
    def from_json(cls, data: bytes) -> Bundle:
        """Raises ``VerificationError`` for what is no bundle; nothing in it is checked here."""
        document = canonical.loads_canonical(data, limit=MAX_BUNDLE)
        if not isinstance(document, dict) or set(document) != _FIELDS or not _is_ours(document["v"]):
            raise VerificationError(
                f"a bundle has exactly the fields {', '.join(sorted(_FIELDS))}, version 1"
            )
        tokens = [document[name] for name in ("grant", "request", "countersignature")]
        if not all(isinstance(token, str) for token in tokens if token is not None) or None in tokens[:2]:
            raise VerificationError("a bundle's grant, request and countersignature are tokens")
        countersigned = document["countersigned"]
        return cls(
            receipt=Receipt.from_document(document["receipt"]),
            grant=document["grant"],
            request=document["request"],
            countersignature=document["countersignature"],
            countersigned=None if countersigned is None else Receipt.from_document(countersigned),
        )


def _contradicts(theirs: Receipt, entry: Entry, ours: Receipt, key: NoteKey) -> bool:
    """Whether a verified receipt of the same place, or of the same job, says something else."""
    other = theirs.verify(key)
    same_place = other.index == entry.index
    same_job = other.fields.get("job") == entry.fields["job"] and other.type == entry.type
    if not same_place and not same_job:
        raise AuditError("the other side's receipt is of another charge")
    return theirs.entry != ours.entry or other.index != entry.index


def _is_ours(version: object) -> bool:
    return type(version) is int and version == BUNDLE_VERSION  # ``True`` equals 1, and is none
