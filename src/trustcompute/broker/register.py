"""The register of certificates: what a broker can do with them, and the filings that follow from its log.

Reached as ``broker.certificates``. Whoever holds a certificate orders its circulation and its applications, by a
signed ``tc-certificate-order+jwt`` that names the last entry about it (so no order is carried out twice); the node that
issued it changes and cancels it. Every state is what the entries amount to, which the audit replays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from trustcompute.broker import certificate, log
from trustcompute.broker.certificate import Certificate, Dossier, Standing, State, Verified
from trustcompute.broker.clearing.fold import Fold
from trustcompute.broker.clearing.record import Clearing
from trustcompute.broker.clearing.statement import Period
from trustcompute.broker.grant import (
    AssetClaim,
    Count,
    Digest,
    Label,
    Name,
    Right,
    SelfSigned,
    Thumbprint,
    Time,
    read_signed,
    stated,
)
from trustcompute.broker.log import Entry
from trustcompute.broker.receipt import prove
from trustcompute.broker.store import NOTHING, Evidence, Touched
from trustcompute.broker.writer import Book, Writer
from trustcompute.errors import GrantError, ParameterError, StoreError
from trustcompute.primitives import signing
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.signing import SigningKey

ORDER_TYPE: Final = "tc-certificate-order+jwt"
_FILED: Final = ("entry", "time", "event", "certificate", "asset", "holder", "detail")


class Order(SelfSigned):
    """What the holder wants done. previous: index of the last entry about the certificate; to: the new holder."""

    aud: Name
    certificate: Digest
    previous: Count
    kind: Literal["circulated", "applied"]
    to: Thumbprint | None = None
    use: Label | None = None
    iat: Time


def order(
    standing: Standing,
    *,
    node: str,
    key: SigningKey,
    now: int,
    to: str | None = None,
    use: str | None = None,
) -> str:
    """The holder's order: circulate it ``to`` a thumbprint, or apply it to a ``use``; one of the two."""
    if (to is None) == (use is None):
        raise ParameterError("an order circulates a certificate to somebody, or applies it to a use")
    with stated("order"):
        made = Order(
            aud=node,
            certificate=standing.certificate,
            previous=standing.entries[-1],
            kind="applied" if to is None else "circulated",
            to=to,
            use=use,
            iat=now,
            key=key.public.x,
        )
    return signing.sign(ORDER_TYPE, made.to_document(), key)


@dataclass(frozen=True, slots=True)
class Enter:
    """One or two entries about certificates, made from the record as it is within the transaction."""

    make: Callable[[Clearing], list[tuple[str, dict[str, Any]]]]
    fold: Fold
    token: tuple[str, str] | None = None  # kind and token, to keep
    touched: Touched = NOTHING

    def apply(self, book: Book) -> None:
        made = self.make(self.fold.at(book))
        for kind, fields in made:
            book.record(kind, fields)
        if self.token is not None and made:
            kind, token = self.token
            name = signing.token_hash(token)
            book.keep(Evidence(name, kind, name, token))


class Register:
    """See the module. Made by the broker; shares its writer and what it read of the log."""

    def __init__(self, writer: Writer, key: NoteKey, signer: SigningKey | None, fold: Fold) -> None:
        """key: of the log; signer: the node's key, where the register is more than read."""
        self._writer, self._key, self._signer, self._fold = writer, key, signer, fold
        self._name = log.name_of(key)

    def issue(
        self, *, holder: str, asset: AssetClaim, right: Right, source: str, days: int | None = None
    ) -> str:
        """Register an asset: a certificate for its holder (thumbprint). Returns the token."""
        token = self._new(holder=holder, asset=asset, right=right, source=source, days=days, replaces=None)
        self._enter(lambda record: [_issued(token, self._read(token))], ("certificate", token))
        return token

    def carry_out(self, token: str) -> Standing:
        """Carry out a holder's order. Raises ``GrantError`` unless the holder signed it, of the present state."""
        asked, by = _verify_order(token, self._name)

        def make(record: Clearing) -> list[tuple[str, dict[str, Any]]]:
            known = _known(record, asked.certificate)
            if by != known.holder:
                raise GrantError("only its holder circulates or applies a certificate", "key")
            what = {"holder": asked.to} if asked.kind == "circulated" else {"use": asked.use}
            if asked.previous != known.entries[-1]:
                raise GrantError(
                    "the order is of an earlier state: look the certificate up again", "previous"
                )
            return [self._event(known, asked.kind, {**what, "order": signing.token_hash(token)})]

        self._enter(make, ("order", token))
        return self.standing(asked.certificate)

    def change(
        self,
        name: str,
        *,
        asset: AssetClaim | None = None,
        source: str | None = None,
        days: int | None = None,
    ) -> str:
        """Put a new certificate in the place of one, for its present holder. Returns the new token."""
        old, known = self._read(self.token(name)), self.standing(name)
        token = self._new(
            holder=known.holder,
            asset=asset or old.asset,
            right=old.right,
            source=source or old.source,
            days=days,
            replaces=name,
        )

        def make(record: Clearing) -> list[tuple[str, dict[str, Any]]]:
            now = _known(record, name)
            if now.holder != known.holder:
                raise ParameterError("the certificate has just been circulated: change it again")
            changed = self._event(now, "changed", {"by": signing.token_hash(token)})
            return [changed, _issued(token, self._read(token))]

        self._enter(make, ("certificate", token))
        return token

    def cancel(self, name: str) -> Standing:
        """End a certificate, for good."""
        self._enter(lambda record: [self._event(_known(record, name), "cancelled", {})])
        return self.standing(name)

    def recognise(self, dossier: Dossier, key: NoteKey) -> Verified:
        """Recognise another broker's certificate, or take note of what became of it. key: of the other's log.

        Raises ``VerificationError`` for a dossier that does not verify, ``ParameterError`` for a certificate of one's
        own, or an older dossier than was recognised before.
        """
        found = dossier.verify(key)
        if key.name == self._key.name:
            raise ParameterError("the certificate is this broker's own")
        standing = found.standing
        fields = {
            "certificate": standing.certificate,
            "origin": key.name,
            "as_of": found.as_of,
            "state": standing.state.value,
            "holder": standing.holder,
            "asset": standing.asset,
            "right": standing.right,
        }

        def make(record: Clearing) -> list[tuple[str, dict[str, Any]]]:
            before = record.recognised.get(standing.certificate)
            if before is None and standing.state is not State.VALID:
                raise ParameterError(f"the certificate is {standing.state}: only a valid one is recognised")
            if before is not None and before["as_of"] > found.as_of:
                raise ParameterError("a later state of the certificate was recognised before")
            return [] if before == fields else [("certificate.recognised", fields)]

        self._enter(make)
        return found

    def token(self, name: str) -> str:
        """The certificate, by its hash."""
        with self._writer.view() as (reader, _):
            found = [each.token for each in reader.evidence(name) if each.kind == "certificate"]
        if not found:
            raise ParameterError("the register has no such certificate: name it by its hash")
        return found[0]

    def standing(self, name: str) -> Standing:
        """What a certificate is now."""
        return _known(self._fold.now(self._writer), name)

    def standings(self) -> list[Standing]:
        """All certificates of this register, in order of their issue: the register."""
        return sorted(self._fold.now(self._writer).certificates.values(), key=lambda each: each.entries[0])

    def recognised(self) -> list[dict[str, Any]]:
        """Certificates of others, as they were last recognised."""
        return [dict(each) for _, each in sorted(self._fold.now(self._writer).recognised.items())]

    def dossier(self, name: str) -> Dossier:
        """The certificate and the receipts of all entries about it, under the newest checkpoint."""
        token, standing = self.token(name), self.standing(name)
        with self._writer.view() as (reader, tree):
            receipts = tuple(prove(reader, tree, index) for index in standing.entries)
        return Dossier(token, receipts)

    def _new(
        self,
        *,
        holder: str,
        asset: AssetClaim,
        right: Right,
        source: str,
        days: int | None,
        replaces: str | None,
    ) -> str:
        if self._signer is None:
            raise StoreError(log.READ_ONLY)
        return certificate.new_certificate(
            issuer=self._signer,
            node=self._name,
            holder=holder,
            asset=asset,
            right=right,
            source=source,
            now=self._writer.now(),
            days=days,
            replaces=replaces,
        )

    def _read(self, token: str) -> Certificate:
        return certificate.read(token, self._key)

    def _event(self, known: Standing, kind: str, more: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """An entry, if the rules allow it now."""
        fields = {"certificate": known.certificate, "previous": known.entries[-1], **more}
        known.after(known.entries[-1] + 1, fields | {"type": f"certificate.{kind}"}, self._writer.now())
        return f"certificate.{kind}", fields

    def _enter(
        self,
        make: Callable[[Clearing], list[tuple[str, dict[str, Any]]]],
        token: tuple[str, str] | None = None,
    ) -> None:
        self._fold.catch_up(self._writer)
        self._writer.commit_one(Enter(make, self._fold, token))


def filings(entries: Iterable[Entry], period: Period) -> pa.Table:
    """What a register files for a period: every event about certificates, from the log alone.

    Columns: entry, time (seconds), event, certificate, asset, holder (where the event names one), detail.
    """
    rows = []
    for entry in entries:
        kind, _, event = entry.type.partition(".")
        if kind == "certificate" and period.start <= entry.time < period.end:
            fields = entry.fields
            detail = next((str(fields[name]) for name in ("use", "by", "origin") if name in fields), "")
            known = [str(fields.get(name, "")) for name in ("certificate", "asset", "holder")]
            rows.append(dict(zip(_FILED, (entry.index, entry.time, event, *known, detail), strict=True)))
    kinds = [pa.int64(), pa.int64(), *[pa.string()] * 5]
    return pa.Table.from_pylist(rows, pa.schema(list(zip(_FILED, kinds, strict=True))))


def _issued(token: str, claims: Certificate) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = {
        "certificate": signing.token_hash(token),
        "asset": claims.asset.id,
        "right": claims.right,
        "holder": claims.holder,
        "end": claims.exp,
    }
    return "certificate.issued", fields | ({"replaces": claims.replaces} if claims.replaces else {})


def _known(record: Clearing, name: str) -> Standing:
    found = record.certificates.get(name)
    if found is None:
        raise ParameterError("the register has no such certificate: name it by its hash")
    return found


def _verify_order(token: str, node: str) -> tuple[Order, str]:
    asked, key = read_signed(token, ORDER_TYPE, Order)
    if asked.aud != node:
        raise GrantError(f"the order is for {asked.aud}, this node is {node}", "aud")
    if (asked.to is not None, asked.use is not None) != (asked.kind == "circulated", asked.kind == "applied"):
        raise GrantError("the order does not say to whom, or to what use", "kind")
    return asked, key.thumbprint
