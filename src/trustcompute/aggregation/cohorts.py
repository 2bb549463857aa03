"""Which sets of survivors a contributor has helped to open: near-identical ones would tell one party's part apart.

Called by ``masked``, ``keyed`` and ``threshold``; a node keeps one for each of its datasets, on disk.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Final

from trustcompute.aggregation.journal import Journal
from trustcompute.errors import Refused, StoreError, VerificationError
from trustcompute.primitives import canonical

MAX_LINE: Final = 256 * 1024


class Cohorts:
    """Sets that were opened on one version of one dataset. Thread-safe; in memory where there is no path."""

    def __init__(self, path: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._journal = Journal(path)
        try:
            self._opened = {
                frozenset(canonical.loads_canonical(line, limit=MAX_LINE)) for line in self._journal.lines
            }
        except (VerificationError, TypeError) as error:
            raise StoreError(f"cannot read which sets were opened before: {path}") from error

    def check(self, survivors: Collection[str], least: int) -> None:
        """Raise ``Refused`` for a set that differs from an opened one by fewer than ``least`` parties."""
        with self._lock:
            self._check(frozenset(survivors), least)

    def admit(self, survivors: Collection[str], least: int) -> None:
        """As ``check``, and remember it, durably, before anything is opened."""
        found = frozenset(survivors)
        with self._lock:
            self._check(found, least)
            if found not in self._opened:
                self._journal.add(canonical.dumps(sorted(found)))
                self._opened.add(found)

    def _check(self, survivors: frozenset[str], least: int) -> None:
        near = [apart for one in self._opened if 0 < len(apart := survivors ^ one) < least]
        if near:
            names = ", ".join(min((len(apart), sorted(apart)) for apart in near)[1])
            raise Refused(
                f"these survivors differ from an earlier set by {names} alone: both sums would tell what fewer than"
                f" {least} parties hold",
                rule="min_parties",
                field="survivors",
                owner="the contributor's operator",
                fix=f"aggregate with the same parties as before, or with at least {least} others",
            )
