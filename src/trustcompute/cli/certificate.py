"""``trustcompute certificate``: register data assets; circulate, apply, change, cancel; verify; recognise."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, cast

import typer

from trustcompute.broker import register
from trustcompute.broker.certificate import Dossier, Standing, Verified
from trustcompute.broker.clearing import Period
from trustcompute.broker.clearing.export import write_csv
from trustcompute.broker.grant import AssetClaim, Grade, Right
from trustcompute.cli.options import AsJson, IdentityDir
from trustcompute.cli.output import print_fields, print_json, print_table
from trustcompute.cli.own_node import open_book
from trustcompute.cli.record import KeyFile, read_log_key
from trustcompute.cli.settings import load_settings, read_bytes, read_text, write_text
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.signing import token_hash

app = typer.Typer(help="Certificates of data assets, and their register.", no_args_is_help=True)

Settings = Annotated[
    Path, typer.Argument(help="The node's configuration (TOML). The node must not be running.")
]
Named = Annotated[str, typer.Argument(help="The certificate's hash.")]
DossierFile = Annotated[Path, typer.Argument(help="The dossier (JSON).")]
Out = Annotated[Path, typer.Option("--out", help="Where to write it.")]


@app.command("issue")
def issue(
    settings: Settings,
    asset: Annotated[str, typer.Option(help="Id of the asset.")],
    holder: Annotated[str, typer.Option(help="Thumbprint of the holder's key.")],
    source: Annotated[str, typer.Option(help="Where the asset comes from.")],
    classification: Annotated[str, typer.Option(help="Class, in the holder's catalogue.")] = "general",
    grade: Annotated[str, typer.Option(help="general, important or core.")] = "general",
    personal: Annotated[bool, typer.Option("--personal", help="It holds data of persons.")] = False,
    right: Annotated[str, typer.Option(help="hold, process or operate.")] = "hold",
    days: Annotated[int | None, typer.Option(min=1, help="How long it is valid; without end.")] = None,
) -> None:
    """Register an asset: a certificate of who holds which right in it."""
    with open_book(load_settings(settings)) as broker:
        claim = _claim(asset, classification, grade, personal=personal)
        token = broker.certificates.issue(
            holder=holder, asset=claim, right=cast(Right, right), source=source, days=days
        )
    print_fields([("certificate", token_hash(token)), ("asset", asset), ("holder", holder)])


@app.command("order")
def order(
    dossier: DossierFile,
    key: KeyFile,
    identity: IdentityDir,
    out_file: Out,
    to: Annotated[str | None, typer.Option(help="Circulate it: thumbprint of the new holder.")] = None,
    use: Annotated[str | None, typer.Option(help="Apply it: to what.")] = None,
) -> None:
    """Sign an order as the holder: circulate the certificate, or apply it."""
    node = read_log_key(key)
    found = Dossier.from_json(read_bytes(dossier)).verify(node)
    token = register.order(
        found.standing,
        node=node.name.partition("/")[0],
        key=Identity.load(identity).key,
        now=int(time.time()),
        to=to,
        use=use,
    )
    write_text(out_file, token + "\n")
    print_fields([("signed", str(out_file)), ("next", "hand it to the node, which carries it out")])


@app.command("carry-out")
def carry_out(settings: Settings, file: Annotated[Path, typer.Argument(help="The signed order.")]) -> None:
    """Record a holder's order."""
    with open_book(load_settings(settings)) as broker:
        _show(broker.certificates.carry_out(read_text(file).strip()))


@app.command("change")
def change(
    settings: Settings,
    certificate: Named,
    source: Annotated[str | None, typer.Option(help="Where the asset comes from, now.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="How long the new one is valid.")] = None,
) -> None:
    """Put a new certificate in the place of one."""
    with open_book(load_settings(settings)) as broker:
        token = broker.certificates.change(certificate, source=source, days=days)
    print_fields([("certificate", token_hash(token)), ("replaces", certificate)])


@app.command("cancel")
def cancel(settings: Settings, certificate: Named) -> None:
    """End a certificate, for good."""
    with open_book(load_settings(settings)) as broker:
        _show(broker.certificates.cancel(certificate))


@app.command("dossier")
def dossier_(settings: Settings, certificate: Named, out_file: Out) -> None:
    """Write a certificate with the receipts of all that happened to it."""
    with open_book(load_settings(settings), read_only=True) as broker:
        write_text(out_file, broker.certificates.dossier(certificate).to_json().decode())
    print_fields([("written", str(out_file))])


@app.command("verify")
def verify(dossier: DossierFile, key: KeyFile, as_json: AsJson = False) -> None:
    """Say what a certificate is, offline, with nothing but the log's key."""
    found = Dossier.from_json(read_bytes(dossier)).verify(read_log_key(key))
    if as_json:
        print_json({"certificate": found.standing.certificate, **_document(found)})
        return
    _show(found.standing)
    print_fields([("as of", f"entry {found.as_of - 1} of the log; ask for a newer dossier to know more")])


@app.command("recognise")
def recognise(settings: Settings, dossier: DossierFile, key: KeyFile) -> None:
    """Recognise another broker's certificate, or take note of what became of it."""
    with open_book(load_settings(settings)) as broker:
        found = broker.certificates.recognise(Dossier.from_json(read_bytes(dossier)), read_log_key(key))
    _show(found.standing)


@app.command("register")
def register_(
    settings: Settings,
    csv: Annotated[Path | None, typer.Option(help="Directory for filings.csv, of all events.")] = None,
    as_json: AsJson = False,
) -> None:
    """List all certificates and what they are now, from the log alone."""
    with open_book(load_settings(settings), read_only=True) as broker:
        found = broker.certificates.standings()
        filed = register.filings(broker.entries(), Period(0, 2**40))
    if csv is not None:
        write_csv(csv, {"filings": filed})
    if as_json:
        print_json([{"certificate": each.certificate, "state": each.state.value} for each in found])
        return
    rows = [[each.certificate[:16], each.asset, each.right, each.holder, each.state.value] for each in found]
    print_table(["certificate", "asset", "right", "holder", "state"], rows)


def _claim(asset: str, classification: str, grade: str, *, personal: bool) -> AssetClaim:
    return AssetClaim(id=asset, classification=classification, grade=cast(Grade, grade), personal=personal)


def _document(found: Verified) -> dict[str, object]:
    standing = found.standing
    return {
        "state": standing.state.value,
        "holder": standing.holder,
        "uses": list(standing.uses),
        "as_of": found.as_of,
    }


def _show(standing: Standing) -> None:
    print_fields(
        [
            ("certificate", standing.certificate),
            ("asset", f"{standing.asset}, right to {standing.right}"),
            ("holder", standing.holder),
            ("state", standing.state.value),
            ("applied to", ", ".join(standing.uses) or "nothing yet"),
        ]
    )
