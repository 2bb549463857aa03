"""What an audit says of the first entry that is wrong."""

from __future__ import annotations

from trustcompute.errors import AuditError


class EntryError(AuditError):
    """``index``: the first entry that is wrong."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(f"entry {index}: {message}")
        self.index = index
