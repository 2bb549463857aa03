"""How far a long computation is: counts handed to a callback, and where it may be told to stop.

Called by what reads large tables and runs large jobs. Nothing here draws; the command line does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from trustcompute.errors import JobInterrupted


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a computation is, for a callback.

    phase: ``digest``, ``sort``, ``match``, ``write`` or ``evaluate``; done, total: rows, parts or runs of the phase,
    total None while it cannot be known; seconds: since the phase began here; left: seconds the phase will still take at
    the pace it had since it began here, None before anything of it is done.
    """

    phase: str
    done: int
    total: int | None
    seconds: float
    left: float | None


Callback = Callable[[Progress], object]


class Phase:
    """Counts one phase and tells a callback. Thread-safe."""

    def __init__(
        self,
        phase: str,
        total: int | None,
        callback: Callback | None,
        *,
        before: int = 0,
        stop: threading.Event | None = None,
    ) -> None:
        """before: what an earlier process had done: it counts as done, and not for the pace.

        stop: when set, the next ``advance`` raises ``JobInterrupted``.
        """
        self._phase, self._total, self._callback, self._stop = phase, total, callback, stop
        self._before = self._done = before
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self.advance(0)

    def advance(self, by: int) -> None:
        """So much more is done. Raises ``JobInterrupted`` where the caller is to stop."""
        with self._lock:
            self._done += by
            seconds = time.monotonic() - self._started
            here = self._done - self._before
            left = None
            if self._total is not None and here:
                left = seconds / here * max(0, self._total - self._done)
            if self._callback is not None:
                self._callback(Progress(self._phase, self._done, self._total, seconds, left))
        if self._stop is not None and self._stop.is_set():
            raise JobInterrupted(f"stopped in the phase {self._phase!r}")
