"""What a kernel refuses. Raised by both implementations, caught by ``trustcompute.primitives``."""

from __future__ import annotations

from trustcompute.errors import KernelError


class InvalidPoint(KernelError):
    """Row ``index`` is not the canonical encoding of a ristretto255 element (RFC 9496 §4.3.1)."""

    code = "kernel.point"

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index

    @classmethod
    def at(cls, index: int) -> InvalidPoint:
        return cls(f"row {index} is not the canonical encoding of a ristretto255 element", index)


class InvalidScalar(KernelError):
    """Row ``index`` is zero modulo the group order and has no inverse."""

    code = "kernel.scalar"

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index

    @classmethod
    def at(cls, index: int) -> InvalidScalar:
        return cls(f"row {index} is zero modulo the group order and has no inverse", index)


class OkvsFailure(KernelError):
    """Bin ``index`` has too many keys, or its equations have no solution: as unlikely as its shape was chosen for."""

    code = "kernel.okvs"

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index

    @classmethod
    def at(cls, index: int) -> OkvsFailure:
        return cls(f"bin {index} of the key-value store cannot be encoded", index)


class NotSorted(KernelError):
    """Row ``index`` of a table that must ascend is less than the row before it."""

    code = "kernel.order"

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index

    @classmethod
    def at(cls, index: int) -> NotSorted:
        return cls(f"row {index} of the table is less than the row before it", index)
