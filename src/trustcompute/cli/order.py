"""``trustcompute grant suspend|resume|exit|revoke|review``: orders about a grant that was given out.

The node's operator names the node's file: a running node is told over the network, of a stopped one the book is
opened. Everybody else who may order (the issuer of the grant or of one above it, and the grantee that gives its
grant up) names an identity and the node's address.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from trustcompute.broker import grant as grants
from trustcompute.broker.order import Do, new_order
from trustcompute.cli.options import AsJson
from trustcompute.cli.output import print_document
from trustcompute.cli.own_node import at_own_node, over_network
from trustcompute.cli.settings import load_settings, read_text
from trustcompute.errors import ParameterError
from trustcompute.node.authority import give_order
from trustcompute.primitives.identity import Identity

File = Annotated[Path, typer.Argument(help="File with the grant or chain of grants.")]
NodeFile = Annotated[
    Path | None, typer.Option("--node", help="The node's file (TOML), for its operator; running or not.")
]
IdentityOption = Annotated[
    Path | None, typer.Option("--identity", help="Whose order it is: directory of an identity.")
]
UrlOption = Annotated[str | None, typer.Option("--with", help="The node's address: grpc+tls://host:port.")]
Link = Annotated[int | None, typer.Option(help="Which link of a chain, 1 is the root; the last if left out.")]
Reason = Annotated[str | None, typer.Option(help="Kept in the log as a commitment, not in words.")]


def _ordering(do: Do, says: str) -> Callable[..., None]:
    """The command that gives an order without anything to add to it; ``says``: its help."""

    def command(
        file: File,
        node: NodeFile = None,
        identity: IdentityOption = None,
        url: UrlOption = None,
        reason: Reason = None,
        link: Link = None,
        as_json: AsJson = False,
    ) -> None:
        _give(do, file, node, identity, url, reason, link, as_json=as_json)

    command.__doc__ = says
    return command


ORDERS: Final = {
    "suspend": _ordering(
        "suspend", "Allow nothing new under a grant and what was delegated from it; open jobs may end."
    ),
    "resume": _ordering("resume", "Take a suspension back: for whoever suspended, or somebody above."),
    "exit": _ordering(
        "exit",
        "Give a grant up for good: nothing new is allowed, and it ends when no job is open. A grantee may do so too.",
    ),
    "revoke": _ordering(
        "revoke",
        "Revoke a grant for good, and with it all that were delegated from it; open jobs are stopped.",
    ),
}
"""Commands by name."""


def review(
    file: File,
    until: Annotated[str, typer.Option(help="When the next review is due: a day (UTC), ISO.")],
    node: NodeFile = None,
    identity: IdentityOption = None,
    url: UrlOption = None,
    reason: Reason = None,
    link: Link = None,
    as_json: AsJson = False,
) -> None:
    """Record that a grant was reviewed: it is used until the next review is due."""
    try:
        day = datetime.datetime.fromisoformat(until)
    except ValueError as error:
        raise ParameterError(f"--until reads 2026-01-31, not {until!r}") from error
    due = int(day.replace(tzinfo=day.tzinfo or datetime.UTC).timestamp())
    _give("review", file, node, identity, url, reason, link, as_json=as_json, due=due)


def _give(
    do: Do,
    file: Path,
    node: Path | None,
    identity: Path | None,
    url: str | None,
    reason: str | None,
    link: int | None,
    *,
    as_json: bool,
    due: int | None = None,
) -> None:
    settings = None if node is None else load_settings(node)
    if settings is not None:
        signer = Identity.load(settings.path(settings.identity))
    elif identity is not None and url is not None:
        signer = Identity.load(identity)
    else:
        raise ParameterError("an order needs --node FILE, or --identity DIRECTORY and --with URL")
    chain = _down_to(read_text(file).strip(), link)
    claims = grants.read(chain.rsplit(grants.SEPARATOR, 1)[-1])
    if settings is not None and claims.aud != signer.name:
        raise ParameterError(f"the grant is for the node {claims.aud}, not for {signer.name}")
    name = grants.hash_of(chain)
    token = new_order(do, name, audience=claims.aud, key=signer.key, reason=reason, next_review=due)
    if settings is None:
        over_network(url or "", signer, claims.aud, lambda channel: give_order(channel, token, chain))
    else:
        at_own_node(
            settings,
            signer,
            url,
            stopped=lambda broker: broker.order(token, chain),
            running=lambda channel: give_order(channel, token, chain),
        )
    done = {"order": do, "grant": name, "to": claims.sub, "dataset": claims.asset.id}
    print_document(done, as_json=as_json)


def _down_to(chain: str, link: int | None) -> str:
    """The part of a chain that ends with a link, counted from 1."""
    links = chain.split(grants.SEPARATOR)
    if link is not None and not 1 <= link <= len(links):
        raise ParameterError(f"--link is 1 to {len(links)}: the chain has no link {link}")
    return grants.SEPARATOR.join(links[:link])
