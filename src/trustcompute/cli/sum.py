"""``trustcompute sum``: how many keys a node's dataset shares with ours, and sums of its columns over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute import psi, tables
from trustcompute.cli.ask import show_quote
from trustcompute.cli.asking import AskingOne, takes
from trustcompute.cli.options import On, parse_on
from trustcompute.cli.output import working
from trustcompute.cli.writing import check_out


@takes(AskingOne)
def sum_(
    asking: AskingOne,
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    on: On,
    value: Annotated[list[str], typer.Option(help="A column of theirs to add up; repeat for more.")] = [],
    by: Annotated[str | None, typer.Option(help="A column of theirs to group by.")] = None,
    min_group: Annotated[
        int | None,
        typer.Option(help="The least number of keys anything is told of; the least allowed if left out."),
    ] = None,
    rho: Annotated[str | None, typer.Option(help="Noise on the sums, in zCDP.")] = None,
    epsilon: Annotated[str | None, typer.Option(help="Noise on the sums, in ε.")] = None,
    only_quote: Annotated[
        bool, typer.Option("--quote", help="Say what it would cost; spend nothing.")
    ] = False,
) -> None:
    """Add up a node's columns over the keys both sides hold. Which keys these are nobody learns."""
    check_out(asking.out)
    asked: dict[str, Any] = {
        "on": parse_on(on),
        "values": value,
        "by": by,
        "min_group": min_group,
        "noise": None if rho is None and epsilon is None else psi.Noise(rho, epsilon),
    }
    with asking.session() as session:
        if only_quote:
            rows = len(tables.keys(table, list(asked["on"])))
            show_quote(session.quote_sum(asking.dataset, rows=rows, **asked), as_json=asking.as_json)
            return
        with working(f"adding up {asking.dataset}"):
            found = session.intersect_sum(
                asking.dataset,
                table,
                **asked,
                purpose=asking.purpose,
                scenario=asking.scenario,
                job=asking.job,
            )
    asking.close(
        found,
        {"count": found.count},
        [("matched keys", f"{found.count:,}")],
        cost=found.cost,
        answer=found.to_arrow(),
    )
