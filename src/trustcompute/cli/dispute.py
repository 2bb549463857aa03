"""``trustcompute dispute``: contest what a job was billed, show the papers, settle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from trustcompute.broker.clearing import claims
from trustcompute.broker.clearing.dispute import Bundle
from trustcompute.broker.receipt import Receipt
from trustcompute.cli.options import AsJson, IdentityDir
from trustcompute.cli.output import out, print_fields, print_json, print_table
from trustcompute.cli.own_node import open_book
from trustcompute.cli.record import KeyFile, read_log_key
from trustcompute.cli.settings import load_settings, read_bytes, read_text, write_text
from trustcompute.primitives.identity import Identity

app = typer.Typer(help="Contest what was billed, show the papers, settle.", no_args_is_help=True)

Settings = Annotated[
    Path, typer.Argument(help="The node's configuration (TOML). The node must not be running.")
]


@app.command("sign")
def sign(
    entry: Annotated[list[int], typer.Option(help="Index of a charge, as in its receipt; may be repeated.")],
    node: Annotated[str, typer.Option(help="DNS name of the node that charged.")],
    reason: Annotated[str, typer.Option(help="Why; the log keeps a commitment to it only.")],
    identity: IdentityDir,
    out_file: Annotated[Path, typer.Option("--out", help="Where to write the dispute; hand it to the node.")],
) -> None:
    """Sign a dispute as who pays, or shares, what the entries bill."""
    mine = Identity.load(identity)
    token = claims.dispute(audience=node, entries=entry, reason=reason, key=mine.key, now=int(time.time()))
    write_text(out_file, token + "\n")
    print_fields([("disputes", ", ".join(str(each) for each in entry)), ("at node", node)])


@app.command("enter")
def enter(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="The signed dispute.")],
    as_json: AsJson = False,
) -> None:
    """Record a dispute: what it names is held back, or its lines are frozen, until it is settled."""
    with open_book(load_settings(settings)) as broker:
        name = broker.clearing.dispute(read_text(file).strip())
    if as_json:
        print_json({"dispute": name})
        return
    print_fields([("dispute", name)])


@app.command("list")
def list_(settings: Settings, as_json: AsJson = False) -> None:
    """Show all disputes and what was let stand of them."""
    with open_book(load_settings(settings), read_only=True) as broker:
        found = list(broker.clearing.record().disputes.values())
    if as_json:
        print_json(
            [
                {
                    "dispute": each.id,
                    "by": each.by,
                    "entries": each.entries,
                    "owed": each.owed and str(each.owed),
                }
                for each in found
            ]
        )
        return
    rows = [
        [
            each.id[:16],
            each.by,
            ", ".join(map(str, each.entries)),
            "open" if each.owed is None else str(each.owed),
        ]
        for each in found
    ]
    print_table(["dispute", "by", "entries", "stands"], rows)


@app.command("settle")
def settle(
    settings: Settings,
    dispute: Annotated[str, typer.Argument(help="The dispute's hash, or its beginning.")],
    owed: Annotated[str, typer.Option(help="The part that stands: 0 nothing, 1 all, or a fraction.")],
    reason: Annotated[str, typer.Option(help="Kept in the log as a commitment only.")],
    as_json: AsJson = False,
) -> None:
    """End a dispute. What a closed period had billed beyond the part that stands comes back as adjustments."""
    with open_book(load_settings(settings)) as broker:
        known = broker.clearing.record().disputes
        full = [name for name in known if name.startswith(dispute)]
        made = broker.clearing.settle(full[0] if len(full) == 1 else dispute, owed=owed, reason=reason)
    if as_json:
        print_json([[*posting.account, str(posting.amount)] for posting in made])
        return
    print_fields([("settled", dispute), ("stands", owed)])
    print_table(
        ["from", "to", "currency", "given back, exact"],
        [[*posting.account, str(posting.amount)] for posting in made],
    )


@app.command("evidence")
def evidence(
    settings: Settings,
    entry: Annotated[int, typer.Argument(help="Index of the charge.")],
    out_file: Annotated[Path, typer.Option("--out", help="Where to write the bundle (JSON).")],
) -> None:
    """Write the papers of a charge: entry and proof, request, grant, acknowledgement."""
    with open_book(load_settings(settings), read_only=True) as broker:
        bundle = broker.clearing.evidence(entry)
    write_text(out_file, bundle.to_json().decode())
    print_fields([("written", str(out_file)), ("acknowledged", bundle.countersignature is not None)])


@app.command("check")
def check(
    bundle: Annotated[Path, typer.Argument(help="The bundle (JSON).")],
    key: KeyFile,
    receipt: Annotated[
        Path | None, typer.Option(help="The receipt that the other side holds for the same charge.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a bundle proves, offline, with nothing but the log's key."""
    theirs = None if receipt is None else Receipt.load(receipt)
    finding = Bundle.from_json(read_bytes(bundle)).check(read_log_key(key), theirs)
    if as_json:
        print_json(
            {
                "entry": finding.entry.index,
                "amount": finding.amount and str(finding.amount),
                "acknowledged": finding.acknowledged,
                "contradicted": finding.contradicted,
                "supports": finding.supports,
            }
        )
        return
    for words in finding.in_words():
        out.print(f"- {words}")
    print_fields([("speaks for", finding.supports)])
