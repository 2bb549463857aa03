"""``intersect``: both sides in one process. ``Intersection``: the result, here and over a node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.errors import ParameterError, TableError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Sizes
from trustcompute.protocol.run import Cost, run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import alignment, matching, operation, padding, planner
from trustcompute.psi.alignment import Duplicates
from trustcompute.psi.ecdh import Found
from trustcompute.tables import labels as label_rows

On = str | Sequence[str] | Mapping[str, str]
Rows = npt.NDArray[np.int64]
How = Literal["inner", "left", "difference"]


@dataclass(frozen=True, kw_only=True)
class Intersection:
    """What an intersection found.

    count:      distinct keys both sides hold; over a node, None where this side did not learn it.
    left_rows:  int64, ascending positions of all rows of the left table whose key the right side holds, duplicates
                included; None where the left side did not learn which.
    right_rows: the same of the right table; None where it was not revealed, or is another organisation's.
    cost:       exchanges, and bytes each way.
    leakage:    what each side learnt beyond its own table, in words (consumer is left, provider is right).
    left_order, right_order: int64[count], the matched keys (as indexes of ``left_keys``) in an order that both sides
                have, where both learnt which match; ``aligned`` gives rows.
    labels:     the columns of the right side that were asked for, one row for each matched key, by ``left_keys``.
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
    left_order: Rows | None = field(repr=False, default=None)
    right_order: Rows | None = field(repr=False, default=None)
    labels: pa.Table | None = field(repr=False, default=None)

    def aligned(self, side: Literal["left", "right"] = "left", *, duplicates: Duplicates = "refuse") -> Rows:
        """Positions of one side's matched rows in an order that both sides have: int64[count].

        The i-th of these rows and the i-th of the other side's have the same key. The order is that of this job alone
        and means nothing. Only where both sides learnt which keys match (``reveal="both"``).
        duplicates: of rows with the same key the ``first``; ``refuse`` raises ``TableError`` where there are several;
            ``all`` gives all, key by key, so that positions no longer agree.
        """
        if side not in ("left", "right"):
            raise ParameterError(f"side must be left or right, not {side!r}")
        keys, order = (
            (self.left_keys, self.left_order) if side == "left" else (self.right_keys, self.right_order)
        )
        if keys is None or order is None:
            raise ParameterError(
                f"there is no order of the {side} rows that both sides have: ask for output='rows' and reveal='both'"
            )
        return alignment.rows_in_order(keys, order, duplicates)

    def table(
        self, how: How = "inner", *, duplicates: Duplicates = "all", ids: str | None = None
    ) -> pa.Table:
        """Rows of the left table, in their order; with the labels of their keys, if there are any.

        how: ``inner``: those that match; ``difference``: those that do not, rows without a key among them;
            ``left``: all, with a column ``matched`` (bool) after the others.
        duplicates: of rows with the same key ``all``, or the ``first``; ``refuse`` raises ``TableError`` where a key
            occurs twice. Rows without a key are different from each other.
        ids: name of a further column (int64): the place of each row's key in the order of ``aligned``, from 0; null
            where it does not match. The other side has the same number beside the same key.
        """
        rows, matched = self._chosen(how, duplicates)
        found = tables.take(self.left, rows)
        if how == "left":
            found = found.append_column(new_name("matched", found.column_names), pa.array(matched))
        if self.labels is not None and how != "difference":
            found = _beside(found, self._labels(rows))
        return found if ids is None else found.append_column(ids, self._ids(rows, ids, found.column_names))

    def _labels(self, rows: Rows) -> pa.Table:
        """The labels of these rows' keys, null for those that do not match."""
        assert self.labels is not None and self.left_keys is not None and self.left_rows is not None
        codes = self.left_keys.codes
        at = np.full(len(self.left_keys) + 1, -1)
        at[np.unique(codes[self.left_rows])] = np.arange(self.labels.num_rows)
        return _take_or_null(self.labels, at[codes[rows]])

    def _ids(self, rows: Rows, name: str, known: Sequence[str]) -> pa.Array:
        if self.left_keys is None or self.left_order is None:
            raise ParameterError("ids are of jobs with output='rows' and reveal='both': ask for both")
        if name in known:
            raise ParameterError(f"the table has a column {name!r} already: call the ids otherwise")
        places = np.append(alignment.ids_of(self.left_keys, self.left_order), -1)[self.left_keys.codes[rows]]
        return pa.array(places, mask=places < 0)

    def join(self, how: How = "inner", *, duplicates: Duplicates = "all") -> pa.Table:
        """Both tables joined on the matched keys.

        how: ``inner``: one row per pair of rows with the same key; ``left``: and the other rows of the left table, with
            nulls; ``difference``: those other rows alone, as ``table`` gives them.
        duplicates: as for ``table``, on both sides: with ``first`` a left row has at most one partner.

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
        if how == "difference":
            return self.table(how, duplicates=duplicates)
        rows, matched = self._chosen(how, duplicates)
        partners = _allowed(self.right_keys, duplicates, "right")
        left_at, right_at = _pairs(self.left_keys, self.right_keys, rows[matched], partners)
        left_at, right_at = (
            np.append(left_at, rows[~matched]),
            np.append(right_at, np.full((~matched).sum(), -1)),
        )
        order = np.argsort(left_at, kind="stable")
        left_at, right_at = left_at[order], right_at[order]
        left, right = tables.take(self.left, left_at), _take_or_null(self.right, right_at)
        return _beside(left, right)

    def _chosen(self, how: How, duplicates: Duplicates) -> tuple[Rows, npt.NDArray[np.bool_]]:
        """Positions of the left rows wanted, ascending, and which of them match."""
        if how not in get_args(How):
            raise ParameterError(f"how must be one of {', '.join(get_args(How))}, not {how!r}")
        if self.left_rows is None or self.left_keys is None:
            raise ParameterError(
                "the left side did not learn which rows match: ask for output='rows' and reveal it"
            )
        matched = np.zeros(len(self.left_keys.codes), dtype=np.bool_)
        matched[self.left_rows] = True
        wanted = _allowed(self.left_keys, duplicates, "left")
        if how != "left":
            wanted &= matched if how == "inner" else ~matched
        rows = np.flatnonzero(wanted)
        return rows, matched[rows]


def _allowed(keys: tables.Keys, duplicates: Duplicates, side: str) -> npt.NDArray[np.bool_]:
    """Which rows the rule for duplicates leaves."""
    alignment.check_duplicates(duplicates)
    allowed = np.ones(len(keys.codes), dtype=np.bool_)
    if duplicates == "all":
        return allowed
    with_key = np.flatnonzero(keys.codes >= 0)
    _, first = np.unique(keys.codes[with_key], return_index=True)
    if duplicates == "refuse" and len(first) < len(with_key):
        raise TableError(
            f"{len(with_key) - len(first)} rows of the {side} table repeat a key: "
            "pass duplicates='first' or 'all', or make the keys distinct"
        )
    allowed[with_key] = False
    allowed[with_key[first]] = True
    return allowed


def _take_or_null(table: Any, rows: Rows) -> pa.Table:
    """Rows by position, all null where it is -1."""
    there = rows >= 0
    found = tables.take(table, rows[there])
    return found.take(pa.array(np.cumsum(there) - 1, mask=~there))


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for name, column in zip(right.column_names, right.columns, strict=True):
        left = left.append_column(new_name(name, left.column_names), column)
    return left


def new_name(name: str, known: Sequence[str]) -> str:
    """A column's name, made longer where there is one of that name."""
    while name in known:
        name += "_right"
    return name


def intersect(
    left: Any,
    right: Any,
    *,
    on: On,
    output: Literal["rows", "count"] = "rows",
    reveal: Literal["left", "right", "both"] = "left",
    protocol: planner.Protocol = "auto",
    labels: str | Sequence[str] = (),
    pad_to: padding.PadTo = None,
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
    labels: columns of the right table that the left side learns of keys that match (``psi.vole.v1``); where rows repeat
        a key, of the first.
    pad_to: a number of keys, or ``power-of-two``: to what both sets are filled up with keys that match nothing, so that
        neither side learns the other's size.
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

    sizes = Sizes(*(padding.padded_rows(len(keys), pad_to) for keys in (left_keys, right_keys)))
    role = {"left": "consumer", "right": "provider"}.get(reveal, reveal)
    asked: dict[str, Any] = {
        "columns": right_on,
        "keys": left_keys.spec.digest,
        "output": output,
        "reveal": role,
    }
    form: label_rows.Form = ()
    if labels:
        labels = [labels] if isinstance(labels, str) else list(labels)
        form = label_rows.form_of(right, label_rows.widths_of(right, labels))
        asked |= {"labels": labels, "label_bytes": label_rows.row_bytes(form)}
    if protocol == "auto" and labels:
        op = operation.named(operation.VOLE)
    elif protocol == "auto":
        op = operation.named(
            planner.plan(sizes.consumer, sizes.provider, output=output, reveal=role).protocol
        )
    else:
        op = operation.named(protocol)
    params = op.check(asked, sizes)
    run = run_local(
        padding.consumer(op.id, params, sizes, left_keys.digests, Rng.from_os(), executor=executor),
        padding.provider(
            op.id,
            params,
            sizes,
            right_keys.digests,
            Rng.from_os(),
            executor=executor,
            labelled=(lambda: label_rows.encode(right, right_keys.first_rows, form)) if form else None,
        ),
        Binding("", op.id, params, op.consumer, op.provider),
    )
    return Intersection(
        count=_count(run.consumer, run.provider),
        left_rows=rows_found(run.consumer, left_keys),
        right_rows=rows_found(run.provider, right_keys),
        protocol=op.id,
        cost=run.cost,
        leakage=padding.leakage(op.leakage(params), consumer=pad_to is not None, provider=pad_to is not None),
        left=left,
        right=right,
        left_keys=left_keys,
        right_keys=right_keys,
        left_order=None if run.consumer is None else run.consumer.order,
        right_order=None if run.provider is None else run.provider.order,
        labels=None
        if run.consumer is None or run.consumer.labels is None
        else label_rows.decode(run.consumer.labels, form),
    )


@dataclass(frozen=True, slots=True)
class MatchedRows:
    """What one side learnt: the number of matching keys and, unless it is a count only, its rows (int64, ascending).

    order: int64[count], its matched keys in an order that both sides have, where both learnt them.
    """

    count: int
    rows: Rows | None
    order: Rows | None = None


def rows_found(found: Found | None, keys: tables.KeySet) -> Rows | None:
    """Positions of all rows whose key was found, or None where the party did not learn which."""
    return None if found is None or found.mask is None else keys.rows_of(found.mask)


def _pairs(
    left: tables.Keys, right: tables.Keys, left_rows: Rows, allowed: npt.NDArray[np.bool_]
) -> tuple[Rows, Rows]:
    """Positions of every pair of one of these left rows and an allowed right row of its key, by left, then right."""
    code = np.append(matching.positions(left.digests, right.digests), -1)[left.codes[left_rows]]
    grouped, starts = right.groups()
    kept = np.append(0, np.cumsum(allowed[grouped]))
    grouped, starts = grouped[allowed[grouped]], kept[starts]
    times = starts[code + 1] - starts[code]
    return np.repeat(left_rows, times), grouped[alignment.spans(starts[code], times)]


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
