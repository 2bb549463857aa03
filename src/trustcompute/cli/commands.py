"""All commands, by what they act on."""

from __future__ import annotations

from typing import Annotated

import typer

from trustcompute import __version__
from trustcompute.cli import (
    aggregate,
    agreement,
    arbiter,
    ask,
    cascade,
    certificate,
    changes,
    consent,
    credit,
    demo,
    dispute,
    doctor,
    explain,
    files,
    grant,
    identity,
    many,
    node,
    odrl,
    opened,
    record,
    release,
    rules,
    statistics,
    verify,
)
from trustcompute.cli.sum import sum_

app = typer.Typer(
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


app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(identity.app, name="identity")
app.add_typer(grant.app, name="grant")
app.add_typer(rules.app, name="rules")
app.add_typer(credit.app, name="credit")
app.command("node")(node.node)
app.command("catalog")(ask.catalog)
app.command("quote")(ask.quote)
app.command("explain")(explain.explain)
app.command("intersect")(ask.intersect)
app.command("intersect-changes")(changes.intersect_changes)
app.command("cascade")(cascade.cascade)
app.command("intersect-many")(many.intersect_many)
app.command("sum")(sum_)
app.command("cancel")(files.cancel)
app.command("release")(release.release)
app.command("aggregate")(aggregate.aggregate)
verify.app.command("statistics")(statistics.statistics)
verify.app.command("arbiter")(arbiter.arbiter)
verify.app.command("opened")(opened.opened)
verify.app.add_typer(consent.app, name="consent")
app.add_typer(verify.app, name="verify")
app.add_typer(record.receipt_app, name="receipt")
app.add_typer(record.log_app, name="log")
app.command("statement")(record.statement)
app.add_typer(dispute.app, name="dispute")
app.add_typer(agreement.app, name="agreement")
app.add_typer(certificate.app, name="certificate")
app.add_typer(odrl.app, name="odrl")
