"""All commands, by what they act on. A command's module, with the layers it needs, is imported when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any, Final, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from trustcompute import __version__


class Command(NamedTuple):
    """place: its module here, and in it the command or the group of commands. says: its line in the list of all."""

    place: str
    says: str

    def load(self, name: str) -> Any:
        """As Typer makes it."""
        module, _, attribute = self.place.partition(":")
        found = getattr(import_module(f"trustcompute.cli.{module}"), attribute)
        holder = typer.Typer()
        if isinstance(found, typer.Typer):
            holder.add_typer(found, name=name)
        else:
            holder.command(name)(found)
        return typer.main.get_group(holder).commands[name]


COMMANDS: Final = {
    "demo": Command(
        "demo:demo",
        "Run the main job: an aviation registry and an airline find out which aircraft both know.",
    ),
    "doctor": Command(
        "doctor:doctor", "Tell which kernels are in use and why, and the versions of what matters."
    ),
    "identity": Command(
        "identity:app", "Make and show identities: one Ed25519 key, one certificate, one name."
    ),
    "grant": Command(
        "grant:app", "Issue, delegate and show grants; suspend, resume, give up, revoke and review them."
    ),
    "rules": Command(
        "rules:app", "Sign, publish and show deny-lists and policies, which stand above all grants."
    ),
    "credit": Command(
        "credit:app", "Lower what a party may use at our node, and repair it again, on the record."
    ),
    "node": Command(
        "node:node", "Answer computations on the datasets of a configuration file, until interrupted."
    ),
    "catalog": Command("ask:catalog", "Show what a node offers under a grant."),
    "quote": Command("ask:quote", "Ask what a computation would cost, and what is left. Spends nothing."),
    "explain": Command(
        "explain:explain",
        "Ask whether a computation would be allowed: a verdict for every rule, price, budget left. Spends nothing.",
    ),
    "intersect": Command(
        "ask:intersect", "Find out which of our rows a node's dataset also holds, or how many."
    ),
    "intersect-changes": Command(
        "changes:intersect_changes",
        "Intersect again, over what changed since the last time; what a run leaves for the next is in --state.",
    ),
    "cascade": Command(
        "cascade:cascade",
        "Match rows by the first identifier, those left over by the next, and say by which each matched.",
    ),
    "intersect-many": Command(
        "many:intersect_many",
        "Find out which of our rows the datasets of all parties also hold, and nothing of what only some hold.",
    ),
    "sum": Command(
        "sum:sum_",
        "Add up a node's columns over the keys both sides hold. Which keys these are nobody learns.",
    ),
    "cancel": Command(
        "files:cancel",
        "Give up the paused or interrupted job of a table, and forget its keys. What was charged stays charged.",
    ),
    "release": Command(
        "release:release", "Ask for aggregates from which nobody's presence in the data can be told."
    ),
    "aggregate": Command(
        "aggregate:aggregate", "Add up what several nodes hold; no part of it is opened by itself."
    ),
    "verify": Command("verifying:app", "Check claims about records, each answer proven."),
    "receipt": Command("record:receipt_app", "Check receipts, offline."),
    "log": Command("record:log_app", "Audit, export, copy and witness a log."),
    "statement": Command(
        "record:statement",
        "Print what is owed for a period, from the log alone; write it as tables or as a page.",
    ),
    "dispute": Command("dispute:app", "Contest what was billed, show the papers, settle."),
    "agreement": Command("agreement:app", "Quote, appraise, agree on a price plan; price indices."),
    "certificate": Command("certificate:app", "Certificates of data assets, and their register."),
    "odrl": Command(
        "odrl:app", "Grants as ODRL policies of the Dataspace Protocol, and as digital contracts."
    ),
}


class OnDemand(TyperGroup):
    """A group that lists its commands without importing their modules, and imports one to run or describe it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, command in COMMANDS.items():
            self.add_command(TyperCommand(name, help=command.says))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return COMMANDS[cmd_name].load(cmd_name) if cmd_name in COMMANDS else None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        listed = TyperGroup(
            name=self.name,
            help=self.help,
            params=self.params,
            commands=dict(self.commands),
            rich_markup_mode=self.rich_markup_mode,
        )
        listed.format_help(ctx, formatter)


app = typer.Typer(
    cls=OnDemand,
    help="Organisations compute on each other's data under a signed, metered, recorded grant.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
