"""Which cells of a table are not shown: sensitive ones, and the others that would give them away.

Called by ``query``, once for each table. What is decided here depends on the data, and is the only thing that does:
which cells are suppressed, by which first rule, and which are empty is told. Complementary suppression is checked
against
everybody who could subtract: somebody outside; the two largest contributors of a sensitive cell; the largest
contributor of every other suppressed one. Each knows all shown cells, the rules, and what it brought to every cell
itself; one who is alone in a cell knows all of it. What is required of each sensitive cell is in ``rules``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np

from trustcompute.kernels.arrays import U8
from trustcompute.verification.statistical import rules as by_rule
from trustcompute.verification.statistical.cells import Amount, Cells
from trustcompute.verification.statistical.network import UNLIMITED, Network, Shape
from trustcompute.verification.statistical.rules import Rules, Shares, Status

Known = dict[int, tuple[int, int]]


@dataclass(frozen=True)
class _Demand:
    """A cell must be able to rise and fall by so much, or to do either, for one who knows this of some cells."""

    cell: int
    rise: int
    fall: int
    known: Known = field(repr=False, default_factory=dict)
    either: bool = False


def pattern(rules: Rules, cells: Cells, shown: Collection[int] = ()) -> U8:
    """uint8[cells]: the ``Status`` of each. shown: cells that were told before, which stay shown.

    A table whose total is sensitive, or that no pattern protects, is suppressed whole: all but ``shown`` and the total
    (that too, where it is sensitive). An empty cell that has to be hidden goes under minimum frequency.
    """
    status = np.array([_primary(rules, cells, cell) for cell in range(cells.shape.cells)], dtype=np.uint8)
    kept = {*shown, cells.shape.total}
    if status[cells.shape.total]:
        return np.full(len(status), Status.TABLE, dtype=np.uint8)
    if status[sorted(kept)].any() or not _protect(rules, cells, status, kept):
        status[:] = Status.TABLE
        status[sorted(kept)] = Status.SHOWN
    return status


def _primary(rules: Rules, cells: Cells, cell: int) -> Status:
    """Frequency is about rows and about amounts, dominance and p % are about amounts alone."""
    most = by_rule.looked_at(rules)
    if 0 < cells.rows.shares(cell, most).count < rules.min_frequency:
        return Status.FREQUENCY
    found = [by_rule.primary(rules, column.shares(cell, most)) for column in cells.columns.values()]
    return min((status for status in found if status), default=Status.SHOWN)


def _protect(rules: Rules, cells: Cells, status: U8, kept: set[int]) -> bool:
    """Suppress more, in place, until nothing can be concluded. False: no pattern does it."""
    rows = cells.rows.count
    cost = np.where(
        rows > 0, rows, rows.max(initial=0)
    ).tolist()  # that a group is empty is hidden where it must be
    suppressed = set(np.flatnonzero(status).tolist())
    changed = True
    while changed:
        changed = False
        for view in _views(rules, cells, status):
            for demand in view.demands(frozenset(suppressed)):
                if view.meets(demand, suppressed):
                    continue
                openable = set(range(len(status))) - suppressed - kept
                if not openable:
                    return False
                chosen = view.cheapest(demand, suppressed, openable, cost) or _next(cells, openable)
                for cell in chosen:
                    status[cell] = Status.COMPLEMENTARY if rows[cell] else Status.FREQUENCY
                suppressed |= chosen
                changed = True
    return True


def _next(cells: Cells, openable: set[int]) -> set[int]:
    """Where no single way round helps: cells that are no totals, then totals, empty ones at the end."""
    full = {cell for cell in openable if cells.rows.count[cell]}
    return (full & set(cells.shape.inner())) or full or openable


def _views(rules: Rules, cells: Cells, status: U8) -> Iterator[_View]:
    yield _View(rules, cells.shape, cells.rows, status, counting=True)
    for name, column in cells.columns.items():
        if not np.array_equal(column.count, cells.rows.count):  # nulls, of which there may be few in a cell
            yield _View(rules, cells.shape, column, status, counting=True)
        yield _View(rules, cells.shape, column, status, counting=False, signed=name in rules.signed)


class _View:
    """What the cells of one number (of rows, of a column's values, or its sum) tell together."""

    def __init__(
        self, rules: Rules, shape: Shape, amount: Amount, status: U8, *, counting: bool, signed: bool = False
    ) -> None:
        self._rules, self._amount, self._status = rules, amount, status
        self._counting, self._signed = counting, signed
        self._values: list[int] = (amount.count if counting else amount.sums).tolist()
        bounds = [self._beforehand(cell, value) for cell, value in enumerate(self._values)]
        self._network = Network(shape, self._values, bounds)

    def _beforehand(self, cell: int, value: int) -> tuple[int, int]:
        """What the rules themselves tell of a suppressed cell."""
        if self._signed:
            return -UNLIMITED, UNLIMITED
        if not self._counting:
            return 0, UNLIMITED
        least = self._rules.min_frequency
        if self._status[cell] != Status.FREQUENCY:  # as many contributors as the rule asks for, or no values
            return min(value, least), UNLIMITED
        few = self._rules.contributor is None and value < least
        return 0, least - 1 if few else UNLIMITED

    def meets(self, demand: _Demand, suppressed: Collection[int]) -> bool:
        """Whether a demand is met."""
        rises = self._change(demand, demand.rise, suppressed, rising=True) >= demand.rise
        if rises == demand.either:
            return rises
        return self._change(demand, demand.fall, suppressed, rising=False) >= demand.fall

    def _change(self, demand: _Demand, amount: int, suppressed: Collection[int], *, rising: bool) -> int:
        return self._network.change(demand.cell, suppressed, amount, demand.known, rising=rising)

    def cheapest(
        self, demand: _Demand, suppressed: Collection[int], openable: Collection[int], cost: list[int]
    ) -> set[int]:
        """Cells whose suppression makes room for a demand at the least cost, as far as one way round each can tell."""
        found: set[int] = set()
        for rising, amount in ((True, demand.rise), (False, demand.fall)):
            if self._change(demand, amount, suppressed, rising=rising) < amount:
                found |= self._network.cheapest(
                    demand.cell,
                    amount,
                    demand.known,
                    suppressed=suppressed,
                    openable=openable,
                    cost=cost,
                    rising=rising,
                )
        return found

    def demands(self, suppressed: frozenset[int]) -> Iterator[_Demand]:
        """What must stay open of each sensitive cell: to somebody outside, and to contributors."""
        others = sorted({one for cell in suppressed for one in self._amount.largest(cell, 1)})
        brought = {one: self._brought(one, suppressed) for one in others}
        totals = {one: sum(map(abs, brought[one].values())) for one in others}
        alone = {cell: (self._values[cell],) * 2 for cell in suppressed if self._count(cell) == 1}
        for cell in sorted(suppressed):
            outside = self._outside(cell)
            if outside is None:
                continue
            yield outside
            spare = self._spare(outside, max(totals.values()), suppressed, alone)
            asking = {one for one in others if totals[one] > spare} | set(self._amount.largest(cell, 2))
            for one in sorted(asking):
                own = brought.get(one)
                demand = self._inside(cell, self._brought(one, suppressed) if own is None else own)
                if demand is not None:
                    yield demand

    def _spare(self, outside: _Demand, most: int, suppressed: Collection[int], alone: Known) -> int:
        """Who brought no more than this, up to ``most``, to suppressed cells, finds a demand met if somebody outside
        does.

        alone: cells of one contributor, taken as known to everybody; what one brought to others takes no more than that
        from a flow.
        """
        found = []
        for need, rising in ((max(outside.rise, 1), True), (max(outside.fall, 1), False)):
            room = self._network.around(outside.cell, suppressed, need + most, alone, rising=rising)
            found.append(room - need)
        return min(found)

    def _count(self, cell: int) -> int:
        return int(self._amount.first[cell + 1] - self._amount.first[cell])

    def _shares(self, cell: int) -> Shares:
        return self._amount.shares(cell, by_rule.looked_at(self._rules))

    def _brought(self, contributor: int, suppressed: Collection[int]) -> dict[int, int]:
        """Suppressed cell -> what a contributor brought to it."""
        brought = self._amount.of(contributor, rows=self._counting)
        return {cell: own for cell, own in brought.items() if cell in suppressed}

    def _outside(self, cell: int) -> _Demand | None:
        """None where the cell need not be uncertain."""
        value, count = self._values[cell], self._count(cell)
        if self._counting:
            few = 0 < count < self._rules.min_frequency
            return _Demand(cell, *self._count_demand(value)) if few else None
        if self._status[cell] not in (Status.FREQUENCY, Status.DOMINANCE, Status.P_PERCENT) or not count:
            return None
        need = by_rule.needed_outside(self._rules, self._shares(cell))
        return _Demand(cell, need, need if self._signed else min(need, value))

    def _count_demand(self, value: int) -> tuple[int, int]:
        """For rows that are contributors themselves, all that the rule allows; for others p %, and one at least."""
        if self._rules.contributor is None:
            return self._rules.min_frequency - 1 - value, value - 1
        need = max(1, -(-self._rules.p_percent * value // 100))
        return need, min(need, value - 1)

    def _inside(self, cell: int, brought: dict[int, int]) -> _Demand | None:
        """What must be left open to a contributor, who knows what it brought; None where it is nothing."""
        own, value = brought.get(cell), self._values[cell]
        if self._count(cell) == (own is not None):
            return None  # all of it is its own
        if self._counting:  # it must not know the number; that it is small is known to all
            return _Demand(cell, 1, 1, self._known(brought), either=True)
        shares, size = self._shares(cell), abs(own or 0)
        largest = shares.largest_but(None if own is None else size)
        need = by_rule.needed(self._rules, largest, shares.whole, size)
        if need <= 0:
            return None
        return _Demand(cell, need, need if self._signed else min(need, value - size), self._known(brought))

    def _known(self, brought: dict[int, int]) -> Known:
        return {cell: self._knows(cell, own) for cell, own in brought.items()}

    def _knows(self, cell: int, own: int) -> tuple[int, int]:
        """Bounds of a cell for one who brought ``own`` to it."""
        value = self._values[cell]
        if self._count(cell) == 1:
            return value, value
        low, high = self._beforehand(cell, value)
        return (low if self._signed else max(low, own)), high
