"""``trustcompute intersect-many``: the rows of ours whose key several nodes all hold."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from trustcompute import node, tables
from trustcompute.cli.aggregate import parse_party
from trustcompute.cli.asking import Asking, takes
from trustcompute.cli.options import On, parse_on
from trustcompute.cli.output import working
from trustcompute.cli.settings import read_text
from trustcompute.cli.writing import try_to_write, write
from trustcompute.primitives.identity import Identity


@takes(Asking)
def intersect_many(
    asking: Asking,
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    party: Annotated[
        list[str],
        typer.Option(help="A holder: URL=GRANT, its node's address and the grant's file; two or more."),
    ],
    on: On,
    job: Annotated[str | None, typer.Option(help="Go on with this interrupted star.")] = None,
) -> None:
    """Find out which of our rows the datasets of all parties also hold, and nothing of what only some hold."""
    if asking.out is not None:
        try_to_write(table, asking.out)
    columns, me = parse_on(on), Identity.load(asking.identity)
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(os.cpu_count()) as executor,
        working(f"intersecting with {len(party)} parties"),
    ):
        sessions = [
            stack.enter_context(
                node.connect(url, identity=me, grant=read_text(grant).strip(), state=asking.state)
            )
            for url, grant in map(parse_party, party)
        ]
        found = node.intersect_many(
            sessions,
            table,
            on=[list(columns), *([list(columns.values())] * len(sessions))],
            purpose=asking.purpose,
            scenario=asking.scenario,
            executor=executor,
            job=job,
        )
    if asking.out is not None:
        write(found.table(), asking.out)
    matched = 0 if found.left_rows is None else len(found.left_rows)
    asking.close(
        found,
        {"protocol": found.protocol, "count": found.count, "rows": matched},
        [
            ("keys of all", f"{found.count:,}"),
            ("matched rows", f"{matched:,} of {tables.row_count(table):,}"),
        ],
        cost=found.cost,
    )
