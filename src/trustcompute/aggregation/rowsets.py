"""Which sets of rows of one dataset were added up: two that are almost the same would tell the rows they differ by.

Called by the node for aggregates over matched rows, where the asker decides which rows. A set is kept as bits.
"""

from __future__ import annotations

import threading
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from trustcompute.aggregation.journal import Journal
from trustcompute.errors import Refused, StoreError
from trustcompute.kernels.arrays import I64, U8

MAX_SETS: Final = 64


class RowSets:
    """Of one version of a dataset. Thread-safe; in memory where there is no path."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._journal = Journal(path)
        try:
            for line in self._journal.lines:
                zlib.decompress(bytes.fromhex(line.decode()))
        except (ValueError, zlib.error) as error:
            raise StoreError(f"cannot read which rows were added up before: {path}") from error

    def check(self, rows: I64, of: int, least: int) -> None:
        """Raise ``Refused`` for fewer rows than ``least``, or for rows that differ from an earlier set by fewer.

        rows: positions; of: how many rows there are.
        """
        with self._lock:
            self._check(_bits(rows, of), least)

    def admit(self, rows: I64, of: int, least: int) -> None:
        """As ``check``, and remember them, durably, before anything of them leaves."""
        found = _bits(rows, of)
        with self._lock:
            if self._check(found, least):
                self._journal.add(zlib.compress(found.tobytes()).hex().encode())

    def _check(self, found: U8, least: int) -> bool:
        """Whether the set is a new one."""
        if _ones(found) < least:
            raise _refused(f"fewer than {least} rows matched", f"match at least {least} rows")
        for line in self._journal.lines:
            known: U8 = np.frombuffer(zlib.decompress(bytes.fromhex(line.decode())), dtype=np.uint8)
            if np.array_equal(found, known):
                return False
            if len(known) == len(found) and _ones(found ^ known) < least:
                raise _refused(
                    f"these rows differ from an earlier set by fewer than {least}: both sums would tell of them",
                    f"match the same rows as before, or rows that differ by at least {least}",
                )
        if len(self._journal.lines) >= MAX_SETS:
            raise _refused(
                f"{MAX_SETS} sets of rows were added up, as many as one version gives exactly", "add noise"
            )
        return True


def _bits(rows: I64, of: int) -> U8:
    marked = np.zeros(of, dtype=np.bool_)
    marked[rows] = True
    return np.packbits(marked)


def _ones(bits: U8) -> int:
    return int(np.bitwise_count(bits).sum())


def _refused(what: str, fix: str) -> Refused:
    return Refused(what, rule="least_matched", field="params.matched", owner="the node's operator", fix=fix)
