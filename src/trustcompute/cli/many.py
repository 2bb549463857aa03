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
from trustcompute.cli.options import AnswerFile, AsJson, IdentityDir, On, Purpose, Scenario, State, parse_on
from trustcompute.cli.output import print_fields, print_json, working
from trustcompute.cli.settings import read_text
from trustcompute.cli.writing import try_to_write, write
from trustcompute.primitives.identity import Identity


def intersect_many(
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    identity: IdentityDir,
    party: Annotated[
        list[str],
        typer.Option(help="A holder: URL=GRANT, its node's address and the grant's file; two or more."),
    ],
    on: On,
    purpose: Purpose = None,
    scenario: Scenario = None,
    out: AnswerFile = None,
    state: State = Path("jobs"),
    job: Annotated[str | None, typer.Option(help="Go on with this interrupted star.")] = None,
    as_json: AsJson = False,
) -> None:
    """Find out which of our rows the datasets of all parties also hold, and nothing of what only some hold."""
    if out is not None:
        try_to_write(table, out)
    columns, me = parse_on(on), Identity.load(identity)
    with (
        ExitStack() as stack,
        ThreadPoolExecutor(os.cpu_count()) as executor,
        working(f"intersecting with {len(party)} parties"),
    ):
        sessions = [
            stack.enter_context(node.connect(url, identity=me, grant=read_text(grant).strip(), state=state))
            for url, grant in map(parse_party, party)
        ]
        found = node.intersect_many(
            sessions,
            table,
            on=[list(columns), *([list(columns.values())] * len(sessions))],
            purpose=purpose,
            scenario=scenario,
            executor=executor,
            job=job,
        )
    if out is not None:
        write(found.table(), out)
    receipts = {name: str(state / f"{one}.receipt.json") for name, one in found.jobs.items()}
    matched = 0 if found.left_rows is None else len(found.left_rows)
    if as_json:
        print_json(
            {
                "session": found.session,
                "protocol": found.protocol,
                "count": found.count,
                "rows": matched,
                "out": None if out is None else str(out),
                "bytes_sent": found.cost.bytes_sent,
                "bytes_received": found.cost.bytes_received,
                "leakage": {"consumer": found.leakage.consumer, "provider": found.leakage.provider},
                "receipts": receipts,
            }
        )
        return
    print_fields(
        [
            ("keys of all", f"{found.count:,}"),
            ("matched rows", f"{matched:,} of {tables.row_count(table):,}"),
            *([("written to", out)] if out is not None else []),
            ("sent", f"{found.cost.bytes_sent:,} bytes"),
            ("received", f"{found.cost.bytes_received:,} bytes"),
            ("we learnt", found.leakage.consumer),
            ("they learnt", found.leakage.provider),
            ("star", found.session),
            ("receipts", ", ".join(receipts.values())),
        ]
    )
