"""``trustcompute intersect … --out``, ``cancel``: tables of any size, with a bar, paused and taken up again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from trustcompute.cli.asking import AskingOne
from trustcompute.cli.bars import bars
from trustcompute.cli.options import DatasetName, GrantFile, IdentityDir, On, State, Url, parse_on
from trustcompute.cli.output import err
from trustcompute.cli.session import session_of
from trustcompute.errors import JobInterrupted


def intersect(asking: AskingOne, table: Path, out: Path, **asked: Any) -> None:
    """Write the matched rows of a file; asked: the rest of what ``Session.intersect_file`` takes."""
    with _pausing() as stop, bars() as progress, asking.session() as session:
        try:
            found = session.intersect_file(
                asking.dataset,
                table,
                out=out,
                purpose=asking.purpose,
                scenario=asking.scenario,
                progress=progress,
                stop=stop,
                **asked,
            )
        except JobInterrupted as error:
            if stop.is_set():
                raise JobInterrupted("paused; the same command with --resume goes on") from error
            raise JobInterrupted(f"{error} (here: the same command with --resume)") from error
    asking.close(
        found,
        {"protocol": found.protocol, "runs": found.runs, "count": found.count, "rows": found.rows},
        [
            ("matched keys", f"{found.count:,}"),
            ("matched rows", f"{found.rows:,}"),
            ("protocol", found.protocol if found.runs == 1 else f"{found.protocol} in {found.runs} runs"),
        ],
        cost=found.cost,
    )


def cancel(
    table: Annotated[Path, typer.Argument(help="The table whose job is to be given up.")],
    url: Url,
    identity: IdentityDir,
    grant: GrantFile,
    dataset: DatasetName,
    on: On,
    state: State = Path("jobs"),
) -> None:
    """Give up the paused or interrupted job of a table, and forget its keys. What was charged stays charged."""
    with session_of(url, identity, grant, state) as session:
        job = session.cancel_file(dataset, table, on=parse_on(on))
    err.print("nothing was kept for this table" if job is None else f"job {job} is given up")


@contextmanager
def _pausing() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second interrupts at once, as kill would."""
    stop = threading.Event()
    before = signal.getsignal(signal.SIGINT)

    def pause(*_: object) -> None:
        err.print("finishing what is under way; once more to stop at once")
        stop.set()
        signal.signal(signal.SIGINT, before)

    if threading.current_thread() is not threading.main_thread():
        yield stop  # only there may signals be asked for
        return
    signal.signal(signal.SIGINT, pause)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
