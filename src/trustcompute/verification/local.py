"""Both sides of a verification in this process: build a table's cells, ask, check. For notebooks and tests."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import Leakage, Sizes
from trustcompute.protocol.run import Cost, run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.verification import (
    bucket,
    building,
    download,
    operation,
    planner,
    private,
    proof,
    question,
    truth,
)
from trustcompute.verification.answer import Questions, VerifiedAnswer
from trustcompute.verification.bucket import Promise
from trustcompute.verification.cells import Code
from trustcompute.verification.planner import Chosen
from trustcompute.verification.predicate import match_of, parse
from trustcompute.verification.table import About, Table

LOCAL_GRANT = "0" * 64


@dataclass(frozen=True)
class Verification:
    """Answers in the order of what was asked. plan, cost, leakage: how, for how much, and who learnt what."""

    answers: list[VerifiedAnswer]
    cost: Cost
    leakage: Leakage
    operation: str

    @property
    def codes(self) -> list[str]:
        """``match``, ``mismatch`` or ``no record`` for each."""
        return [answer.text for answer in self.answers]

    @property
    def matches(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of them match."""
        return np.array([answer.code is Code.MATCH for answer in self.answers], dtype=np.bool_)

    def __len__(self) -> int:
        return len(self.answers)


def verify(
    held: Any,
    predicate: str | None = None,
    keys: Sequence[Any] | None = None,
    *,
    subject: str | Sequence[str],
    match: Sequence[str] | None = None,
    rows: Any = None,
    mode: Chosen = "private",
    casefold: bool = False,
    executor: Executor | None = None,
) -> Verification:
    """Check claims about records of ``held``, both sides in this process.

    predicate: what to check (``seats >= 100``), of keys; or match: columns to compare, of rows (a table of ours with
    the subject's columns and these). subject: the holder's key columns. mode: see ``planner``. Raises ``InputError``.

    >>> verify({"id": [1, 2], "seats": [90, 180]}, "seats >= 100", keys=[1, 2, 3], subject="id").codes
    ['mismatch', 'match', 'no record']
    """
    key_columns = (subject,) if isinstance(subject, str) else tuple(subject)
    if (predicate is None) == (match is None):
        raise ParameterError("pass a predicate, or match= with the columns to compare")
    chosen = parse(predicate) if predicate is not None else match_of(tuple(match or ()), key_columns)
    rng, signer = Rng.from_os(), SigningKey.generate()
    decided = truth.decide(held, key_columns, chosen, casefold=casefold, executor=executor)
    about = About(dataset="local", version="1", subject=key_columns, predicate=chosen, place=rng.bytes(32))
    built = building.build(about, decided, rng.bytes(32), signer, executor=executor)
    if rows is None:
        if keys is None:
            raise ParameterError("pass keys=, or rows= (a table with the key's columns)")
        rows = question.listed(built.descriptor, keys)
    asked = question.asked(built.descriptor, rows, executor=executor)
    planned = planner.plan(built.descriptor, len(asked.questions), checked=True, fetch=True, mode=mode)
    questions = asked.questions.padded(planned.questions, rng)
    answers, cost, protocol = ask(built, questions, signer, mode=mode, executor=executor)
    return Verification(asked.spread(answers), cost, planned.leakage, protocol)


def ask(
    built: Table,
    questions: Questions,
    signer: SigningKey,
    *,
    mode: Chosen,
    executor: Executor | None = None,
) -> tuple[list[VerifiedAnswer], Cost, str]:
    """Run both parties over a table in this process."""
    promise = Promise(built.masked.token, built.id, built.descriptor, signer.public)
    protocol = planner.OPERATIONS[mode]
    sizes = Sizes(len(questions), built.descriptor.records)
    params = operation.parameters(protocol, built.descriptor, built.id, fetch=True)
    params = operation.named(protocol).check(params, sizes)
    binding = Binding(LOCAL_GRANT, protocol, params, "consumer", "provider")
    here, there = Rng.from_os(), Rng.from_os()
    if mode == "bucket":
        run = run_local(
            bucket.consumer(promise, questions, here),
            bucket.provider(built, len(questions), there, signer),
            binding,
        )
        return run.consumer, run.cost, protocol
    if mode == "download":
        got = run_local(
            download.consumer(promise, questions, None, here),
            download.provider(built, len(questions), True, there, signer),
            binding,
        )
        return got.consumer.answers, got.cost, protocol
    check = proof.issue(built.id, built.masked.database, there, signer)
    found = run_local(
        private.consumer(promise, questions, check, None, here, executor=executor),
        private.provider(built, len(questions), True, there, signer, executor=executor),
        binding,
    )
    return found.consumer.answers, found.cost, protocol
