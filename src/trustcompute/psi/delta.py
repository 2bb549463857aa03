"""psi.delta.v1: an intersection again, over what has changed since the last one.

    consumer (keys x; F_k of its earlier ones)       provider (key k, table of F_k(y), earlier versions)
        blinded    rᵢ·H(xᵢ), of new keys    ───────►
                                            ◄───────    changes     F_k of what came in and of what left, sorted
                                            ◄───────    evaluated   k·rᵢ·H(xᵢ)
        F_k of all its keys, looked up in the table as it is now

F is the function of ``psi.lookup``, its key that of a table that changes (``psi.changing``). The request names both
sides' earlier states: the version of the table that the consumer has, and commitments to its set then and now.

Adversary and assumptions: of ``psi.lookup``. Leakage beyond a full run: the provider learns how many keys are new and
which version the consumer last saw; the consumer, which entries of the table came and went (pseudonyms, which tell of a
key only what was asked of it), and of every key it once asked for, as long as it keeps the value, whether later
versions hold it.
"""

from __future__ import annotations

import re
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from trustcompute import tables
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Column
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import matching, operation
from trustcompute.psi.changing import ChangingTable, Followed, commitment, new_table
from trustcompute.psi.ecdh import POINT, Found, points
from trustcompute.psi.intersection import Intersection, On, rows_found, split_on
from trustcompute.psi.matching import U8
from trustcompute.psi.table import WIDTH, found, values_id

ID: Final = "psi.delta.v1"
_ID = re.compile(r"[0-9a-f]{64}\Z")
_OWN: Final = ("table", "base", "added", "removed", "earlier", "now")


@dataclass(frozen=True, slots=True)
class Result:
    """What the consumer learnt, and what it keeps for the next time."""

    found: Found
    followed: Followed


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """``columns``, ``keys`` as for an intersection; ``table``: the version asked about, ``base``: the one that the
    consumer has, or empty; ``added``, ``removed``: entries that came and left between them; ``earlier``, ``now``:
    commitments to the consumer's sets. Raises ``ParameterError``."""
    keys = operation.check_keys(params, sizes, own=_OWN)
    if not set(_OWN) <= set(params):
        raise ParameterError(f"a run over changes takes columns, keys, {', '.join(_OWN)}")
    for name in ("table", "earlier", "now", "base"):
        value = params[name]
        if not isinstance(value, str) or not (_ID.match(value) or (name == "base" and not value)):
            raise ParameterError(f"{name} must be 64 hex digits: see the catalogue")
    for name in ("added", "removed"):
        if type(params[name]) is not int or not 0 <= params[name] <= matching.MAX_ROWS:
            raise ParameterError(f"{name} must be a number of entries: see the catalogue")
    return keys | {name: params[name] for name in _OWN}


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the keys that are new, and the bytes of all message bodies: what moves."""
    moved = WIDTH * (params["added"] + params["removed"])
    return Usage(calls=1, rows=sizes.consumer, bytes=2 * POINT * sizes.consumer + moved)


def leakage(params: Params) -> Leakage:
    """In words, what each side learns beyond its own table."""
    return Leakage(
        consumer="which of its own keys the other side holds, the number of distinct keys of the other side, which"
        " entries came in and left since the version it had, and whether keys it asked for earlier are among them",
        provider="how many keys were not asked for at the run before, and which version the other side had",
    )


OPERATION: Final = Operation(
    id=ID,
    check=check,
    output=lambda params: OutputForm.MATCHED_IDS,
    bound=bound,
    leakage=leakage,
    consumer="consumer",
    provider="provider",
    scope=operation.scope,
)


def parameters(
    columns: list[str], spec: str, table: ChangingTable | str, followed: Followed, keys: U8, *,
    base: str, added: int, removed: int,
) -> dict[str, Any]:  # fmt: skip
    """Of a request about the table of that id. keys: uint8[n, 32], all the consumer has now."""
    return {
        "columns": columns,
        "keys": spec,
        "table": table.id if isinstance(table, ChangingTable) else table,
        "base": base,
        "added": added,
        "removed": removed,
        "earlier": followed.commitment(),
        "now": commitment(followed.secret, followed.run + 1, keys),
    }


def consumer(
    params: Params, sizes: Sizes, keys: U8, followed: Followed, rng: Rng, *, executor: Executor | None = None
) -> Party[Result]:
    """The party that asks. keys: uint8[n, 32], distinct, ascending, of which ``sizes.consumer`` are new."""
    fresh = np.ascontiguousarray(keys[~followed.own.known(keys)])
    blinds = oprf.random_scalars(rng, len(fresh))
    yield from send("blinded", point=oprf.blind(fresh, blinds, Mode.OPRF, executor=executor))
    changes = yield from receive(
        "changes",
        releases=False,
        added=Column("u1", (params["added"], WIDTH)),
        removed=Column("u1", (params["removed"], WIDTH)),
    )
    elements = (yield from receive("evaluated", releases=True, point=points(len(fresh))))["point"]

    before = followed.table if params["base"] else followed.table[:0]
    left = np.concatenate([before[~found(before, changes["removed"])], changes["added"]])
    table = matching.in_order(left)[1]
    if len(table) != sizes.provider or values_id(table) != params["table"]:
        raise RemoteProtocolError(
            "the changes do not lead to the table that the node's catalogue names: read the catalogue again"
        )
    matching.check_width(table, max(len(keys), 1), sizes.provider)
    came = oprf.finalize(fresh, blinds, elements, executor=executor)[:, :WIDTH]
    own = followed.own.moved(keys, came)
    mask = found(own.values, table)
    kept = Followed(followed.lineage, followed.secret, own, table, params["table"], followed.run + 1)
    return Result(Found(int(mask.sum()), mask), kept)


def provider(
    params: Params, sizes: Sizes, table: ChangingTable, *, executor: Executor | None = None
) -> Party[None]:
    """The party that answers, from its table and its versions."""
    blinded = (yield from receive("blinded", point=points(sizes.consumer)))["point"]
    elements = oprf.evaluate(table.key, blinded, executor=executor)
    added, removed = changes(table, params)
    yield from send("changes", added=added, removed=removed)
    yield from send("evaluated", releases=True, point=elements)


def changes(table: ChangingTable, params: Params) -> tuple[U8, U8]:
    """What came and what left since the version that parameters name.

    Raises ``ParameterError`` for one that is not kept, or of which something else is true than they say.
    """
    base = params["base"]
    if table.id != params["table"] or (base not in table.earlier and base not in ("", table.id)):
        raise ParameterError("this version of the table is not kept: read the catalogue again")
    added, removed = (table.values[:0], table.values[:0]) if base == table.id else table.since(base)
    if (len(added), len(removed)) != (params["added"], params["removed"]):
        raise ParameterError("added and removed are not those of this version: read the catalogue again")
    return added, removed


class Following:
    """An intersection that is repeated, with both sides in this process: each run costs what has changed.

    >>> following = Following(on="id")
    >>> following.run({"id": [1, 2, 3]}, {"id": [2, 3, 4]}).count
    2
    >>> following.run({"id": [1, 2, 3, 4]}, {"id": [3, 4]}).left_rows.tolist()
    [2, 3]
    """

    def __init__(self, *, on: On, casefold: bool = False, executor: Executor | None = None) -> None:
        """on, casefold, executor: as for ``intersect``; the left side learns."""
        self._left_on, self._right_on = split_on(on)
        self._casefold, self._executor = casefold, executor
        self._rng = Rng.from_os()
        self._table = new_table(self._rng)
        self._followed = Followed.none(self._table.lineage, self._rng.bytes(32))
        self._spec: tables.KeySpec | None = None

    def run(self, left: Any, right: Any) -> Intersection:
        """What a full intersection of the two tables as they are now would find."""
        left, right = tables.open_table(left), tables.open_table(right)
        ours = tables.keys(left, self._left_on, casefold=self._casefold, executor=self._executor)
        theirs = tables.keys(right, self._right_on, casefold=self._casefold, executor=self._executor)
        for one, columns in ((ours, self._left_on), (theirs, self._right_on)):
            if len(one):
                self._spec = self._spec or one.spec
                self._spec.check_matches(one.spec, self._left_on, columns)
        self._table = self._table.next(theirs.digests, executor=self._executor)
        base = self._followed.table_id
        base = base if base in self._table.earlier or base == self._table.id else ""
        came, left_it = self._table.since(base) if base != self._table.id else (theirs.digests[:0],) * 2
        fresh = int((~self._followed.own.known(ours.digests)).sum())
        sizes = Sizes(fresh, len(theirs))
        params = check(
            parameters(
                self._right_on, ours.spec.digest, self._table, self._followed, ours.digests,
                base=base, added=len(came), removed=len(left_it),
            ),
            sizes,
        )  # fmt: skip
        done = run_local(
            consumer(params, sizes, ours.digests, self._followed, Rng.from_os(), executor=self._executor),
            provider(params, sizes, self._table, executor=self._executor),
            Binding("", ID, params, OPERATION.consumer, OPERATION.provider),
        )
        self._followed = done.consumer.followed
        return Intersection(
            count=done.consumer.found.count,
            left_rows=rows_found(done.consumer.found, ours),
            protocol=ID,
            cost=done.cost,
            leakage=leakage(params),
            left=left,
            left_keys=ours,
        )
