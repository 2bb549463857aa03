"""``trustcompute verify statistics``: counts, sums and means by group of a node's dataset, sensitive cells
suppressed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

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
)
from trustcompute.cli.output import print_fields, print_json, print_table, working
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import check_out, write
from trustcompute.node import MeteredStatistics


def statistics(
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    sums: Annotated[list[str], typer.Option("--sum", help="Column to add up; repeat for more.")] = [],
    by: Annotated[list[str], typer.Option(help="Column to group by; one more at most.")] = [],
    purpose: Purpose = None,
    scenario: Scenario = None,
    out: AnswerFile = None,
    state: State = Path("jobs"),
    job: Job = None,
    as_json: AsJson = False,
) -> None:
    """Count and add up by group. A cell that is not shown says by which rule."""
    check_out(out)
    with session_of(url, identity, grant, state) as session, working(f"asking {dataset}"):
        found = session.statistics(dataset, sums, by=by, purpose=purpose, scenario=scenario, job=job)
    if out is not None:
        write(found.to_arrow(), out)
    _show(found, state / f"{found.job}.receipt.json", out, as_json)


def _show(found: MeteredStatistics, receipt: Path, out: Path | None, as_json: bool) -> None:
    table = found.to_arrow()
    if as_json:
        document: dict[str, Any] = {
            "job": found.job,
            "cells": table.to_pylist(),
            "terms": found.terms.model_dump(),
        }
        print_json(document | {"out": None if out is None else str(out), "receipt": str(receipt)})
        return
    rows = [["" if value is None else value for value in row.values()] for row in table.to_pylist()]
    print_table(table.column_names, rows)
    print_fields(
        [
            ("suppressed", f"{len(found.suppressed):,} of {len(found.cells):,} cells"),
            ("they learnt", found.leakage.provider),
            ("we learnt", found.leakage.consumer),
            ("job", found.job),
            ("receipt", receipt),
        ]
    )
