"""The book in a PostgreSQL database: the only module that holds the ledger's SQL for it. Needs ``psycopg``.

One advisory lock makes the transactions of all processes one sequence, as the log is one: a transaction takes it
first and lets go with its commit. ``synchronous_commit`` is on; the limits are checked once more by the database
itself. Leases run on the database's clock, so that several hosts agree. Opening a book takes a second lock, shared
by all that have it open: who gets it alone may settle what others left behind.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, LiteralString, TypeVar

from trustcompute.broker.job import JobRecord
from trustcompute.broker.log import READ_ONLY, Opening, StoredEntry
from trustcompute.broker.meter import Balance, BalanceKey, dataset_account, grant_account, grants_of
from trustcompute.broker.notice import Notice
from trustcompute.broker.policy import Asset
from trustcompute.broker.store import Changes, Evidence, GrantRow, Revocation, Touched
from trustcompute.broker.store.rows import CHANGING, FIXED, asset_of, asset_row, changing, fixed, job_of
from trustcompute.errors import StoreError

try:
    import psycopg
except ImportError as missing:  # pragma: no cover - depends on the installation
    raise StoreError("a book in PostgreSQL needs psycopg: install trustcompute[postgres]") from missing

SCHEMA_VERSION: Final = 3
SEQUENCE_LOCK: Final = 0x74636267  # "tcbg"; the second key of each lock is the schema's, so books do not meet
OPEN_LOCK: Final = 0x7463626F
STREAM_ROWS: Final = 2000
CONNECT_SECONDS: Final = 10
MAX_HINTS: Final = 4096
Row = TypeVar("Row")

_SCHEMA: Final[tuple[LiteralString, ...]] = (
    "CREATE TABLE book (version bigint NOT NULL, origin text NOT NULL, key text NOT NULL)",
    "CREATE TABLE entries (idx bigint PRIMARY KEY, leaf bytea NOT NULL, body bytea NOT NULL)",
    "CREATE TABLE checkpoints (size bigint PRIMARY KEY, note text NOT NULL)",
    "CREATE TABLE openings (idx bigint NOT NULL, field text NOT NULL, salt bytea NOT NULL, value bytea NOT NULL, "
    "PRIMARY KEY (idx, field))",
    "CREATE TABLE grants (hash text PRIMARY KEY, token text NOT NULL, entry bigint NOT NULL)",
    "CREATE TABLE revocations (grant_hash text PRIMARY KEY, entry bigint NOT NULL)",
    "CREATE TABLE notices (name text PRIMARY KEY, state text NOT NULL, version bigint NOT NULL, "
    "hash text NOT NULL, token text NOT NULL, entry bigint NOT NULL)",
    "CREATE INDEX rules ON notices (name) WHERE state = 'rules'",
    "CREATE INDEX ending ON notices (name) WHERE state = 'ending'",
    "CREATE TABLE assets (id text PRIMARY KEY, document text NOT NULL)",
    "CREATE TABLE balances (account text NOT NULL, time_window bigint NOT NULL, unit text NOT NULL, "
    "posted bigint NOT NULL CHECK (posted >= 0), pending bigint NOT NULL CHECK (pending >= 0), lim bigint NOT NULL, "
    "PRIMARY KEY (account, time_window, unit), CHECK (posted::numeric + pending <= lim)) WITH (fillfactor = 50)",
    "CREATE TABLE jobs (id text PRIMARY KEY, request text NOT NULL, grant_hash text NOT NULL, "
    "subject text NOT NULL, asker text NOT NULL, recipient text NOT NULL, payer text NOT NULL, "
    "peer text NOT NULL, key text NOT NULL, operation text NOT NULL, dataset text NOT NULL, "
    "purpose text NOT NULL, accounts text NOT NULL, day bigint NOT NULL, reserved text NOT NULL, "
    "reasons text NOT NULL, state text NOT NULL, lease bigint NOT NULL, charged text, "
    "releases text NOT NULL, detail text NOT NULL, fault text, entry bigint, countersigned bigint, "
    "rules text NOT NULL DEFAULT '[]')",
    "CREATE INDEX open_jobs ON jobs (id) WHERE state IN ('reserved', 'armed')",
    "CREATE INDEX kept_jobs ON jobs (lease) WHERE state = 'posted' AND countersigned IS NULL",
    "CREATE TABLE evidence (job text NOT NULL, kind text NOT NULL, hash text NOT NULL, token text NOT NULL, "
    "PRIMARY KEY (job, kind))",
    "CREATE TABLE answers (job text NOT NULL, run bigint NOT NULL, turn bigint NOT NULL, body bytea NOT NULL, "
    "PRIMARY KEY (job, run, turn))",
    "CREATE TABLE failures (peer text NOT NULL, hour bigint NOT NULL, count bigint NOT NULL, "
    "PRIMARY KEY (peer, hour))",
)

# What brings a book of an older version one version further. Version 2 has rules that stand above grants, and the
# standing of grants. Version 3 keeps small answers.
_UPGRADES: Final[dict[int, tuple[LiteralString, ...]]] = {
    1: (
        "CREATE TABLE notices (name text PRIMARY KEY, state text NOT NULL, version bigint NOT NULL, "
        "hash text NOT NULL, token text NOT NULL, entry bigint NOT NULL)",
        "CREATE INDEX rules ON notices (name) WHERE state = 'rules'",
        "CREATE INDEX ending ON notices (name) WHERE state = 'ending'",
        "ALTER TABLE jobs ADD COLUMN rules text NOT NULL DEFAULT '[]'",
    ),
    2: (
        "CREATE TABLE answers (job text NOT NULL, run bigint NOT NULL, turn bigint NOT NULL, body bytea NOT NULL, "
        "PRIMARY KEY (job, run, turn))",
    ),
}

# Constants of this module, put together once; no value ever becomes part of a statement. Rows travel as one array for
# each column: a statement costs the client as much as the server's work for many rows.
_INTEGERS: Final = frozenset(
    {"day", "lease", "entry", "countersigned"}
)  # of a job's columns; the rest are texts


def _arrays(columns: str, integers: Collection[str], blobs: Collection[str] = ()) -> LiteralString:
    """``unnest`` of one parameter for each column."""
    kinds: list[LiteralString] = [
        "%s::bigint[]" if name in integers else "%s::bytea[]" if name in blobs else "%s::text[]"
        for name in columns.split(", ")
    ]
    return "unnest(" + ", ".join(kinds) + ")"


_NEW_JOBS: Final[LiteralString] = (
    f"INSERT INTO jobs ({FIXED}, {CHANGING}) SELECT * FROM {_arrays(f'{FIXED}, {CHANGING}', _INTEGERS)}"  # noqa: S608
)
_SET_JOBS: Final[LiteralString] = (
    f"UPDATE jobs SET {', '.join(f'{name} = changed.{name}' for name in CHANGING.split(', '))} "  # noqa: S608
    f"FROM {_arrays(f'{CHANGING}, id', _INTEGERS)} AS changed ({CHANGING}, id) WHERE jobs.id = changed.id"
)
_NEW_EVIDENCE: Final[LiteralString] = (
    f"INSERT INTO evidence (hash, kind, job, token) SELECT * FROM {_arrays('hash, kind, job, token', ())}"  # noqa: S608
)
_NEW_ENTRIES: Final[LiteralString] = (
    f"INSERT INTO entries SELECT * FROM {_arrays('idx, leaf, body', ('idx',), ('leaf', 'body'))}"  # noqa: S608
)
_GET_JOBS: Final = f"SELECT {FIXED}, {CHANGING} FROM jobs "  # noqa: S608
_GET_NOTICES: Final = "SELECT name, state, version, hash, token, entry FROM notices"
_GET_RULES: Final = "SELECT name, state, version, hash, '', entry FROM notices WHERE state = 'rules'"
_TIME: Final = "SELECT extract(epoch FROM clock_timestamp())::float8"
# The lock is waited for in the inner query, before the time is looked at.
_LOCK_AND_TIME: Final = (
    "SELECT extract(epoch FROM clock_timestamp())::float8 FROM "
    "(SELECT pg_advisory_xact_lock(%s, hashtext(current_schema)) OFFSET 0) AS locked"
)
_LAST_CHECKPOINT: Final = "SELECT note FROM checkpoints ORDER BY size DESC LIMIT 1"
_GET_GRANTS: Final = "SELECT hash, token, entry FROM grants WHERE hash = ANY(%s)"
_GET_REVOCATIONS: Final = "SELECT grant_hash, entry FROM revocations WHERE grant_hash = ANY(%s)"
_GET_ASSETS: Final = "SELECT id, document FROM assets WHERE id = ANY(%s)"
_AMONG: Final = " WHERE account = ANY(%s) AND time_window = ANY(%s)"
_GET_BALANCES: Final = "SELECT account, time_window, unit, posted, pending, lim FROM balances"
_PUT_BALANCES: Final[LiteralString] = (
    "INSERT INTO balances SELECT * FROM "  # noqa: S608
    + _arrays("account, window, unit, posted, pending, lim", ("window", "posted", "pending", "lim"))
    + " ON CONFLICT (account, time_window, unit) "
    "DO UPDATE SET posted = excluded.posted, pending = excluded.pending, lim = excluded.lim"
)
_PUT_NOTICE: Final = (
    "INSERT INTO notices VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET state = excluded.state, "
    "version = excluded.version, hash = excluded.hash, token = excluded.token, entry = excluded.entry"
)
_PUT_ASSET: Final = (
    "INSERT INTO assets VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET document = excluded.document"
)

Connection = psycopg.Connection[tuple[Any, ...]]


class PostgresClock:
    """The database's clock, in seconds since 1970: asked with every transaction, and counted on from there."""

    def __init__(self) -> None:
        self._ahead = 0.0  # of this host's monotonic clock

    def now(self) -> int:
        return int(time.monotonic() + self._ahead)

    def set(self, seconds: float) -> None:
        self._ahead = seconds - time.monotonic()


class PostgresStore:
    """See ``broker.store.Store``."""

    shared = True

    def __init__(
        self, conninfo: str, connection: Connection, *, alone: bool = False, read_only: bool = False
    ) -> None:
        """For ``open``. alone: whether nobody else has the book open, and nobody can until ``admit_others``."""
        self._conninfo, self._connection = conninfo, connection
        self.alone, self._read_only = alone, read_only
        self.clock = PostgresClock()
        self._ask_time(_TIME)
        self._accounts: OrderedDict[str, tuple[str, ...]] = OrderedDict()  # of jobs, by id: they never change
        self._mutex = threading.RLock()
        self._pid = os.getpid()
        self._closed = False

    @classmethod
    def open(cls, conninfo: str, *, origin: str, key: str) -> PostgresStore:
        """Open the book in a database's current schema, or begin one. conninfo: as libpq takes it.

        origin: name of its log; key: thumbprint that signs it. Raises ``StoreError`` where it belongs to another
        log or another release wrote it.
        """
        with _explained():
            connection = _connect(conninfo)
            try:
                alone = bool(
                    _value(connection, "SELECT pg_try_advisory_lock(%s, hashtext(current_schema))", OPEN_LOCK)
                )
                if not alone:  # waits while the first settles what was left open
                    connection.execute(
                        "SELECT pg_advisory_lock_shared(%s, hashtext(current_schema))", (OPEN_LOCK,)
                    )
                _prepare(connection, origin, key, alone=alone)
            except BaseException:
                connection.close()
                raise
        return cls(conninfo, connection, alone=alone)

    @classmethod
    def read_only(cls, conninfo: str) -> PostgresStore:
        """Open an existing book for reading, also while nodes write it; a role that may only select will do."""
        with _explained():
            connection = _connect(conninfo, read_only=True)
            try:
                if _value(connection, "SELECT to_regclass('book') IS NULL"):
                    raise StoreError("there is no book in the database's current schema")
                _check_version(connection)
            except BaseException:
                connection.close()
                raise
        return cls(conninfo, connection, read_only=True)

    def admit_others(self) -> None:
        """Let other processes open the book too."""
        if self.alone:
            with self._mutex, _explained():
                run = self._connection.execute
                run("SELECT pg_advisory_lock_shared(%s, hashtext(current_schema))", (OPEN_LOCK,))
                run("SELECT pg_advisory_unlock(%s, hashtext(current_schema))", (OPEN_LOCK,))
            self.alone = False

    def _ask_time(self, query: LiteralString, *values: object) -> None:
        self.clock.set(float(_value(self._connection, query, *values)))

    @contextlib.contextmanager
    def read(self) -> Iterator[PostgresTransaction]:
        with self._block("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as transaction:
            yield transaction

    @contextlib.contextmanager
    def transaction(self) -> Iterator[PostgresTransaction]:
        if self._read_only:
            raise StoreError(READ_ONLY)
        with self._block("BEGIN ISOLATION LEVEL READ COMMITTED", locked=True) as transaction:
            yield transaction

    def scrub(self) -> None:
        """Free the space of deleted openings; the server's own write-ahead log and back-ups are its operator's."""
        with self._mutex, _explained():
            self._check()
            self._connection.execute("VACUUM openings")

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            if self._pid == os.getpid():
                self._connection.close()

    @contextlib.contextmanager
    def _block(self, begin: LiteralString, *, locked: bool = False) -> Iterator[PostgresTransaction]:
        with self._mutex, _explained():
            self._check()
            try:
                with self._connection.pipeline():  # one journey
                    self._connection.execute(begin)
                    # Everything read after the lock is what its last holder committed.
                    times = self._connection.execute(_LOCK_AND_TIME, (SEQUENCE_LOCK,)) if locked else None
                    note = self._connection.execute(_LAST_CHECKPOINT)
                    if times is not None:
                        row = times.fetchone()
                        assert row is not None, "a query of one value"
                        self.clock.set(float(row[0]))
                    last = note.fetchone()
                transaction = PostgresTransaction(
                    self._connection, None if last is None else str(last[0]), self._accounts
                )
                yield transaction
                if not transaction.committed:
                    self._connection.execute("COMMIT")
            except BaseException:
                if not self._connection.closed:
                    with contextlib.suppress(psycopg.Error):
                        self._connection.execute("ROLLBACK")
                raise

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError("a book must not be used after a fork: open it in the process that uses it")
        if self._closed:
            raise StoreError("the book is closed")
        if self._connection.closed:  # the server went away; a transaction that was under way is in doubt
            self._connection = _connect(self._conninfo, read_only=self._read_only)
            if not self._read_only:
                self._connection.execute(
                    "SELECT pg_advisory_lock_shared(%s, hashtext(current_schema))", (OPEN_LOCK,)
                )


class PostgresTransaction:
    """See ``broker.store.Transaction``."""

    def __init__(
        self, connection: Connection, note: str | None, accounts: OrderedDict[str, tuple[str, ...]]
    ) -> None:
        """note: the last checkpoint; accounts: of jobs of late, remembered from one transaction to the next."""
        self._connection, self._note, self._accounts = connection, note, accounts
        self._streams = itertools.count()
        self._jobs: dict[str, JobRecord | None] = {}  # what was read ahead
        self._grants: dict[str, GrantRow | None] = {}
        self._revocations: dict[str, Revocation | None] = {}
        self._assets: dict[str, Asset | None] = {}
        self._balances: dict[tuple[str, int], dict[str, Balance]] = {}
        self.committed = False

    def expect(self, touched: Touched, windows: Collection[int]) -> None:
        """Read everything in one journey, also what the jobs' accounts say that will be asked for next."""
        accounts = {*map(grant_account, touched.grants), *map(dataset_account, touched.datasets)}
        for job in touched.jobs:
            accounts.update(self._accounts.get(job, ()))
        links = grants_of(accounts)
        with self._connection.pipeline():
            ask = self._connection.execute
            jobs = ask(_GET_JOBS + "WHERE id = ANY(%s)", (list(touched.jobs),))
            grants = ask(_GET_GRANTS, (list(links),))
            revocations = ask(_GET_REVOCATIONS, (list(links),))
            assets = ask(_GET_ASSETS, (list(touched.datasets),))
            balances = ask(_GET_BALANCES + _AMONG, (list(accounts), list(windows)))
            self._jobs = dict.fromkeys(touched.jobs) | {row[0]: job_of(row) for row in jobs}
            self._grants = dict.fromkeys(links) | {row[0]: GrantRow(*row) for row in grants}
            self._revocations = dict.fromkeys(links) | {row[0]: Revocation(*row) for row in revocations}
            self._assets = dict.fromkeys(touched.datasets) | {row[0]: asset_of(*row) for row in assets}
            self._balances = {(name, window): {} for name in accounts for window in windows}
            for row in balances:
                self._balances[row[0], row[1]][row[2]] = Balance(*row[3:])

    def origin(self) -> str:
        return str(self._one("SELECT origin FROM book"))

    def jobs(self, ids: Collection[str]) -> dict[str, JobRecord]:
        found = _ahead(self._jobs, ids)
        if found is None:
            rows = self._among(_GET_JOBS + "WHERE id = ANY(%s)", ids)
            found = {row[0]: job_of(row) for row in rows}
        for job in found.values():
            self._accounts[job.id] = job.accounts
        return found

    def all_jobs(self) -> Iterator[JobRecord]:
        return (job_of(row) for row in self._stream(_GET_JOBS))

    def open_jobs(self) -> list[JobRecord]:
        query = _GET_JOBS + "WHERE state IN ('reserved', 'armed') ORDER BY id"
        return [job_of(row) for row in self._connection.execute(query)]

    def late(self, now: int) -> list[str]:
        query: LiteralString = (
            "SELECT id FROM jobs WHERE state IN ('reserved', 'armed') AND lease < %s ORDER BY id"
        )
        return [row[0] for row in self._connection.execute(query, (now,))]

    def unacknowledged(self, since: int) -> list[str]:
        query = "SELECT id FROM jobs WHERE state = 'posted' AND countersigned IS NULL AND lease >= %s"
        return [row[0] for row in self._connection.execute(query, (since,))]

    def grants(self, hashes: Collection[str]) -> dict[str, GrantRow]:
        found = _ahead(self._grants, hashes)
        if found is None:
            found = {row[0]: GrantRow(*row) for row in self._among(_GET_GRANTS, hashes)}
        return found

    def revocations(self, hashes: Collection[str]) -> dict[str, Revocation]:
        found = _ahead(self._revocations, hashes)
        if found is None:
            found = {row[0]: Revocation(*row) for row in self._among(_GET_REVOCATIONS, hashes)}
        return found

    def notices(self, names: Collection[str]) -> dict[str, Notice]:
        query = _GET_RULES + " UNION ALL " + _GET_NOTICES + " WHERE name = ANY(%s)"
        rows = self._connection.execute(query, (list(names),))
        return {row[0]: Notice(*row) for row in rows}

    def notices_in(self, state: str) -> list[Notice]:
        rows = self._connection.execute(_GET_NOTICES + " WHERE state = %s ORDER BY name", (state,))
        return [Notice(*row) for row in rows]

    def notice(self, hash_: str) -> Notice:
        row = self._connection.execute(_GET_NOTICES + " WHERE hash = %s", (hash_,)).fetchone()
        if row is None:
            raise StoreError("the book lacks a document that its log names: audit it, restore a backup")
        return Notice(*row)

    def assets(self, ids: Collection[str]) -> dict[str, Asset]:
        found = _ahead(self._assets, ids)
        if found is None:
            found = {name: asset_of(name, text) for name, text in self._among(_GET_ASSETS, ids)}
        return found

    def balances(self, accounts: Collection[str], windows: Collection[int]) -> dict[BalanceKey, Balance]:
        places = [(account, window) for account in accounts for window in windows]
        if all(place in self._balances for place in places):
            return {
                BalanceKey(*place, unit): held
                for place in places
                for unit, held in self._balances[place].items()
            }
        rows = self._among(_GET_BALANCES + _AMONG, accounts, list(windows))
        return {BalanceKey(*row[:3]): Balance(*row[3:]) for row in rows}

    def all_balances(self) -> dict[BalanceKey, Balance]:
        rows = self._connection.execute(_GET_BALANCES)
        return {BalanceKey(*row[:3]): Balance(*row[3:]) for row in rows}

    def evidence(self, job: str) -> list[Evidence]:
        query: LiteralString = "SELECT hash, kind, job, token FROM evidence WHERE job = %s ORDER BY kind"
        return [Evidence(*row) for row in self._connection.execute(query, (job,))]

    def all_evidence(self) -> Iterator[Evidence]:
        return (Evidence(*row) for row in self._stream("SELECT hash, kind, job, token FROM evidence"))

    def answer(self, job: str, run: int, turn: int) -> bytes | None:
        query: LiteralString = "SELECT body FROM answers WHERE (job, run, turn) = (%s, %s, %s)"
        row = self._connection.execute(query, (job, run, turn)).fetchone()
        return None if row is None else bytes(row[0])

    def answered(self) -> list[str]:
        return [row[0] for row in self._connection.execute("SELECT DISTINCT job FROM answers")]

    def openings(self, index: int) -> list[Opening]:
        query: LiteralString = "SELECT idx, field, salt, value FROM openings WHERE idx = %s ORDER BY field"
        return [Opening(*row) for row in self._connection.execute(query, (index,))]

    def entry(self, index: int) -> bytes:
        return bytes(self._one("SELECT body FROM entries WHERE idx = %s", index))

    def entries(self, start: int = 0) -> Iterator[StoredEntry]:
        query: LiteralString = "SELECT idx, leaf, body FROM entries WHERE idx >= %s ORDER BY idx"
        for row in self._stream(query, start):
            yield StoredEntry(*row)

    def leaves(self, start: int = 0) -> Iterator[bytes]:
        query: LiteralString = "SELECT leaf FROM entries WHERE idx >= %s ORDER BY idx"
        return (row[0] for row in self._stream(query, start))

    def checkpoints(self) -> Iterator[str]:
        return (row[0] for row in self._stream("SELECT note FROM checkpoints ORDER BY size"))

    def last_checkpoint(self) -> str | None:
        return self._note

    def failures(self) -> dict[tuple[str, int], int]:
        rows = self._connection.execute("SELECT peer, hour, count FROM failures")
        return {(peer, hour): count for peer, hour, count in rows}

    def count_failure(self, peer: str, hour: int) -> None:
        self._connection.execute(
            "INSERT INTO failures VALUES (%s, %s, 1) "
            "ON CONFLICT (peer, hour) DO UPDATE SET count = failures.count + 1",
            (peer.replace("\0", ""), hour),  # a text of PostgreSQL has no NUL
        )

    def write(self, changes: Changes) -> None:
        """Everything in one journey, with the commit; primary keys and checks refuse what contradicts the book."""
        with self._connection.pipeline():
            if changes.reserves_only:  # a crash voids a reservation anyway: nobody waits for the disk
                self._connection.execute("SET LOCAL synchronous_commit = off")
            self._put_all(_NEW_JOBS, [fixed(job) + changing(job) for job in changes.new_jobs])
            self._put_all(_SET_JOBS, [(*changing(job), job.id) for job in changes.jobs])
            held = sorted(changes.balances.items())  # rows are locked in the order of their keys
            self._put_all(_PUT_BALANCES, [key + row for key, row in held])
            self._put("INSERT INTO grants VALUES (%s, %s, %s)", changes.grants)
            self._put("INSERT INTO revocations VALUES (%s, %s)", changes.revocations)
            self._put(_PUT_NOTICE, changes.notices.values())
            self._put(_PUT_ASSET, ((asset.id, asset_row(asset)) for asset in changes.assets))
            self._put_all(_NEW_EVIDENCE, changes.evidence)
            self._put(
                "INSERT INTO openings VALUES (%s, %s, %s, %s)",
                ((row.index, row.field, row.salt, row.value) for row in changes.openings),
            )
            self._put("DELETE FROM openings WHERE idx = %s AND field = %s", changes.forgotten)
            self._put("INSERT INTO answers VALUES (%s, %s, %s, %s)", changes.answers)
            self._put("DELETE FROM answers WHERE job = %s", ((job,) for job in changes.answered))
            self._put_all(_NEW_ENTRIES, changes.entries)
            if changes.key is not None:
                self._put("UPDATE book SET key = %s", [(changes.key,)])
            if changes.checkpoint is not None:
                size = changes.entries[-1].index + 1
                self._put("INSERT INTO checkpoints VALUES (%s, %s)", [(size, changes.checkpoint)])
            self._connection.execute("COMMIT")
        self.committed = True
        for job in (*changes.new_jobs, *changes.jobs):
            self._accounts[job.id] = job.accounts
        while len(self._accounts) > MAX_HINTS:
            self._accounts.popitem(last=False)

    def _among(self, query: LiteralString, names: Collection[str], *values: object) -> list[tuple[Any, ...]]:
        """Rows of a query for these names; none without asking where there are none."""
        return self._connection.execute(query, (list(names), *values)).fetchall() if names else []

    def _stream(self, query: LiteralString, *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows of a query too large to be held at once."""
        with self._connection.cursor(name=f"stream{next(self._streams)}") as cursor:
            cursor.itersize = STREAM_ROWS
            yield from cursor.execute(query, values)

    def _put_all(self, statement: LiteralString, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows at once, as columns."""
        if rows:
            self._connection.execute(statement, [list(column) for column in zip(*rows, strict=True)])

    def _put(self, statement: LiteralString, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._connection.cursor() as cursor:
            for row in rows:
                cursor.execute(statement, row)

    def _one(self, query: LiteralString, *values: object) -> Any:
        row = self._connection.execute(query, values).fetchone()
        if row is None:
            raise StoreError("the book lacks a row it must have: audit it, restore a backup")
        return row[0]


def _ahead(known: Mapping[str, Row | None], names: Collection[str]) -> dict[str, Row] | None:
    """Rows of these names, where all of them were read ahead."""
    if not all(name in known for name in names):
        return None
    return {name: row for name in names if (row := known[name]) is not None}


def _connect(conninfo: str, *, read_only: bool = False) -> Connection:
    connection = psycopg.connect(conninfo, autocommit=True, connect_timeout=CONNECT_SECONDS)
    if read_only:
        connection.execute("SET default_transaction_read_only = on")
    else:
        connection.execute("SET synchronous_commit = on")
    return connection


def _value(connection: Connection, query: LiteralString, *values: object) -> Any:
    row = connection.execute(query, values).fetchone()
    assert row is not None, "a query of one value"
    return row[0]


def _prepare(connection: Connection, origin: str, key: str, *, alone: bool) -> None:
    """Create the tables in an empty schema; upgrade an older book, which nobody else may have open meanwhile; check
    that it is one of this release and this log."""
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(current_schema))", (SEQUENCE_LOCK,))
        if _value(connection, "SELECT to_regclass('book') IS NULL"):
            for statement in _SCHEMA:
                connection.execute(statement)
            connection.execute("INSERT INTO book VALUES (%s, %s, %s)", (SCHEMA_VERSION, origin, key))
        if alone:
            _upgrade(connection)
        _check_version(connection)
        found = connection.execute("SELECT origin, key FROM book").fetchone()
        if found != (origin, key):
            named = found or ("nobody", "none")
            raise StoreError(
                f"the book belongs to the log {named[0]} of key {named[1]}, not to {origin} of key {key}"
            )


def _check_version(connection: Connection) -> None:
    found = int(_value(connection, "SELECT max(version) FROM book") or 0)
    if found != SCHEMA_VERSION:
        older = found < SCHEMA_VERSION
        advice = (
            "stop the nodes of the older release, then open it" if older else "use the release that wrote it"
        )
        raise StoreError(
            f"the book has schema version {found}, this release reads version {SCHEMA_VERSION}: {advice}"
        )


def _upgrade(connection: Connection) -> None:
    """Bring a book that an older release wrote to this release's version, step by step."""
    version = _value(connection, "SELECT version FROM book")
    while version in _UPGRADES:
        for statement in _UPGRADES[version]:
            connection.execute(statement)
        version += 1
        connection.execute("UPDATE book SET version = %s", (version,))


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn the database's errors into ``StoreError`` with what to do; they never name values of rows."""
    try:
        yield
    except psycopg.IntegrityError as error:
        raise StoreError(
            f"the book refused a change that contradicts it ({_cause(error)}): nothing was written; audit it"
        ) from error
    except psycopg.OperationalError as error:
        raise StoreError(
            f"the database cannot be used ({_cause(error)}): check that it runs and has space; "
            "whether the last change was written is looked up before the next"
        ) from error
    except psycopg.Error as error:
        raise StoreError(f"the book cannot be read ({_cause(error)}): audit it, restore a backup") from error


def _cause(error: psycopg.Error) -> str:
    return (error.diag.message_primary or str(error).strip().partition("\n")[0])[:200]
