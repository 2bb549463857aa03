"""What commands that ask for a computation share: their options, and how they close.

A command takes an ``Asking`` first and says ``@takes(Asking)``: its fields become options of the command, so that each
is declared, described and read in one place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import pyarrow as pa

from trustcompute.cli.options import (
    AnswerFile,
    AsJson,
    DatasetName,
    GrantFile,
    IdentityDir,
    Job,
    Purpose,
    Scenario,
    State,
    Url,
)
from trustcompute.cli.output import print_fields, print_json, print_table
from trustcompute.cli.session import session_of
from trustcompute.cli.writing import write
from trustcompute.node import Session
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.run import Cost

T = TypeVar("T")
P = ParamSpec("P")

MOST_SHOWN: Final = 100  # rows of an answer; --out and --json take them all


class Answer(Protocol):
    """What every answer says."""

    @property
    def leakage(self) -> Leakage: ...


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Of several nodes."""

    identity: IdentityDir
    purpose: Purpose = None
    scenario: Scenario = None
    out: AnswerFile = None
    state: State = Path("jobs")
    as_json: AsJson = False

    def receipt(self, job: str) -> str:
        """Where the session keeps a job's."""
        return str(self.state / f"{job}.receipt.json")

    def papers(self, found: Any) -> dict[str, Any]:
        receipts = {name: self.receipt(job) for name, job in found.jobs.items()}
        return {"session": found.session, "receipts": receipts}

    def close(
        self,
        found: Answer,
        document: Mapping[str, object],
        fields: Sequence[tuple[str, object]],
        *,
        cost: Cost | None,
        answer: pa.Table | None = None,
    ) -> None:
        """Tell what was found. document, for scripts, and fields, for people: what only this command says. answer:
        rows; the first are shown, all are written to ``out``."""
        papers, learnt = self.papers(found), found.leakage
        if answer is not None and self.out is not None:
            write(answer, self.out)
        if self.as_json:
            rows = {} if answer is None else {"answer": answer.to_pylist()}
            traffic = {"bytes_sent": cost.bytes_sent, "bytes_received": cost.bytes_received} if cost else {}
            leakage = {"consumer": learnt.consumer, "provider": learnt.provider}
            out = None if self.out is None else str(self.out)
            print_json({**document, **rows, "out": out, **traffic, "leakage": leakage, **papers})
            return
        if answer is not None:
            shown = [list(row.values()) for row in answer.slice(0, MOST_SHOWN).to_pylist()]
            print_table(answer.column_names, shown)
        print_fields(
            [
                *fields,
                *([("written to", self.out)] if self.out is not None else []),
                *([("sent", f"{cost.bytes_sent:,} bytes")] if cost else []),
                *([("received", f"{cost.bytes_received:,} bytes")] if cost else []),
                ("they learnt", learnt.provider),
                ("we learnt", learnt.consumer),
                *((name, _line(value)) for name, value in papers.items()),
            ]
        )


@dataclass(frozen=True, kw_only=True)
class AskingOne(Asking):
    """Of one node, under one grant."""

    url: Url
    grant: GrantFile
    dataset: DatasetName
    job: Job = None

    def session(self) -> AbstractContextManager[Session]:
        return session_of(self.url, self.identity, self.grant, self.state)

    def papers(self, found: Any) -> dict[str, Any]:
        return {"job": found.job, "receipt": self.receipt(found.job)}


def takes(
    shared: type[T],
) -> Callable[[Callable[Concatenate[T, P], None]], Callable[..., None]]:
    """Make a command of a function whose first argument is ``shared``, a dataclass of options."""
    fields = inspect.signature(shared, eval_str=True).parameters

    def made(function: Callable[Concatenate[T, P], None]) -> Callable[..., None]:
        _, *own = inspect.signature(function, eval_str=True).parameters.values()
        every = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)  # so that those with defaults may stand anywhere
            for one in (*own, *fields.values())
        ]

        @wraps(function)
        def command(**given: Any) -> None:
            first = shared(**{name: given.pop(name) for name in fields})
            function(first, **given)  # type: ignore[call-arg]

        command.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in every}
        return command

    return made


def _line(value: str | Mapping[str, str]) -> str:
    return value if isinstance(value, str) else ", ".join(value.values())
