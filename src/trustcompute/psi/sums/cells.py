"""A table as one row of integers for each distinct key: what the holder of an intersection-sum encrypts.

Called before anything moves: by the node when it starts and when a request comes, by ``local``. What is out of bounds
is an error that names the column, never clipped, and never wraps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.errors import TableError
from trustcompute.kernels.arrays import I64
from trustcompute.psi.sums.terms import Terms, reach
from trustcompute.tables.fixed import Bounds, column_units, places


def cells(table: tables.Table, keys: tables.Keys, terms: Terms) -> I64:
    """int64[distinct keys, slots], in the order of ``keys``. Rows without a key, or of no listed group, are left out.

    Raises ``TableError``: a column that is not there or cannot be added up, a missing value, a value or a key's total
    out of bounds, a key in two groups where noise protects its one.
    """
    table.check_columns(terms.named)
    groups, columns = len(terms.groups), len(terms.values)
    totals = np.zeros((len(keys), groups, columns), dtype=np.int64)
    present = np.zeros((len(keys), groups), dtype=np.bool_)
    _refuse_overflow(keys, terms)
    first = 0
    for batch in table.scan(terms.named).batches:
        codes = keys.codes[first : first + batch.num_rows]
        first += batch.num_rows
        place = np.zeros(len(codes), dtype=np.int64)
        if terms.by is not None:
            place = places(batch.column(terms.by[0]), terms.by[1], terms.by[0])
        counted = (codes >= 0) & (place >= 0)
        code, group = codes[counted], place[counted]
        present[code, group] = True
        kept = batch.filter(pa.array(counted))
        for at, (name, bounds) in enumerate(terms.values.items()):
            np.add.at(totals[:, :, at], (code, group), column_units(kept.column(name), bounds, name))
    _check(totals, present, terms)
    if not terms.counted:
        return totals.reshape(len(keys), terms.slots)
    return np.concatenate([present[:, :, np.newaxis].astype(np.int64), totals], axis=2).reshape(
        len(keys), terms.slots
    )


def _refuse_overflow(keys: tables.Keys, terms: Terms) -> None:
    """Totals must fit int64 before they are compared with their bounds."""
    most = int(np.bincount(keys.codes[keys.codes >= 0]).max(initial=0))
    for name, bounds in terms.values.items():
        if most * reach(bounds) >= 2**63:
            raise TableError(
                f"rule bounds: a key has {most} rows, and so many values of column {name!r} may go beyond 2^63:"
                " narrow its bounds or lower its scale"
            )


def _check(totals: I64, present: npt.NDArray[np.bool_], terms: Terms) -> None:
    for at, (name, bounds) in enumerate(terms.values.items()):
        if _outside(totals[:, :, at][present], bounds):
            raise TableError(
                f"rule bounds: the rows of a key add up to a value of column {name!r} outside {bounds.low} to"
                f" {bounds.high}: the bounds are of what one key adds"
            )
    if terms.noise is not None and len(terms.groups) > 1 and int(present.sum(axis=1).max(initial=0)) > 1:
        raise TableError(
            "rule groups: a key has rows in two groups, and noise is for keys that are in one: sum without groups,"
            " or without noise"
        )


def _outside(values: I64, bounds: Bounds) -> bool:
    return bool(len(values)) and (int(values.min()) < bounds.least or int(values.max()) > bounds.most)
