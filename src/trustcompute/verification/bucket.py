"""verify.bucket.v1: ask about records, each hidden among at least k of the holder's; one round trip.

    consumer (keys x)                                    provider (key K, table in buckets)
        asked       r·H(x), and the bucket of x ───────►
                                                ◄───────  answered   K·r·H(x), proofs, the buckets, their paths, a
                                                signature
        checks all of it, then reads its cell

The bucket is the first bits of a public salted hash of the key: the same for every predicate, version and epoch, so
that questions about one subject cannot be intersected. Adversary: malicious, either one. The provider learns the
buckets; the consumer one code a key, and cells it cannot read. It countersigns what came before it checks it, so the
provider never learns what it thought of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey, VerifyKey
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import Party, receive, send
from trustcompute.verification import answer, layout, statement
from trustcompute.verification.answer import Questions, Shown, VerifiedAnswer
from trustcompute.verification.cells import U32, Place
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.table import Table


@dataclass(frozen=True, slots=True)
class Promise:
    """What the consumer goes by. token: the descriptor as it was signed; id: its hash; holder: whose signature it
    has."""

    token: str
    id: str
    said: Descriptor
    holder: VerifyKey


def consumer(promise: Promise, questions: Questions, rng: Rng) -> Party[list[VerifiedAnswer]]:
    """One answer for each question. Raises ``VerificationError`` where anything was not as promised."""
    said, shape = promise.said, promise.said.buckets.shape
    blinded = answer.blind(questions, rng)
    numbers = layout.bucket_of(questions.subjects, bytes.fromhex(said.place), shape.columns)
    yield from send("asked", point=blinded.elements, bucket=numbers)
    got = yield from receive(
        "answered",
        releases=True,
        point=Column("u1", (questions.evaluations, 32)),
        proof=Column("u1", (answer.groups(questions.evaluations), 64)),
        column=Column("u1", (len(questions), shape.length)),
        path=Column("u1", (len(questions), shape.depth, 32)),
        signature=Column("u1", (64,)),
    )
    parts = [got[name] for name in ("point", "proof", "column", "path")]
    statement.verify(promise.id, [blinded.elements, numbers], parts, got["signature"], promise.holder)
    found = answer.unblind(said, blinded, got["point"], got["proof"])
    shown = zip(numbers, got["column"], got["path"], strict=True)
    return [
        answer.opened(promise.token, said, found, index, Shown(Place.BUCKET, int(number), column, path))
        for index, (number, column, path) in enumerate(shown)
    ]


def provider(table: Table, questions: int, rng: Rng, signer: SigningKey) -> Party[None]:
    """The holder's side. questions: as many as the request declares."""
    said, shape = table.descriptor, table.descriptor.buckets.shape
    evaluations = questions * (1 if said.elements is None else 2)
    got = yield from receive(
        "asked", point=Column("u1", (evaluations, 32)), bucket=Column("u4", (questions,))
    )
    if (got["bucket"] >= shape.columns).any():
        raise RemoteProtocolError(f"the table has {shape.columns} buckets")
    elements, proofs = answer.evaluate(table.key, got["point"], rng)
    columns, paths = served(table, got["bucket"])
    signature = statement.sign(
        table.id, [got["point"], got["bucket"]], [elements, proofs, columns, paths], signer
    )
    yield from send(
        "answered",
        releases=True,
        point=elements,
        proof=proofs,
        column=columns,
        path=paths,
        signature=signature,
    )


def served(table: Table, numbers: U32) -> tuple[U8, U8]:
    """(buckets uint8[k, length], paths uint8[k, depth, 32]) by their numbers."""
    masked, shape = table.masked, table.descriptor.buckets.shape
    tree = masked.bucket_tree
    paths = b"".join(b"".join(tree.inclusion_proof(int(number))) for number in numbers)
    return (
        np.ascontiguousarray(masked.buckets[numbers.astype(np.int64)]),
        np.frombuffer(paths, dtype=np.uint8).reshape(len(numbers), shape.depth, 32),
    )
