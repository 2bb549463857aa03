"""verify.download.v1: receive the masked table once, then ask by one evaluation a key; one round trip.

    consumer (keys x)                                    provider (key K, D)
        asked       r·H(x)                  ───────►
                                            ◄───────   table       all columns (only where asked for)
                                            ◄───────   evaluated   K·r·H(x), proofs, a signature
        checks all of it, then reads its cells

For who asks often, or about many. Adversary: malicious, either one. The provider learns how many keys are asked about.
The consumer holds every masked cell: none can be read without an evaluation, but a key K that leaked later would let it
try all keys, so a holder opts in, and rotates K by epochs. Since the whole table was held against the descriptor's root
before anything was asked, no failure can depend on a key, and no auditor is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trustcompute.errors import VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import merkle
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import Party, receive, send
from trustcompute.verification import answer, layout, statement
from trustcompute.verification.answer import Questions, VerifiedAnswer
from trustcompute.verification.bucket import Promise
from trustcompute.verification.cells import U64
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.table import Table


@dataclass(frozen=True, eq=False)
class Columns:
    """A masked table, held against its descriptor. cells: uint8[length, m]; splitters: uint64[m]; tree: over leaves."""

    cells: U8 = field(repr=False)
    splitters: U64 = field(repr=False)
    tree: merkle.Tree = field(repr=False)


@dataclass(frozen=True, eq=False)
class Downloaded:
    """What a run gives: an answer for each question, and the table, which serves all later ones."""

    answers: list[VerifiedAnswer]
    columns: Columns


def columns_of(said: Descriptor, cells: U8) -> Columns:
    """Hold a table against its descriptor: uint8[length, m]. Raises ``VerificationError``."""
    tree = merkle.Tree()
    tree.append_all(layout.leaves_across(cells.view(np.int8)))
    if tree.root().hex() != said.columns.root:
        raise VerificationError(
            "the table is not the one its descriptor names: it is of another version, or altered"
        )
    splitters = np.ascontiguousarray(cells[8:16].T).view(">u8").reshape(-1).astype(np.uint64)
    if layout.splitters_digest(splitters) != said.splitters:
        raise VerificationError("the columns do not begin where the descriptor says")
    return Columns(cells, splitters, tree)


def consumer(promise: Promise, questions: Questions, columns: Columns | None, rng: Rng) -> Party[Downloaded]:
    """One answer for each question. columns: None receives them.

    Raises ``VerificationError`` where anything was not as promised, after the last message.
    """
    said, shape = promise.said, promise.said.columns.shape
    blinded = answer.blind(questions, rng)
    yield from send("asked", point=blinded.elements)
    cells: U8 | None = None
    if columns is None:
        cells = (yield from receive("table", cell=Column("u1", (shape.length, shape.columns))))["cell"]
    got = yield from receive(
        "evaluated",
        releases=True,
        point=Column("u1", (questions.evaluations, 32)),
        proof=Column("u1", (answer.groups(questions.evaluations), 64)),
        signature=Column("u1", (64,)),
    )
    asked, answered = [blinded.elements], [got["point"], got["proof"]]
    statement.verify(promise.id, asked, answered, got["signature"], promise.holder)
    held = columns_of(said, cells) if columns is None and cells is not None else columns
    assert held is not None
    found = answer.unblind(said, blinded, got["point"], got["proof"])
    numbers = layout.column_of(found.tags, held.splitters)
    answers = [
        answer.opened(
            promise.token,
            said,
            found,
            index,
            answer.in_tree(held.tree, int(number), _column(held, int(number))),
        )
        for index, number in enumerate(numbers)
    ]
    return Downloaded(answers, held)


def provider(table: Table, questions: int, fetch: bool, rng: Rng, signer: SigningKey) -> Party[None]:
    """The holder's side. questions: as many as the request declares; fetch: whether it sends the table."""
    evaluations = questions * (1 if table.descriptor.elements is None else 2)
    got = yield from receive("asked", point=Column("u1", (evaluations, 32)))
    elements, proofs = answer.evaluate(table.key, got["point"], rng)
    if fetch:
        yield from send("table", cell=table.masked.database.view(np.uint8))
    signature = statement.sign(table.id, [got["point"]], [elements, proofs], signer)
    yield from send("evaluated", releases=True, point=elements, proof=proofs, signature=signature)


def _column(held: Columns, number: int) -> U8:
    return np.ascontiguousarray(held.cells[:, number])
