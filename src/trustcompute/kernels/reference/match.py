"""Sorting rows, and looking rows up in a table."""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import I64, U8
from trustcompute.kernels.errors import NotSorted


def match_rows(values: U8, table: U8, salt: bytes) -> I64:
    first: dict[bytes, int] = {}
    for position, row in enumerate(table):
        first.setdefault(row.tobytes(), position)
    return np.array([first.get(row.tobytes(), -1) for row in values], dtype=np.int64)


def sort_rows(rows: U8) -> tuple[I64, U8]:
    keys = [row.tobytes() for row in rows]
    order = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
    return order, np.ascontiguousarray(rows[order])


def match_sorted(values: U8, table: U8) -> I64:
    keys = [row.tobytes() for row in table]
    for index in range(1, len(keys)):
        if keys[index] < keys[index - 1]:
            raise NotSorted.at(index)
    return match_rows(values, table, b"")
