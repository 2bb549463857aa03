"""The book in one SQLite file: the only module that holds the ledger's SQL for it.

Write-ahead log, ``synchronous=FULL`` (a commit is on the disk when it returns), ``BEGIN IMMEDIATE``, one
connection. A file lock keeps a second node from opening the same book for writing; readers (``read_only``)
may look at any time and see a consistent state. The limits are checked once more by the database itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

from trustcompute.broker.job import JobRecord
from trustcompute.broker.log import READ_ONLY, Opening, StoredEntry
from trustcompute.broker.meter import Balance, BalanceKey
from trustcompute.broker.notice import Notice
from trustcompute.broker.policy import Asset
from trustcompute.broker.store import Changes, Evidence, GrantRow, Revocation, Touched
from trustcompute.broker.store.rows import CHANGING, FIXED, asset_of, asset_row, changing, fixed, job_of
from trustcompute.errors import StoreError

SCHEMA_VERSION: Final = 4
APPLICATION_ID: Final = 0x74636267  # "tcbg": marks the file as a book
BOOK_FILE: Final = "book.sqlite"
LOCK_FILE: Final = "book.lock"
BUSY_SECONDS: Final = 10
CHECKPOINT_PAGES: Final = (
    2048  # 8 MiB: the file grows so far, at the cost of a journal commit each; then it is reused
)

_SCHEMA: Final = """
CREATE TABLE book (version INTEGER NOT NULL, origin TEXT NOT NULL, key TEXT NOT NULL) STRICT;
CREATE TABLE entries (idx INTEGER PRIMARY KEY, leaf BLOB NOT NULL, body BLOB NOT NULL) STRICT;
CREATE TABLE checkpoints (size INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT;
CREATE TABLE openings (
    idx INTEGER NOT NULL, field TEXT NOT NULL, salt BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (idx, field)
) STRICT, WITHOUT ROWID;
CREATE TABLE grants (
    hash TEXT PRIMARY KEY, token TEXT NOT NULL, entry INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE revocations (grant_hash TEXT PRIMARY KEY, entry INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE notices (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, version INTEGER NOT NULL, hash TEXT NOT NULL, token TEXT NOT NULL,
    entry INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX rules ON notices (name) WHERE state = 'rules';
CREATE INDEX ending ON notices (name) WHERE state = 'ending';
CREATE TABLE assets (id TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE balances (
    account TEXT NOT NULL, time_window INTEGER NOT NULL, unit TEXT NOT NULL,
    posted INTEGER NOT NULL CHECK (posted >= 0), pending INTEGER NOT NULL CHECK (pending >= 0),
    lim INTEGER NOT NULL,
    PRIMARY KEY (account, time_window, unit),
    CHECK (posted + pending <= lim)
) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, request TEXT NOT NULL, grant_hash TEXT NOT NULL,
    subject TEXT NOT NULL, asker TEXT NOT NULL, recipient TEXT NOT NULL, payer TEXT NOT NULL,
    peer TEXT NOT NULL, key TEXT NOT NULL, operation TEXT NOT NULL, dataset TEXT NOT NULL,
    purpose TEXT NOT NULL, accounts TEXT NOT NULL, day INTEGER NOT NULL, reserved TEXT NOT NULL,
    reasons TEXT NOT NULL, state TEXT NOT NULL, lease INTEGER NOT NULL, charged TEXT,
    releases TEXT NOT NULL, detail TEXT NOT NULL, fault TEXT, entry INTEGER, countersigned INTEGER,
    rules TEXT NOT NULL DEFAULT '[]'
) STRICT, WITHOUT ROWID;
CREATE INDEX open_jobs ON jobs (id) WHERE state IN ('reserved', 'armed');
CREATE INDEX kept_jobs ON jobs (lease) WHERE state = 'posted' AND countersigned IS NULL;
CREATE TABLE evidence (
    job TEXT NOT NULL, kind TEXT NOT NULL, hash TEXT NOT NULL, token TEXT NOT NULL, PRIMARY KEY (job, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE answers (
    job TEXT NOT NULL, run INTEGER NOT NULL, turn INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (job, run, turn)
) STRICT;
CREATE TABLE failures (
    peer TEXT NOT NULL, hour INTEGER NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (peer, hour)
) STRICT, WITHOUT ROWID;
"""

# What brings a book of an older version one version further. Version 2 keeps evidence in the order of jobs:
# in the order of its hashes every commit touched as many pages as it had jobs. Version 3 has rules that stand above
# grants, and the standing of grants. Version 4 keeps small answers.
_UPGRADES: Final = {
    1: (
        "ALTER TABLE evidence RENAME TO evidence_1",
        "CREATE TABLE evidence (job TEXT NOT NULL, kind TEXT NOT NULL, hash TEXT NOT NULL, token TEXT NOT NULL, "
        "PRIMARY KEY (job, kind)) STRICT, WITHOUT ROWID",
        "INSERT INTO evidence (job, kind, hash, token) SELECT job, kind, hash, token FROM evidence_1",
        "DROP TABLE evidence_1",
    ),
    2: (
        "CREATE TABLE notices (name TEXT PRIMARY KEY, state TEXT NOT NULL, version INTEGER NOT NULL, "
        "hash TEXT NOT NULL, token TEXT NOT NULL, entry INTEGER NOT NULL) STRICT, WITHOUT ROWID",
        "CREATE INDEX rules ON notices (name) WHERE state = 'rules'",
        "CREATE INDEX ending ON notices (name) WHERE state = 'ending'",
        "ALTER TABLE jobs ADD COLUMN rules TEXT NOT NULL DEFAULT '[]'",
    ),
    3: (
        "CREATE TABLE answers (job TEXT NOT NULL, run INTEGER NOT NULL, turn INTEGER NOT NULL, body BLOB NOT NULL, "
        "PRIMARY KEY (job, run, turn)) STRICT",
    ),
}

_NEW_JOB: Final = f"INSERT INTO jobs ({FIXED}, {CHANGING}) VALUES ({', '.join('?' * 25)})"  # noqa: S608
_SET_JOB: Final = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in CHANGING.split(', '))} WHERE id = ?"  # noqa: S608
_PUT_BALANCE: Final = "REPLACE INTO balances VALUES (?, ?, ?, ?, ?, ?)"
_PUT_NOTICE: Final = "REPLACE INTO notices VALUES (?, ?, ?, ?, ?, ?)"
_GET_NOTICES: Final = "SELECT name, state, version, hash, token, entry FROM notices"
_GET_RULES: Final = "SELECT name, state, version, hash, '', entry FROM notices WHERE state = 'rules'"
_GET_JOBS: Final = f"SELECT {FIXED}, {CHANGING} FROM jobs"  # noqa: S608


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        return int(time.time())


class SqliteStore:
    """See ``broker.store.Store``. alone, clock: always, of one process, and the machine's."""

    alone = True
    clock = SystemClock()

    def __init__(self, connection: sqlite3.Connection, lock: int | None, *, read_only: bool = False) -> None:
        self._connection, self._lock = connection, lock
        self.shared = self._read_only = read_only  # who reads does not see what the node has in memory
        self._mutex = threading.RLock()
        self._pid = os.getpid()
        self._closed = False

    @classmethod
    def open(cls, directory: Path, *, origin: str, key: str) -> SqliteStore:
        """Open a book for writing, or create one. origin: name of its log; key: thumbprint that signs it.

        Raises ``StoreError`` where another process has it open, it belongs to another log, or another release
        wrote it.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create {directory}: {error.strerror}") from error
        lock = _lock(directory / LOCK_FILE)
        try:
            with _explained():
                connection = _connect(f"{(directory / BOOK_FILE).resolve().as_uri()}?mode=rwc")
                _prepare(connection, origin, key)
        except BaseException:
            os.close(lock)
            raise
        return cls(connection, lock)

    @classmethod
    def read_only(cls, directory: Path) -> SqliteStore:
        """Open an existing book for reading, also while a node is writing it. Raises ``StoreError``.

        Nothing of the book is written. SQLite wants two files of its own beside it while it is read, which a node has
        there anyway; where they cannot be made, the book is on a medium or in a directory that is only read. It is then
        taken as it is, and no node can open it meanwhile.
        """
        path = directory / BOOK_FILE
        try:
            if not path.is_file():
                raise StoreError(f"there is no book in {directory}")
        except OSError as error:
            raise StoreError(f"cannot read {directory}: {error.strerror}") from error
        try:
            return cls(_connect_to_read(path, "mode=ro"), None, read_only=True)
        except sqlite3.OperationalError as error:
            if not _is_closed(directory):
                raise _explain(error) from error
        lock = _lock_to_read(directory / LOCK_FILE)
        try:
            with _explained():
                return cls(_connect_to_read(path, "mode=ro&immutable=1"), lock, read_only=True)
        except BaseException:
            if lock is not None:
                os.close(lock)
            raise

    def read(self) -> _Block:
        return _Block(self, "BEGIN")

    def transaction(self, *, lasting: bool = True) -> _Block:
        if self._read_only:
            raise StoreError(READ_ONLY)
        return _Block(self, "BEGIN IMMEDIATE", lasting=lasting)

    def peek(self) -> _Block:
        """The book as it is, outside of any transaction."""
        return _Block(self, None)

    def admit_others(self) -> None:
        """Nobody: a book in a file has one node."""

    def copy(self, directory: Path) -> None:
        """Copy the book as it is at one moment into a directory; commits wait meanwhile."""
        with self._mutex, _explained():
            if self._closed:
                raise StoreError("the book is closed")
            self._connection.execute("VACUUM INTO ?", (str(directory / BOOK_FILE),))
        with (directory / BOOK_FILE).open("rb+") as file:
            file.flush()
            os.fsync(file.fileno())

    def scrub(self) -> None:
        """Copy the write-ahead log into the book and cut it off: ``secure_delete`` has zeroed what was deleted."""
        with self._mutex, _explained():
            busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        if busy:
            raise StoreError(
                "a reader holds the book: what was deleted is still in its write-ahead log; try again"
            )

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            if self._pid == os.getpid():
                self._connection.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError("a book must not be used after a fork: open it in the process that uses it")
        if self._closed:
            raise StoreError("the book is closed")


class _Block:
    """A transaction, or a look without one where ``begin`` is ``None``. A class: every job enters several."""

    __slots__ = ("_begin", "_lasting", "_store")

    def __init__(self, store: SqliteStore, begin: str | None, *, lasting: bool = True) -> None:
        self._store, self._begin, self._lasting = store, begin, lasting

    def __enter__(self) -> SqliteTransaction:
        store = self._store
        store._mutex.acquire()
        try:
            store._check()
            if not self._lasting:
                store._connection.execute("PRAGMA synchronous = NORMAL")
            if self._begin is not None:
                store._connection.execute(self._begin)
        except BaseException as error:
            self._leave()
            if isinstance(error, sqlite3.Error):
                raise _explain(error) from error
            raise
        return SqliteTransaction(store._connection)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        connection = self._store._connection
        try:
            if error is None and self._begin is not None:
                connection.execute("COMMIT")
        except BaseException as failure:
            self._take_back()
            if isinstance(failure, sqlite3.Error):
                raise _explain(failure) from failure
            raise
        else:
            if error is not None:
                self._take_back()
        finally:
            self._leave()
        if isinstance(error, sqlite3.Error):
            raise _explain(error) from error

    def _take_back(self) -> None:
        if self._begin is not None and self._store._connection.in_transaction:
            self._store._connection.execute("ROLLBACK")

    def _leave(self) -> None:
        try:
            if not self._lasting and not self._store._closed:
                self._store._connection.execute("PRAGMA synchronous = FULL")
        finally:
            self._store._mutex.release()


class SqliteTransaction:
    """See ``broker.store.Transaction``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def expect(self, touched: Touched, windows: Collection[int]) -> None:
        """Nothing: a question costs a microsecond."""

    def origin(self) -> str:
        return str(self._one("SELECT origin FROM book")[0])

    def jobs(self, ids: Collection[str]) -> dict[str, JobRecord]:
        return {row[0]: job_of(row) for row in self._among(f"{_GET_JOBS} WHERE id IN", ids)}

    def all_jobs(self) -> Iterator[JobRecord]:
        return (job_of(row) for row in self._connection.execute(_GET_JOBS))

    def open_jobs(self) -> list[JobRecord]:
        query = f"{_GET_JOBS} WHERE state IN ('reserved', 'armed') ORDER BY id"
        return [job_of(row) for row in self._connection.execute(query)]

    def late(self, now: int) -> list[str]:
        query = "SELECT id FROM jobs WHERE state IN ('reserved', 'armed') AND lease < ? ORDER BY id"
        return [row[0] for row in self._connection.execute(query, (now,))]

    def unacknowledged(self, since: int) -> list[str]:
        query = "SELECT id FROM jobs WHERE state = 'posted' AND countersigned IS NULL AND lease >= ?"
        return [row[0] for row in self._connection.execute(query, (since,))]

    def grants(self, hashes: Collection[str]) -> dict[str, GrantRow]:
        rows = self._among("SELECT hash, token, entry FROM grants WHERE hash IN", hashes)
        return {row[0]: GrantRow(*row) for row in rows}

    def revocations(self, hashes: Collection[str]) -> dict[str, Revocation]:
        rows = self._among("SELECT grant_hash, entry FROM revocations WHERE grant_hash IN", hashes)
        return {row[0]: Revocation(*row) for row in rows}

    def notices(self, names: Collection[str]) -> dict[str, Notice]:
        rows = self._connection.execute(_GET_RULES).fetchall()
        rows += self._among(f"{_GET_NOTICES} WHERE name IN", names)
        return {row[0]: Notice(*row) for row in rows}

    def notices_in(self, state: str) -> list[Notice]:
        rows = self._connection.execute(f"{_GET_NOTICES} WHERE state = ? ORDER BY name", (state,))
        return [Notice(*row) for row in rows]

    def notice(self, hash_: str) -> Notice:
        return Notice(*self._one(f"{_GET_NOTICES} WHERE hash = ?", (hash_,)))

    def assets(self, ids: Collection[str]) -> dict[str, Asset]:
        rows = self._among("SELECT id, document FROM assets WHERE id IN", ids)
        return {name: asset_of(name, document) for name, document in rows}

    def balances(self, accounts: Collection[str], windows: Collection[int]) -> dict[BalanceKey, Balance]:
        columns = "SELECT account, time_window, unit, posted, pending, lim FROM balances"
        wanted = f"{columns} WHERE time_window IN ({_marks(len(windows))}) AND account IN"
        rows = self._among(wanted, accounts, tuple(windows))
        return {BalanceKey(*row[:3]): Balance(*row[3:]) for row in rows}

    def all_balances(self) -> dict[BalanceKey, Balance]:
        rows = self._connection.execute(
            "SELECT account, time_window, unit, posted, pending, lim FROM balances"
        )
        return {BalanceKey(*row[:3]): Balance(*row[3:]) for row in rows}

    def evidence(self, job: str) -> list[Evidence]:
        rows = self._connection.execute("SELECT hash, kind, job, token FROM evidence WHERE job = ?", (job,))
        return [Evidence(*row) for row in rows]

    def all_evidence(self) -> Iterator[Evidence]:
        rows = self._connection.execute("SELECT hash, kind, job, token FROM evidence")
        return (Evidence(*row) for row in rows)

    def answer(self, job: str, run: int, turn: int) -> bytes | None:
        query = "SELECT body FROM answers WHERE (job, run, turn) = (?, ?, ?)"
        row = self._connection.execute(query, (job, run, turn)).fetchone()
        return None if row is None else bytes(row[0])

    def answered(self) -> list[str]:
        return [row[0] for row in self._connection.execute("SELECT DISTINCT job FROM answers")]

    def openings(self, index: int) -> list[Opening]:
        rows = self._connection.execute(
            "SELECT idx, field, salt, value FROM openings WHERE idx = ?", (index,)
        )
        return [Opening(*row) for row in rows]

    def entry(self, index: int) -> bytes:
        return bytes(self._one("SELECT body FROM entries WHERE idx = ?", (index,))[0])

    def entries(self, start: int = 0) -> Iterator[StoredEntry]:
        query = "SELECT idx, leaf, body FROM entries WHERE idx >= ? ORDER BY idx"
        for row in self._connection.execute(query, (start,)):
            yield StoredEntry(*row)

    def leaves(self, start: int = 0) -> Iterator[bytes]:
        rows = self._connection.execute("SELECT leaf FROM entries WHERE idx >= ? ORDER BY idx", (start,))
        return (row[0] for row in rows)

    def checkpoints(self) -> Iterator[str]:
        return (row[0] for row in self._connection.execute("SELECT note FROM checkpoints ORDER BY size"))

    def last_checkpoint(self) -> str | None:
        row = self._connection.execute("SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1").fetchone()
        return None if row is None else str(row[0])

    def failures(self) -> dict[tuple[str, int], int]:
        rows = self._connection.execute("SELECT peer, hour, count FROM failures")
        return {(peer, hour): count for peer, hour, count in rows}

    def count_failure(self, peer: str, hour: int) -> None:
        self._connection.execute(
            "INSERT INTO failures (peer, hour, count) VALUES (?, ?, 1) "
            "ON CONFLICT (peer, hour) DO UPDATE SET count = count + 1",
            (peer, hour),
        )

    def write(self, changes: Changes) -> None:
        """Everything in one go; primary keys and checks refuse what contradicts the book."""
        for statement, rows in (
            (_NEW_JOB, [fixed(job) + changing(job) for job in changes.new_jobs]),
            (_SET_JOB, [(*changing(job), job.id) for job in changes.jobs]),
            (_PUT_BALANCE, [key + held for key, held in changes.balances.items()]),
            ("INSERT INTO grants VALUES (?, ?, ?)", changes.grants),
            ("INSERT INTO revocations VALUES (?, ?)", changes.revocations),
            (_PUT_NOTICE, changes.notices.values()),
            ("REPLACE INTO assets VALUES (?, ?)", [(each.id, asset_row(each)) for each in changes.assets]),
            ("INSERT INTO evidence (hash, kind, job, token) VALUES (?, ?, ?, ?)", changes.evidence),
            (
                "INSERT INTO openings VALUES (?, ?, ?, ?)",
                [(each.index, each.field, each.salt, each.value) for each in changes.openings],
            ),
            ("DELETE FROM openings WHERE idx = ? AND field = ?", changes.forgotten),
            ("INSERT INTO answers VALUES (?, ?, ?, ?)", changes.answers),
            ("DELETE FROM answers WHERE job = ?", [(job,) for job in changes.answered]),
            ("INSERT INTO entries VALUES (?, ?, ?)", changes.entries),
        ):
            if rows:
                self._connection.executemany(statement, rows)
        if changes.key is not None:
            self._connection.execute("UPDATE book SET key = ?", (changes.key,))
        if changes.checkpoint is not None:
            size = changes.entries[-1].index + 1
            self._connection.execute("INSERT INTO checkpoints VALUES (?, ?)", (size, changes.checkpoint))

    def _among(
        self, query: str, names: Collection[str], values: tuple[Any, ...] = ()
    ) -> list[tuple[Any, ...]]:
        """Rows of a query that ends in ``IN`` for these names; none without asking where there are none."""
        if not names:
            return []
        return self._connection.execute(f"{query} ({_marks(len(names))})", (*values, *names)).fetchall()

    def _one(self, query: str, values: tuple[Any, ...] = ()) -> Any:
        row = self._connection.execute(query, values).fetchone()
        if row is None:
            raise StoreError("the book lacks a row it must have: audit it, restore a backup")
        return row


def _lock(path: Path) -> int:
    """Hold the book's lock; the kernel lets go of it when the process ends, however it ends."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError(
            f"another process has the book in {path.parent} open: stop it, or ask it instead"
        ) from error
    return handle


def _lock_to_read(path: Path) -> int | None:
    """Keep nodes from opening the book while somebody reads it without looking for what they write."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # a copy that no node has opened yet
        return None
    except OSError as error:
        raise StoreError(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise StoreError(
            f"a node has the book in {path.parent} open: read it where SQLite may make its files beside it"
        ) from error
    return handle


def _is_closed(directory: Path) -> bool:
    """Whether all that was written is in the book's file: SQLite removes its log when the last connection closes."""
    log = directory / f"{BOOK_FILE}-wal"
    return not log.exists() or log.stat().st_size == 0


def _connect_to_read(path: Path, mode: str) -> sqlite3.Connection:
    """Raises ``sqlite3.OperationalError`` where SQLite cannot read it this way."""
    connection = sqlite3.connect(
        f"{path.resolve().as_uri()}?{mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
    )
    try:
        _check_version(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_SECONDS,
        cached_statements=64,
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    return connection


def _prepare(connection: sqlite3.Connection, origin: str, key: str) -> None:
    """Create the tables in an empty file; check that any other is a book of this release and this log."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
            for statement in _SCHEMA.split(";"):
                if statement.strip():
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("INSERT INTO book VALUES (?, ?, ?)", (SCHEMA_VERSION, origin, key))
        _upgrade(connection)
        _check_version(connection)
        found = connection.execute("SELECT origin, key FROM book").fetchone()
        if found != (origin, key):
            raise StoreError(
                f"the book belongs to the log {found[0]} of key {found[1]}, not to {origin} of key {key}"
            )
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.close()
        raise


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring a book that an older release wrote to this release's version, step by step."""
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return
    (version,) = connection.execute("SELECT version FROM book").fetchone()
    while version in _UPGRADES:
        for statement in _UPGRADES[version]:
            connection.execute(statement)
        version += 1
        connection.execute("UPDATE book SET version = ?", (version,))


def _check_version(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreError("the file is an SQLite database, but not a book of this software")
    version = connection.execute("SELECT version FROM book").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise StoreError(
            f"the book has schema version {version}, this release reads version {SCHEMA_VERSION}: "
            + ("open it with a node once" if version < SCHEMA_VERSION else "use the release that wrote it")
        )


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error) from error


def _explain(error: sqlite3.Error) -> StoreError:
    """SQLite's error, and what to do."""
    if isinstance(error, sqlite3.IntegrityError):
        return StoreError(
            f"the book refused a change that contradicts it ({error}): nothing was written; audit it"
        )
    if isinstance(error, sqlite3.OperationalError):
        return StoreError(f"the book cannot be used ({error}): {_advice(str(error))}; nothing was written")
    return StoreError(f"the book cannot be read ({error}): restore it from a backup, then audit it")


def _advice(message: str) -> str:
    if "full" in message:
        return "free disk space"
    if "locked" in message:
        return f"another program held it for over {BUSY_SECONDS} s"
    if "readonly" in message or "unable to open" in message:
        return "check the permissions of its directory"
    return "check the disk"


@functools.cache
def _marks(count: int) -> str:
    return ", ".join("?" * count)
