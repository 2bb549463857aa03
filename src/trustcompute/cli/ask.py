"""``trustcompute catalog``, ``quote``, ``intersect``: the consumer's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute import tables
from trustcompute.cli import files
from trustcompute.cli.options import (
    AsJson,
    GrantFile,
    IdentityDir,
    Job,
    On,
    Purpose,
    Scenario,
    State,
    Url,
    parse_on,
)
from trustcompute.cli.output import err, money, print_fields, print_json, print_table, working
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import try_to_write, write
from trustcompute.errors import ParameterError
from trustcompute.node import MeteredIntersection
from trustcompute.node.documents import Quote
from trustcompute.psi.operation import OUTPUTS_OF

DatasetName = Annotated[str, typer.Option("--dataset", help="The dataset's id in the node's catalogue.")]


def catalog(url: Url, identity: IdentityDir, grant: GrantFile, as_json: AsJson = False) -> None:
    """Show what a node offers under a grant."""
    with session_of(url, identity, grant) as session:
        found = session.catalog()
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_fields([("node", session.grant.aud), ("operations", ", ".join(found.operations))])
    for entry in found.datasets:
        print_fields([("dataset", entry.id), ("version", entry.version), ("grade", entry.grade)])
        print_table(["key", "distinct"], [[" + ".join(key.columns), key.distinct] for key in entry.keys])
        print_table(["column", "type"], [[column.name, column.type] for column in entry.columns])


def quote(
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    rows: Annotated[int, typer.Option(help="Distinct keys you would bring.")],
    operation: Annotated[str, typer.Option(help="The operation's id.")] = "psi.ecdh.v1",
    as_json: AsJson = False,
) -> None:
    """Ask what a computation would cost, and what is left. Spends nothing."""
    with session_of(url, identity, grant) as session:
        found = session.quote(operation, dataset, rows=rows)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_fields(quote_fields(found))


def quote_fields(quote: Quote) -> list[tuple[str, object]]:
    used = ", ".join(f"{int(amount):,} {unit}" for unit, amount in quote.usage.items())
    left = [
        f"{int(amount):,} {unit} ({span})"
        for unit, spans in quote.left.items()
        for span, amount in spans.items()
    ]
    return [
        ("price", money(quote.amount, quote.currency)),
        ("would use", used),
        ("left", ", ".join(left) or "not limited"),
    ]


def intersect(
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    on: On,
    output: Annotated[str, typer.Option(help="rows or count.")] = "rows",
    reveal: Annotated[str, typer.Option(help="Who learns it: consumer (us), provider or both.")] = "consumer",
    protocol: Annotated[
        str, typer.Option(help="auto, or an operation's id: psi.ecdh.v1, psi.dh.v1, psi.vole.v1, ...")
    ] = "auto",
    pad_to: Annotated[
        str | None, typer.Option(help="Hide how many keys we have: power-of-two, or a number to fill up to.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="A column of theirs to learn of keys that match; repeat for more."),
    ] = None,
    purpose: Purpose = None,
    scenario: Scenario = None,
    out: Annotated[Path | None, typer.Option(help="Write the matched rows here: .parquet or .csv.")] = None,
    ids: Annotated[
        str | None, typer.Option(help="With --reveal both: number the matched keys in this column of --out.")
    ] = None,
    state: State = Path("jobs"),
    job: Job = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --out: go on with the job kept for this table.")
    ] = False,
    runs: Annotated[
        int | None, typer.Option(help="With --out: buckets to cut a large job into; by its size if left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find out which of our rows a node's dataset also holds, or how many.

    With --out a table may be larger than memory, and Ctrl-C pauses: --resume goes on.
    """
    if (resume or runs is not None) and (out is None or job is not None):
        raise ParameterError(
            "--resume and --runs are for a table whose matched rows go to --out, without --job"
        )
    if ids is not None and (out is None or (output, reveal) != ("rows", "both")):
        raise ParameterError("--ids is for matched rows that go to --out, with --reveal both")
    if out is not None and job is None and not label and (output, reveal) == ("rows", "consumer"):
        files.intersect(
            table,
            out,
            url=url,
            identity=identity,
            grant=grant,
            state=state,
            as_json=as_json,
            dataset=dataset,
            on=parse_on(on),
            protocol=_one_of("protocol", protocol, ("auto", "psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1")),
            purpose=purpose,
            scenario=scenario,
            resume=resume,
            runs=runs,
            pad_to=_padding(pad_to),
        )
        return
    if out is not None:
        try_to_write(table, out, ids)
    with (
        session_of(url, identity, grant, state) as session,
        working(f"intersecting with {dataset}"),
    ):
        found = session.intersect(
            dataset,
            table,
            on=parse_on(on),
            output=_one_of("output", output, ("rows", "count")),
            reveal=_one_of("reveal", reveal, ("consumer", "provider", "both")),
            protocol=_one_of("protocol", protocol, ("auto", *OUTPUTS_OF)),
            labels=label or [],
            pad_to=_padding(pad_to),
            purpose=purpose,
            scenario=scenario,
            job=job,
        )
    show(found, table, state, out, ids=ids, as_json=as_json)


def show(
    found: MeteredIntersection,
    table: Path,
    state: Path,
    out: Path | None,
    *,
    ids: str | None = None,
    as_json: bool,
) -> None:
    """Write the matched rows where they are wanted, and tell what was found."""
    if out is not None and found.left_rows is None:
        err.print("nothing is written: we did not learn which rows match")
        out.unlink()
    elif out is not None:
        write(found.table(ids=ids), out)
    receipt = state / f"{found.job}.receipt.json"
    if as_json:
        print_json(_document(found, receipt, out))
        return
    rows = (
        "not revealed to us"
        if found.left_rows is None
        else f"{len(found.left_rows):,} of {tables.row_count(table):,}"
    )
    print_fields(
        [
            ("matched keys", "not revealed to us" if found.count is None else f"{found.count:,}"),
            ("matched rows", rows),
            *([("written to", out)] if out is not None else []),
            ("sent", f"{found.cost.bytes_sent:,} bytes"),
            ("received", f"{found.cost.bytes_received:,} bytes"),
            ("protocol", found.protocol),
            ("they learnt", found.leakage.provider),
            ("we learnt", found.leakage.consumer),
            ("job", found.job),
            ("receipt", receipt),
        ]
    )


def _document(found: MeteredIntersection, receipt: Path, out: Path | None) -> dict[str, Any]:
    return {
        "job": found.job,
        "protocol": found.protocol,
        "count": found.count,
        "rows": None if found.left_rows is None else len(found.left_rows),
        "out": None if out is None else str(out),
        "bytes_sent": found.cost.bytes_sent,
        "bytes_received": found.cost.bytes_received,
        "leakage": {"consumer": found.leakage.consumer, "provider": found.leakage.provider},
        "receipt": str(receipt),
    }


def _padding(text: str | None) -> Any:
    return int(text) if text is not None and text.isdecimal() else text


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ParameterError(f"--{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value
