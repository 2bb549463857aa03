"""Killed at any write, with and without what was not yet synced: what was promised holds.

    PYTHONPATH=src:. python tests/broker/campaign_crash.py --runs 10000 --folder /dev/shm
    PYTHONPATH=src:. python tests/broker/campaign_crash.py --runs 10000 --power

A run forks a child from this warm process, lets it work on a new book, kills it (SIGKILL) before a write that its
seed chose, opens the book again and holds it against everything the child had said; then the same requests come once
more, to their ends. ``--power`` also takes away what the disk need not have kept: the write-ahead log is cut (or torn)
after its last sync, and files of the outbox whose content or name had not been synced are cut or gone. Seeds are the
numbers of the runs: any can be repeated.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.broker.conftest import World
from tests.broker.test_faults import cut_power, fresh, in_child, look, workload

WRITES = 300  # a whole workload takes about as many statements and calls


def run(folder: Path, seed: int, *, power: bool) -> Counter[str]:
    """One crash; returns the states of the book's jobs afterwards. Fails where a promise was broken."""
    chance = random.Random(seed)
    world = World(folder)
    grant, tokens = fresh(world)
    ended, said = in_child(world, grant, tokens, chance.randint(1, WRITES))
    if power and not ended:
        cut_power(world, said, chance)
        lose_unsynced(world, {words[1] for words in said if words[0] == "synced"}, chance)
    try:
        look(world, said)
        workload(world, grant, tokens, lambda *words: said.append([*words, 0]))
        return look(world, said)
    finally:
        for broker in world.opened:
            broker.close()


def lose_unsynced(world: Any, synced: set[str], chance: random.Random) -> None:
    """Files of the outbox whose content and name were not both synced: gone, cut, or kept, as chance has it."""
    outbox = world.directory / "outbox"
    for path in sorted(outbox.iterdir()) if outbox.is_dir() else []:
        if path.name not in synced:
            fate = chance.randrange(3)
            if fate == 0:
                path.unlink()
            elif fate == 1:
                os.truncate(path, chance.randint(0, path.stat().st_size))


def campaign(folder: Path, seeds: range, *, power: bool) -> Counter[str]:
    """States of all jobs of all runs. Raises with the seed of the first run that broke a promise."""
    found: Counter[str] = Counter()
    for seed in seeds:
        book = folder / str(seed)
        try:
            found += run(book, seed, power=power)
        except BaseException as error:
            raise AssertionError(f"seed {seed} ({'power' if power else 'kill'}): {error}") from error
        shutil.rmtree(book)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Crashes at seeded writes.")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--power", action="store_true", help="lose what was not synced")
    parser.add_argument(
        "--folder", type=Path, help="where the books are made; a file system in memory is quick"
    )
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        seeds = range(options.first, options.first + options.runs)
        states = campaign(Path(folder), seeds, power=options.power)
    print(
        f"{options.runs} runs, {'power lost' if options.power else 'killed'}: every promise held; "
        f"jobs {dict(states)}; {time.monotonic() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
