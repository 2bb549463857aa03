"""psi.cascade.v1: rows matched by several identifiers, in order of preference. Each identifier is a run of psi.vole.v1.

    run 0    all keys of the first identifier
    run 1    of the second identifier the keys of those rows that are not matched yet, filled up with random ones
    ...

The keys of a run are always as many as the receiver has by that identifier: how many matched before shows nowhere.
What the receiver learns of an identifier is confined to rows that no better one matched. Rows whose identifier is null
skip it. The other side's rows do not step back when they match: it does not know that they did.

Called by the node and ``cascade``. Adversary, assumptions, security: of ``psi.vole``; compared values are as wide as
all runs together demand, so that a wrong match in the whole job has probability at most 2⁻⁴⁰.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, Final

import numpy as np

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Cost, run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import buckets, ecdh, operation, vole
from trustcompute.psi.ecdh import Found
from trustcompute.psi.in_order import MAX_IDENTIFIERS, Cascade, InOrder, Mask, left_over, matched_by
from trustcompute.psi.matching import MAX_ROWS, U8

ID: Final = "psi.cascade.v1"
_FIELDS: Final = frozenset({"columns", "keys", "rows", "held"})


def parameters(pairs: Sequence[tuple[list[str], str, int, int]]) -> dict[str, Any]:
    """Of (the provider's columns, digest of the key specification, our distinct keys, theirs) by identifier."""
    identifiers = [
        {"columns": columns, "keys": keys, "rows": rows, "held": held} for columns, keys, rows, held in pairs
    ]
    return {"identifiers": identifiers, "runs": len(identifiers)}


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """``identifiers``: for each ``columns`` and ``keys`` as for an intersection, ``rows`` and ``held``, the numbers of
    distinct keys of consumer and provider; ``runs``: how many identifiers. Raises ``ParameterError``."""
    identifiers = params.get("identifiers")
    if set(params) != {"identifiers", "runs"} or not isinstance(identifiers, list):
        raise ParameterError("a cascade takes a list of identifiers, and runs")
    if not 2 <= len(identifiers) <= MAX_IDENTIFIERS or params["runs"] != len(identifiers):
        raise ParameterError(f"a cascade has 2 to {MAX_IDENTIFIERS} identifiers, and a run for each")
    checked = [_checked(one) for one in identifiers]
    if sum(one["rows"] for one in checked) != sizes.consumer:
        raise ParameterError("the declared rows must be those of all identifiers together")
    return {"identifiers": checked, "runs": len(checked)}


def _checked(one: Any) -> dict[str, Any]:
    if not isinstance(one, dict) or set(one) != _FIELDS:
        raise ParameterError("an identifier has columns, keys, rows, held")
    for name in ("rows", "held"):
        if type(one[name]) is not int or not 0 <= one[name] <= MAX_ROWS:
            raise ParameterError(f"{name} of an identifier must be a number from 0 to {MAX_ROWS}")
    shared = {"columns": one["columns"], "keys": one["keys"]}
    checked = operation.check(operation.VOLE, shared, Sizes(one["rows"], one["held"]))
    return {"columns": checked["columns"], "keys": checked["keys"], "rows": one["rows"], "held": one["held"]}


def roles(params: Params, run: int) -> ecdh.Params:
    """Of one run."""
    identifiers = params["identifiers"]
    whole = tuple(sum(one[name] for one in identifiers) for name in ("rows", "held"))
    one = identifiers[run]
    return ecdh.Params(one["rows"], one["held"], answer=False, whole=(whole[0], whole[1]))


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the consumer's keys of all identifiers, the bytes of all message bodies."""
    sent = sum(vole.message_bytes(roles(params, run)) for run in range(len(params["identifiers"])))
    return Usage(calls=1, rows=sizes.consumer, bytes=sent)


def leakage(params: Params) -> Leakage:
    """In words, what each side learns beyond its own table."""
    return Leakage(
        consumer="for each identifier, which keys of its rows that no earlier one matched the other side holds, and the"
        " number of distinct keys of the other side",
        provider="for each identifier, the number of distinct keys of the other side",
    )


def scope(params: Params) -> Scope:
    """The provider's columns of all identifiers."""
    named = [column for one in params["identifiers"] for column in one["columns"]]
    return Scope(tuple(dict.fromkeys(named)))


OPERATION: Final = Operation(
    id=ID,
    check=check,
    output=lambda params: OutputForm.MATCHED_IDS,
    bound=bound,
    leakage=leakage,
    consumer="consumer",
    provider="provider",
    scope=scope,
)


def consumer(
    params: Params, run: int, keys: U8, wanted: Mask, rng: Rng, *, executor: Executor | None = None
) -> Party[Found]:
    """One run of the side that learns. keys: uint8[rows, 32], all it has by this identifier; wanted: bool[rows], those
    of rows that are not matched yet. Finds bool[rows]."""
    p = roles(params, run)
    asked = buckets.padded(keys[wanted], p.receiver_rows, rng)
    found = yield from vole.receiver(asked, p, rng, executor)
    assert found.mask is not None, "rows are found"
    mask = np.zeros(len(keys), dtype=np.bool_)
    mask[np.flatnonzero(wanted)] = found.mask[: int(wanted.sum())]
    return Found(int(mask.sum()), mask)


def provider(
    params: Params, run: int, keys: U8, rng: Rng, *, executor: Executor | None = None
) -> Party[Found | None]:
    """One run of the side that helps. keys: uint8[m, 32], filled up to the number that was declared."""
    p = roles(params, run)
    return vole.sender(buckets.padded(keys, p.sender_rows, rng), p, rng, executor)


def cascade(
    left: Any, right: Any, *, on: InOrder, casefold: bool = False, executor: Executor | None = None
) -> Cascade:
    """Match rows of two tables in this process by several identifiers, in order of preference.

    left, right: what ``intersect`` takes; the left side learns. on: the identifiers, for example
    ``InOrder("id", ["name", "birth"])``. casefold: compare text without regard to case.

    Raises ``TableError`` for tables and columns that cannot be used.

    >>> people = {"id": [1, None, 3], "name": ["Ann", "Bob", "Cy"]}
    >>> found = cascade(people, {"id": [1, 7], "name": ["Ann", "Bob"]}, on=InOrder("id", "name"))
    >>> found.left_rows.tolist(), found.matched
    ([0, 1], {'id': 1, 'name': 1})
    """
    left, right = tables.open_table(left), tables.open_table(right)
    ours, theirs = [], []
    for left_on, right_on in on.pairs:
        ours.append(tables.keys(left, left_on, casefold=casefold, executor=executor))
        theirs.append(tables.keys(right, right_on, casefold=casefold, executor=executor))
        if len(ours[-1]) and len(theirs[-1]):  # an empty table may not know the type of its columns
            ours[-1].spec.check_matches(theirs[-1].spec, left_on, right_on)
    specs = [
        (right_on, mine.spec.digest, len(mine), len(held))
        for (_, right_on), mine, held in zip(on.pairs, ours, theirs, strict=True)
    ]
    params = check(parameters(specs), Sizes(sum(map(len, ours)), 0))
    found: list[Mask] = []
    costs: list[Cost] = []
    for run, (mine, held) in enumerate(zip(ours, theirs, strict=True)):
        wanted = left_over(mine, matched_by(ours, found))
        done = run_local(
            consumer(params, run, mine.digests, wanted, Rng.from_os(), executor=executor),
            provider(params, run, held.digests, Rng.from_os(), executor=executor),
            Binding("", ID, params, OPERATION.consumer, OPERATION.provider),
        )
        assert done.consumer.mask is not None, "rows are found"
        found.append(done.consumer.mask)
        costs.append(done.cost)
    by = matched_by(ours, found)
    return Cascade(
        left_rows=np.flatnonzero(by >= 0),
        by=by[by >= 0],
        names=on.names,
        protocol=ID,
        cost=Cost(
            sum(one.turns for one in costs),
            sum(one.bytes_sent for one in costs),
            sum(one.bytes_received for one in costs),
        ),
        leakage=leakage(params),
        left=left,
    )
