"""What the broker knows of a star: parameters, bounds and leakage of one leg.

Called by the node and ``psi.many``. Parameters of a request: ``columns`` (this leaf's key columns) and ``keys`` (digest
of the key specification), as for an intersection; ``parties`` (names of all leaves, sorted) and ``session`` (32 hex
digits that name the star): the same at every leaf, so that each receipt, by the request it is for, names the other
leaves. A grant's ``min_group`` bounds the number of leaves from below.
"""

from __future__ import annotations

import re
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage
from trustcompute.psi import operation, star
from trustcompute.psi.matching import MAX_ROWS
from trustcompute.psi.zero_sharing import Holders

LEAST_LEAVES: Final = 2
MAX_LEAVES: Final = 32
MAX_NAME: Final = 253  # a name of the DNS, as certificates have them

_SESSION = re.compile(r"[0-9a-f]{32}\Z")


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming what is wrong and what it may be."""
    own = {"parties", "session"}
    shared = {name: value for name, value in params.items() if name not in own}
    if set(shared) - {"columns", "keys"} or not own <= set(params):
        raise ParameterError("a star takes columns, keys, parties, session")
    checked = operation.check(operation.VOLE, shared, sizes)
    parties, session = params["parties"], params["session"]
    if not isinstance(parties, list) or not all(
        isinstance(one, str) and 0 < len(one) <= MAX_NAME for one in parties
    ):
        raise ParameterError("parties must list the names of the leaves")
    repeated = sorted({one for one in parties if parties.count(one) > 1})
    if repeated:
        raise ParameterError(f"{repeated[0]} would take part twice: every leaf takes part once")
    if parties != sorted(parties):
        raise ParameterError("parties must be sorted by name")
    if not LEAST_LEAVES <= len(parties) <= MAX_LEAVES:
        raise ParameterError(
            f"a star has {LEAST_LEAVES} to {MAX_LEAVES} leaves beside the one who learns, not {len(parties)}:"
            " with one, use an intersection"
        )
    if not isinstance(session, str) or not _SESSION.match(session):
        raise ParameterError("session must be 32 hex digits, drawn anew for every star")
    if max(sizes.consumer, sizes.provider) > MAX_ROWS:
        raise ParameterError(f"a star takes at most {MAX_ROWS} distinct keys a party")
    return {
        "columns": checked["columns"],
        "keys": checked["keys"],
        "parties": parties,
        "session": session,
    }


def holders(params: Params, sizes: Sizes) -> Holders:
    """The star that canonical parameters are about."""
    session = bytes.fromhex(params["session"])
    return Holders(tuple(params["parties"]), session, params["keys"], sizes.consumer)


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the hub's keys, and the bytes of all message bodies of this leg."""
    sent = star.message_bytes(sizes.consumer, sizes.provider, len(params["parties"]))
    return Usage(calls=1, rows=sizes.consumer, bytes=sent)


def leakage(params: Params) -> Leakage:
    """In words, what the hub and a leaf learn, and what they would together."""
    return Leakage(
        consumer=f"which of its own keys all {len(params['parties'])} others hold, and the number of distinct keys of"
        " each; of keys that only some hold, nothing; together with some of them, which of its keys all the rest hold",
        provider="the number of distinct keys of the one who learns, and who takes part",
    )


def scope(params: Params) -> Scope:
    """The leaf's key columns, and how many leaves there are."""
    return Scope(tuple(params["columns"]), len(params["parties"]))


OPERATION: Final = Operation(
    id=star.ID,
    check=check,
    output=lambda params: OutputForm.MATCHED_IDS,
    bound=bound,
    leakage=leakage,
    consumer="hub",
    provider="leaf",
    scope=scope,
)
