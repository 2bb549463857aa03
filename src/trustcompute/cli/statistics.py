"""``trustcompute verify statistics``: counts, sums and means by group of a node's dataset, sensitive cells
suppressed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute.cli.ask import WRITERS, DatasetName
from trustcompute.cli.options import AsJson, GrantFile, IdentityDir, Url
from trustcompute.cli.output import print_fields, print_json, print_table, working
from trustcompute.cli.settings import read_text
from trustcompute.errors import ParameterError
from trustcompute.node import MeteredStatistics, connect
from trustcompute.primitives.identity import Identity


def statistics(
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    sums: Annotated[list[str], typer.Option("--sum", help="Column to add up; repeat for more.")] = [],
    by: Annotated[list[str], typer.Option(help="Column to group by; one more at most.")] = [],
    purpose: Annotated[str | None, typer.Option(help="One of the grant's purposes.")] = None,
    scenario: Annotated[str | None, typer.Option(help="One of the grant's scenarios.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table here: .parquet or .csv.")] = None,
    state: Annotated[Path, typer.Option(help="Where jobs and receipts are kept.")] = Path("jobs"),
    job: Annotated[str | None, typer.Option(help="Go on with this interrupted job.")] = None,
    as_json: AsJson = False,
) -> None:
    """Count and add up by group. A cell that is not shown says by which rule."""
    if out is not None and out.suffix not in WRITERS:
        raise ParameterError(f"--out must end in {' or '.join(WRITERS)}, not {out.suffix!r}")
    token = read_text(grant).strip()
    with (
        connect(url, identity=Identity.load(identity), grant=token, state=state) as session,
        working(f"asking {dataset}"),
    ):
        found = session.statistics(dataset, sums, by=by, purpose=purpose, scenario=scenario, job=job)
    if out is not None:
        WRITERS[out.suffix](found.to_arrow(), out)
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
