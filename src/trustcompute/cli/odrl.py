"""``trustcompute odrl``: grants as documents of data spaces, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute.broker import contract, delegation, odrl
from trustcompute.broker.grant import sign
from trustcompute.cli.options import GrantFile, IdentityDir
from trustcompute.cli.output import print_fields, print_json
from trustcompute.cli.settings import read_text, write_text
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import Identity

app = typer.Typer(
    help="Grants as ODRL policies of the Dataspace Protocol, and as digital contracts.", no_args_is_help=True
)

Form = Annotated[str, typer.Option("--as", help="agreement, offer or contract.")]


@app.command("export")
def export(grant: GrantFile, form: Form = "agreement") -> None:
    """Print what a grant says as a policy, or as the fields of a digital contract."""
    claims = delegation.read(read_text(grant).strip())
    if form == "contract":
        print_json(contract.fields(claims))
        return
    print_json(odrl.export_policy(claims, form.capitalize()))


@app.command("import")
def import_(
    document: Annotated[Path, typer.Argument(help="The policy or contract (JSON).")],
    identity: IdentityDir,
    out_file: Annotated[Path, typer.Option("--out", help="Where to write the grant's token.")],
) -> None:
    """Sign the grant that a policy or a contract asks for, as its issuer; what a grant cannot say is refused.

    The token is not in any log yet: the node that it is for enters it when it is first used.
    """
    found = _read(document)
    claims = contract.claims(found) if "content" in found else odrl.import_policy(found)
    write_text(out_file, sign(claims, Identity.load(identity).key) + "\n")
    print_fields([("grant", str(out_file)), ("asset", claims.asset.id), ("to", claims.sub)])


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise ParameterError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ParameterError(f"{path} holds no JSON object")
    return found
