"""verify.statistics.v1: a table, its sensitive cells suppressed, signed by its holder; one turn.

    consumer (columns)                                  provider (table, rules, history)
                     the request says everything
                                              ◄───────  statistics   status, rows, counts, sums, a signature

Adversary: the consumer is malicious and may work with all other consumers and with contributors to the table, as far as
``suppress`` and ``history`` say; the provider is believed in what the numbers are (nothing proves sums), held to what
it signed, and found where an answer contradicts itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trustcompute.kernels.arrays import U8
from trustcompute.primitives import canonical
from trustcompute.primitives.signing import SigningKey, VerifyKey
from trustcompute.protocol.message import Column
from trustcompute.protocol.operation import Params
from trustcompute.protocol.party import Party, receive, send
from trustcompute.verification import statement
from trustcompute.verification.statement import Array
from trustcompute.verification.statistical import answer
from trustcompute.verification.statistical.answer import Figures
from trustcompute.verification.statistical.terms import Terms


@dataclass(frozen=True, slots=True)
class Promise:
    """What the consumer goes by. id: of the terms; holder: whose signature they have."""

    id: str
    terms: Terms
    holder: VerifyKey


def provider(params: Params, tell: Callable[[], Figures], signer: SigningKey) -> Party[None]:
    """tell: looks at the data, once the job was armed."""
    told = tell()
    parts: list[Array] = [told.status, told.rows, told.counts, told.sums]
    signature = statement.sign(params["terms"], [_asked(params)], parts, signer)
    yield from send(
        "statistics",
        releases=True,
        status=told.status,
        rows=told.rows,
        counts=told.counts,
        sums=told.sums,
        signature=signature,
    )


def consumer(promise: Promise, params: Params) -> Party[Figures]:
    """Raises ``VerificationError`` for an answer that is not signed, or contradicts itself."""
    cells, columns = params["cells"], len(params["sums"])
    got = yield from receive(
        "statistics",
        releases=True,
        status=Column("u1", (cells,)),
        rows=Column("i8", (cells,)),
        counts=Column("i8", (columns, cells)),
        sums=Column("i8", (columns, cells)),
        signature=Column("u1", (64,)),
    )
    parts = [got[name] for name in ("status", "rows", "counts", "sums")]
    statement.verify(promise.id, [_asked(params)], parts, got["signature"], promise.holder)
    found = Figures(*parts)
    answer.check(promise.terms.shape(tuple(params["by"])), found)
    return found


def _asked(params: Params) -> U8:
    return np.frombuffer(canonical.dumps(dict(params)), dtype=np.uint8)
