"""Which tables were told of one version of a dataset, to anybody: what may still be asked follows from that alone.

Called by ``tabulator``; a node keeps one for each dataset, on disk. Whether a table is refused depends on earlier
answers and on nothing else, so a refusal tells nothing new (K. Kenthapadi, N. Mishra, K. Nissim, "Simulatable
auditing", PODS 2005). Tables over overlapping columns could be subtracted. Those told together stay decomposable:
pairs of columns form no cycle, and columns that two of them share were told without a gap. Then whatever fits each
table fits all of them together (A. Dobra, S. Fienberg, "Bounds for cell entries in contingency tables given marginal
totals and decomposable graphs", PNAS 2000), so that checking each by itself is enough.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from trustcompute.errors import ParameterError, Refused, StoreError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import canonical, journal
from trustcompute.verification.statistical.network import Shape
from trustcompute.verification.statistical.rules import Status

MAX_LINE: Final = 64 * 1024


@dataclass(frozen=True, eq=False)
class Told:
    """A table that was told, by its columns in order, and the ``Status`` of its cells."""

    by: tuple[str, ...]
    status: U8

    def within(self, by: Sequence[str], shape: Shape, whole: Shape) -> U8:
        """The status of every cell of a table by some of its columns. shape: of that table; whole: of this one."""
        places = [by.index(name) if name in by else None for name in self.by]
        found = np.empty(shape.cells, dtype=np.uint8)
        for cell in range(shape.cells):
            at = shape.at(cell)
            groups = [whole.ways[way] if place is None else at[place] for way, place in enumerate(places)]
            found[cell] = self.status[whole.cell(*groups)]
        return found

    def complete(self, column: str, whole: Shape) -> bool:
        """Whether all groups of one of its columns were told."""
        return not self.status[whole.margin(self.by.index(column))].any()


class History:
    """Tables told under the same terms. Thread-safe; in memory where there is no path.

    about: digest of the terms, under which alone the file can be read.
    """

    def __init__(self, path: Path | None = None, *, about: str = "") -> None:
        self._path, self._about = path, about
        self.lock = threading.RLock()
        self.told: list[Told] = []
        if path is not None:
            self.told = [self._read(line) for line in journal.lines(path)]

    def holding(self, by: Sequence[str]) -> Told | None:
        """A table that was told and has all of these columns."""
        return next((one for one in self.told if set(by) <= set(one.by)), None)

    def shared(self, by: Sequence[str], shape_of: dict[tuple[str, ...], Shape]) -> set[str]:
        """Columns of a new table that were told before, and have to be told again. shape_of: of every table told.

        Raises ``Refused``.
        """
        found: set[str] = set()
        for one in self.told:
            for column in set(by) & set(one.by):
                if not one.complete(column, shape_of[one.by]):
                    raise self._refused(f"groups of {column!r} were told before, some of them suppressed")
                found.add(column)
        if len(by) == 2 and self._connected(*by):
            raise self._refused(f"tables told before already connect {by[0]!r} and {by[1]!r}")
        return found

    def tell(self, by: Sequence[str], status: U8) -> Told:
        """Remember a table, durably, before it is told."""
        found = Told(tuple(by), status)
        if self._path is not None:
            line = {"about": self._about, "by": list(by), "status": status.tobytes().hex()}
            journal.append(self._path, canonical.dumps(line))
        self.told.append(found)
        return found

    def _connected(self, one: str, other: str) -> bool:
        reached, before = {one}, set[str]()
        while reached != before:
            before = set(reached)
            reached |= {column for told in self.told if reached & set(told.by) for column in told.by}
        return other in reached

    def _refused(self, why: str) -> Refused:
        known = "; ".join(" and ".join(one.by) or "no columns" for one in self.told)
        return Refused(
            f"{why}: another table over them could be subtracted",
            rule="overlap",
            field="params.by",
            owner="the node's operator",
            fix=f"group by columns that were told together ({known}), or ask for a release with noise (dp.release.v1)",
        )

    def _read(self, line: bytes) -> Told:
        try:
            document: Any = canonical.loads_canonical(line, limit=MAX_LINE)
            told = Told(
                tuple(document["by"]), np.frombuffer(bytes.fromhex(document["status"]), dtype=np.uint8)
            )
            about = document["about"]
        except (VerificationError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"cannot read which tables were told before: {self._path}") from error
        if about != self._about or told.status.max(initial=0) > max(Status):
            raise ParameterError(
                "statistics of this version of the dataset were told under other rules or other values: give the"
                " dataset a new version"
            )
        return told
