"""A holder's table for one predicate is built: evaluated, put in order on disk, laid out, described and signed.

Called by ``verify`` and the node; ``update`` shares all but the first step. What is made of ``n`` records, in a
directory ``….part`` beside where the table will be, each file whole before it has its name:

    rows       root and plain side of every record, appended piece by piece      40·n bytes
    by-tag     the same in the order of columns, by-bucket in that of buckets    40·n each
    table/     the table's own files

A stop at any point loses a piece of the first, or one of the others. In memory are, whatever n is: a buffer
(``tables.spread``), a 256th of the records in order, a block of columns (``layout.BLOCK``) and, while it is made, the
hint, 5,632 bytes for each byte of a column, with 92 MB of its matrix. docs/protocols/verify.md has the figures.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I8, U8
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode, SecretKey
from trustcompute.primitives.signing import SigningKey
from trustcompute.tables.progress import Callback, Phase
from trustcompute.tables.spread import Spread
from trustcompute.verification import cells, layout, pir
from trustcompute.verification import evaluated as evaluations
from trustcompute.verification.cells import U32
from trustcompute.verification.descriptor import SUITE, Descriptor, Layout
from trustcompute.verification.evaluated import ROW
from trustcompute.verification.layout import PIECE, Form
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.shelf import IN_MEMORY, Shelf
from trustcompute.verification.table import About, Masked, Table, key_info, load, root_of
from trustcompute.verification.truth import Truth

LEAST_IN_BUCKET: Final = 64
"""k: records that a bucket hides one of, at least (fewer only if the whole table has fewer)."""
ATTEMPTS: Final = 8

_DATA: Final = b"trustcompute verification table 1\n"


class TagsFellTogether(Exception):
    """Two records have one tag, or one has the tag that is never used: their table needs another salt."""


@dataclass(frozen=True, eq=False)
class Making:
    """A table that is being made: of what, by whom, and where. executor: where pieces of the work go."""

    about: About
    truth: Truth
    key: SecretKey
    signer: SigningKey
    shelf: Shelf
    executor: Executor | None = None

    def below(self, name: str) -> Making:
        """The same in a directory of its own."""
        return replace(self, shelf=self.shelf.below(name))


def build(
    about: About,
    truth: Truth,
    seed: bytes,
    signer: SigningKey,
    *,
    directory: Path | None = None,
    least_in_bucket: int = LEAST_IN_BUCKET,
    executor: Executor | None = None,
    progress: Callback | None = None,
) -> Table:
    """The table of a predicate. seed: the dataset's secret, 32 bytes, from which the key of each predicate and epoch
    comes.

    directory: where it is kept; one that is there already is loaded, one half built is gone on with; None keeps it in
    memory. progress: told of the phase ``evaluate``. Raises ``StoreError`` and, for a kept table that was altered,
    ``VerificationError``.
    """
    key = oprf.derive_key(seed, key_info(str(about.predicate), about.dataset, about.epoch), Mode.VOPRF)
    data = data_digest(about, truth, oprf.public_key(key))
    place = None if directory is None else directory / data
    shelf = IN_MEMORY
    if place is not None:
        part = place.with_name(f"{data}.part")
        if place.exists():
            shutil.rmtree(part, ignore_errors=True)  # where a stop came before it was removed
            return Table(load(place, signer), key)
        shelf = Shelf(part)
    making = Making(about, truth, key, signer, shelf, executor)
    for attempt in range(ATTEMPTS):
        salt = hashlib.sha256(b"salt" + bytes.fromhex(data) + bytes([attempt])).digest()
        here = making.below(str(attempt))
        rows = _evaluated(here, salt, progress)
        try:
            masked = from_rows(here, rows, salt, least=least_in_bucket)
        except TagsFellTogether:
            continue
        if place is not None:
            masked = keep(here, masked, rows, place)
            shelf.remove()
        return Table(masked, key)
    raise ParameterError("two records keep falling on one tag: are there more than 2^40 of them?")


def data_digest(about: About, truth: Truth, public: bytes) -> str:
    """What a table is kept under: everything that decides what is in it."""
    hashed = hashlib.sha256(_DATA)
    names = (about.dataset, about.version, "\n".join(about.subject), str(about.predicate), str(about.epoch))
    for text in (*names, truth.spec.digest):
        hashed.update(len(text.encode()).to_bytes(4, "big") + text.encode())
    hashed.update(about.place + public)
    decided = [truth.keys, truth.holds]
    for array in decided if truth.elements is None else [*decided, truth.elements]:
        for start in range(0, len(array), PIECE):
            hashed.update(np.ascontiguousarray(array[start : start + PIECE]).data)
    return hashed.hexdigest()


def _evaluated(making: Making, salt: bytes, progress: Callback | None) -> U8:
    """Root and plain side of every record, uint8[n, 40], piece by piece; pieces that are there are not made again."""
    kept, records = making.shelf.rows("rows", ROW), len(making.truth)
    phase = Phase("evaluate", records, progress, before=len(kept))
    while len(kept) < records:
        piece = slice(len(kept), min(len(kept) + PIECE, records))
        with making.shelf.writing():
            kept.append(evaluate(making.truth, piece, making.key, salt, making.executor))
        phase.advance(piece.stop - piece.start)
    return kept.array()


def evaluate(truth: Truth, piece: slice, key: SecretKey, salt: bytes, executor: Executor | None) -> U8:
    """Root and plain side of some records: uint8[k, 40]."""
    found = oprf.evaluate_inputs(
        key, cells.inputs(truth.keys[piece], cells.SUBJECT), Mode.VOPRF, executor=executor
    )
    if truth.elements is None:
        plain = cells.codes(truth.holds[piece])
    else:  # a key without elements of its own is checked against what nobody can have
        asked = cells.inputs(truth.elements[piece], cells.ELEMENTS)
        asked[~truth.holds[piece], 0] = 2
        plain = cells.checks(oprf.evaluate_inputs(key, asked, Mode.VOPRF, executor=executor))
    return np.concatenate([cells.roots(found, salt), plain], axis=1)


def from_rows(making: Making, rows: U8, salt: bytes, *, least: int) -> Masked:
    """A table of evaluated records, uint8[n, 40]. Raises ``TagsFellTogether``."""
    ordered = by_tag(making.shelf, rows)
    counts = layout.buckets_for(making.truth.keys, making.about.place, least)
    arranged = Arranged(rows, ordered, layout.column_form(ordered), layout.bucket_form(counts))
    seed = hashlib.sha256(b"matrix" + salt).digest()
    return laid_out(
        making,
        arranged,
        Version(salt, seed, 0),
        lambda database: pir.make_hint(database, seed, executor=making.executor),
    )


def by_tag(shelf: Shelf, rows: U8) -> U8:
    """Records in the order of their tags: uint8[n, 40]. Raises ``TagsFellTogether``."""

    def fill(ordered: U8) -> None:
        spread, filled = Spread(shelf.path("spread"), ROW), 0
        for start in range(0, len(rows), PIECE):
            spread.append(rows[start : start + PIECE])
        for part in spread.parts():
            tags = cells.tags(part)
            order = np.argsort(tags)
            tags = tags[order]
            if (tags[:1] == 0).any() or (tags[1:] == tags[:-1]).any():
                raise TagsFellTogether
            ordered[filled : filled + len(part)] = part[order]
            filled += len(part)

    return shelf.made("by-tag", np.uint8, rows.shape, fill)


def by_bucket(shelf: Shelf, rows: U8, keys: U8, place: bytes, buckets: int) -> U8:
    """Records in the order of their buckets, and in each of their tags: uint8[n, 40]. keys: uint8[n, 32]."""
    shift = np.uint64(32 - (buckets.bit_length() - 1))  # so that first bytes are spread evenly

    def fill(ordered: U8) -> None:
        spread, filled = Spread(shelf.path("spread"), 4 + ROW), 0
        for start in range(0, len(rows), PIECE):
            piece = slice(start, start + PIECE)
            where = layout.bucket_of(keys[piece], place, buckets).astype(np.uint64) << shift
            head = where.astype(">u4").view(np.uint8).reshape(-1, 4)
            spread.append(np.concatenate([head, rows[piece]], axis=1))
        for part in spread.parts():
            where = np.ascontiguousarray(part[:, :4]).view(">u4").reshape(-1)
            records = part[:, 4:]
            ordered[filled : filled + len(part)] = records[np.lexsort((cells.tags(records), where))]
            filled += len(part)

    return shelf.made("by-bucket", np.uint8, rows.shape, fill)


@dataclass(frozen=True, eq=False)
class Arranged:
    """Records, uint8[n, 40], and where they are to stand. rows: in the order of keys; ordered: by tag."""

    rows: U8
    ordered: U8
    columns: Form
    buckets: Form


@dataclass(frozen=True)
class Version:
    """salt: of the tags; seed: of the public matrix; revision: how often the table was changed since it was built."""

    salt: bytes
    seed: bytes
    revision: int


def laid_out(making: Making, arranged: Arranged, version: Version, hint_of: Callable[[I8], U32]) -> Masked:
    """Both layouts, the hint and the descriptor of evaluated records. hint_of: makes the hint of a database."""
    shelf, columns, buckets = making.shelf.below("table"), arranged.columns, arranged.buckets
    splitters_of = columns.splitters
    assert splitters_of is not None
    database = shelf.made(
        "database",
        np.int8,
        (columns.shape.length, columns.shape.columns),
        lambda out: _across(out, columns, arranged.ordered),
    )
    in_buckets = shelf.made(
        "buckets",
        np.uint8,
        (buckets.shape.columns, buckets.shape.length),
        lambda out: _down(
            out,
            buckets,
            by_bucket(
                making.shelf, arranged.rows, making.truth.keys, making.about.place, buckets.shape.columns
            ),
        ),
    )
    splitters = shelf.made("splitters", "<u8", splitters_of.shape, lambda out: np.copyto(out, splitters_of))
    leaves = shelf.made(
        "leaves",
        np.uint8,
        (32 * columns.shape.columns,),
        lambda out: np.copyto(out, np.frombuffer(layout.leaves_across(database), dtype=np.uint8)),
    )
    hint = shelf.made(
        "hint",
        "<u4",
        (columns.shape.length, DIMENSION),
        lambda out: np.copyto(out, hint_of(database)),
    )
    said = Descriptor(
        suite=SUITE,
        dataset=making.about.dataset,
        version=making.about.version,
        subject=list(making.about.subject),
        predicate=str(making.about.predicate),
        spec=making.truth.spec.to_json(),
        elements=None if making.truth.elements_spec is None else making.truth.elements_spec.to_json(),
        records=len(making.truth),
        epoch=making.about.epoch,
        revision=version.revision,
        public=oprf.public_key(making.key).hex(),
        salt=version.salt.hex(),
        place=making.about.place.hex(),
        buckets=_described(buckets, layout.leaves(in_buckets)),
        columns=_described(columns, leaves.tobytes()),
        splitters=layout.splitters_digest(splitters),
        seed=version.seed.hex(),
        hint=pir.hint_digest(hint),
    )
    token = said.sign(making.signer)
    return Masked(said, token, in_buckets, database, hint, np.asarray(splitters), leaves.tobytes())


def _across(database: I8, form: Form, ordered: U8) -> None:
    for first, columns in layout.laid(form, ordered):
        database[:, first : first + len(columns)] = columns.T.view(np.int8)


def _down(data: U8, form: Form, ordered: U8) -> None:
    for first, columns in layout.laid(form, ordered):
        data[first : first + len(columns)] = columns


def _described(form: Form, leaves: bytes) -> Layout:
    return Layout(columns=form.shape.columns, capacity=form.shape.capacity, root=root_of(leaves).hex())


def keep(making: Making, masked: Masked, rows: U8, place: Path) -> Masked:
    """Give a table that was laid out in a directory its name: whole or not at all. Raises ``StoreError``."""
    evaluations.keep(place, making.truth, rows)
    making.shelf.below("table").publish("descriptor", masked.token.encode(), place)
    return load(place, making.signer)
