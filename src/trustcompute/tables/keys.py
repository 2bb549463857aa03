"""Key columns in, distinct digests out, and the way back from a digest to its rows.

Called by the protocols that match rows. A table is read batch by batch; what stays is 32 bytes a row for the
digest and 8 for the position. Source: docs/reference/normalisation.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import kernels
from trustcompute.errors import TableError
from trustcompute.tables.distinct import DigestRows, group_rows
from trustcompute.tables.normalisation import ALLOWED, UnusableValue, canonical, kind_of, plain
from trustcompute.tables.source import opened
from trustcompute.tables.spec import MAX_COLUMNS, VERSION, KeyColumn, KeySpec, Kind
from trustcompute.tables.table import SCAN_ROWS, shown

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

    def groups(self) -> tuple[I64, I64]:
        """(rows int64[rows - nulls], starts int64[d + 1]): ``rows[starts[i] : starts[i + 1]]`` have key i."""
        return group_rows(self.codes, len(self))


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
    names = _key_names(on)
    table = opened(source)
    scan = table.scan(names)
    form = (
        _spec(scan.schema, names, casefold) if spec is None else _agreed(scan.schema, names, casefold, spec)
    )
    collected, rows = DigestRows(), 0
    for found, valid in _ordered(_digest_batch, _jobs(scan.batches, names, form), executor):
        collected.append(found, rows + np.flatnonzero(valid))
        rows += len(valid)
    digests, codes, first_rows = collected.finish(rows)
    for array in (digests, codes, first_rows):
        array.setflags(write=False)
    return Keys(form, digests, codes, first_rows, rows, int(np.count_nonzero(codes < 0)))


def key_spec(
    source: object, on: str | Sequence[str], *, casefold: bool | str | Collection[str] = False
) -> KeySpec:
    """The spec that ``keys`` would have, from the types of the columns alone.

    No row is read, but a stream is opened. Raises ``TableError``.
    """
    names = _key_names(on)
    return _spec(opened(source).scan(names).schema, names, casefold)


def _key_names(on: str | Sequence[str]) -> list[str]:
    names = [on] if isinstance(on, str) else list(on)
    if not 1 <= len(names) <= MAX_COLUMNS:
        raise TableError(f"a key has 1 to {MAX_COLUMNS} columns, not {len(names)}")
    if len(set(names)) < len(names):
        raise TableError("the key names a column twice: name each once")
    return names


def _spec(schema: pa.Schema, names: list[str], casefold: bool | str | Collection[str]) -> KeySpec:
    kinds: list[Kind] = []
    for name in names:
        kind = kind_of(schema.field(name).type)
        if kind is None:
            raise TableError(
                f"column {shown(name)} of type {shown(str(schema.field(name).type))} cannot be a key; allowed"
                f" are {ALLOWED}"
            )
        kinds.append(kind)
    folded = _folded(names, kinds, casefold)
    return KeySpec(
        VERSION, tuple(KeyColumn(kind, name in folded) for name, kind in zip(names, kinds, strict=True))
    )


def _folded(names: list[str], kinds: list[Kind], casefold: bool | str | Collection[str]) -> set[str]:
    text = {name for name, kind in zip(names, kinds, strict=True) if kind is Kind.TEXT}
    if isinstance(casefold, bool):
        return text if casefold else set()
    folded = {casefold} if isinstance(casefold, str) else set(casefold)
    for name in folded - text:
        raise TableError(f"casefold names {shown(name)}, which is no text column of the key")
    return folded


def _agreed(
    schema: pa.Schema, names: list[str], casefold: bool | str | Collection[str], spec: KeySpec
) -> KeySpec:
    if casefold is not False:
        raise TableError("the spec says which columns fold case: pass spec or casefold, not both")
    own = _spec(schema, names, False)
    if len(own.columns) == len(spec.columns):
        columns = tuple(
            theirs if mine.kind in (Kind.NULL, theirs.kind) else mine
            for mine, theirs in zip(own.columns, spec.columns, strict=True)
        )
        own = KeySpec(VERSION, columns)
    own.check_matches(spec, names, [f"{number} of the spec" for number in range(1, len(spec.columns) + 1)])
    return own


@dataclass(frozen=True)
class _Job:
    """A slice of a batch, its columns ``plain``. start: the position of its first row in the table."""

    names: list[str]
    columns: list[pa.Array]
    spec: KeySpec
    start: int


def _jobs(batches: Iterator[pa.RecordBatch], names: list[str], spec: KeySpec) -> Iterator[_Job]:
    start = 0
    for batch in batches:
        columns = [_located(name, start, plain, batch.column(name)) for name in names]
        for first in range(0, batch.num_rows, SCAN_ROWS):
            yield _Job(names, [column.slice(first, SCAN_ROWS) for column in columns], spec, start + first)
        start += batch.num_rows


def _digest_batch(job: _Job) -> tuple[U8, Mask]:
    """(digests uint8[m, 32] of the matchable rows, which of the rows they are: bool[n])."""
    pairs = [
        _located(name, job.start, canonical, column, form)
        for name, column, form in zip(job.names, job.columns, job.spec.columns, strict=True)
    ]
    valid = np.logical_and.reduce([mask for _, mask in pairs])
    digests = kernels.digest_columns(_prefix(job.spec), [cells for cells, _ in pairs])
    return (digests if valid.all() else digests[valid]), valid


def _prefix(spec: KeySpec) -> bytes:
    return VERSION.encode().ljust(32, b"\0") + bytes.fromhex(spec.digest)


def _located(name: str, start: int, function: Callable[..., R], *arguments: Any) -> R:
    """Run a step of the normalisation; say in which column and row of the table a value is unusable."""
    try:
        return function(*arguments)
    except UnusableValue as error:
        where = "" if error.row is None else f", row {start + error.row} (counted from 0)"
        raise TableError(f"column {shown(name)}{where}: {error.reason}") from None


def _ordered(function: Callable[[T], R], items: Iterator[T], executor: Executor | None) -> Iterator[R]:
    """The results in order, with a bounded number of items under way."""
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
