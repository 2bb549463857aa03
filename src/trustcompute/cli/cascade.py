"""``trustcompute cascade``: rows of ours matched with a node's dataset by several identifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute import psi, tables
from trustcompute.cli.ask import DatasetName
from trustcompute.cli.options import (
    AnswerFile,
    AsJson,
    GrantFile,
    IdentityDir,
    Job,
    Purpose,
    Scenario,
    State,
    Url,
    parse_on,
)
from trustcompute.cli.output import print_fields, print_json, working
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import try_to_write, write


def cascade(
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    by: Annotated[
        list[str],
        typer.Option(
            help="An identifier: columns with commas between, each OURS or OURS=THEIRS; repeat, best first."
        ),
    ],
    purpose: Purpose = None,
    scenario: Scenario = None,
    out: AnswerFile = None,
    state: State = Path("jobs"),
    job: Job = None,
    as_json: AsJson = False,
) -> None:
    """Match rows by the first identifier, those left over by the next, and say by which each matched."""
    on = psi.InOrder(*(parse_on(one.split(",")) for one in by))
    if out is not None:
        try_to_write(table, out)
    with session_of(url, identity, grant, state) as session, working(f"matching with {dataset}"):
        found = session.cascade(dataset, table, on=on, purpose=purpose, scenario=scenario, job=job)
    if out is not None:
        write(found.table(), out)
    receipt = state / f"{found.job}.receipt.json"
    if as_json:
        print_json(
            {
                "job": found.job,
                "protocol": found.protocol,
                "rows": len(found.left_rows),
                "matched": found.matched,
                "out": None if out is None else str(out),
                "bytes_sent": found.cost.bytes_sent,
                "bytes_received": found.cost.bytes_received,
                "leakage": {"consumer": found.leakage.consumer, "provider": found.leakage.provider},
                "receipt": str(receipt),
            }
        )
        return
    print_fields(
        [
            ("matched rows", f"{len(found.left_rows):,} of {tables.row_count(table):,}"),
            *((f"by {name}", f"{count:,}") for name, count in found.matched.items()),
            *([("written to", out)] if out is not None else []),
            ("they learnt", found.leakage.provider),
            ("we learnt", found.leakage.consumer),
            ("job", found.job),
            ("receipt", receipt),
        ]
    )
