"""What every metered result has beside its output: its job, and the receipt that proves what was charged."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from trustcompute.broker.receipt import Receipt


@dataclass(frozen=True, kw_only=True)
class Metered:
    """job: its id; acknowledged: its receipt, or one that is on its way: no answer waits for it."""

    job: str
    acknowledged: Future[Receipt] | Receipt = field(repr=False, compare=False)

    @property
    def receipt(self) -> Receipt:
        """Proves offline what was charged. Waits until it is here.

        Raises ``JobInterrupted`` where the node cannot be reached (pass ``job=`` to go on later),
        ``VerificationError`` where the receipt is not for what happened.
        """
        coming = self.acknowledged
        return coming if isinstance(coming, Receipt) else coming.result()

    def __getstate__(self) -> dict[str, Any]:
        """Copied and pickled with the receipt itself."""
        return self.__dict__ | {"acknowledged": self.receipt}
