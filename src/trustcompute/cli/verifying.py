"""``trustcompute verify``: all of its commands."""

from __future__ import annotations

from trustcompute.cli import consent
from trustcompute.cli.arbiter import arbiter
from trustcompute.cli.opened import opened
from trustcompute.cli.statistics import statistics
from trustcompute.cli.verify import app

app.command("statistics")(statistics)
app.command("arbiter")(arbiter)
app.command("opened")(opened)
app.add_typer(consent.app, name="consent")

__all__ = ["app"]
