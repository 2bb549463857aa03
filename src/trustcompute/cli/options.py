"""Options that several commands share, declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute.errors import ParameterError

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
IdentityDir = Annotated[
    Path, typer.Option("--identity", help="Directory with key.pem, certificate.pem, authority.pem.")
]
GrantFile = Annotated[Path, typer.Option("--grant", help="File with the grant's token.")]
Url = Annotated[str, typer.Option("--with", help="The node's address: grpc+tls://host:port.")]
DatasetName = Annotated[str, typer.Option("--dataset", help="The dataset's id in the node's catalogue.")]
Purpose = Annotated[str | None, typer.Option(help="One of the grant's purposes, if it names several.")]
Scenario = Annotated[str | None, typer.Option(help="One of the grant's scenarios, if it names several.")]
State = Annotated[Path, typer.Option(help="Where jobs and receipts are kept.")]
Job = Annotated[str | None, typer.Option(help="Go on with this interrupted job.")]
AnswerFile = Annotated[Path | None, typer.Option(help="Write the answer here: .parquet or .csv.")]
On = Annotated[
    list[str], typer.Option("--on", help="Key column, or OURS=THEIRS; repeat for a key of several columns.")
]


def parse_on(on: list[str]) -> dict[str, str]:
    """``a`` or ``ours=theirs`` each, to a mapping."""
    pairs = [(ours, theirs or ours) for ours, _, theirs in (one.partition("=") for one in on)]
    if len(dict(pairs)) < len(pairs):
        raise ParameterError("--on names a column of ours twice")
    return dict(pairs)


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> Any:
    """The value of an option that takes one of a few."""
    if value not in allowed:
        raise ParameterError(f"--{name} must be one of {', '.join(allowed)}, not {value!r}")
    return value
