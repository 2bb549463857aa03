"""A table of changed data from the one before: only what changed is evaluated, sealed and multiplied again.

Called by the node's ``verification``. Records keep their evaluations as long as key, salt and elements are the same.
Columns keep their ranges and places, so that a change touches the columns of the records it adds, removes or changes:
these get a new epoch, and with it other masks for all their cells. The hint follows by H += ΔD·A over these columns.
What does not fit (a full column, too few records in a bucket, tags that fall together) is built anew by ``building``.
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
from trustcompute.tables import parts
from trustcompute.verification import building, cells, layout, pir
from trustcompute.verification.building import LEAST_IN_BUCKET, Arranged, Making, TagsFellTogether, Version
from trustcompute.verification.cells import U32
from trustcompute.verification.evaluated import ROW, Evaluated
from trustcompute.verification.layout import PIECE
from trustcompute.verification.shelf import Shelf
from trustcompute.verification.table import About, Masked, Table, key_info
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
    least_in_bucket: int = LEAST_IN_BUCKET,
    executor: Executor | None = None,
    told: Callable[[Changed], object] = lambda changed: None,
) -> Table | None:
    """The table of a predicate from the one ``before`` it; None where it has to be built anew.

    now: seconds since 1970, by which revisions are numbered: two tables made from one at different times never share
    masks, whichever of them is kept. told: what it took. Arguments and errors as for ``building.build``.
    """
    key = oprf.derive_key(seed, key_info(str(about.predicate), about.dataset, about.epoch), Mode.VOPRF)
    if not _continues(about, truth, key, before.masked):
        return None
    place = directory / building.data_digest(about, truth, oprf.public_key(key))
    shelf = Shelf(place.with_name(f"{place.name}.changing"))
    shelf.clear()
    making = Making(about, truth, key, signer, shelf, executor)
    try:
        touched = _Touched(before.masked, about.place)
        rows, version = _rows(making, before, touched), _version(before.masked, now)
        arranged = _arranged(
            making, rows, before.masked, touched, revision=version.revision, least=least_in_bucket
        )
        if arranged is None:
            return None
        told(Changed(touched.evaluated, int(touched.columns.sum()), int(touched.buckets.sum())))
        changed = np.flatnonzero(touched.columns)
        masked = building.laid_out(
            making,
            arranged,
            version,
            lambda database: pir.changed_hint(
                before.masked.hint, before.masked.database, database, changed, version.seed, executor=executor
            ),
        )
        return Table(building.keep(making, masked, rows, place), key)
    except TagsFellTogether:
        return None
    finally:
        shelf.remove()


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


class _Touched:
    """Which columns and buckets a change touches: bool[columns], bool[buckets]; and how many records it evaluates."""

    def __init__(self, before: Masked, place: bytes) -> None:
        said = before.descriptor
        self._splitters, self._place = before.splitters, place
        self.columns: Mask = np.zeros(said.columns.columns, dtype=np.bool_)
        self.buckets: Mask = np.zeros(said.buckets.columns, dtype=np.bool_)
        self.evaluated = 0

    def add(self, keys: U8, rows: U8) -> None:
        """Records that came, are gone, or say something else."""
        if len(keys):
            self.columns[layout.column_of(cells.tags(rows), self._splitters)] = True
            self.buckets[layout.bucket_of(keys, self._place, len(self.buckets))] = True


def _rows(making: Making, before: Before, touched: _Touched) -> U8:
    """Root and plain side of every record: uint8[n, 40]. Both tables are read in parts of equal digest ranges."""
    truth, old = making.truth, before.records
    kept = making.shelf.rows("rows", ROW)
    salt = bytes.fromhex(before.masked.descriptor.salt)
    count = max(1, len(truth) // PIECE)
    for number in range(count):
        new_part, old_part = (_part(number, count, keys) for keys in (truth.keys, old.keys))
        mine, theirs = common(truth.keys[new_part], old.keys[old_part])
        if truth.elements is not None and old.elements is not None:
            same = (truth.elements[new_part][mine] == old.elements[old_part][theirs]).all(axis=1)
            mine, theirs = mine[same], theirs[same]
        part = truth.part(new_part)
        rows = np.empty((len(part), ROW), dtype=np.uint8)
        rows[mine] = old.rows[old_part][theirs]
        if truth.elements is None:
            rows[:, 32:] = cells.codes(part.holds)
        missing = np.delete(np.arange(len(part)), mine)
        if len(missing):
            rows[missing] = building.evaluate(
                part.part(missing), slice(None), making.key, salt, making.executor
            )
        with making.shelf.writing():
            kept.append(rows)
        same = (rows[mine] == old.rows[old_part][theirs]).all(axis=1)
        for keys, records, stays in (
            (part.keys, rows, mine),
            (old.keys[old_part], old.rows[old_part], theirs),
        ):
            touched.add(np.delete(keys, stays[same], axis=0), np.delete(records, stays[same], axis=0))
        touched.evaluated += len(missing)
    return kept.array()


def _part(number: int, of: int, keys: U8) -> slice:
    return slice(*parts.bounds(number, of, len(keys), lambda i: int.from_bytes(keys[i, :8].tobytes(), "big")))


def common(mine: U8, theirs: U8) -> tuple[I64, I64]:
    """Where the digests are that two lists without repetitions share: (int64[k], int64[k])."""
    _, first, second = np.intersect1d(_names(mine), _names(theirs), assume_unique=True, return_indices=True)
    return first.astype(np.int64), second.astype(np.int64)


def _names(digests: U8) -> npt.NDArray[np.bytes_]:
    return np.ascontiguousarray(digests).view("S32").reshape(-1)


def _version(before: Masked, now: int) -> Version:
    said = before.descriptor
    return Version(bytes.fromhex(said.salt), bytes.fromhex(said.seed), max(now, said.revision + 1))


def _arranged(
    making: Making, rows: U8, before: Masked, touched: _Touched, *, revision: int, least: int
) -> Arranged | None:
    """Where the cells are to stand, or None where they do not fit into the shape of the table before. Raises
    ``TagsFellTogether``."""
    said = before.descriptor
    counts = layout.bucket_counts(making.truth.keys, making.about.place, said.buckets.columns)
    if said.buckets.columns > 1 and counts.min() < least:
        return None
    ordered = building.by_tag(making.shelf, rows)
    columns = layout.column_form_like(
        ordered,
        before.splitters,
        _epochs(before.database.view(np.uint8)[:4].T, touched.columns, revision),
        said.columns.capacity,
    )
    if columns is None:
        return None
    epochs = _epochs(before.buckets[:, :4], touched.buckets, revision)
    buckets = layout.bucket_form(counts, epochs=epochs, capacity=said.buckets.capacity)
    return Arranged(rows, ordered, columns, buckets)


def _epochs(before: U8, touched: Mask, revision: int) -> U32:
    """The epochs of columns, from the first four bytes of each; those touched are of the new revision."""
    found = np.ascontiguousarray(before).view(">u4").reshape(-1).astype(np.uint32)
    found[touched] = revision
    return found
