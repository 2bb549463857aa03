"""``trustcompute verify statistics``: counts, sums and means by group of a node's dataset, sensitive cells
suppressed."""

from __future__ import annotations

from typing import Annotated

import typer

from trustcompute.cli.asking import AskingOne, takes
from trustcompute.cli.output import working
from trustcompute.cli.writing import check_out


@takes(AskingOne)
def statistics(
    asking: AskingOne,
    sums: Annotated[list[str], typer.Option("--sum", help="Column to add up; repeat for more.")] = [],
    by: Annotated[list[str], typer.Option(help="Column to group by; one more at most.")] = [],
) -> None:
    """Count and add up by group. A cell that is not shown says by which rule."""
    check_out(asking.out)
    with asking.session() as session, working(f"asking {asking.dataset}"):
        found = session.statistics(
            asking.dataset,
            sums,
            by=by,
            purpose=asking.purpose,
            scenario=asking.scenario,
            job=asking.job,
        )
    asking.close(
        found,
        {"terms": found.terms.model_dump()},
        [("suppressed", f"{len(found.suppressed):,} of {len(found.cells):,} cells")],
        cost=found.cost,
        answer=found.to_arrow(),
    )
