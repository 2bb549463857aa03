"""Matched rows in an order that both sides have: where a joint computation over them begins.

Called by ``Intersection`` and the node. Where both sides learn which keys match, both know where each matched key's
pseudorandom value stands in the table that was sent, and so an order of these keys. The secret of the values serves one
run, so the order is another one in every job, and tells nothing.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from trustcompute.errors import ParameterError, TableError
from trustcompute.tables.keys import I64, KeySet

Duplicates = Literal["all", "first", "refuse"]


def check_duplicates(duplicates: str) -> None:
    """Raise ``ParameterError`` for a rule that does not exist."""
    if duplicates not in get_args(Duplicates):
        raise ParameterError(
            f"duplicates must be one of {', '.join(get_args(Duplicates))}, not {duplicates!r}"
        )


def rows_in_order(keys: KeySet, order: I64, duplicates: Duplicates) -> I64:
    """Positions of the rows that have these keys (int64[k], indexes into ``keys.digests``), key by key.

    duplicates: of rows with the same key the ``first``; or ``refuse``: raise ``TableError`` where there are several; or
    ``all``, in their order. With the former two the i-th row is that of the i-th key, and the other side's i-th row
    has the same key.
    """
    check_duplicates(duplicates)
    rows, starts = keys.groups()
    times = starts[order + 1] - starts[order]
    if duplicates == "refuse" and (more := int((times - 1).sum())):
        raise TableError(
            f"{more} of the matched rows repeat a key: pass duplicates='first' for one row a key, or make the keys"
            " distinct"
        )
    chosen = spans(starts[order], times) if duplicates == "all" else starts[order]
    return np.take(rows, chosen)


def spans(starts: I64, lengths: I64) -> I64:
    """start, start + 1, … of each span, one span after the other."""
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + np.asarray(within, np.int64)


def ids_of(keys: KeySet, order: I64) -> I64:
    """The place of each key in the order, int64[distinct]; -1 where it does not match."""
    ids = np.full(len(keys), -1, np.int64)
    ids[order] = np.arange(len(order))
    return ids
