"""``trustcompute verify arbiter``: decide who is right about an answer in private mode, from what both sides hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute.cli.options import AsJson
from trustcompute.cli.output import print_fields, print_json, working
from trustcompute.cli.settings import read_bytes, read_certificate
from trustcompute.primitives.identity import peer_key
from trustcompute.verification import Evidence, judge
from trustcompute.verification.table import load


def arbiter(
    evidence: Annotated[
        Path, typer.Argument(help="What the asker kept: TABLE.dispute in its state directory.")
    ],
    table: Annotated[Path, typer.Argument(help="Directory of the masked table that it is about.")],
    holder: Annotated[Path, typer.Option(help="The holder's certificate (PEM).")],
    as_json: AsJson = False,
) -> None:
    """Recompute a disputed answer from the question and the signed answer alone; nothing else is opened."""
    with working("recomputing"):
        found = judge(
            Evidence.from_bytes(read_bytes(evidence)), load(table), peer_key(read_certificate(holder))
        )
    fields = {"at fault": found.at_fault, "because": found.reason, "questions": list(found.wrong)}
    if as_json:
        print_json({"at_fault": found.at_fault, "reason": found.reason, "wrong": list(found.wrong)})
        return
    print_fields([(name, value) for name, value in fields.items() if value != []])
