"""``trustcompute cascade``: rows of ours matched with a node's dataset by several identifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute import psi, tables
from trustcompute.cli.asking import AskingOne, takes
from trustcompute.cli.options import parse_on
from trustcompute.cli.output import working
from trustcompute.cli.writing import try_to_write, write


@takes(AskingOne)
def cascade(
    asking: AskingOne,
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    by: Annotated[
        list[str],
        typer.Option(
            help="An identifier: columns with commas between, each OURS or OURS=THEIRS; repeat, best first."
        ),
    ],
) -> None:
    """Match rows by the first identifier, those left over by the next, and say by which each matched."""
    on = psi.InOrder(*(parse_on(one.split(",")) for one in by))
    if asking.out is not None:
        try_to_write(table, asking.out)
    with asking.session() as session, working(f"matching with {asking.dataset}"):
        found = session.cascade(
            asking.dataset, table, on=on, purpose=asking.purpose, scenario=asking.scenario, job=asking.job
        )
    if asking.out is not None:
        write(found.table(), asking.out)
    rows = len(found.left_rows)
    asking.close(
        found,
        {"protocol": found.protocol, "rows": rows, "matched": found.matched},
        [
            ("matched rows", f"{rows:,} of {tables.row_count(table):,}"),
            *((f"by {name}", f"{count:,}") for name, count in found.matched.items()),
        ],
        cost=found.cost,
    )
