"""A table of changed data from the one before: only what changed is evaluated, sealed and multiplied again.

Called by the node's ``verification``. Records keep their evaluations as long as key, salt and elements are the same.
Columns keep their ranges and places, so that a change touches the columns of the records it adds, removes or changes:
these get a new epoch, and with it other masks for all their cells. The hint follows by H += ΔD·A over these columns.
What does not fit (a full column, too few records in a bucket, tags that fall together) is built anew by ``table``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trustcompute.kernels.arrays import I64, U8
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode, SecretKey
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import cells, evaluated, layout, pir, table
from trustcompute.verification.cells import U32
from trustcompute.verification.evaluated import ROW, Evaluated
from trustcompute.verification.table import About, Masked, Parts, Table
from trustcompute.verification.truth import Truth

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Before:
    """A table that is kept in a directory, and its evaluated records."""

    masked: Masked
    records: Evaluated


@dataclass(frozen=True)
class Changed:
    """What a change took: records evaluated, and columns and buckets sealed again, of how many."""

    evaluated: int
    columns: int
    buckets: int


def build(
    about: About,
    truth: Truth,
    seed: bytes,
    signer: SigningKey,
    before: Before,
    *,
    directory: Path,
    now: int,
    least_in_bucket: int = table.LEAST_IN_BUCKET,
    executor: Executor | None = None,
    told: Callable[[Changed], object] = lambda changed: None,
) -> Table | None:
    """The table of a predicate from the one ``before`` it; None where it has to be built anew.

    now: seconds since 1970, by which revisions are numbered: two tables made from one at different times never share
    masks, whichever of them is kept. told: what it took. Arguments and errors as for ``table.build``.
    """
    info = table.key_info(str(about.predicate), about.dataset, about.epoch)
    key = oprf.derive_key(seed, info, Mode.VOPRF)
    if not _continues(about, truth, key, before.masked):
        return None
    salt = bytes.fromhex(before.masked.descriptor.salt)
    rows, known = _rows(truth, before.records, key, salt, executor)
    revision = max(now, before.masked.descriptor.revision + 1)
    parts = _parts(about, truth, rows, before, least=least_in_bucket, revision=revision, executor=executor)
    if parts is None:
        return None
    told(
        Changed(
            int((~known).sum()),
            _again(parts.columns.data, parts.revision),
            _again(parts.buckets.data, parts.revision),
        )
    )
    masked = table.signed(about, truth, key, parts, signer)
    place = directory / table.data_digest(about, truth, oprf.public_key(key))
    evaluated.keep(place, truth, rows)
    table.store(place, masked)
    return Table(masked, key)


def _continues(about: About, truth: Truth, key: SecretKey, before: Masked) -> bool:
    """Whether evaluations of the one are evaluations of the other."""
    said = before.descriptor
    elements = None if truth.elements_spec is None else truth.elements_spec.to_json()
    same = (
        (said.dataset, about.dataset),
        (said.predicate, str(about.predicate)),
        (said.public, oprf.public_key(key).hex()),
        (said.subject, list(about.subject)),
        (said.place, about.place.hex()),
        (said.spec, truth.spec.to_json()),
        (said.elements, elements),
    )
    return len(truth) > 0 and all(a == b for a, b in same)


def _rows(
    truth: Truth, before: Evaluated, key: SecretKey, salt: bytes, executor: Executor | None
) -> tuple[U8, Mask]:
    """(root and plain side of every record: uint8[n, 40]; whether it was known: bool[n])."""
    rows = np.empty((len(truth), ROW), dtype=np.uint8)
    mine, theirs = common(truth.keys, before.keys)
    if truth.elements is not None and before.elements is not None:
        same = (truth.elements[mine] == before.elements[theirs]).all(axis=1)
        mine, theirs = mine[same], theirs[same]
    known = np.zeros(len(truth), dtype=np.bool_)
    known[mine] = True
    rows[mine] = before.rows[theirs]
    if truth.elements is None:
        rows[:, 32:] = cells.codes(truth.holds)
    missing = np.flatnonzero(~known)
    if len(missing):
        elements = None if truth.elements is None else truth.elements[missing]
        part = Truth(truth.spec, truth.keys[missing], truth.holds[missing], elements, truth.elements_spec, 0)
        for start in range(0, len(missing), table.PIECE):
            piece = slice(start, start + table.PIECE)
            rows[missing[piece]] = table.records(part, piece, key, salt, executor)
    return rows, known


def common(mine: U8, theirs: U8) -> tuple[I64, I64]:
    """Where the digests are that two lists without repetitions share: (int64[k], int64[k])."""
    _, first, second = np.intersect1d(_names(mine), _names(theirs), assume_unique=True, return_indices=True)
    return first.astype(np.int64), second.astype(np.int64)


def _names(digests: U8) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def _parts(
    about: About,
    truth: Truth,
    rows: U8,
    before: Before,
    *,
    least: int,
    revision: int,
    executor: Executor | None,
) -> Parts | None:
    """The parts of the new table, or None where they do not fit into the shape of the old one."""
    old, said = before.masked, before.masked.descriptor
    found, plain = np.ascontiguousarray(rows[:, :32]), np.ascontiguousarray(rows[:, 32:])
    tags = cells.tags(found)
    ordered = np.sort(tags)
    where = layout.bucket_of(truth.keys, about.place, said.buckets.columns)
    full = np.bincount(layout.column_of(tags, old.splitters), minlength=1).max() > said.columns.capacity
    held = np.bincount(where, minlength=said.buckets.columns).min()
    bare = said.buckets.columns > 1 and held < least
    if full or bare or (ordered[:1] == 0).any() or (ordered[1:] == ordered[:-1]).any():
        return None
    gone, come = _differences(before.records.rows, rows)
    touched_tags = np.concatenate([cells.tags(before.records.rows[gone]), cells.tags(rows[come])])
    keys = np.concatenate([before.records.keys[gone], truth.keys[come]])
    columns = layout.in_columns(
        found,
        plain,
        old.splitters,
        epochs=_epochs(
            old.database.view(np.uint8)[:4].T, layout.column_of(touched_tags, old.splitters), revision
        ),
        capacity=said.columns.capacity,
    )
    buckets = layout.in_buckets(
        found,
        plain,
        where,
        epochs=_epochs(
            old.buckets[:, :4], layout.bucket_of(keys, about.place, said.buckets.columns), revision
        ),
        capacity=said.buckets.capacity,
    )
    seed = bytes.fromhex(said.seed)
    hint = pir.changed_hint(old.hint, old.database, table.database_of(columns), seed, executor=executor)
    leaves = layout.leaves_after(old.leaves, columns.data, old.database.view(np.uint8).T)
    return Parts(bytes.fromhex(said.salt), seed, revision, buckets, columns, hint, leaves)


def _differences(before: U8, after: U8) -> tuple[I64, I64]:
    """(records that are gone or say something else now, those that came or say it): rows of each."""
    mine, theirs = (_by_root(rows) for rows in (before, after))
    first, second = common(before[mine, :32], after[theirs, :32])
    same = (before[mine[first], 32:] == after[theirs[second], 32:]).all(axis=1)
    return np.delete(mine, first[same]), np.delete(theirs, second[same])


def _by_root(rows: U8) -> I64:
    return np.argsort(_names(rows[:, :32]))


def _epochs(before: U8, touched: U32, revision: int) -> U32:
    """The epochs of columns, from the first four bytes of each; those touched are of the new revision."""
    found = np.ascontiguousarray(before).view(">u4").reshape(-1).astype(np.uint32)
    found[touched] = revision
    return found


def _again(data: U8, revision: int) -> int:
    return int((np.ascontiguousarray(data[:, :4]).view(">u4") == revision).sum())
