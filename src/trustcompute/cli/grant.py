"""``trustcompute grant``: issue, delegate and show grants; orders about them are in ``order``."""

from __future__ import annotations

import datetime
import hashlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from trustcompute import verification
from trustcompute.broker import delegation
from trustcompute.broker import grant as grants
from trustcompute.broker.describe import describe
from trustcompute.broker.grant import AssetClaim, Bounds, Grant, Limit, PricePlan, Right, Share, Similar
from trustcompute.broker.presets import PRESETS
from trustcompute.cli import order
from trustcompute.cli.options import AsJson, IdentityDir
from trustcompute.cli.output import out as console
from trustcompute.cli.output import print_fields, print_json
from trustcompute.cli.price import price_in_words, read_price
from trustcompute.cli.settings import read_bytes, read_certificate, read_text, write_text
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import Identity, peer_key, peer_name
from trustcompute.protocol.operation import UNITS, OutputForm

app = typer.Typer(
    help="Issue, delegate and show grants; suspend, resume, give up, revoke and review them.",
    no_args_is_help=True,
)


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
        "psi.ecdh.v1",
        "psi.vole.v1",
    ],
    column: Annotated[list[str], typer.Option(help="A column that may be matched on; any if left out.")] = [],
    predicate: Annotated[
        list[str], typer.Option(help="A predicate that may be verified, repeat for more; any if left out.")
    ] = [],
    output: Annotated[list[str], typer.Option(help="An allowed output form.")] = ["matched_ids"],
    scenario: Annotated[list[str], typer.Option(help="An allowed scenario; any if left out.")] = [],
    max_rows: Annotated[int | None, typer.Option(help="Most keys the grantee may bring to a call.")] = None,
    limit: Annotated[list[str], typer.Option(help="UNIT=TOTAL, e.g. calls=10; repeat for more units.")] = [],
    currency: Annotated[str | None, typer.Option(help="ISO code; free of charge if left out.")] = None,
    per_call: Annotated[str, typer.Option(help='Price of a call in minor units: "250", "0.5", "1/3".')] = "0",
    per_row: Annotated[str, typer.Option(help="Price of a key brought, in minor units.")] = "0",
    split: Annotated[list[str], typer.Option(help="PARTY=SHARE, e.g. registry=7/10; sums to 1.")] = [],
    price_file: Annotated[
        Path | None, typer.Option("--price", help="A plan of another kind, and its split (TOML).")
    ] = None,
    version: Annotated[str | None, typer.Option(help="Only this version of the dataset.")] = None,
    classification: Annotated[str, typer.Option(help="Class of the dataset.")] = "general",
    grade: Annotated[str, typer.Option(help="Grade of the dataset: general or important.")] = "general",
    personal: Annotated[bool, typer.Option(help="Whether it holds data of persons.")] = False,
    similar: Annotated[
        str | None,
        typer.Option(help="KEYS:RUNS, how many runs may bring a set within so many keys of an earlier one."),
    ] = None,
    right: Annotated[str, typer.Option(help="hold (delegates only), process or operate.")] = "process",
    depth: Annotated[int, typer.Option(help="How often it may be delegated further.")] = 0,
    days: Annotated[int, typer.Option(help="How long the grant is valid.")] = 30,
) -> None:
    """Sign a grant for one dataset."""
    issuer = Identity.load(identity)
    certificate = read_certificate(to)
    asset = {"id": dataset, "version": version, "class": classification, "grade": grade, "personal": personal}
    price = {"kind": "free"}
    if currency is None and (per_call, per_row) != ("0", "0"):
        raise ParameterError("a price needs its --currency")
    if currency is not None:
        price = {"kind": "per_use", "currency": currency, "per_call": per_call, "per_row": per_row}
    if price_file is not None and (currency is not None or split):
        raise ParameterError("--price says all about the price: leave --currency and --split out")
    try:
        plan_of, shares = (
            read_price(price_file)
            if price_file is not None
            else (PricePlan.model_validate(price), _split(split, issuer.name, free=currency is None))
        )
        claims = grants.new_grant(
            issuer=issuer.thumbprint,
            audience=node or issuer.name,
            subject=peer_name(certificate),
            subject_key=peer_key(certificate).thumbprint,
            asset=AssetClaim.model_validate(asset),
            operations=_operations(
                operation, column, predicate, Bounds(max_rows=max_rows, similar=_similar(similar))
            ),
            purposes=purpose,
            scenarios=tuple(scenario) or None,
            outputs=[_output(name) for name in output],
            limits=_limits(limit),
            price=plan_of,
            split=shares,
            contingency=hashlib.sha256(read_bytes(plan)).hexdigest(),
            right=_right(right),
            depth=depth,
            now=int(time.time()),
            days=days,
        )
    except ValidationError as error:
        message, field = grants.explain_validation(error, "grant")
        raise ParameterError(f"{message} ({field})") from error
    write_text(out, grants.sign(claims, issuer.key) + "\n")
    print_fields(grant_fields(claims))


def _operations(
    operations: list[str], columns: list[str], predicates: list[str], bounds: Bounds
) -> dict[str, Bounds]:
    """Bounds of every operation. Predicates, in canonical form, are of those that check them."""
    plain = bounds.model_copy(update={"columns": tuple(columns) or None})
    made = dict.fromkeys(operations, plain)
    if not predicates:
        return made
    checking = {one.id for one in verification.OPERATIONS}
    if not checking & set(operations):
        raise ParameterError(
            f"--predicate goes with an --operation that checks it: {', '.join(sorted(checking))}"
        )
    named = plain.model_copy(
        update={"predicates": tuple(str(verification.parse(text)) for text in predicates)}
    )
    return made | dict.fromkeys(checking & set(operations), named)


@app.command()
def new(
    preset: Annotated[str, typer.Argument(help=f"One of {', '.join(PRESETS)}.")],
    identity: IdentityDir,
    to: Annotated[Path, typer.Option(help="The grantee's certificate.pem.")],
    dataset: Annotated[str, typer.Option(help="The dataset's id.")],
    purpose: Annotated[list[str], typer.Option(help="An allowed purpose; repeat for more.")],
    plan: Annotated[Path, typer.Option(help="The contingency plan (any file): the grant names its hash.")],
    out: Annotated[Path, typer.Option(help="Where to write the token.")],
    node: Annotated[str | None, typer.Option(help="The node's name; ours if left out.")] = None,
    classification: Annotated[str, typer.Option(help="Class of the dataset.")] = "general",
    grade: Annotated[str, typer.Option(help="Grade of the dataset: general or important.")] = "general",
    personal: Annotated[bool, typer.Option(help="Whether it holds data of persons.")] = False,
    consent: Annotated[str | None, typer.Option(help="Reference to the persons' consent.")] = None,
    days: Annotated[int, typer.Option(help="How long the grant is valid.")] = 90,
    review: Annotated[int | None, typer.Option(help="Days until it must be reviewed to be used on.")] = None,
) -> None:
    """Sign a common kind of grant, as narrow as its use allows, free of charge; show it in plain words."""
    issuer, certificate, now = Identity.load(identity), read_certificate(to), int(time.time())
    asset = {"id": dataset, "class": classification, "grade": grade, "personal": personal}
    try:
        claims = Grant.preset(
            preset,
            issuer=issuer.thumbprint,
            audience=node or issuer.name,
            subject=peer_name(certificate),
            subject_key=peer_key(certificate).thumbprint,
            asset=AssetClaim.model_validate(asset),
            purposes=purpose,
            contingency=hashlib.sha256(read_bytes(plan)).hexdigest(),
            consent=consent,
            now=now,
            days=days,
            review=None if review is None else now + review * 86400,
        )
    except ValidationError as error:
        message, field = grants.explain_validation(error, "grant")
        raise ParameterError(f"{message} ({field})") from error
    write_text(out, grants.sign(claims, issuer.key) + "\n")
    print(claims.describe(), end="")


@app.command()
def explain(file: Annotated[Path, typer.Argument(help="File with a grant or a chain of grants.")]) -> None:
    """Say in plain words, on one page, what a grant lets whom see. Signatures are checked by the node, not here."""
    print(describe(delegation.read_chain(read_text(file).strip())), end="")


@app.command()
def delegate(
    parent: Annotated[Path, typer.Argument(help="File with the grant that was given to us.")],
    identity: IdentityDir,
    to: Annotated[Path, typer.Option(help="The new grantee's certificate.pem.")],
    out: Annotated[Path, typer.Option(help="Where to write the chain of grants.")],
    purpose: Annotated[list[str], typer.Option(help="Only this purpose; repeat for more.")] = [],
    operation: Annotated[list[str], typer.Option(help="Only this operation; repeat for more.")] = [],
    column: Annotated[list[str], typer.Option(help="Only this column; repeat for more.")] = [],
    output: Annotated[list[str], typer.Option(help="Only this output form; repeat for more.")] = [],
    scenario: Annotated[list[str], typer.Option(help="Only this scenario; repeat for more.")] = [],
    max_rows: Annotated[int | None, typer.Option(help="Most keys the grantee may bring to a call.")] = None,
    limit: Annotated[list[str], typer.Option(help="UNIT=TOTAL, e.g. calls=10; repeat for more units.")] = [],
    version: Annotated[str | None, typer.Option(help="Only this version of the dataset.")] = None,
    right: Annotated[str | None, typer.Option(help="hold, process or operate: no higher than ours.")] = None,
    depth: Annotated[int, typer.Option(help="How often it may be delegated further.")] = 0,
    days: Annotated[
        int | None, typer.Option(help="How long it is valid; as long as ours if left out.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="A contingency plan of our own.")] = None,
) -> None:
    """Pass on a part of a grant that was given to us. What no option narrows stays as it is."""
    chain, delegator, certificate = read_text(parent).strip(), Identity.load(identity), read_certificate(to)
    above = delegation.read(chain)
    bounds = {"columns": tuple(column) or None, "max_rows": max_rows}
    try:
        narrower: dict[str, Any] = {
            "purposes": tuple(purpose),
            "scenarios": tuple(scenario),
            "outputs": tuple(_output(name) for name in output),
            "limits": _limits(limit),
            "right": right and _right(right),
            "contingency": plan and hashlib.sha256(read_bytes(plan)).hexdigest(),
            "asset": version and above.asset.model_copy(update={"version": version}),
        }
        child = delegation.delegate(
            chain,
            issuer=delegator.key.public,
            subject=peer_name(certificate),
            subject_key=peer_key(certificate).thumbprint,
            now=int(time.time()),
            days=days,
            depth=depth,
            operations={name: _narrowed(above, name, bounds) for name in operation or above.operations},
            **{name: value for name, value in narrower.items() if value},
        )
    except ValidationError as error:
        message, field = grants.explain_validation(error, "grant")
        raise ParameterError(f"{message} ({field})") from error
    write_text(out, delegation.extend(chain, child, delegator.key) + "\n")
    print_fields(grant_fields(delegation.inherit(child, above)))


@app.command()
def tree(
    file: Annotated[Path, typer.Argument(help="File with a grant or a chain of grants.")],
    as_json: AsJson = False,
) -> None:
    """Show a chain of grants link by link, the root first. Signatures are checked by the node, not here."""
    token = read_text(file).strip()
    names = [grants.hash_of(link) for link in token.split(grants.SEPARATOR)]
    chain = delegation.read_chain(token)
    for child, above in zip(chain[1:], chain, strict=False):
        delegation.check(child, above)
    if as_json:
        print_json(
            [
                {"hash": name, "claims": claims.to_document()}
                for name, claims in zip(names, chain, strict=True)
            ]
        )
        return
    for number, (name, claims) in enumerate(zip(names, chain, strict=True), start=1):
        giver = chain[number - 2].sub if number > 1 else claims.iss
        print_fields(
            [("link", f"{number} of {len(chain)}"), ("from", giver), *grant_fields(claims), ("hash", name)]
        )
        console.print()


@app.command()
def show(
    file: Annotated[Path, typer.Argument(help="File with the grant's token.")], as_json: AsJson = False
) -> None:
    """Say what a grant allows. Its signature is checked by the node, not here."""
    claims = delegation.read(read_text(file).strip())
    if as_json:
        print_json(claims.to_document())
    else:
        print_fields(grant_fields(claims))


for name, command in order.ORDERS.items():
    app.command(name)(command)
app.command()(order.review)


def grant_fields(claims: Grant) -> list[tuple[str, object]]:
    """A grant in words."""
    bounds = "; ".join(_bounds(name, bound) for name, bound in claims.operations.items())
    limits = ", ".join(
        f"{limit.total:,} {unit}" for unit, limit in claims.limits.items() if limit.total is not None
    )
    paid = price_in_words(claims.price)
    return [
        ("grant", claims.jti),
        ("to", claims.sub),
        ("right", f"to {claims.right}" + (f", may be delegated {claims.depth} deep" if claims.depth else "")),
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
    checks = f" to check {', '.join(bounds.predicates)}" if bounds.predicates else ""
    rows = f", {bounds.max_rows:,} keys a call" if bounds.max_rows is not None else ""
    return name + columns + checks + rows


def _narrowed(above: Grant, name: str, changes: dict[str, Any]) -> Bounds:
    """An operation's bounds with what was asked for; what is wider is refused when the grant is made."""
    bounds = above.operations.get(name, Bounds()).to_document()
    return Bounds.model_validate(bounds | {key: value for key, value in changes.items() if value is not None})


def _similar(text: str | None) -> Similar | None:
    if text is None:
        return None
    keys, _, runs = text.partition(":")
    if not keys.isdecimal() or not runs.isdecimal():
        raise ParameterError(f"--similar takes KEYS:RUNS, as 100:3, not {text!r}")
    return Similar(keys=int(keys), runs=int(runs))


def _right(name: str) -> Right:
    for right in delegation.RIGHTS:
        if right == name:
            return right
    raise ParameterError(f"--right must be one of {', '.join(delegation.RIGHTS)}, not {name!r}")


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
