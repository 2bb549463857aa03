"""Children that die at a write, as kill -9 would have it."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from typing import Any

from trustcompute.broker.outbox import Outbox
from trustcompute.broker.writer import Writer
from trustcompute.node.state import StateStore

WRITES = ((Writer, "commit"), (Outbox, "write"), (Outbox, "remove"), (StateStore, "_write"))


def killed_at(
    boundary: int,
    begin: Callable[[], Callable[[], object]],
    writes: Iterable[tuple[Any, str]] = WRITES,
) -> bool:
    """Whether a child died at this boundary; False when it finished first.

    begin: called in the child, makes ready and returns the work. Boundaries are counted from 1, before and after each
    call of one of ``writes`` while it works.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work = begin()
            _arm(boundary, writes)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"the child ended by itself, with status {status}"
    return status != 0


def _arm(deadly: int, writes: Iterable[tuple[Any, str]]) -> None:
    count, lock = 0, threading.Lock()

    def boundary() -> None:
        nonlocal count
        with lock:
            count += 1
            if count == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            boundary()
            result = real(*arguments, **options)
            boundary()
            return result

        return wrapped

    for kind, name in writes:
        setattr(kind, name, around(getattr(kind, name)))
