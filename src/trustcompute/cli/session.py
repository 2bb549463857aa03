"""A session as commands need it: from file names, with chunks of work on all processors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from trustcompute.cli.settings import read_text
from trustcompute.node import Session, connect
from trustcompute.primitives.identity import Identity


@contextmanager
def session_of(url: str, identity: Path, grant: Path, state: Path | None = None) -> Iterator[Session]:
    """identity: its directory; grant: the file with its token; state: where jobs are kept."""
    with (
        ThreadPoolExecutor(os.cpu_count()) as executor,
        connect(
            url,
            identity=Identity.load(identity),
            grant=read_text(grant).strip(),
            state=state,
            executor=executor,
        ) as session,
    ):
        yield session
