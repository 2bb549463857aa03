"""A market of 1,000 parties for the clearing tasks: every use is a line of its own, the most lines there can be.

Entries are those of charged jobs, written in groups without the jobs' rows: the clearing reads the log alone.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.system import Call, Job
from trustcompute.broker.broker import Broker
from trustcompute.broker.clearing import Statement
from trustcompute.broker.grant import PricePlan, Share
from trustcompute.broker.store import NOTHING, Touched
from trustcompute.broker.writer import Book
from trustcompute.primitives.identity import CertificateAuthority, Identity

TASKS: Final = ("clearing", "netting")
PARTIES: Final = 1000
GROUP: Final = 4000  # entries of one transaction
START: Final = 1_750_000_000 // 86_400 * 86_400
END: Final = START + 86_400


@dataclass
class Clock:
    time: int = START

    def now(self) -> int:
        return self.time


@dataclass(frozen=True)
class Charges:
    """Grants, then uses of them: use n is of grant n mod parties by payer n div parties, so pairs do not repeat."""

    start: int
    end: int
    touched: Touched = NOTHING

    def apply(self, book: Book) -> None:
        if self.start == 0:
            for number in range(PARTIES):
                book.record("grant.issued", _grant(number))
        for number in range(self.start, self.end):
            fields = {"payer": f"party{number // PARTIES % PARTIES:04}", "grant": f"{number % PARTIES:064x}"}
            usage = {"calls": 1, "rows": 1 + number % 97}
            terms = {"operation": "benchmark.count.v1", "purpose": "benchmark", "usage": usage}
            book.record("job.posted", fields | terms | {"job": f"{number:032x}", "accounts": [], "window": 0})


def _grant(number: int) -> dict[str, object]:
    price = PricePlan(kind="per_use", currency="EUR", per_call="1/7", per_row="0.05")
    share = Share(party=f"party{(number + PARTIES // 3) % PARTIES:04}", share="1")
    terms = {"grant": f"{number:064x}", "subject": "grantee", "nbf": START, "exp": END}
    return terms | {"price": price.to_document(), "split": [share.to_document()]}


@contextmanager
def party(job: Job) -> Iterator[Call]:
    """``clearing``: open the book, read the log, close the period. ``netting``: of that, among all parties."""
    folder, node = job.path("book"), CertificateAuthority.create("benchmark").issue("node.example")
    clock = Clock()
    with Broker.open(folder, node, clock=clock) as broker:
        for start in range(0, job.rows, GROUP):
            broker._writer.commit([Charges(start, min(start + GROUP, job.rows))])
    clock.time = END
    if job.task == "clearing":
        yield lambda: len(close(folder, node, clock).lines)
        return
    lines = close(folder, node, clock).lines
    with Broker.open(folder, node, clock=clock) as broker:
        broker.clearing.record()
        yield lambda: len(lines) if net(broker) else 0


def close(folder: Path, node: Identity, clock: Clock) -> Statement:
    with Broker.open(folder, node, clock=clock) as broker:
        began = time.process_time()
        broker.clearing.record()
        read = time.process_time()
        made = broker.close_period(START, END)
        took = time.process_time() - read
    print(
        f"of the processor: the log read in {read - began:.1f} s, the period closed in {took:.1f} s",
        file=sys.stderr,
    )
    return made


def net(broker: Broker) -> int:
    made = broker.clearing.net(START, END, [f"party{number:04}" for number in range(PARTIES)])
    print(f"{len(made.gross):,} lines, {len(made.payments):,} payments", file=sys.stderr)
    return len(made.payments)
