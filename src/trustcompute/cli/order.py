"""``trustcompute grant suspend|resume|exit|revoke|review``: orders about a grant that was given out.

The node's operator names the node's file: a running node is told over the network, of a stopped one the book is
opened. Everybody else who may order (the issuer of the grant or of one above it, and the grantee that gives its
grant up) names an identity and the node's address.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from trustcompute.broker import grant as grants
from trustcompute.broker.order import Do, new_order
from trustcompute.cli.book import open_book
from trustcompute.cli.options import AsJson
from trustcompute.cli.output import print_fields, print_json
from trustcompute.cli.settings import NodeSettings, load_settings, read_text
from trustcompute.errors import ParameterError, StoreError
from trustcompute.node.authority import give_order
from trustcompute.primitives.identity import Identity
from trustcompute.transport import FlightChannel

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


def suspend(
    file: File,
    node: NodeFile = None,
    identity: IdentityOption = None,
    url: UrlOption = None,
    reason: Reason = None,
    link: Link = None,
    as_json: AsJson = False,
) -> None:
    """Allow nothing new under a grant and what was delegated from it; open jobs may end."""
    _give("suspend", file, node, identity, url, reason, link, as_json=as_json)


def resume(
    file: File,
    node: NodeFile = None,
    identity: IdentityOption = None,
    url: UrlOption = None,
    reason: Reason = None,
    link: Link = None,
    as_json: AsJson = False,
) -> None:
    """Take a suspension back: for whoever suspended, or somebody above."""
    _give("resume", file, node, identity, url, reason, link, as_json=as_json)


def leave(
    file: File,
    node: NodeFile = None,
    identity: IdentityOption = None,
    url: UrlOption = None,
    reason: Reason = None,
    link: Link = None,
    as_json: AsJson = False,
) -> None:
    """Give a grant up for good: nothing new is allowed, and it ends when no job is open. A grantee may do so too."""
    _give("exit", file, node, identity, url, reason, link, as_json=as_json)


def revoke(
    file: File,
    node: NodeFile = None,
    identity: IdentityOption = None,
    url: UrlOption = None,
    reason: Reason = None,
    link: Link = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a grant for good, and with it all that were delegated from it; open jobs are stopped."""
    _give("revoke", file, node, identity, url, reason, link, as_json=as_json)


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
    if settings is None or url is not None:
        _send(url or "", signer, claims.aud, token, chain)
    else:
        _to_own_node(settings, signer, token, chain)
    done = {"order": do, "grant": name, "to": claims.sub, "dataset": claims.asset.id}
    if as_json:
        print_json(done)
    else:
        print_fields(list(done.items()))


def _down_to(chain: str, link: int | None) -> str:
    """The part of a chain that ends with a link, counted from 1."""
    links = chain.split(grants.SEPARATOR)
    if link is not None and not 1 <= link <= len(links):
        raise ParameterError(f"--link is 1 to {len(links)}: the chain has no link {link}")
    return grants.SEPARATOR.join(links[:link])


def _to_own_node(settings: NodeSettings, signer: Identity, token: str, chain: str) -> None:
    """Through the book where nobody else has it open, through the running node otherwise."""
    try:
        with open_book(settings) as broker:
            broker.order(token, chain)
            return
    except StoreError as error:
        if "another process" not in str(error):
            raise
    _send(own_url(settings), signer, signer.name, token, chain)


def own_url(settings: NodeSettings) -> str:
    """Where a node of these settings listens, seen from its own machine. Raises ``ParameterError``."""
    host, port = settings.address
    if port == 0:
        raise ParameterError("the node runs and listens at a port it chose: say which by --with URL")
    return f"grpc+tls://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared, not bound


def _send(url: str, signer: Identity, node: str, token: str, chain: str) -> None:
    channel = FlightChannel(url, signer, peer=node)
    try:
        give_order(channel, token, chain)
    finally:
        channel.close()
