"""``trustcompute node``: run a node."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from trustcompute.cli.output import err
from trustcompute.cli.own_node import open_book
from trustcompute.cli.settings import load_settings, write_text
from trustcompute.node import Node, ProviderResult
from trustcompute.primitives.identity import Identity


def node(
    settings: Annotated[Path, typer.Argument(help="The node's configuration (TOML).")],
    ready_file: Annotated[
        Path | None, typer.Option(help="Write the node's address to this file once it listens.")
    ] = None,
) -> None:
    """Answer computations on the datasets of a configuration file, until interrupted."""
    config = load_settings(settings)
    identity = Identity.load(config.path(config.identity))
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    notify = config.contingency.command(config.contingency.notify)
    results = None if config.results is None else config.path(config.results)
    with (
        open_book(config) as broker,
        ThreadPoolExecutor(os.cpu_count()) as executor,
        Node(
            identity,
            broker,
            config.datasets(),
            executor=executor,
            notify=None if notify is None else notify.notify,
            regulators=config.regulators,
            suspend=config.contingency.command(config.contingency.suspend),
            on_result=None if results is None else lambda result: write_result(results, result),
        ) as served,
    ):
        host, port = config.address
        with served.serve(host, port) as server:
            err.print(f"{identity.name} answers at {server.url}")
            if ready_file is not None:
                write_text(ready_file, server.url)
            stop.wait()


def write_result(directory: Path, result: ProviderResult) -> None:
    """What a computation told this side: matched row positions, or their number, as Parquet."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    rows = result.output.rows
    columns = {"row": rows} if rows is not None else {"count": [result.output.count]}
    pq.write_table(pa.table(columns), directory / f"{result.job}.parquet")
