"""``intersect``: both sides in one process. ``Intersection``: the result, here and over a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Sizes
from trustcompute.protocol.run import Cost, run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import matching, operation, parties, planner
from trustcompute.psi.ecdh import Found

On = str | Sequence[str] | Mapping[str, str]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Intersection:
    """What an intersection found.

    count:      distinct keys both sides hold; over a node, None where this side did not learn it.
    left_rows:  int64, ascending positions of all rows of the left table whose key the right side holds, duplicates
                included; None where the left side did not learn which.
    right_rows: the same of the right table; None where it was not revealed, or is another organisation's.
    cost:       exchanges, and bytes each way.
    leakage:    what each side learnt beyond its own table, in words (consumer is left, provider is right).
    """

    count: int | None
    left_rows: Rows | None
    right_rows: Rows | None = None
    protocol: str
    cost: Cost
    leakage: Leakage
    left: Any = field(repr=False, default=None)
    right: Any = field(repr=False, default=None)
    left_keys: tables.Keys | None = field(repr=False, default=None)
    right_keys: tables.Keys | None = field(repr=False, default=None)

    def table(self) -> pa.Table:
        """The matched rows of the left table, in their order."""
        if self.left_rows is None:
            raise ParameterError(
                "the left side did not learn which rows match: ask for output='rows' and reveal it"
            )
        return tables.take(self.left, self.left_rows)

    def join(self) -> pa.Table:
        """Inner join of both tables on the matched keys: one row per pair of rows with the same key.

        Only where both tables are in this process and both sides learnt their rows. Rows come in the left
        table's order, then the right's; columns of the right table that have a name of the left get ``_right``.
        """
        if (
            self.left_rows is None
            or self.right_rows is None
            or self.left_keys is None
            or self.right_keys is None
        ):
            raise ParameterError("a join needs both tables here and output='rows', reveal='both'")
        left_at, right_at = _pairs(self.left_keys, self.right_keys)
        left, right = tables.take(self.left, left_at), tables.take(self.right, right_at)
        for name, column in zip(right.column_names, right.columns, strict=True):
            while name in left.column_names:
                name += "_right"  # noqa: PLW2901 - until it is new
            left = left.append_column(name, column)
        return left


def intersect(
    left: Any,
    right: Any,
    *,
    on: On,
    output: Literal["rows", "count"] = "rows",
    reveal: Literal["left", "right", "both"] = "left",
    protocol: planner.Protocol = "auto",
    casefold: bool = False,
    executor: Executor | None = None,
) -> Intersection:
    """Intersect two tables in this process, running both parties of a protocol.

    left, right: anything with ``__arrow_c_stream__`` (pandas, polars, pyarrow, DuckDB ...), a mapping of columns, or
        a path to a Parquet, CSV or Arrow file.
    on: the key: a column both tables have, several, or a mapping of left columns to right ones.
    output: ``rows`` (which rows match) or ``count`` (how many distinct keys, and not which).
    reveal: who learns it.
    protocol: ``psi.ecdh.v1``, ``psi.dh.v1`` and ``psi.vole.v1`` (rows only), or ``auto``: what ``psi.plan`` says.
    casefold: compare text without regard to case.

    Nulls and blanks never match. Raises ``TableError`` for tables and columns that cannot be used.

    >>> found = intersect({"id": ["a", "b", "b", None]}, {"id": ["b", "c"]}, on="id")
    >>> found.count, found.left_rows.tolist()
    (1, [1, 2])
    """
    left_on, right_on = split_on(on)
    left, right = tables.open_table(left), tables.open_table(right)  # a stream can be read once only
    if reveal not in ("left", "right", "both"):
        raise ParameterError(f"reveal must be one of left, right, both, not {reveal!r}")
    left_keys = tables.keys(left, left_on, casefold=casefold, executor=executor)
    right_keys = tables.keys(right, right_on, casefold=casefold, executor=executor)
    if len(left_keys) and len(right_keys):  # an empty table may not know the type of its columns
        left_keys.spec.check_matches(right_keys.spec, left_on, right_on)

    sizes = Sizes(len(left_keys), len(right_keys))
    role = {"left": "consumer", "right": "provider"}.get(reveal, reveal)
    asked = {"columns": right_on, "keys": left_keys.spec.digest, "output": output, "reveal": role}
    if protocol == "auto":
        op = operation.named(
            planner.plan(sizes.consumer, sizes.provider, output=output, reveal=role).protocol
        )
    else:
        op = operation.named(protocol)
    params = op.check(asked, sizes)
    run = run_local(
        parties.consumer(op.id, params, sizes, left_keys.digests, Rng.from_os(), executor=executor),
        parties.provider(op.id, params, sizes, right_keys.digests, Rng.from_os(), executor=executor),
        Binding("", op.id, params, op.consumer, op.provider),
    )
    return Intersection(
        count=_count(run.consumer, run.provider),
        left_rows=rows_found(run.consumer, left_keys),
        right_rows=rows_found(run.provider, right_keys),
        protocol=op.id,
        cost=run.cost,
        leakage=op.leakage(params),
        left=left,
        right=right,
        left_keys=left_keys,
        right_keys=right_keys,
    )


@dataclass(frozen=True, slots=True)
class MatchedRows:
    """What one side learnt: the number of matching keys and, unless it is a count only, its rows (int64, ascending)."""

    count: int
    rows: Rows | None


def rows_found(found: Found | None, keys: tables.Keys) -> Rows | None:
    """Positions of all rows whose key was found, or None where the party did not learn which."""
    return None if found is None or found.mask is None else keys.rows_of(found.mask)


def _pairs(left: tables.Keys, right: tables.Keys) -> tuple[Rows, Rows]:
    """Row positions of every pair of a left and a right row with the same key, in the left table's order."""
    code = np.append(matching.positions(left.digests, right.digests), -1)[left.codes]
    left_rows = np.flatnonzero(code >= 0)
    code = code[left_rows]
    grouped, starts = right.groups()
    times = starts[code + 1] - starts[code]
    within = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times, times)
    return np.repeat(left_rows, times), grouped[np.repeat(starts[code], times) + within]


def _count(*sides: Found | None) -> int:
    return next(side.count for side in sides if side is not None)


def split_on(on: On) -> tuple[list[str], list[str]]:
    """The key columns of the left and of the right side. Raises ``ParameterError`` for what names no columns."""
    if isinstance(on, str):
        left, right = [on], [on]
    elif isinstance(on, Mapping):
        left, right = list(on.keys()), list(on.values())
    elif isinstance(on, Sequence):
        left, right = list(on), list(on)
    else:
        left, right = [], []
    if not left or not all(isinstance(name, str) for name in left + right):
        raise ParameterError("on must be a column name, a list of them, or a mapping of left to right names")
    return left, right
