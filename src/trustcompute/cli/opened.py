"""``trustcompute verify opened``: a regulator checks what an asker opened of its questions against the log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute.broker.receipt import Receipt
from trustcompute.cli.options import AsJson
from trustcompute.cli.output import print_fields, print_json
from trustcompute.cli.record import KeyFile, read_log_key
from trustcompute.cli.settings import read_bytes
from trustcompute.node import opened as openings
from trustcompute.verification.querylog import Opening


def opened(
    opening: Annotated[
        Path, typer.Argument(help="What the asker opened: JOB.opening in its state directory.")
    ],
    receipt: Annotated[Path, typer.Option(help="The job's receipt, which shows its entry of the log.")],
    key: KeyFile,
    about: Annotated[list[str], typer.Option(help="Was it asked about this key? Repeat for more.")] = [],
    as_json: AsJson = False,
) -> None:
    """Check that an opening is of the question that the log's entry charged, and say what was asked."""
    entry = Receipt.load(receipt).verify(read_log_key(key))
    found = openings.verify(Opening.from_json(read_bytes(opening)), entry)
    asked = dict(zip(about, found.about(about), strict=True)) if about else {}
    fields = {
        "job": found.job,
        "entry": entry.index,
        "asker": found.asker,
        "dataset": found.said.dataset,
        "predicate": found.said.predicate,
        "records": found.questions,
    }
    if as_json:
        print_json(fields | {"about": asked})
        return
    print_fields(
        [
            *fields.items(),
            *((name, "asked about" if hit else "not asked about") for name, hit in asked.items()),
        ]
    )
