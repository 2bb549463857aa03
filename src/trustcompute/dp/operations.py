"""What the broker knows of all releases."""

from __future__ import annotations

from typing import Final

from trustcompute.dp import fixed, operation
from trustcompute.protocol.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = (*operation.OPERATIONS, *fixed.OPERATIONS)
