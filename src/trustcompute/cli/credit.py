"""``trustcompute credit``: lower what a party may use at our node, and repair it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from trustcompute.broker import credit
from trustcompute.broker.credit import Ceiling
from trustcompute.broker.grant import Limit, explain_validation
from trustcompute.cli import rules
from trustcompute.cli.options import AsJson
from trustcompute.cli.output import print_document, print_fields, print_json
from trustcompute.cli.own_node import open_book
from trustcompute.cli.settings import load_settings
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.signing import token_hash

app = typer.Typer(
    help="Lower what a party may use at our node, and repair it again, on the record.", no_args_is_help=True
)

Settings = Annotated[Path, typer.Argument(help="The node's configuration (TOML); it may be running.")]
Party = Annotated[str, typer.Argument(help="Thumbprint of the party's key.")]
Reason = Annotated[str, typer.Option(help="Why. In the log as a commitment, not in words.")]
UrlOption = Annotated[
    str | None, typer.Option("--with", help="The running node's address, where its file does not say.")
]


@app.command()
def lower(
    settings: Settings,
    party: Party,
    reason: Reason,
    bar: Annotated[bool, typer.Option("--bar", help="Allow nothing new.")] = False,
    percent: Annotated[
        int | None, typer.Option(help="What is left of every limit of its grants, 0 to 99.")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option(help="UNIT.SPAN=AMOUNT, span total, per_day or per_call; repeatable.")
    ] = None,
    url: UrlOption = None,
    as_json: AsJson = False,
) -> None:
    """Lower what a party may reserve from now on. Prints the event, which a repair names."""
    config = load_settings(settings)
    mine = Identity.load(config.path(config.identity))
    ceiling = _ceiling(bar=bar, percent=percent, limits=limit or [])
    token = credit.lower(party, ceiling, reason=reason, audience=mine.name, key=mine.key)
    rules.published(config, mine, token, url)
    print_document({"party": party, "event": token_hash(token), "ceiling": ceiling.says()}, as_json=as_json)


@app.command()
def repair(
    settings: Settings,
    party: Party,
    event: Annotated[str, typer.Argument(help="The event, as `lower` or `show` prints it.")],
    reason: Reason,
    url: UrlOption = None,
    as_json: AsJson = False,
) -> None:
    """Take an event back: what the party may use is again what its grants, and other open events, leave."""
    config = load_settings(settings)
    mine = Identity.load(config.path(config.identity))
    token = credit.repair(party, event, reason=reason, audience=mine.name, key=mine.key)
    rules.published(config, mine, token, url)
    print_document({"party": party, "repaired": event}, as_json=as_json)


@app.command()
def show(settings: Settings, as_json: AsJson = False) -> None:
    """Show all open events, also while the node runs."""
    with open_book(load_settings(settings), read_only=True) as broker:
        found = broker.credits()
    said = [
        {"party": each.party, "event": event.event, "ceiling": event.ceiling.says()}
        for each in found
        for event in each.events
    ]
    if as_json:
        print_json(said)
        return
    for line in said:
        print_fields(list(line.items()))


def _ceiling(*, bar: bool, percent: int | None, limits: list[str]) -> Ceiling:
    spans: dict[str, dict[str, int]] = {}
    for each in limits:
        name, _, amount = each.partition("=")
        unit, _, span = name.partition(".")
        if span not in credit.SPANS or not amount.isascii() or not amount.isdigit():
            raise ParameterError(f"--limit {each}: write it as rows.per_day=1000 ({', '.join(credit.SPANS)})")
        spans.setdefault(unit, {})[span] = int(amount)
    try:
        made = Ceiling(bar=bar, percent=percent, limits={unit: Limit(**each) for unit, each in spans.items()})
    except ValidationError as error:
        raise ParameterError(explain_validation(error, "ceiling")[0]) from error
    if made.empty:
        raise ParameterError("say what is lowered: --bar, --percent or --limit")
    return made
