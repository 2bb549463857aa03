"""``trustcompute receipt``, ``log``, ``statement``: the record, and what follows from it."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from trustcompute.broker import audit as auditing
from trustcompute.broker import backup, delegation, tiles
from trustcompute.broker.broker import Broker
from trustcompute.broker.clearing import Clearing, Period, Statement, export, page
from trustcompute.broker.evidence import EvidenceReport, audit_evidence
from trustcompute.broker.grant import hash_of
from trustcompute.broker.log import log_key, origin_of
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.witness import Quorum, Witness, serve
from trustcompute.cli.options import AsJson, IdentityDir, Url
from trustcompute.cli.output import err, money, out, print_fields, print_json, print_table
from trustcompute.cli.own_node import open_book
from trustcompute.cli.settings import load_settings, read_text, write_text
from trustcompute.errors import ParameterError, VerificationError
from trustcompute.node.inspection import Inspection
from trustcompute.primitives.checkpoint import CosignerKey, NoteKey
from trustcompute.primitives.identity import Identity, peer_key, peer_name
from trustcompute.transport import FlightChannel

receipt_app = typer.Typer(help="Check receipts, offline.", no_args_is_help=True)
log_app = typer.Typer(help="Audit, export, copy and witness a log.", no_args_is_help=True)

DAY = 86_400

KeyFile = Annotated[
    Path, typer.Option("--key", help="The log's key: its text form, or the node's certificate.pem.")
]


@receipt_app.command("verify")
def receipt_verify(
    receipt: Annotated[Path, typer.Argument(help="The receipt (JSON).")],
    key: Annotated[
        Path | None, typer.Option(help="The log's key; by default the one kept beside the receipt.")
    ] = None,
    grant: Annotated[
        Path | None,
        typer.Option(help="The grant: checks that its node keeps the log, and that it was charged."),
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option(help="Key of a witness, as name+id+base64; may be repeated.")
    ] = None,
    quorum: Annotated[
        int | None, typer.Option(help="How many of the witnesses must have cosigned; all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check that a log contains what a receipt says, with nothing but the log's key."""
    kept = receipt.with_name(receipt.name.replace(".receipt.json", ".log-key"))
    note_key = read_log_key(key or kept)
    witnesses = tuple(CosignerKey.parse(each) for each in witness or ())
    needed = Quorum(witnesses, len(witnesses) if quorum is None else quorum) if witnesses or quorum else None
    entry = Receipt.load(receipt).verify(note_key, needed)
    if grant is not None:
        token = read_text(grant).strip()
        claims = delegation.read(token)
        if note_key.name != origin_of(claims.aud) or entry.fields.get("grant") != hash_of(token):
            raise VerificationError("the receipt is in order, but not for this grant")
    if as_json:
        print_json({"verified": True, "index": entry.index, "entry": dict(entry.fields)})
        return
    usage = ", ".join(f"{int(amount):,} {unit}" for unit, amount in entry.fields.get("usage", {}).items())
    print_fields(
        [
            ("verified", f"entry {entry.index} of the log {note_key.name}"),
            ("what", entry.type),
            ("when", _utc(entry.time)),
            ("operation", f"{entry.fields.get('operation')} on {entry.fields.get('dataset')}"),
            ("purpose", entry.fields.get("purpose")),
            ("charged", usage),
            ("answer", entry.fields.get("frames")),
        ]
    )


@log_app.command("audit")
def log_audit(
    book: Annotated[Path, typer.Argument(help="Directory of the book, or of an exported log.")],
    key: KeyFile,
    known: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that somebody else holds; may be repeated.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that read an exported log; one for every two processors by default."
        ),
    ] = None,
    evidence: Annotated[
        bool, typer.Option(help="Verify the signed tokens too: of a book, which keeps them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Recompute the tree, every balance and every statement from the entries; name the first that is wrong."""
    started = time.monotonic()
    notes = [read_text(path) for path in known or ()]
    report = auditing.audit(
        book, read_log_key(key), known=notes, processes=processes or max(1, (os.cpu_count() or 1) // 2)
    )
    tokens = audit_evidence(book, read_log_key(key)) if evidence else None
    if as_json:
        print_json(
            {
                "origin": report.origin,
                "entries": report.size,
                "root": report.root.hex(),
                "checkpoints": report.checkpoints,
                "jobs": dict(report.jobs),
                "meter_compared": report.meter,
            }
            | ({} if tokens is None else {"tokens": asdict(tokens)})
        )
        return
    jobs = ", ".join(f"{count:,} {state}" for state, count in sorted(report.jobs.items()))
    print_fields(
        [
            ("log", report.origin),
            ("entries", f"{report.size:,} under {report.checkpoints:,} signed checkpoints, all in order"),
            ("root", report.root.hex()),
            ("jobs", jobs or "none"),
            (
                "balances",
                "rebuilt from the log, equal to the meter" if report.meter else "rebuilt from the log",
            ),
            *_tokens(tokens),
            ("took", f"{time.monotonic() - started:.2f} s"),
        ]
    )


def _tokens(found: EvidenceReport | None) -> list[tuple[str, str]]:
    if found is None:
        return []
    counts = (
        f"{found.grants:,} grants, {found.requests:,} requests, {found.countersignatures:,} countersignatures"
    )
    unknown = [
        ("not known", f"issuers {', '.join(found.unknown)}: their grants' signatures were not checked")
    ]
    return [("tokens", f"{counts}, all signed as the log says"), *(unknown if found.unknown else [])]


@log_app.command("export")
def log_export(
    book: Annotated[Path, typer.Argument(help="Directory of the book; a node may be writing it.")],
    to: Annotated[Path, typer.Argument(help="Directory for the tiles; what is there already is kept.")],
    as_json: AsJson = False,
) -> None:
    """Write the log as tiles, entry bundles and a checkpoint (C2SP tlog-tiles), or what is new since last time."""
    size = auditing.export(book, to)
    if as_json:
        print_json({"entries": size, "directory": str(to)})
        return
    print_fields([("exported", f"{size:,} entries to {to}")])


@log_app.command("mirror")
def log_mirror(
    source: Annotated[
        Path, typer.Argument(help="Directory of an exported log, as its operator hands it out.")
    ],
    to: Annotated[Path, typer.Argument(help="Directory of the copy that only grows.")],
    key: KeyFile,
    as_json: AsJson = False,
) -> None:
    """Check another's exported log and take it over; refused where it does not continue the copy."""
    signed = tiles.mirror(source, to, read_log_key(key))
    if as_json:
        print_json({"entries": signed.size, "root": signed.root.hex(), "directory": str(to)})
        return
    print_fields([("copied", f"{signed.size:,} entries of {signed.origin}"), ("root", signed.root.hex())])


@log_app.command("fetch")
def log_fetch(
    to: Annotated[Path, typer.Argument(help="Directory for the tiles.")],
    url: Url,
    identity: IdentityDir,
    key: KeyFile,
    as_json: AsJson = False,
) -> None:
    """As a regulator whom the node names, fetch its log as tiles, checked against its checkpoint: then audit it."""
    note_key = read_log_key(key)
    channel = FlightChannel(url, Identity.load(identity), peer=note_key.name.removesuffix("/trustcompute"))
    try:
        size = Inspection(channel, note_key).export(to)
    finally:
        channel.close()
    if as_json:
        print_json({"entries": size, "directory": str(to)})
        return
    print_fields([("fetched", f"{size:,} entries of {note_key.name} to {to}")])


@log_app.command("backup")
def log_backup(
    book: Annotated[Path, typer.Argument(help="Directory of the book; a node may be writing it.")],
    to: Annotated[Path, typer.Argument(help="A new directory.")],
    as_json: AsJson = False,
) -> None:
    """Copy a book and its outbox while a node runs; the copy is opened like any book."""
    backup.back_up(book, to)
    if as_json:
        print_json({"directory": str(to)})
        return
    print_fields([("copied", f"{book} to {to}")])


@log_app.command("witness")
def log_witness(
    directory: Annotated[Path, typer.Argument(help="Where the witness remembers what it has seen.")],
    identity: Annotated[Path, typer.Option(help="The witness's identity: its name and key.")],
    log: Annotated[
        list[Path], typer.Option(help="Key of a log to watch: its text form, or the node's certificate.")
    ],
    listen: Annotated[str, typer.Option(help="Host and port; put TLS in front.")] = "127.0.0.1:8816",
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the address to this file once it listens.")
    ] = None,
) -> None:
    """Cosign the checkpoints of logs that only grow (C2SP tlog-witness), until interrupted."""
    mine = Identity.load(identity)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        raise ParameterError("--listen reads host:port")
    keys = [read_log_key(path) for path in log]
    witness = Witness(directory, f"{mine.name}/witness", mine.key, keys, lambda: int(time.time()))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with serve(witness, host, int(port)) as server:
        err.print(f"{witness.cosigner} answers at http://{host}:{server.server_port}")
        if ready_file is not None:
            write_text(ready_file, f"http://{host}:{server.server_port}")
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def statement(
    settings: Annotated[
        Path,
        typer.Argument(
            help="The node's configuration (TOML). To close or net, the node must not be running."
        ),
    ],
    start: Annotated[
        str | None, typer.Option(help="First day (UTC), ISO; by default where the last period ended.")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Day after the last (UTC), ISO; by default now.")] = None,
    close: Annotated[
        bool, typer.Option("--close", help="Close the period: round, and record it in the log.")
    ] = False,
    net: Annotated[
        bool, typer.Option("--net", help="Record the payments for what is due of a closed period.")
    ] = False,
    member: Annotated[
        list[str] | None,
        typer.Option(help="A party that agreed to be netted with all other members; may be repeated."),
    ] = None,
    parquet: Annotated[Path | None, typer.Option(help="Directory for the tables as Parquet.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Directory for the tables as CSV.")] = None,
    html: Annotated[Path | None, typer.Option(help="File for a page to read and print, with plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what is owed for a period, from the log alone; write it as tables or as a page."""
    config = load_settings(settings)
    identity = Identity.load(config.path(config.identity))
    with open_book(config, read_only=not (close or net)) as broker:
        period = Period(_time(start) or _last_end(broker), _time(end) or int(time.time()))
        made = (
            broker.close_period(period.start, period.end)
            if close
            else broker.statement(period.start, period.end)
        )
        names = {identity.thumbprint: identity.name} | _subjects(broker, made)
        paid = broker.clearing.net(period.start, period.end, member or ()) if net else None
        record, entries = broker.clearing.record(), broker.entries()
    tables = export.tables(record, made) | ({} if paid is None else {"payments": export.payments(paid)})
    if parquet is not None:
        export.write_parquet(parquet, tables)
    if csv is not None:
        export.write_csv(csv, tables)
    if html is not None:
        burns = page.burn_down(entries, made.period.end)
        write_text(html, page.page(made, origin=origin_of(identity.name), names=names, burns=burns))
    if as_json:
        payments = {} if paid is None else {"payments": list(paid.instructions()), "netting": paid.hash}
        print_json(made.to_document() | {"closed": made.closed, "hash": made.hash} | payments)
        return
    _show(made, names)
    if paid is not None:
        rows = [
            [*(names.get(each[side], each[side]) for side in ("debtor", "creditor"))]
            + [each[name] for name in ("amount", "currency", "id")]
            for each in paid.instructions()
        ]
        out.print()
        print_table(["pays", "to", "amount", "currency", "id"], rows)


def _show(made: Statement, names: dict[str, str]) -> None:
    state = "closed" if made.closed else "open: it may still grow"
    print_fields(
        [
            ("period", f"{_utc(made.period.start)} to {_utc(made.period.end)}, {state}"),
            ("statement", made.hash),
        ]
    )
    used = [
        [
            names.get(row.payer, row.payer),
            row.operation,
            row.jobs,
            row.rows,
            money(row.rated, row.currency or None),
        ]
        for row in made.rows
    ]
    print_table(["payer", "operation", "jobs", "keys", "rated, exact"], used)
    lines = [
        [
            names.get(line.account.payer, line.account.payer),
            line.account.payee,
            line.account.currency,
            line.amount,
            str(line.residual),
        ]
        for line in made.lines
    ]
    out.print()
    print_table(["from", "to", "currency", "amount (minor units)", "carried on"], lines)
    for currency, total in made.totals().items():
        out.print(
            f"in all {total:,} minor units of {currency}; what is paid and what is received sum to zero"
        )


def _subjects(broker: Broker, made: Statement) -> dict[str, str]:
    """Names of grantees by thumbprint, from the grants of the statement."""
    claims = [broker.known_grant(row.grant) for row in made.rows]
    return {one.cnf.jkt: one.sub for one in claims if one is not None}


def _last_end(broker: Broker) -> int:
    closed = Clearing.of(broker.entries()).closings
    return closed[-1].period.end if closed else broker.entries()[0].time // DAY * DAY


def read_log_key(path: Path) -> NoteKey:
    """A log's key from its text form (``name+id+base64``) or from the certificate of the node that keeps it."""
    text = read_text(path)
    if "BEGIN CERTIFICATE" not in text:
        return NoteKey.parse(text)
    try:
        certificate = x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise ParameterError(f"{path} holds no certificate in PEM") from error
    return log_key(peer_name(certificate), peer_key(certificate))


def _utc(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _time(day: str | None) -> int | None:
    if day is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(day)
    except ValueError as error:
        raise ParameterError(f"a day reads 2026-01-31, not {day!r}") from error
    return int(found.replace(tzinfo=found.tzinfo or datetime.UTC).timestamp())
