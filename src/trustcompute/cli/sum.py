"""``trustcompute sum``: how many keys a node's dataset shares with ours, and sums of its columns over them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute import psi, tables
from trustcompute.cli.ask import DatasetName, quote_fields
from trustcompute.cli.options import (
    AnswerFile,
    AsJson,
    GrantFile,
    IdentityDir,
    Job,
    On,
    Purpose,
    Scenario,
    State,
    Url,
    parse_on,
)
from trustcompute.cli.output import print_fields, print_json, print_table, working
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import check_out, write


def sum_(
    table: Annotated[Path, typer.Argument(help="Our table: Parquet, CSV or Arrow.")],
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
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
    purpose: Purpose = None,
    scenario: Scenario = None,
    out: AnswerFile = None,
    state: State = Path("jobs"),
    job: Job = None,
    as_json: AsJson = False,
) -> None:
    """Add up a node's columns over the keys both sides hold. Which keys these are nobody learns."""
    check_out(out)
    asked: dict[str, Any] = {
        "on": parse_on(on),
        "values": value,
        "by": by,
        "min_group": min_group,
        "noise": None if rho is None and epsilon is None else psi.Noise(rho, epsilon),
    }
    with session_of(url, identity, grant, state) as session:
        if only_quote:
            rows = len(tables.keys(table, list(asked["on"])))
            found = session.quote_sum(dataset, rows=rows, **asked)
            if as_json:
                print_json(found.model_dump(mode="json"))
            else:
                print_fields(quote_fields(found))
            return
        with working(f"adding up {dataset}"):
            summed = session.intersect_sum(
                dataset, table, **asked, purpose=purpose, scenario=scenario, job=job
            )
    answer, receipt = summed.to_arrow(), state / f"{summed.job}.receipt.json"
    if out is not None:
        write(answer, out)
    if as_json:
        document = {"job": summed.job, "count": summed.count, "answer": answer.to_pylist()}
        learnt = {"consumer": summed.leakage.consumer, "provider": summed.leakage.provider}
        print_json(
            document | {"leakage": learnt, "out": None if out is None else str(out), "receipt": str(receipt)}
        )
        return
    print_table(answer.column_names, [list(row.values()) for row in answer.to_pylist()])
    print_fields(
        [
            ("matched keys", f"{summed.count:,}"),
            *([("written to", out)] if out is not None else []),
            ("they learnt", summed.leakage.provider),
            ("we learnt", summed.leakage.consumer),
            ("job", summed.job),
            ("receipt", receipt),
        ]
    )
