"""Back-up of a book in a file while it is in use, and the check that a copy is whole. Called by ``Broker``.

The outbox is copied after the book: an answer is on disk before its charge is committed, so none that the copied
book has charged, and does not hold, is missing, unless it was countersigned meanwhile and is no longer owed.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Final

from trustcompute.broker.audit import AuditReport, audit
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.store import Store
from trustcompute.broker.store.sqlite import SqliteStore
from trustcompute.errors import StoreError
from trustcompute.primitives.checkpoint import NoteKey

OUTBOX: Final = "outbox"


def write(store: Store, outbox: Outbox, directory: Path) -> None:
    """Copy both into a new directory. Raises ``StoreError``; what was copied until then is removed."""
    if not isinstance(store, SqliteStore):
        raise StoreError("a book in PostgreSQL is backed up with its server's tools: pg_dump, pg_basebackup")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise StoreError(f"{directory} is not empty: a back-up goes into a directory of its own")
        try:
            store.copy(directory)
            (directory / OUTBOX).mkdir(mode=0o700)
            for name in sorted(outbox.names()):
                with contextlib.suppress(FileNotFoundError):  # countersigned meanwhile
                    shutil.copy2(outbox.directory / name, directory / OUTBOX / name)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
    except OSError as error:
        raise StoreError(f"cannot back up to {directory}: {error.strerror}") from error


def back_up(source: Path, directory: Path) -> None:
    """As ``write``, of a book that another process has open. Raises ``StoreError``."""
    store = SqliteStore.read_only(source)
    try:
        write(store, Outbox(source / OUTBOX), directory)
    finally:
        store.close()


def check(directory: Path, key: NoteKey, newest: str) -> AuditReport:
    """Audit a back-up before it is restored. newest: the newest checkpoint that others hold.

    Raises ``AuditError`` where the copy is damaged, or older than that checkpoint: a node that went on from it
    would sign a second history.
    """
    return audit(directory, key, known=[newest])
