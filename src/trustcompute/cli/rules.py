"""``trustcompute rules``: deny-lists and policies, which stand above all grants."""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from trustcompute.broker.grant import explain_validation
from trustcompute.broker.rules import KINDS, Rules
from trustcompute.cli.options import AsJson, IdentityDir
from trustcompute.cli.output import print_fields, print_json
from trustcompute.cli.own_node import at_own_node, open_book
from trustcompute.cli.settings import NodeSettings, load_settings, read_text, write_text
from trustcompute.errors import ParameterError
from trustcompute.node.authority import RulesTaken, publish_to, send_rules
from trustcompute.primitives.identity import Identity

app = typer.Typer(
    help="Sign, publish and show deny-lists and policies, which stand above all grants.", no_args_is_help=True
)

Settings = Annotated[Path, typer.Argument(help="The node's configuration (TOML); it may be running.")]


@app.command()
def sign(
    file: Annotated[
        Path, typer.Argument(help='TOML: kind = "denylist" or "policy", version, and what it says.')
    ],
    identity: IdentityDir,
    out: Annotated[Path, typer.Option(help="Where to write the signed document.")],
    node: Annotated[str | None, typer.Option(help="The node's name; ours if left out.")] = None,
) -> None:
    """Sign a deny-list or a policy."""
    signer = Identity.load(identity)
    made = _made(file, signer, node or signer.name)
    write_text(out, made.sign(signer.key) + "\n")
    print_fields(_fields(made))


@app.command()
def publish(
    settings: Settings,
    file: Annotated[Path, typer.Argument(help="The signed document.")],
    url: Annotated[
        str | None, typer.Option("--with", help="The running node's address, where its file does not say.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a signed deny-list or policy in force at our node, running or not. Only newer versions are taken."""
    config = load_settings(settings)
    token = read_text(file).strip()
    taken = published(config, Identity.load(config.path(config.identity)), token, url)
    if as_json:
        print_json(taken.model_dump(mode="json"))
        return
    print_fields([("in force", f"{taken.kind}, version {taken.version}")])


@app.command()
def show(settings: Settings, as_json: AsJson = False) -> None:
    """Show the deny-lists and policies in force, also while the node runs."""
    with open_book(load_settings(settings), read_only=True) as broker:
        found = [document for _, document in broker.rules()]
    if as_json:
        print_json([{"kind": each.kind, **each.to_document()} for each in found])
        return
    for each in found:
        print_fields(_fields(each))


def published(config: NodeSettings, mine: Identity, token: str, url: str | None) -> RulesTaken:
    """Bring a signed document to our node, running or not."""
    return at_own_node(
        config,
        mine,
        url,
        stopped=lambda broker: publish_to(broker, token),
        running=lambda channel: send_rules(channel, token),
    )


def _made(file: Path, signer: Identity, node: str) -> Rules:
    try:
        document = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ParameterError(f"{file} is not TOML: {error}") from error
    kind = KINDS.get(document.pop("kind", None))
    if kind is None:
        raise ParameterError(f"{file}: kind is one of {', '.join(KINDS)}")
    own = {"iss": signer.thumbprint, "aud": node, "iat": int(time.time())}
    try:
        return kind.model_validate(own | document)
    except ValidationError as error:
        raise ParameterError(f"{file}: {explain_validation(error, kind.kind)[0]}") from error


def _fields(made: Rules) -> list[tuple[str, object]]:
    says = {
        name: value
        for name, value in made.model_dump(mode="json", exclude_defaults=True).items()
        if name not in ("iss", "aud", "version", "iat")
    }
    return [
        ("kind", made.kind),
        ("version", made.version),
        ("issuer", made.iss),
        ("node", made.aud),
        *((name, _words(value)) for name, value in says.items()),
    ]


def _words(value: object) -> str:
    if isinstance(value, list):
        shown = ", ".join(_words(each) for each in value[:8])
        return shown + (f" and {len(value) - 8:,} more" if len(value) > 8 else "")
    if isinstance(value, dict):
        return "; ".join(
            f"{name}: {_words(each)}" for name, each in value.items() if each not in (None, {}, False)
        )
    return str(value)
