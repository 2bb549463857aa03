"""What can be concluded about suppressed cells of a table from those that are shown: exact bounds, by flows.

Called by ``suppress``. A table of one or two ways with its totals is a circulation: every cell is an arc, every
equation ("these add up to that total") a node. How far a suppressed cell can rise or fall while all equations keep
holding is then the largest flow around it (J. Castro, "Recent advances in optimization techniques for statistical
tabular data protection", EJOR 2012, §4; L. Ford and D. Fulkerson for the flow). Integers throughout, nothing rounded.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

UNLIMITED: Final = 1 << 100

Bounds = tuple[int, int]
Edge = tuple[int, int, int, bool]  # from node, to node, cell, and whether the cell rises along it


@dataclass(frozen=True)
class Shape:
    """How many groups each way has: (), (rows,) or (rows, columns). Cells are numbered row by row, the totals last in
    each way."""

    ways: tuple[int, ...]

    @property
    def cells(self) -> int:
        found = 1
        for groups in self.ways:
            found *= groups + 1
        return found

    @property
    def total(self) -> int:
        return self.cells - 1

    def inner(self) -> list[int]:
        """Cells that are no totals."""
        return [
            cell
            for cell in range(self.cells)
            if all(g < n for g, n in zip(self.at(cell), self.ways, strict=True))
        ]

    def at(self, cell: int) -> tuple[int, ...]:
        """Which group each way; the number of groups stands for all of them."""
        found = []
        for groups in reversed(self.ways):
            cell, group = divmod(cell, groups + 1)
            found.append(group)
        return tuple(reversed(found))

    def cell(self, *groups: int) -> int:
        found = 0
        for group, count in zip(groups, self.ways, strict=True):
            found = found * (count + 1) + group
        return found

    def margin(self, way: int) -> list[int]:
        """The cells of the table by that way alone, its groups in order and then the total."""
        if len(self.ways) == 1:
            return list(range(self.cells))
        rows, columns = self.ways
        if way == 0:
            return [self.cell(row, columns) for row in range(rows + 1)]
        return [self.cell(rows, column) for column in range(columns + 1)]

    def arcs(self) -> list[tuple[int, int]]:
        """(tail, head) of every cell: what flows into a node flows out of it."""
        if not self.ways:
            return [(0, 0)]
        if len(self.ways) == 1:
            return [(0, 1)] * self.ways[0] + [(1, 0)]
        rows, columns = self.ways
        every_row, every_column = (
            rows,
            rows + columns + 1,
        )  # nodes behind those of the rows, and of the columns
        found = []
        for cell in range(self.cells):
            row, column = self.at(cell)
            of_row = every_column if row == rows else row
            of_column = every_row if column == columns else rows + 1 + column
            inner, total = row < rows and column < columns, row == rows and column == columns
            if inner:
                found.append((of_row, of_column))
            elif total:
                found.append((every_row, every_column))
            else:  # what a group of one way adds up to flows on through the total
                found.append((every_column, of_row) if column == columns else (of_column, every_row))
        return found


class Network:
    """Values of all cells, and what is known of each where it is suppressed: (at least, at most), by cell."""

    def __init__(self, shape: Shape, values: Sequence[int], bounds: Sequence[Bounds]) -> None:
        self._arcs, self._values, self._bounds = shape.arcs(), values, bounds
        self._leaving: dict[int, list[Edge]] = {}
        self._drawn: set[int] = set()

    def change(
        self, cell: int, suppressed: Collection[int], limit: int, known: Mapping[int, Bounds], *, rising: bool
    ) -> int:
        """By how much the cell could be larger (or smaller) than it is, up to ``limit``. known: better bounds of some
        cells."""
        return self.around(
            cell, suppressed, min(limit, self._room((0, 0, cell, rising), known)), known, rising=rising
        )

    def around(
        self, cell: int, suppressed: Collection[int], limit: int, known: Mapping[int, Bounds], *, rising: bool
    ) -> int:
        """The same as far as the other cells go, whatever is known of this one.

        The largest flow through the other suppressed cells, along the shortest ways first (J. Edmonds, R. Karp 1972).
        """
        self._draw(suppressed)
        source, sink = self._ends(cell, rising=rising)
        used: dict[tuple[int, bool], int] = {}
        sent = 0

        def room(edge: Edge) -> int:
            _, _, other, forward = edge
            if other == cell:
                return 0
            return self._room(edge, known) - used.get((other, forward), 0) + used.get((other, not forward), 0)

        while sent < limit:
            way = _shortest(source, sink, self._leaving, room)
            if way is None:
                break
            step = min(limit - sent, *(room(edge) for edge in way))
            for _, _, other, forward in way:
                used[other, forward] = used.get((other, forward), 0) + step
            sent += step
        return max(sent, 0)

    def cheapest(
        self,
        cell: int,
        amount: int,
        known: Mapping[int, Bounds],
        *,
        suppressed: Collection[int],
        openable: Collection[int],
        cost: Sequence[int],
        rising: bool,
    ) -> set[int]:
        """Shown cells whose suppression lets the cell change by ``amount`` on one way round, the cheapest such way;
        none where there is no such way (E. Dijkstra 1959)."""
        source, sink = self._ends(cell, rising=rising)
        leaving: dict[int, list[tuple[int, int, int]]] = {}
        for other in sorted({*suppressed, *openable} - {cell}):
            price = 0 if other in suppressed else cost[other] + 1
            for edge in self._edges(other):
                if self._room(edge, known) >= amount:
                    leaving.setdefault(edge[0], []).append((edge[1], price, other))
        best, before = {source: 0}, dict[int, tuple[int, int]]()
        waiting = [(0, source)]
        while waiting:
            spent, node = heapq.heappop(waiting)
            for to, price, other in leaving.get(node, []):
                if spent + price < best.get(to, UNLIMITED):
                    best[to], before[to] = spent + price, (node, other)
                    heapq.heappush(waiting, (spent + price, to))
        found = set()
        node = sink
        while node != source:
            if node not in before:
                return set()
            node, other = before[node]
            found.add(other)
        return found - set(suppressed)

    def _ends(self, cell: int, *, rising: bool) -> tuple[int, int]:
        """Where a flow begins and ends that makes up for a change of the cell."""
        tail, head = self._arcs[cell]
        return (head, tail) if rising else (tail, head)

    def _edges(self, cell: int) -> tuple[Edge, Edge]:
        tail, head = self._arcs[cell]
        return (tail, head, cell, True), (head, tail, cell, False)

    def _draw(self, suppressed: Collection[int]) -> None:
        """Suppressed cells only become more."""
        for cell in sorted(set(suppressed) - self._drawn):
            for edge in self._edges(cell):
                self._leaving.setdefault(edge[0], []).append(edge)
        self._drawn |= set(suppressed)

    def _room(self, edge: Edge, known: Mapping[int, Bounds]) -> int:
        """By how much a cell can rise (forward) or fall by itself."""
        _, _, cell, forward = edge
        low, high = known.get(cell, self._bounds[cell])
        return high - self._values[cell] if forward else self._values[cell] - low


def _shortest(
    source: int, sink: int, leaving: Mapping[int, list[Edge]], room: Callable[[Edge], int]
) -> list[Edge] | None:
    """A way with room left, over the fewest nodes."""
    came: dict[int, Edge] = {}
    waiting = deque([source])
    while waiting:
        for edge in leaving.get(waiting.popleft(), ()):
            if edge[1] not in came and edge[1] != source and room(edge) > 0:
                came[edge[1]] = edge
                if edge[1] == sink:
                    return list(_back(edge, came, source))
                waiting.append(edge[1])
    return None


def _back(edge: Edge, came: Mapping[int, Edge], source: int) -> Iterator[Edge]:
    while edge[0] != source:
        yield edge
        edge = came[edge[0]]
    yield edge
