"""``trustcompute identity``: keys and certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trustcompute.cli.options import AsJson
from trustcompute.cli.output import print_document, print_fields
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import KEY_FILE, CertificateAuthority, Identity

app = typer.Typer(
    help="Make and show identities: one Ed25519 key, one certificate, one name.", no_args_is_help=True
)

Directory = Annotated[Path, typer.Argument(help="Directory of the identity.")]


@app.command()
def authority(
    directory: Annotated[Path, typer.Argument(help="Directory to make.")],
    name: Annotated[str, typer.Option(help="What the authority is called.")] = "trustcompute authority",
) -> None:
    """Make a certificate authority of your own, for one data space."""
    _must_be_new(directory)
    CertificateAuthority.create(name).save(directory)
    print_fields([("authority", name), ("directory", directory)])


@app.command()
def create(
    directory: Directory,
    name: Annotated[str, typer.Option(help="The DNS name, the only one in the certificate.")],
    authority: Annotated[Path, typer.Option(help="Directory of the authority that signs it.")],
    days: Annotated[int, typer.Option(help="How long the certificate is valid.")] = 365,
) -> None:
    """Make an identity: a fresh key and a certificate for one name."""
    _must_be_new(directory)
    made = CertificateAuthority.load(authority).issue(name, days)
    made.save(directory)
    _show(made, as_json=False)


@app.command()
def show(directory: Directory, as_json: AsJson = False) -> None:
    """Show an identity's name and thumbprint; never its key."""
    _show(Identity.load(directory), as_json=as_json)


@app.command()
def rotate(
    settings: Annotated[
        Path, typer.Argument(help="The node's configuration (TOML); the node must be stopped.")
    ],
    new: Annotated[Path, typer.Argument(help="Directory of the new identity, of the same name.")],
    compromised: Annotated[
        bool,
        typer.Option(
            "--compromised", help="The old key may be in other hands: what it grants now is refused."
        ),
    ] = False,
) -> None:
    """Hand a node's book over to a new key; then name the new identity in the node's file."""
    from trustcompute.broker.broker import Broker  # noqa: PLC0415 - no other command here opens a book
    from trustcompute.cli.settings import load_settings  # noqa: PLC0415

    config = load_settings(settings)
    old, successor = Identity.load(config.path(config.identity)), Identity.load(new)
    Broker.rotate(config.path(config.book), old, successor, compromised=compromised, database=config.database)
    print_fields(
        [("old key", old.thumbprint), ("new key", successor.thumbprint), ("next", f"identity = {str(new)!r}")]
    )


def _show(identity: Identity, *, as_json: bool) -> None:
    fields = {
        "name": identity.name,
        "thumbprint": identity.thumbprint,
        "expires": identity.expires.isoformat(),
    }
    print_document(fields, as_json=as_json)


def _must_be_new(directory: Path) -> None:
    if (directory / KEY_FILE).exists():
        raise ParameterError(
            f"{directory} holds a key already: it is not overwritten, choose another directory"
        )
