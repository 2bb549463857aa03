"""``trustcompute grant``: issue and show grants."""

from __future__ import annotations

import datetime
import hashlib
import time
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509
from pydantic import ValidationError

from trustcompute.broker import grant as grants
from trustcompute.broker.grant import AssetClaim, Bounds, Grant, Limit, PricePlan, Share
from trustcompute.cli.options import AsJson, IdentityDir
from trustcompute.cli.output import print_fields, print_json
from trustcompute.cli.settings import read_bytes, read_text, write_text
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import Identity, peer_key, peer_name
from trustcompute.protocol.operation import UNITS, OutputForm

app = typer.Typer(help="Issue and show grants.", no_args_is_help=True)


@app.command()
def issue(
    identity: IdentityDir,
    to: Annotated[Path, typer.Option(help="The grantee's certificate.pem.")],
    dataset: Annotated[str, typer.Option(help="The dataset's id.")],
    purpose: Annotated[list[str], typer.Option(help="An allowed purpose; repeat for more.")],
    plan: Annotated[Path, typer.Option(help="The contingency plan (any file): the grant names its hash.")],
    out: Annotated[Path, typer.Option(help="Where to write the token.")],
    node: Annotated[str | None, typer.Option(help="The node's name; ours if left out.")] = None,
    operation: Annotated[list[str], typer.Option(help="An allowed operation; repeat for more.")] = [
        "psi.ecdh.v1"
    ],
    column: Annotated[list[str], typer.Option(help="A column that may be matched on; any if left out.")] = [],
    output: Annotated[list[str], typer.Option(help="An allowed output form.")] = ["matched_ids"],
    scenario: Annotated[list[str], typer.Option(help="An allowed scenario; any if left out.")] = [],
    max_rows: Annotated[int | None, typer.Option(help="Most keys the grantee may bring to a call.")] = None,
    limit: Annotated[list[str], typer.Option(help="UNIT=TOTAL, e.g. calls=10; repeat for more units.")] = [],
    currency: Annotated[str | None, typer.Option(help="ISO code; free of charge if left out.")] = None,
    per_call: Annotated[str, typer.Option(help='Price of a call in minor units: "250", "0.5", "1/3".')] = "0",
    per_row: Annotated[str, typer.Option(help="Price of a key brought, in minor units.")] = "0",
    split: Annotated[list[str], typer.Option(help="PARTY=SHARE, e.g. registry=7/10; sums to 1.")] = [],
    version: Annotated[str | None, typer.Option(help="Only this version of the dataset.")] = None,
    classification: Annotated[str, typer.Option(help="Class of the dataset.")] = "general",
    grade: Annotated[str, typer.Option(help="Grade of the dataset: general or important.")] = "general",
    personal: Annotated[bool, typer.Option(help="Whether it holds data of persons.")] = False,
    days: Annotated[int, typer.Option(help="How long the grant is valid.")] = 30,
) -> None:
    """Sign a grant for one dataset."""
    issuer = Identity.load(identity)
    certificate = _certificate(to)
    asset = {"id": dataset, "version": version, "class": classification, "grade": grade, "personal": personal}
    price = {"kind": "free"}
    if currency is None and (per_call, per_row) != ("0", "0"):
        raise ParameterError("a price needs its --currency")
    if currency is not None:
        price = {"kind": "per_use", "currency": currency, "per_call": per_call, "per_row": per_row}
    try:
        claims = grants.new_grant(
            issuer=issuer.thumbprint,
            audience=node or issuer.name,
            subject=peer_name(certificate),
            subject_key=peer_key(certificate).thumbprint,
            asset=AssetClaim.model_validate(asset),
            operations=dict.fromkeys(operation, Bounds(columns=tuple(column) or None, max_rows=max_rows)),
            purposes=purpose,
            scenarios=tuple(scenario) or None,
            outputs=[_output(name) for name in output],
            limits=_limits(limit),
            price=PricePlan.model_validate(price),
            split=_split(split, issuer.name, free=currency is None),
            contingency=hashlib.sha256(read_bytes(plan)).hexdigest(),
            now=int(time.time()),
            days=days,
        )
    except ValidationError as error:
        message, field = grants.explain_validation(error, "grant")
        raise ParameterError(f"{message} ({field})") from error
    write_text(out, grants.sign(claims, issuer.key) + "\n")
    print_fields(grant_fields(claims))


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="File with the grant's token.")], as_json: AsJson = False
) -> None:
    """Say what a grant allows. Its signature is checked by the node, not here."""
    claims = grants.read(read_text(file).strip())
    if as_json:
        print_json(claims.to_document())
    else:
        print_fields(grant_fields(claims))


def grant_fields(claims: Grant) -> list[tuple[str, object]]:
    """A grant in words."""
    bounds = "; ".join(_bounds(name, bound) for name, bound in claims.operations.items())
    limits = ", ".join(
        f"{limit.total:,} {unit}" for unit, limit in claims.limits.items() if limit.total is not None
    )
    price = claims.price
    paid = (
        "free"
        if price.currency is None
        else f"{price.per_call} a call + {price.per_row} a key (minor units of {price.currency})"
    )
    return [
        ("grant", claims.jti),
        ("to", claims.sub),
        ("at node", claims.aud),
        (
            "dataset",
            f"{claims.asset.id}, version {claims.asset.version or 'any'}, grade {claims.asset.grade}",
        ),
        ("may run", bounds),
        ("to obtain", ", ".join(claims.outputs)),
        ("for", ", ".join(claims.purposes)),
        ("at most", limits or "not limited"),
        ("price", paid),
        ("shared", ", ".join(f"{share.party} {share.share}" for share in claims.split) or "-"),
        ("until", datetime.datetime.fromtimestamp(claims.exp, datetime.UTC).isoformat()),
    ]


def _bounds(name: str, bounds: Bounds) -> str:
    columns = f" on {', '.join(bounds.columns)}" if bounds.columns else ""
    rows = f", {bounds.max_rows:,} keys a call" if bounds.max_rows is not None else ""
    return name + columns + rows


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(read_text(path).encode())
    except ValueError as error:
        raise ParameterError(f"{path} holds no certificate in PEM") from error


def _output(name: str) -> OutputForm:
    try:
        return OutputForm(name)
    except ValueError as error:
        raise ParameterError(f"--output must be one of {', '.join(OutputForm)}, not {name!r}") from error


def _limits(limits: list[str]) -> dict[str, Limit]:
    found: dict[str, Limit] = {}
    for one in limits:
        unit, _, total = one.partition("=")
        if unit not in UNITS or not total.isdecimal():
            raise ParameterError(f"--limit takes UNIT=TOTAL with a unit of {', '.join(UNITS)}, not {one!r}")
        if unit in found:
            raise ParameterError(f"--limit names {unit} twice")
        found[unit] = Limit(total=int(total))
    return found


def _split(split: list[str], issuer: str, *, free: bool) -> list[Share]:
    if not split:
        return [] if free else [Share(party=issuer, share="1")]
    shares = []
    for one in split:
        party, _, share = one.partition("=")
        shares.append(Share(party=party, share=share))
    return shares
