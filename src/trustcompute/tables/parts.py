"""Distinct keys in contiguous parts of equal digest ranges: where each part begins in an ascending array of digests.

Called by ``keys`` and ``stored``. Part p of k holds the digests whose first 64 bits t, as a big-endian number, have
⌊t·k / 2⁶⁴⌋ = p: equal keys of two tables are in the same part, whatever else the tables hold.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from trustcompute.errors import ParameterError


def bounds(number: int, parts: int, count: int, top: Callable[[int], int]) -> tuple[int, int]:
    """(first, end) of part ``number`` among ``count`` ascending digests; top(i): the first 64 bits of digest i."""
    if not 0 <= number < parts:
        raise ParameterError(f"parts are numbered 0..{parts - 1}, not {number}")
    first, end = (-(-(edge << 64) // parts) for edge in (number, number + 1))
    low = bisect_left(range(count), first, key=top)
    high = count if number == parts - 1 else bisect_left(range(count), end, low, key=top)
    return low, high
