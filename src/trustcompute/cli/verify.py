"""``trustcompute verify``: ask about records of a node's dataset; build, describe and audit tables; check a proof."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography import x509

from trustcompute import tables, verification
from trustcompute.cli.bars import bars
from trustcompute.cli.options import (
    AsJson,
    DatasetName,
    GrantFile,
    IdentityDir,
    Job,
    Purpose,
    Scenario,
    Url,
    one_of,
    parse_on,
)
from trustcompute.cli.output import err, print_document, print_fields, print_json, print_table, working
from trustcompute.cli.session import session_of
from trustcompute.cli.settings import load_settings, read_bytes, read_text
from trustcompute.errors import ParameterError
from trustcompute.node import MeteredVerification
from trustcompute.node.verification import held_tables
from trustcompute.primitives import oprf
from trustcompute.primitives.identity import Identity, peer_key
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey, VerifyKey
from trustcompute.verification import audit as audits
from trustcompute.verification import descriptor, truth
from trustcompute.verification import proof as checks
from trustcompute.verification import table as built
from trustcompute.verification.local import ask as ask_table
from trustcompute.verification.table import Table, load

app = typer.Typer(help="Check claims about records, each answer proven.", no_args_is_help=True)

TableDir = Annotated[Path, typer.Argument(help="Directory of a table: its descriptor and its cells.")]


@app.command("ask")
def ask(
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    predicate: Annotated[
        str | None, typer.Argument(help="What to check, for example 'seats >= 100'.")
    ] = None,
    key: Annotated[list[str], typer.Option(help="A key to ask about; repeat for more.")] = [],
    rows: Annotated[Path | None, typer.Option(help="Or a table of ours: Parquet, CSV or Arrow.")] = None,
    match: Annotated[str | None, typer.Option(help="Compare these columns of --rows instead: A,B,C.")] = None,
    on: Annotated[
        list[str], typer.Option("--on", help="OURS=THEIRS, for columns that are called otherwise.")
    ] = [],
    mode: Annotated[str, typer.Option(help="auto, bucket, private, batch or download.")] = "auto",
    check: Annotated[Path | None, typer.Option(help="An auditor's check: private mode takes one.")] = None,
    auditor: Annotated[Path | None, typer.Option(help="The auditor's certificate (PEM).")] = None,
    proofs: Annotated[
        Path | None, typer.Option(help="Write a proof of each answer into this directory.")
    ] = None,
    consent: Annotated[
        Path | None, typer.Option(help="File with the subjects' tokens, one a line, one a question.")
    ] = None,
    purpose: Purpose = None,
    scenario: Scenario = None,
    state: Annotated[Path, typer.Option(help="Where jobs, receipts and hints are kept.")] = Path("jobs"),
    job: Job = None,
    as_json: AsJson = False,
) -> None:
    """Ask about records: match, mismatch or no record for each."""
    if (check is None) != (auditor is None):
        raise ParameterError("--check goes with --auditor, whose signature it must have")
    loaded = None if check is None or auditor is None else checks.Check.load(check, _public(auditor))
    if proofs is not None:
        proofs.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (
        session_of(url, identity, grant, state) as session,
        working(f"asking {dataset}"),
    ):
        found = session.verify(
            dataset,
            predicate,
            keys=key or None,
            match=None if match is None else match.split(","),
            rows=rows,
            on=parse_on(on) if on else None,
            mode=one_of("mode", mode, ("auto", *verification.MODES)),
            check=loaded,
            consent=() if consent is None else read_text(consent).split(),
            purpose=purpose,
            scenario=scenario,
            job=job,
        )
    if proofs is not None:
        for number, answer in enumerate(found.answers):
            (proofs / f"{found.job}-{number}.proof.json").write_bytes(answer.proof.to_json())
    _show(found, key, state / f"{found.job}.receipt.json", as_json)


@app.command("build")
def build(
    settings: Annotated[Path, typer.Argument(help="The node's configuration (TOML).")],
    dataset: Annotated[str | None, typer.Option(help="One dataset; all of them if left out.")] = None,
) -> None:
    """Build the tables of a node's datasets before it starts; one that was stopped goes on where it was."""
    config = load_settings(settings)
    signer = Identity.load(config.path(config.identity)).key
    offered = [one for one in config.datasets() if dataset in (None, one.id) and one.verified is not None]
    if not offered:
        raise ParameterError(f"{settings} publishes no predicates" + (f" of {dataset!r}" if dataset else ""))
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for one in offered:
            assert one.verified is not None
            for text in one.verified.predicates:
                err.print(f"{one.id}: {text}")
                with bars() as progress:
                    made = held_tables(
                        replace(one.verified, predicates=[text]),
                        one.id,
                        one.version,
                        tables.open_table(one.source),
                        signer,
                        casefold=one.casefold,
                        executor=executor,
                        progress=progress,
                    )
                [table] = made.by_id.values()
                err.print(
                    f"{one.id}: {table.descriptor.predicate}: {table.descriptor.records:,} records, {table.id}"
                )


@app.command("describe")
def describe(table: TableDir, as_json: AsJson = False) -> None:
    """Show what a table's descriptor promises."""
    masked = load(table)
    if as_json:
        print_json(masked.descriptor.model_dump(mode="json") | {"id": masked.id})
        return
    print_fields(describe_fields(masked))


def describe_fields(masked: built.Masked) -> list[tuple[str, object]]:
    said = masked.descriptor
    return [
        ("table", masked.id),
        ("dataset", f"{said.dataset}, version {said.version}"),
        ("predicate", said.predicate),
        ("key", " + ".join(said.subject)),
        ("records", f"{said.records:,}"),
        ("epoch", said.epoch),
        ("buckets", f"{said.buckets.columns:,} of up to {said.buckets.capacity:,}"),
        ("columns", f"{said.columns.columns:,} of up to {said.columns.capacity:,}"),
    ]


@app.command("audit")
def audit(
    table: TableDir,
    identity: IdentityDir,
    holder: Annotated[Path, typer.Option(help="The holder's certificate (PEM).")],
    out: Annotated[Path | None, typer.Option(help="Write a check for one client here.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The registered data: open a sample against them.")
    ] = None,
    seed: Annotated[
        Path | None, typer.Option(help="With --data, at the holder's: its seed, to answer the sample.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Records of the sample.")] = audits.ROWS,
    as_json: AsJson = False,
) -> None:
    """Read a whole table, open a sample of it, and make a check for a client's private questions."""
    if (data is None) != (seed is None):
        raise ParameterError("--data goes with --seed, from which the sample is answered")
    auditor, key = Identity.load(identity).key, _public(holder)
    masked = load(table)
    descriptor.verify(masked.token, key)
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        with working("reading the table"):
            audits.examine(masked, executor=executor)
        opened = 0
        if data is not None and seed is not None:
            with working("opening a sample"):
                opened = _sample(masked, data, read_bytes(seed), rows, executor).opened
    if out is not None:
        checks.issue(masked.id, masked.database, Rng.from_os(), auditor).save(out)
    found = {"table": masked.id, "records": masked.descriptor.records, "opened": opened}
    if as_json:
        print_json(found | {"out": None if out is None else str(out)})
        return
    print_fields([*describe_fields(masked), ("opened", f"{opened:,}"), ("check", out or "not asked for")])


@app.command("proof")
def proof(
    document: Annotated[Path, typer.Argument(help="A proof of one answer (JSON).")],
    holder: Annotated[Path, typer.Option(help="The holder's certificate (PEM).")],
    as_json: AsJson = False,
) -> None:
    """Check a proof of one answer, offline."""
    shown = verification.Proof.from_json(read_bytes(document))
    found = shown.verify(_public(holder))
    said = descriptor.read(shown.token)
    fields = {
        "answer": found.text,
        "predicate": said.predicate,
        "dataset": said.dataset,
        "version": said.version,
    }
    print_document(fields, as_json=as_json)


def _sample(
    masked: built.Masked, data: Path, seed: bytes, rows: int, executor: ThreadPoolExecutor
) -> audits.Audited:
    """The sample, answered in this process with the holder's key, every proof checked as a client does."""
    said, signer = masked.descriptor, SigningKey.generate()
    predicate = verification.parse(said.predicate)
    folded = any(column.casefold for column in tables.KeySpec.from_json(said.spec).columns)
    registered = truth.decide(data, tuple(said.subject), predicate, casefold=folded, executor=executor)
    info = built.key_info(said.predicate, said.dataset, said.epoch)
    table = Table(masked, oprf.derive_key(seed, info, Mode.VOPRF))
    return audits.sampled(
        masked,
        registered,
        lambda questions: ask_table(table, questions, signer, mode="bucket")[0],
        Rng.from_os(),
        rows=rows,
    )


def _public(path: Path) -> VerifyKey:
    """The key of a certificate."""
    try:
        return peer_key(x509.load_pem_x509_certificate(read_bytes(path)))
    except ValueError as error:
        raise ParameterError(f"{path} is no certificate (PEM)") from error


def _show(found: MeteredVerification, keys: list[str], receipt: Path, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {"job": found.job, "operation": found.operation, "answers": found.codes}
        print_json(document | {"hidden_among": found.plan.hidden_among, "receipt": str(receipt)})
        return
    labels = keys or [f"row {number}" for number in range(len(found))]
    print_table(["asked about", "answer"], [list(pair) for pair in zip(labels, found.codes, strict=True)])
    print_fields(
        [
            ("mode", f"{found.plan.mode}: {found.plan.reason}"),
            ("they learnt", found.leakage.provider),
            ("we learnt", found.leakage.consumer),
            ("job", found.job),
            ("receipt", receipt),
        ]
    )
