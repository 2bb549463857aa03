"""``trustcompute explain``: would a node allow a computation, rule by rule."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from trustcompute.cli.ask import quote_fields
from trustcompute.cli.options import AsJson, DatasetName, GrantFile, IdentityDir, Url
from trustcompute.cli.output import out, print_fields, print_json, print_table
from trustcompute.cli.session import session_of
from trustcompute.errors import ParameterError
from trustcompute.node.authority import Explained


def explain(
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    rows: Annotated[int, typer.Option(help="Distinct keys you would bring.")] = 0,
    operation: Annotated[str, typer.Option(help="The operation's id.")] = "psi.ecdh.v1",
    purpose: Annotated[str | None, typer.Option(help="One of the grant's purposes, or any other.")] = None,
    scenario: Annotated[str | None, typer.Option(help="One of the grant's scenarios.")] = None,
    params: Annotated[str, typer.Option(help="More parameters of the operation, as a JSON object.")] = "{}",
    as_json: AsJson = False,
) -> None:
    """Ask whether a computation would be allowed: a verdict for every rule, price, budget left. Spends nothing."""
    try:
        asked = json.loads(params)
    except json.JSONDecodeError as error:
        raise ParameterError(f"--params is a JSON object: {error}") from error
    if not isinstance(asked, dict):
        raise ParameterError("--params is a JSON object")
    with session_of(url, identity, grant) as session:
        found = session.explain(operation, dataset, rows=rows, purpose=purpose, scenario=scenario, **asked)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    show(found)


def show(found: Explained) -> None:
    """Verdicts as a table, then what it would cost."""
    out.print("allowed" if found.allowed else "refused")
    print_table(
        ["", "rule", "what it says"],
        [
            [
                "yes" if verdict.allowed else "NO",
                verdict.rule,
                "; ".join(f"{reason.fix} (ask {reason.owner})" for reason in verdict.reasons) or verdict.kept,
            ]
            for verdict in found.verdicts
        ],
    )
    print_fields(quote_fields(found.quote))
