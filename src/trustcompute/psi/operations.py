"""What the broker knows of all intersections."""

from __future__ import annotations

from typing import Final

from trustcompute.protocol.operation import Operation
from trustcompute.psi import cascading, delta, lookup, star_operation
from trustcompute.psi.operation import INTERSECTIONS
from trustcompute.psi.sums.operation import OPERATION as SUM

OPERATIONS: Final[tuple[Operation, ...]] = (
    *INTERSECTIONS,
    lookup.OPERATION,
    star_operation.OPERATION,
    cascading.OPERATION,
    delta.OPERATION,
    SUM,
)
