"""Zero overrun: many processes, many attempts, one limit, and exactly the limit is charged.

    PYTHONPATH=src:. python tests/broker/campaign_overrun.py --store sqlite --processes 64 --attempts 1000000

On PostgreSQL every process opens the book itself. A book in a file has one writer: there the processes ask it
over pipes, each served by a thread of its own, as a node serves its peers. An attempt is a signed request of
its own that is reserved and, where that succeeds, posted; requests are sent in groups.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.broker.conftest import BANK, MATCH, World
from tests.broker.postgresql import server, why_not
from trustcompute.broker import commands
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import JobRecord, Release
from trustcompute.errors import Refused

GROUP = 256


def sign(world: World, grant: str, count: int) -> list[str]:
    return [world.request(grant, rows=1).sign(BANK.key) for _ in range(count)]


def attempt(broker: Broker, grant: str, tokens: list[str]) -> tuple[int, int]:
    """(posted, refused) of a group of requests; anything else is an error."""
    asked = [broker.verify_request(token, peer=BANK.name, grant=grant) for token in tokens]
    found = broker._writer.commit([commands.Reserve(each, MATCH) for each in asked])
    held = [job for job in found if isinstance(job, JobRecord)]
    refused = sum(isinstance(each, Refused) and each.rule == "quota" for each in found)
    posts = [commands.Post(job.id, Release(0, 1, "aa" * 32, "bb" * 32, job.id), job.reserved) for job in held]
    done = broker._writer.commit(posts) if posts else []
    assert all(isinstance(each, JobRecord) for each in done) and len(held) + refused == len(tokens), "lost"
    return len(done), refused


def groups(total: int) -> list[int]:
    return [min(GROUP, total - start) for start in range(0, total, GROUP)]


def client(pipe: Connection, world: World, attempts: int) -> None:
    """A process: asks the book in the database itself, or the one writer over the pipe."""
    grant = pipe.recv()
    posted = refused = 0
    broker = world.open(clock=None) if world.database else None
    for count in groups(attempts):
        tokens = sign(world, grant, count)
        if broker is not None:
            outcome = attempt(broker, grant, tokens)
        else:
            pipe.send(tokens)
            outcome = pipe.recv()
        posted, refused = posted + outcome[0], refused + outcome[1]
    if broker is not None:
        broker.close()
    pipe.send((posted, refused))


def serve(child: Any, pipe: Connection, broker: Broker, grant: str, ends: list[Any]) -> None:
    """A thread of the one writer for one process: how it ended, or what went wrong, goes into ``ends``."""
    try:
        while isinstance(said := heard(child, pipe), list):
            pipe.send(attempt(broker, grant, said))
        ends.append(said)
    except BaseException as error:  # or the process would wait for ever, and so would the campaign
        ends.append(error)
        child.terminate()


def heard(child: Any, pipe: Connection) -> Any:
    """What a process said last. Raises ``AssertionError`` where it ended without a word."""
    wait([pipe, child.sentinel])
    assert pipe.poll(), "a process failed"
    return pipe.recv()


def campaign(
    folder: Path, database: str | None, processes: int, attempts: int, limit: int
) -> tuple[int, int]:
    """(posted, refused) as the processes saw it, after the book was held against it."""
    world = World(folder / "book", database=database)
    world.clock.time = int(time.time())
    context = get_context("fork")  # before there is a thread or a connection; all share the bank's key
    children: list[tuple[Any, Connection]] = []
    for number in range(processes):
        ours, theirs = context.Pipe()
        own = World(folder / f"outbox-{number}", clock=world.clock, database=database)
        share = attempts // processes + (number < attempts % processes)
        children.append((context.Process(target=client, args=(theirs, own, share)), ours))
        children[-1][0].start()
    broker = world.open(clock=None)
    broker.register(world.asset())
    grant = broker.issue(world.claims(limits={"calls": Limit(total=limit)}))
    ends: list[Any] = []
    started: list[tuple[Any, threading.Thread]] = []
    for child, pipe in children:
        pipe.send(grant)
        thread = threading.Thread(target=serve, args=(child, pipe, broker, grant, ends), daemon=True)
        thread.start()
        started.append((child, thread))
    for child, thread in started:
        thread.join()
        child.join()
    for failed in (each for each in ends if isinstance(each, BaseException)):
        raise failed
    posted, refused = (sum(each) for each in zip(*ends, strict=True))
    held = world.balances(broker)["grant", "calls"]
    report = broker.audit()
    assert len(ends) == processes and posted + refused == attempts, "an attempt has no outcome"
    assert held == (posted, 0) and posted == min(limit, attempts), f"{posted} posted of {limit}"
    assert report.jobs["posted"] == posted and report.jobs.get("denied", 0) == refused
    broker.close()
    return posted, refused


def main() -> None:
    parser = argparse.ArgumentParser(description="Zero overrun, from many processes.")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("--attempts", type=int, default=1_000_000)
    parser.add_argument("--limit", type=int, default=20_000)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = None
        if options.store == "postgres":
            if missing := why_not():
                raise SystemExit(missing)
            database = stack.enter_context(server(durable=True)).new_schema()
        started = time.monotonic()
        posted, refused = campaign(folder, database, options.processes, options.attempts, options.limit)
    print(
        f"{options.store}: {options.processes} processes, {options.attempts} attempts, limit {options.limit}: "
        f"{posted} posted, {refused} refused, audited, {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
