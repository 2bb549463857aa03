"""Key columns in, distinct digests out, and the way back from a digest to its rows.

Called by the protocols that match rows. A table is read batch by batch; what stays is 32 bytes a row for the
digest and 8 for the position. Source: docs/reference/normalisation.md.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from trustcompute import kernels
from trustcompute.errors import TableError
from trustcompute.tables import parts
from trustcompute.tables.distinct import DigestRows, group_rows
from trustcompute.tables.normalisation import ALLOWED, UnusableValue, canonical, kind_of, plain
from trustcompute.tables.source import open_table, opened
from trustcompute.tables.spec import MAX_COLUMNS, VERSION, KeyColumn, KeySpec, Kind
from trustcompute.tables.table import SCAN_ROWS, Table, shown

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
T = TypeVar("T")
R = TypeVar("R")

BATCHES_IN_FLIGHT = 8
"""Batches handed to an executor before the first result is waited for: memory stays at a few batches."""


@dataclass(frozen=True, eq=False)
class Keys:
    """The distinct keys of a table, in the order of their digests, which hides the order of the rows.

    spec: the form of the keys, to be compared with the peer's; digests: uint8[d, 32], distinct, ascending;
    codes: int64[rows], the index into ``digests`` of each row, -1 where the key is unmatchable; first_rows:
    int64[d], the first row of each key; rows: rows of the table; nulls: rows with a null or blank in a key
    column.

    Digests are for a protocol on this side: anybody who holds one can test guesses against it.
    """

    spec: KeySpec
    digests: U8
    codes: I64
    first_rows: I64
    rows: int
    nulls: int

    @property
    def duplicates(self) -> int:
        """Rows whose key an earlier row has: rows = nulls + duplicates + distinct keys."""
        return self.rows - self.nulls - len(self.digests)

    def __len__(self) -> int:
        return len(self.digests)

    def __repr__(self) -> str:
        return (
            f"Keys(distinct={len(self)}, rows={self.rows}, nulls={self.nulls}, duplicates={self.duplicates},"
            f" spec={self.spec.to_json()})"
        )

    def rows_of(self, distinct_mask: Mask) -> I64:
        """Positions of every row whose key is selected: bool[d] -> int64[k], ascending."""
        mask = np.asarray(distinct_mask)
        if mask.dtype != np.bool_ or mask.shape != (len(self),):
            raise TableError(f"the mask must be a bool array with one element a distinct key, {len(self)}")
        # Code -1 reads the last element.
        return np.flatnonzero(np.append(mask, False)[self.codes])

    def part(self, number: int, of: int) -> tuple[int, U8]:
        """(first, uint8[n, 32]): one of ``of`` parts of equal digest ranges (``tables.parts``), and where it begins."""
        first, end = parts.bounds(number, of, len(self), lambda i: int.from_bytes(self.digests[i, :8], "big"))
        return first, self.digests[first:end]

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all digests: changes whenever the set of keys does. Tells whoever can guess the set."""
        return hashlib.sha256(memoryview(self.digests)).hexdigest()

    def groups(self) -> tuple[I64, I64]:
        """(rows int64[rows - nulls], starts int64[d + 1]): ``rows[starts[i] : starts[i + 1]]`` have key i."""
        return group_rows(self.codes, len(self))


class KeySet(Protocol):
    """The distinct keys of a table, wherever they lie: ``Keys`` in memory, ``StoredKeys`` in a directory."""

    @property
    def spec(self) -> KeySpec: ...

    @property
    def digest(self) -> str: ...

    @property
    def digests(self) -> U8: ...

    @property
    def rows(self) -> int: ...

    def __len__(self) -> int: ...

    def rows_of(self, distinct_mask: Mask) -> I64: ...

    def groups(self) -> tuple[I64, I64]: ...

    def part(self, number: int, of: int) -> tuple[int, U8]: ...


def keys(
    source: object,
    on: str | Sequence[str],
    *,
    casefold: bool | str | Collection[str] = False,
    spec: KeySpec | None = None,
    executor: Executor | None = None,
) -> Keys:
    """The distinct keys of a table under ``tc-key/1``.

    source: what ``open_table`` takes; a stream is read once and its rows are not kept. on: the key column, or
    1 to 16 of them in key order. casefold: True, or the text columns whose case does not count. spec: the
    form the keys must have, for example the peer's: its case folding is used, a column without a type takes
    its kind, and any other difference is an error. executor: where batches are normalised and hashed, threads
    or processes.

    Raises ``TableError``: an unusable source, column, type or value, by name and row, never with the value.
    """
    if isinstance(source, PreparedTable) and source.serves(on, casefold, spec):
        return source.keys
    form, batches = digested(source, on, casefold=casefold, spec=spec, executor=executor)
    collected, rows = DigestRows(), 0
    for found, valid in batches:
        collected.append(found, rows + np.flatnonzero(valid))
        rows += len(valid)
    if rows > SCAN_ROWS:
        pa.default_memory_pool().release_unused()  # the batches are gone: a protocol will want their memory
    digests, codes, first_rows = collected.finish(rows)
    for array in (digests, codes, first_rows):
        array.setflags(write=False)
    return Keys(form, digests, codes, first_rows, rows, int(np.count_nonzero(codes < 0)))


@dataclass(frozen=True, eq=False, kw_only=True)
class PreparedTable(Table):
    """An open table whose keys have been digested: wherever a table is taken it is one that needs not be read again.

    Made by ``prepared``. ``keys`` returns its keys where they are those asked for, and digests anew where not.
    """

    on: tuple[str, ...]
    keys: Keys = field(repr=False)

    def serves(
        self, on: str | Sequence[str], casefold: bool | str | Collection[str], spec: KeySpec | None
    ) -> bool:
        """Whether ``keys`` of these arguments would be the keys that are here."""
        if tuple(_key_names(on)) != self.on or (spec is not None and casefold is not False):
            return False
        return (spec or key_spec(self, self.on, casefold=casefold)).digest == self.keys.spec.digest


def prepared(
    source: object,
    on: str | Sequence[str],
    *,
    casefold: bool | str | Collection[str] = False,
    executor: Executor | None = None,
) -> PreparedTable:
    """A table with its keys digested once, for several intersections or before the other side is there.

    Arguments and errors as for ``keys``. The table must not change afterwards: results are positions of its rows.
    """
    table = open_table(source)  # a stream can be read once only
    found = keys(table, on, casefold=casefold, executor=executor)
    parts = {each.name: getattr(table, each.name) for each in fields(Table)}
    return PreparedTable(**parts, on=tuple(_key_names(on)), keys=found)


def digested(
    source: object,
    on: str | Sequence[str],
    *,
    casefold: bool | str | Collection[str] = False,
    spec: KeySpec | None = None,
    executor: Executor | None = None,
) -> tuple[KeySpec, Iterator[tuple[U8, Mask]]]:
    """The form of the keys, and for each batch of rows: digests uint8[m, 32] of those with a key, and which they are.

    Arguments and errors as for ``keys``; errors of rows come while the batches are read.
    """
    names = _key_names(on)
    scan = opened(source).scan(names)
    form = _spec(scan.schema, casefold) if spec is None else _agreed(scan.schema, casefold, spec)
    return form, ordered(_digest_batch, _jobs(scan.batches, form), executor)


def key_spec(
    source: object, on: str | Sequence[str], *, casefold: bool | str | Collection[str] = False
) -> KeySpec:
    """The spec that ``keys`` would have, from the types of the columns alone.

    No row is read, but a stream is opened. Raises ``TableError``.
    """
    names = _key_names(on)
    return _spec(opened(source).scan(names).schema, casefold)


def _key_names(on: str | Sequence[str]) -> list[str]:
    names = [on] if isinstance(on, str) else list(on)
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise TableError(f"a key has 1 to {MAX_COLUMNS} columns, not {len(names)}")
    if len(set(names)) < len(names):
        raise TableError("the key names a column twice: name each once")
    return names


def _spec(schema: pa.Schema, casefold: bool | str | Collection[str]) -> KeySpec:
    """The spec of a key with these columns."""
    kinds: dict[str, Kind] = {}
    for column in schema:
        kind = kind_of(column.type)
        if kind is None:
            type_ = shown(str(column.type))
            raise TableError(
                f"column {shown(column.name)} of type {type_} cannot be a key; allowed are {ALLOWED}"
            )
        kinds[column.name] = kind
    folded = _folded(kinds, casefold)
    return KeySpec(VERSION, tuple(KeyColumn(kind, name in folded) for name, kind in kinds.items()))


def _folded(kinds: dict[str, Kind], casefold: bool | str | Collection[str]) -> set[str]:
    text = {name for name, kind in kinds.items() if kind is Kind.TEXT}
    if isinstance(casefold, bool):
        return text if casefold else set()
    folded = {casefold} if isinstance(casefold, str) else set(casefold)
    for name in folded - text:
        raise TableError(f"casefold names {shown(name)}, which is no text column of the key")
    return folded


def _agreed(schema: pa.Schema, casefold: bool | str | Collection[str], spec: KeySpec) -> KeySpec:
    """The given spec, after checking that columns of these types can have it."""
    if casefold is not False:
        raise TableError("the spec says which columns fold case: pass spec or casefold, not both")
    own = _spec(schema, False)
    if len(own.columns) == len(spec.columns):
        pairs = zip(own.columns, spec.columns, strict=True)
        adopted = (theirs if mine.kind in (Kind.NULL, theirs.kind) else mine for mine, theirs in pairs)
        own = KeySpec(VERSION, tuple(adopted))
    own.check_matches(
        spec, schema.names, [f"{number + 1} of the spec" for number in range(len(spec.columns))]
    )
    return own


@dataclass(frozen=True)
class _Job:
    """The key columns of a batch, in key order. start: the position of its first row in the table."""

    batch: pa.RecordBatch
    spec: KeySpec
    start: int

    def __reduce__(self) -> tuple[Callable[..., _Job], tuple[object, ...]]:
        # On its way to another process a slice would take along all the rows of the array it was cut from.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.batch.schema) as stream:
            stream.write_batch(self.batch)
        return _received, (sink.getvalue().to_pybytes(), self.spec, self.start)


def _received(stream: bytes, spec: KeySpec, start: int) -> _Job:
    return _Job(pa.ipc.open_stream(stream).read_next_batch(), spec, start)


def _jobs(batches: Iterator[pa.RecordBatch], spec: KeySpec) -> Iterator[_Job]:
    start = 0
    for batch in batches:
        yield _Job(batch, spec, start)
        start += batch.num_rows


def _digest_batch(job: _Job) -> tuple[U8, Mask]:
    """(digests uint8[m, 32] of the matchable rows, which of the rows they are: bool[n])."""
    pairs = []
    for name, column, form in zip(job.batch.schema.names, job.batch.columns, job.spec.columns, strict=True):
        try:
            pairs.append(canonical(plain(column), form))
        except UnusableValue as error:
            where = "" if error.row is None else f", row {job.start + error.row} (counted from 0)"
            raise TableError(f"column {shown(name)}{where}: {error.reason}") from None
    valid = np.logical_and.reduce([mask for _, mask in pairs])
    digests = kernels.digest_columns(_prefix(job.spec), [cells for cells, _ in pairs])
    return (digests if valid.all() else digests[valid]), valid


def _prefix(spec: KeySpec) -> bytes:
    return VERSION.encode().ljust(32, b"\0") + bytes.fromhex(spec.digest)


def ordered(function: Callable[[T], R], items: Iterator[T], executor: Executor | None) -> Iterator[R]:
    """The function's results in the items' order, with a bounded number of items under way."""
    if executor is None:
        yield from map(function, items)
        return
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(executor.submit(function, item))
            if len(pending) == BATCHES_IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
