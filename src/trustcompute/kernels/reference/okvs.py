"""An oblivious key-value store: keys are hashed to linear equations, values are their right-hand sides.

Each key has a bin, three cells of the bin's ``sparse`` ones, and one element d of GF(2¹²⁸) whose powers d, d², ...
weigh the bin's ``dense`` cells; decoding a key sums its cells. Encoding solves each bin's equations: keys that are
alone in some cell are set aside until none is left (peeling), what remains is solved by elimination, then those set
aside follow in reverse. Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield VOLE" (CCS 2022), §4.

Cells that no equation needs stay zero. Memory accesses depend on the keys, in the extension too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trustcompute.kernels.arrays import U8, OkvsShape
from trustcompute.kernels.errors import OkvsFailure
from trustcompute.kernels.reference.aes import aes128_hash
from trustcompute.kernels.reference.gf128 import element, integer, invert, multiply

I64 = NDArray[np.int64]


def places(hashes: U8, key: bytes, shape: OkvsShape) -> tuple[I64, I64]:
    """Bin (int64[n]) and three different cells (int64[n, 3]) of each key, from AES of its hash."""
    words = aes128_hash(key, hashes).view("<u4").astype(np.uint64)
    scaled = words * np.array([shape.sparse, shape.sparse - 1, shape.sparse - 2, shape.bins], dtype=np.uint64)
    a, b, c, where = (scaled >> np.uint64(32)).astype(np.int64).T
    b = b + (b >= a)
    low, high = np.minimum(a, b), np.maximum(a, b)
    c = c + (c >= low)
    c = c + (c >= high)
    return where, np.stack([a, b, c], axis=1)


def okvs_decode(hashes: U8, table: U8, key: bytes, shape: OkvsShape) -> U8:
    where, cells = places(hashes, key, shape)
    base = where * shape.size
    out: U8 = table[base + cells[:, 0]] ^ table[base + cells[:, 1]] ^ table[base + cells[:, 2]]
    for index, start in enumerate(base):
        d, total = integer(hashes[index]), 0
        for row in table[start + shape.sparse : start + shape.size][::-1]:
            total = multiply(total ^ integer(row), d)
        out[index] ^= element(total)
    return out


def okvs_encode(hashes: U8, values: U8, key: bytes, shape: OkvsShape, bins: range) -> U8:
    where, cells = places(hashes, key, shape)
    out = np.zeros((len(bins) * shape.size, 16), dtype=np.uint8)
    for start, number in zip(range(0, len(out), shape.size), bins, strict=True):
        rows = np.flatnonzero(where == number)
        dense, right = [integer(row) for row in hashes[rows]], [integer(row) for row in values[rows]]
        system = _Bin(dense, right, cells[rows], shape)
        if len(rows) > shape.capacity or not system.solve():
            raise OkvsFailure.at(number)
        for cell, value in enumerate(system.solution):
            if value:
                out[start + cell] = element(value)
    return out


class _Bin:
    """The equations of one bin, and its cells as far as they are known."""

    def __init__(self, hashes: list[int], values: list[int], cells: I64, shape: OkvsShape) -> None:
        self.hashes, self.values, self.shape = hashes, values, shape
        self.cells = [tuple(int(cell) for cell in row) for row in cells]
        self.solution = [0] * shape.size

    def solve(self) -> bool:
        order, core = self._peel()
        if not self._solve_core(core):
            return False
        for row, cell in reversed(order):
            self.solution[cell] = self.values[row] ^ self._sum(row)
        return True

    def _peel(self) -> tuple[list[tuple[int, int]], list[int]]:
        """(row, the cell it alone is left in) in the order they were set aside, and the rows that remain."""
        rows_of: list[set[int]] = [set() for _ in range(self.shape.sparse)]
        for row, cells in enumerate(self.cells):
            for cell in cells:
                rows_of[cell].add(row)
        lonely = [cell for cell, rows in enumerate(rows_of) if len(rows) == 1]
        order: list[tuple[int, int]] = []
        left = set(range(len(self.cells)))
        while lonely:
            cell = lonely.pop()
            if len(rows_of[cell]) != 1:
                continue
            row = next(iter(rows_of[cell]))
            order.append((row, cell))
            left.remove(row)
            for other in self.cells[row]:
                rows_of[other].remove(row)
                if len(rows_of[other]) == 1:
                    lonely.append(other)
        return order, sorted(left)

    def _solve_core(self, core: list[int]) -> bool:
        """Elimination over GF(2) in the sparse cells and GF(2¹²⁸) in the dense ones. False if there is no solution."""
        pivots: list[
            tuple[int, int, list[int]]
        ] = []  # (cell, other sparse cells as bits, dense weights and value)
        rest: list[list[int]] = []
        for row in core:
            bits, line = sum(1 << cell for cell in self.cells[row]), self._dense(row)
            for cell, other_bits, other_line in pivots:
                if bits >> cell & 1:
                    bits, line = bits ^ other_bits, _added(line, other_line)
            if bits:
                pivots.append((bits.bit_length() - 1, bits, line))
            else:
                rest.append(line)
        dense = _gauss(rest, self.shape.dense)
        if dense is None:
            return False
        self.solution[self.shape.sparse :] = dense
        for cell, bits, line in reversed(pivots):
            total = line[-1]
            for weight, value in zip(line[:-1], dense, strict=True):
                total ^= multiply(weight, value)
            for other in range(self.shape.sparse):
                if other != cell and bits >> other & 1:
                    total ^= self.solution[other]
            self.solution[cell] = total
        return True

    def _dense(self, row: int) -> list[int]:
        """d, d², ..., and the value."""
        d, powers = self.hashes[row], [1]
        for _ in range(self.shape.dense):
            powers.append(multiply(powers[-1], d))
        return [*powers[1:], self.values[row]]

    def _sum(self, row: int) -> int:
        total = 0
        for cell in self.cells[row]:
            total ^= self.solution[cell]
        for weight, value in zip(self._dense(row)[:-1], self.solution[self.shape.sparse :], strict=True):
            total ^= multiply(weight, value)
        return total


def _added(a: list[int], b: list[int]) -> list[int]:
    return [x ^ y for x, y in zip(a, b, strict=True)]


def _gauss(lines: list[list[int]], unknowns: int) -> list[int] | None:
    """Solve lines (weights and value) over GF(2¹²⁸); what stays free is zero. None if they contradict each other."""
    lines = [list(line) for line in lines]
    solved: list[tuple[int, list[int]]] = []
    for column in range(unknowns):
        found = next((line for line in lines if line[column]), None)
        if found is None:
            continue
        lines.remove(found)
        scale = invert(found[column])
        found = [multiply(scale, entry) for entry in found]
        for target in lines + [line for _, line in solved]:
            factor = target[column]
            target[:] = [t ^ multiply(factor, f) for t, f in zip(target, found, strict=True)]
        solved.append((column, found))
    if any(line[-1] for line in lines):
        return None
    result = [0] * unknowns
    for column, line in solved:
        result[column] = line[-1]
    return result
