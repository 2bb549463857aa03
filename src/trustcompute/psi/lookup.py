"""psi.lookup.v1: look keys up in a table that the holder evaluated once and the asker keeps.

    consumer (keys x, perhaps the table)             provider (key k, table of F_k(y))
        blinded    rᵢ·H(xᵢ)              ───────►
                                         ◄───────    table      F_k(y), 16 bytes each, sorted (only where asked for)
                                         ◄───────    evaluated  k·rᵢ·H(xᵢ)
        F_k(xᵢ) = H'(xᵢ, rᵢ⁻¹ · evaluatedᵢ), looked up in the table

F is the OPRF of RFC 9497 (mode 0x00, ristretto255-SHA512, §3.3.1). The key serves one set of keys for as long as that
set does not change (``psi.table``), whoever asks.

Adversary: semi-honest, either one. Assumptions: one-more gap Diffie–Hellman, SHA-512 as a random oracle. Leakage: a
consumer keeps what it learnt of a key, and can test no other without asking; all consumers get the same table, so two
of them can tell that they did. The provider learns how many keys are looked up, and when.
"""

from __future__ import annotations

import re
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage
from trustcompute.protocol.party import Party, receive, send
from trustcompute.psi import matching, operation
from trustcompute.psi.ecdh import POINT, Found, points
from trustcompute.psi.matching import U8
from trustcompute.psi.table import WIDTH, EvaluatedTable, found, values_id

_ID = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class Looked:
    """What the consumer learnt, and the table it can keep for the next time."""

    found: Found
    table: U8


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """``columns``, ``keys`` as for an intersection; ``table``: the values' id; ``fetch``: whether to send them."""
    keys = operation.check_keys(params, sizes, own=("table", "fetch"))
    table, fetch = params.get("table"), params.get("fetch", True)
    if not isinstance(table, str) or not _ID.match(table):
        raise ParameterError("table must be the id of an evaluated table (64 hex digits): see the catalogue")
    if not isinstance(fetch, bool):
        raise ParameterError("fetch must be true or false")
    return keys | {"table": table, "fetch": fetch}


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the keys looked up, and the bytes of all message bodies."""
    table = WIDTH * sizes.provider if params["fetch"] else 0
    return Usage(calls=1, rows=sizes.consumer, bytes=2 * POINT * sizes.consumer + table)


def leakage(params: Params) -> Leakage:
    """In words, what each side learns beyond its own table."""
    return Leakage(
        consumer="which of its own keys the other side holds, the number of distinct keys of the other side, and"
        " whether they are the same keys as at an earlier lookup",
        provider="how many keys are looked up",
    )


OPERATION: Final = Operation(
    id="psi.lookup.v1",
    check=check,
    output=lambda params: OutputForm.MATCHED_IDS,
    bound=bound,
    leakage=leakage,
    consumer="consumer",
    provider="provider",
    scope=operation.scope,
)


def consumer(
    params: Params, sizes: Sizes, keys: U8, table: U8 | None, rng: Rng, *, executor: Executor | None = None
) -> Party[Looked]:
    """The party that asks. keys: uint8[sizes.consumer, 32], distinct; table: uint8[sizes.provider, 16], or None to
    fetch it."""
    blinds = oprf.random_scalars(rng, len(keys))
    yield from send("blinded", point=oprf.blind(keys, blinds, Mode.OPRF, executor=executor))
    received = None
    if params["fetch"]:
        received = (yield from receive("table", value=Column("u1", (sizes.provider, WIDTH))))["value"]
    elements = (yield from receive("evaluated", releases=True, point=points(len(keys))))["point"]
    if received is not None:
        if values_id(received) != params["table"]:
            raise RemoteProtocolError(
                "the node sent another table than its catalogue names: read the catalogue again"
            )
        table = received
    if table is None:
        raise ParameterError("the table this lookup relies on is not here: start a new one")
    matching.check_width(table, sizes.consumer, sizes.provider)
    mask = found(oprf.finalize(keys, blinds, elements, executor=executor)[:, :WIDTH], table)
    return Looked(Found(int(mask.sum()), mask), table)


def provider(
    params: Params, sizes: Sizes, table: EvaluatedTable, *, executor: Executor | None = None
) -> Party[None]:
    """The party that answers, from its table."""
    blinded = (yield from receive("blinded", point=points(sizes.consumer)))["point"]
    elements = oprf.evaluate(table.key, blinded, executor=executor)
    if params["fetch"]:
        yield from send("table", value=table.values)
    yield from send("evaluated", releases=True, point=elements)
