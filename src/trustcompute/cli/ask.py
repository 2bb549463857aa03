"""``trustcompute catalog``, ``quote``, ``intersect``: the consumer's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute import tables
from trustcompute.cli import files
from trustcompute.cli.asking import AskingOne, takes
from trustcompute.cli.options import (
    AsJson,
    DatasetName,
    GrantFile,
    IdentityDir,
    On,
    Url,
    one_of,
    parse_on,
)
from trustcompute.cli.output import err, money, print_fields, print_json, print_table, working
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import try_to_write, write
from trustcompute.errors import ParameterError
from trustcompute.node import MeteredIntersection
from trustcompute.node.documents import Quote
from trustcompute.psi.operation import OUTPUTS_OF


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
        show_quote(session.quote(operation, dataset, rows=rows), as_json=as_json)


def show_quote(quote: Quote, *, as_json: bool) -> None:
    if as_json:
        print_json(quote.model_dump(mode="json"))
    else:
        print_fields(quote_fields(quote))


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


@takes(AskingOne)
def intersect(
    asking: AskingOne,
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
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
    ids: Annotated[
        str | None, typer.Option(help="With --reveal both: number the matched keys in this column of --out.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --out: go on with the job kept for this table.")
    ] = False,
    runs: Annotated[
        int | None, typer.Option(help="With --out: buckets to cut a large job into; by its size if left out.")
    ] = None,
) -> None:
    """Find out which of our rows a node's dataset also holds, or how many.

    With --out a table may be larger than memory, and Ctrl-C pauses: --resume goes on.
    """
    if (resume or runs is not None) and (asking.out is None or asking.job is not None):
        raise ParameterError(
            "--resume and --runs are for a table whose matched rows go to --out, without --job"
        )
    if ids is not None and (asking.out is None or (output, reveal) != ("rows", "both")):
        raise ParameterError("--ids is for matched rows that go to --out, with --reveal both")
    if (
        asking.out is not None
        and asking.job is None
        and not label
        and (output, reveal) == ("rows", "consumer")
    ):
        files.intersect(
            asking,
            table,
            asking.out,
            on=parse_on(on),
            protocol=one_of("protocol", protocol, ("auto", "psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1")),
            resume=resume,
            runs=runs,
            pad_to=_padding(pad_to),
        )
        return
    if asking.out is not None:
        try_to_write(table, asking.out, ids)
    with asking.session() as session, working(f"intersecting with {asking.dataset}"):
        found = session.intersect(
            asking.dataset,
            table,
            on=parse_on(on),
            output=one_of("output", output, ("rows", "count")),
            reveal=one_of("reveal", reveal, ("consumer", "provider", "both")),
            protocol=one_of("protocol", protocol, ("auto", *OUTPUTS_OF)),
            labels=label or [],
            pad_to=_padding(pad_to),
            purpose=asking.purpose,
            scenario=asking.scenario,
            job=asking.job,
        )
    show(asking, found, table, ids=ids)


def show(asking: AskingOne, found: MeteredIntersection, table: Path, *, ids: str | None = None) -> None:
    """Write the matched rows where they are wanted, and tell what was found."""
    rows = None if found.left_rows is None else len(found.left_rows)
    if asking.out is not None and rows is None:
        err.print("nothing is written: we did not learn which rows match")
        asking.out.unlink()
    elif asking.out is not None:
        write(found.table(ids=ids), asking.out)
    hidden = "not revealed to us"
    asking.close(
        found,
        {"protocol": found.protocol, "count": found.count, "rows": rows},
        [
            ("matched keys", hidden if found.count is None else f"{found.count:,}"),
            ("matched rows", hidden if rows is None else f"{rows:,} of {tables.row_count(table):,}"),
            ("protocol", found.protocol),
        ],
        cost=found.cost,
    )


def _padding(text: str | None) -> Any:
    return int(text) if text is not None and text.isdecimal() else text
