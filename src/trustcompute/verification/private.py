"""verify.private.v1: ask about records, and the holder learns nothing of which; two round trips.

    consumer (keys x, its own check)                    provider (key K, D)
        asked      r·H(x)                      ───────►
                                               ◄───────   public      splitters, leaves, hint (only where asked for)
                                               ◄───────   evaluated   K·r·H(x), proofs
        tag of x → column j
        query      u = A·s + e + Δ·(1 at j)    ───────►
                                               ◄───────   answer      v = D·u, a signature
        checks u and v, then decrypts its column, checks that too, and reads its cell

A column holds a range of tags in order, so it shows that a key is there or that it is not. Adversary: malicious,
either one. Nothing the provider sees depends on the keys or on what the consumer finds: where a check fails half way,
the consumer goes on with a column of no interest and raises at the end. The consumer learns one code a key, and cells
it cannot read.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from trustcompute.errors import VerificationError
from trustcompute.primitives import merkle
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.message import Column, Message
from trustcompute.protocol.party import Party, receive, send
from trustcompute.verification import answer, arbiter, layout, pir, statement
from trustcompute.verification.answer import Evaluated, Questions, VerifiedAnswer
from trustcompute.verification.bucket import Promise
from trustcompute.verification.cells import U32, U64
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.pir import Prepared
from trustcompute.verification.proof import Check
from trustcompute.verification.table import Table, root_of


@dataclass(frozen=True, eq=False)
class Public:
    """What a consumer needs of a table beside its descriptor, the same for every question: received once and kept.

    hint: uint32[length, n]; splitters: uint64[m]; tree: over the columns' leaves.
    """

    hint: U32 = field(repr=False)
    splitters: U64 = field(repr=False)
    tree: merkle.Tree = field(repr=False)


@dataclass(frozen=True, eq=False)
class Private:
    """What a run gives: an answer for each question, and what was received once for all."""

    answers: list[VerifiedAnswer]
    public: Public


def public_of(said: Descriptor, splitters: U64, leaves: bytes, hint: U32) -> Public:
    """Check what was received or kept against the descriptor. Raises ``VerificationError``."""
    if layout.splitters_digest(splitters) != said.splitters:
        raise VerificationError("the splitters are not those the descriptor names")
    if pir.hint_digest(hint) != said.hint:
        raise VerificationError(
            "the hint is not the one the descriptor names: it is of another version, or altered"
        )
    if root_of(leaves).hex() != said.columns.root:
        raise VerificationError("the columns' leaves do not lead to the descriptor's root")
    tree = merkle.Tree()
    tree.append_all(leaves)
    return Public(np.ascontiguousarray(hint, dtype=np.uint32), splitters.astype(np.uint64), tree)


def consumer(
    promise: Promise,
    questions: Questions,
    check: Check,
    public: Public | None,
    rng: Rng,
    *,
    prepared: Iterable[Prepared] = (),
    executor: Executor | None = None,
) -> Party[Private]:
    """One answer for each question. public: None fetches it. prepared: queries made beforehand; missing ones are made
    now.

    Raises ``VerificationError`` where anything was not as promised, after the last message.
    """
    said, shape = promise.said, promise.said.columns.shape
    problems: list[VerificationError] = []
    blinded = answer.blind(questions, rng)
    ready = list(islice(prepared, len(questions)))
    seed, missing = bytes.fromhex(said.seed), len(questions) - len(ready)
    coming = None
    if missing == 1 and public is not None:  # computed while the holder evaluates
        coming = pir.begin(public.hint, seed, shape.columns, rng, executor=executor)
    yield from send("asked", point=blinded.elements)
    if public is None:
        public = _public(said, (yield from _receive_public(said)), problems)
    got = yield from receive(
        "evaluated",
        releases=True,
        point=Column("u1", (questions.evaluations, 32)),
        proof=Column("u1", (answer.groups(questions.evaluations), 64)),
    )
    found: Evaluated | None = None
    try:
        found = answer.unblind(said, blinded, got["point"], got["proof"])
    except VerificationError as error:
        problems.append(error)
    numbers = np.zeros(len(questions), dtype=np.uint32)
    if public is not None and found is not None:
        numbers = layout.column_of(found.tags, public.splitters)
    if public is not None:
        if coming is not None:
            ready.append(coming())
        else:
            ready += pir.prepare_many(public.hint, seed, shape.columns, rng, missing, executor=executor)
        asked = np.stack([pir.query(one, int(j)) for one, j in zip(ready, numbers, strict=True)])
    else:  # nothing can come of it, and uniform words look like any query
        asked = rng.array(4 * len(questions) * shape.columns).view("<u4").reshape(-1, shape.columns)
    yield from send("query", word=asked)
    got = yield from receive(
        "answer",
        releases=True,
        word=Column("u4", (len(questions), shape.length)),
        signature=Column("u1", (64,)),
    )
    if problems or public is None or found is None:
        raise problems[0]
    statement.verify(promise.id, [asked], [got["word"]], got["signature"], promise.holder)
    with arbiter.disputable(promise.token, asked, got["word"], got["signature"]):
        for one, word in zip(asked, got["word"], strict=True):
            check.verify(one, word)
    columns = [pir.column_of(one, word) for one, word in zip(ready, got["word"], strict=True)]
    answers = [
        answer.opened(promise.token, said, found, index, answer.in_tree(public.tree, int(number), column))
        for index, (number, column) in enumerate(zip(numbers, columns, strict=True))
    ]
    return Private(answers, public)


def provider(
    table: Table,
    questions: int,
    fetch: bool,
    rng: Rng,
    signer: SigningKey,
    *,
    executor: Executor | None = None,
) -> Party[None]:
    """The holder's side. questions: as many as the request declares; fetch: whether it sends what serves all
    questions."""
    said, masked = table.descriptor, table.masked
    evaluations = questions * (1 if said.elements is None else 2)
    got = yield from receive("asked", point=Column("u1", (evaluations, 32)))
    elements, proofs = answer.evaluate(table.key, got["point"], rng)
    if fetch:
        leaves = np.frombuffer(masked.leaves, dtype=np.uint8).reshape(-1, 32)
        yield from send("public", splitter=masked.splitters, leaf=leaves, hint=masked.hint)
    yield from send("evaluated", releases=True, point=elements, proof=proofs)
    asked = (yield from receive("query", word=Column("u4", (questions, said.columns.columns))))["word"]
    found = pir.answer(masked.database, asked, executor=executor)
    signature = statement.sign(table.id, [asked], [found], signer)
    yield from send("answer", releases=True, word=found, signature=signature)


def _receive_public(said: Descriptor) -> Party[Message]:
    shape = said.columns.shape
    return receive(
        "public",
        splitter=Column("u8", (shape.columns,)),
        leaf=Column("u1", (shape.columns, 32)),
        hint=Column("u4", (shape.length, DIMENSION)),
    )


def _public(said: Descriptor, got: Message, problems: list[VerificationError]) -> Public | None:
    try:
        return public_of(said, got["splitter"], got["leaf"].tobytes(), got["hint"])
    except VerificationError as error:
        problems.append(error)
        return None
