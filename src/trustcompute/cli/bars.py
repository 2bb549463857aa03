"""Bars for what takes long, on a terminal: one for each phase that a computation tells of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from trustcompute.cli.output import err
from trustcompute.tables.progress import Callback, Progress

PHASES = {
    "digest": "reading keys",
    "sort": "sorting keys",
    "match": "matching buckets",
    "write": "writing rows",
    "evaluate": "evaluating records",
}


@contextmanager
def bars() -> Iterator[Callback | None]:
    """A bar for each phase, on a terminal; nothing elsewhere."""
    if not err.is_terminal:
        yield None
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TextColumn("{task.fields[done]}"),
        TextColumn("{task.fields[left]}"),
    )
    with Bars(*columns, console=err) as shown:
        tasks: dict[str, TaskID] = {}

        def show(one: Progress) -> None:
            if one.phase not in tasks:
                tasks[one.phase] = shown.add_task(PHASES[one.phase], total=one.total, done="", left="")
            done = f"{one.done:,}" if one.total is None else f"{one.done:,} of {one.total:,}"
            shown.update(tasks[one.phase], completed=one.done, done=done, left=left(one))

        yield show


def left(one: Progress) -> str:
    """How long the phase will take yet, in words; how long it took, once it is done."""
    if one.total is not None and one.done >= one.total:
        return f"took {timedelta(seconds=round(one.seconds))}"
    return "" if one.left is None else f"{timedelta(seconds=round(one.left))} left"
