"""``trustcompute intersect-changes``: an intersection that is repeated, paid for by what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute.cli.ask import show
from trustcompute.cli.asking import AskingOne, takes
from trustcompute.cli.options import On, parse_on
from trustcompute.cli.output import working
from trustcompute.cli.writing import try_to_write


@takes(AskingOne)
def intersect_changes(
    asking: AskingOne,
    table: Annotated[Path, typer.Argument(help="Our table as it is now: Parquet, CSV or Arrow.")],
    on: On,
) -> None:
    """Intersect again, over what changed since the last time; what a run leaves for the next is in --state."""
    if asking.out is not None:
        try_to_write(table, asking.out)
    with asking.session() as session, working(f"intersecting with {asking.dataset}"):
        found = session.intersect_changes(
            asking.dataset,
            table,
            on=parse_on(on),
            purpose=asking.purpose,
            scenario=asking.scenario,
            job=asking.job,
        )
    show(asking, found, table)
