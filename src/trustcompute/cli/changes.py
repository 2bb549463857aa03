"""``trustcompute intersect-changes``: an intersection that is repeated, paid for by what has changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute.cli.ask import DatasetName, show
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
from trustcompute.cli.output import working
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import try_to_write


def intersect_changes(
    table: Annotated[Path, typer.Argument(help="Our table as it is now: Parquet, CSV or Arrow.")],
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    on: On,
    purpose: Purpose = None,
    scenario: Scenario = None,
    out: AnswerFile = None,
    state: State = Path("jobs"),
    job: Job = None,
    as_json: AsJson = False,
) -> None:
    """Intersect again, over what changed since the last time; what a run leaves for the next is in --state."""
    if out is not None:
        try_to_write(table, out)
    with session_of(url, identity, grant, state) as session, working(f"intersecting with {dataset}"):
        found = session.intersect_changes(
            dataset, table, on=parse_on(on), purpose=purpose, scenario=scenario, job=job
        )
    show(found, table, state, out, as_json=as_json)
