"""A holder's table for one predicate: built once, kept in a directory, mapped into memory, served from.

Called by ``verify``, the node and ``audit``. ``build`` evaluates the OPRF over all keys (in parallel, resumable),
seals an answer for each, lays the cells out twice (``layout``), makes the hint and signs the descriptor. What a
``Masked`` table holds tells nothing to whoever has no evaluations of the OPRF; the ``Table`` adds the secret key.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from trustcompute.errors import ParameterError, StoreError, VerificationError
from trustcompute.kernels.arrays import I8, U8
from trustcompute.primitives import merkle, oprf
from trustcompute.primitives.oprf import Mode, SecretKey
from trustcompute.primitives.signing import SigningKey, token_hash
from trustcompute.verification import cells, descriptor, layout, pir
from trustcompute.verification import evaluated as evaluations
from trustcompute.verification.cells import U32, U64
from trustcompute.verification.descriptor import SUITE, Descriptor, Layout
from trustcompute.verification.evaluated import ROW
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.predicate import Predicate
from trustcompute.verification.truth import Truth

LEAST_IN_BUCKET: Final = 64
"""k: records that a bucket hides one of, at least (fewer only if the whole table has fewer)."""
PIECE: Final = 2**16
"""Records that are evaluated, and then kept, at a time."""
ATTEMPTS: Final = 8

_DATA: Final = b"trustcompute verification table 1\n"

Progress = Callable[[int, int], None]
"""Called with records done, and records in all."""


@dataclass(frozen=True, eq=False)
class Masked:
    """A table without its key. buckets: uint8[buckets, length]; database: int8[length, columns]; hint: uint32[length,
    n]; splitters: uint64[columns]; leaves: of the columns, 32 bytes each."""

    descriptor: Descriptor
    token: str
    buckets: U8 = field(repr=False)
    database: I8 = field(repr=False)
    hint: U32 = field(repr=False)
    splitters: U64 = field(repr=False)
    leaves: bytes = field(repr=False)

    @cached_property
    def id(self) -> str:
        """What requests and proofs call the table: the hash of its descriptor."""
        return token_hash(self.token)

    @cached_property
    def bucket_tree(self) -> merkle.Tree:
        return layout.tree(self.buckets)


@dataclass(frozen=True, eq=False)
class Table:
    """A table and the secret key of its OPRF."""

    masked: Masked
    key: SecretKey

    @property
    def descriptor(self) -> Descriptor:
        return self.masked.descriptor

    @property
    def id(self) -> str:
        return self.masked.id


@dataclass(frozen=True, kw_only=True)
class About:
    """What a table is about. place: 32 public bytes of the dataset; epoch: of the key, counted up when it is
    changed."""

    dataset: str
    version: str
    subject: tuple[str, ...]
    predicate: Predicate
    place: bytes
    epoch: int = 1


def build(
    about: About,
    truth: Truth,
    seed: bytes,
    signer: SigningKey,
    *,
    directory: Path | None = None,
    least_in_bucket: int = LEAST_IN_BUCKET,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Table:
    """The table of a predicate. seed: the dataset's secret, 32 bytes, from which the key of each predicate and epoch
    comes.

    directory: where it is kept; one that is there already is loaded, one half built is gone on with. Raises
    ``StoreError`` and, for a kept table that was altered, ``VerificationError``.
    """
    key = oprf.derive_key(seed, key_info(str(about.predicate), about.dataset, about.epoch), Mode.VOPRF)
    data = data_digest(about, truth, oprf.public_key(key))
    place = None if directory is None else directory / data
    if place is not None and place.exists():
        return Table(load(place, signer), key)
    part = None if directory is None else directory / f"{data}.part"
    for attempt in range(ATTEMPTS):
        salt = hashlib.sha256(b"salt" + bytes.fromhex(data) + bytes([attempt])).digest()
        rows = _evaluated(truth, key, salt, part=part, executor=executor, progress=progress)
        tags = np.sort(cells.tags(rows[:, :32]))
        if not (tags[:1] == 0).any() and not (tags[1:] == tags[:-1]).any():
            break
        if part is not None:
            part.unlink(missing_ok=True)
    else:
        raise ParameterError("two records keep falling on one tag: are there more than 2^40 of them?")
    masked = laid_out(
        about, truth, key, salt, rows=rows, signer=signer, least=least_in_bucket, executor=executor
    )
    if place is not None and part is not None:
        evaluations.keep(place, truth, rows)
        store(place, masked)
        part.unlink(missing_ok=True)
    return Table(masked, key)


def key_info(predicate: str, dataset: str, epoch: int) -> bytes:
    """What a predicate's key is derived with: one predicate's evaluations say nothing of another's."""
    return "\n".join((predicate, dataset, str(epoch))).encode()


def data_digest(about: About, truth: Truth, public: bytes) -> str:
    """What a table is kept under: everything that decides what is in it."""
    hashed = hashlib.sha256(_DATA)
    names = (about.dataset, about.version, "\n".join(about.subject), str(about.predicate), str(about.epoch))
    for text in (*names, truth.spec.digest):
        hashed.update(len(text.encode()).to_bytes(4, "big") + text.encode())
    hashed.update(about.place + public)
    for array in (truth.keys, truth.holds, truth.elements):
        if array is not None:
            hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _evaluated(
    truth: Truth,
    key: SecretKey,
    salt: bytes,
    *,
    part: Path | None,
    executor: Executor | None,
    progress: Progress | None,
) -> U8:
    """Root and plain side of every record, uint8[n, 40], piece by piece; pieces kept in ``part`` are not made again."""
    rows = np.empty((len(truth), ROW), dtype=np.uint8)
    done = _kept(part, rows)
    for start in range(done, len(truth), PIECE):
        piece = slice(start, min(start + PIECE, len(truth)))
        rows[piece] = records(truth, piece, key, salt, executor)
        if part is not None:
            _append(part, start, rows[piece])
        if progress is not None:
            progress(piece.stop, len(truth))
    return rows


def records(truth: Truth, piece: slice, key: SecretKey, salt: bytes, executor: Executor | None) -> U8:
    """Root and plain side of some records: uint8[n, 40]."""
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


def _kept(part: Path | None, rows: U8) -> int:
    if part is None or not part.exists():
        return 0
    try:
        whole = np.fromfile(part, dtype=np.uint8)
    except OSError as error:
        raise StoreError(f"cannot go on with {part}: {error.strerror}") from error
    done = min(len(whole) // (ROW * PIECE) * PIECE, len(rows))
    rows[:done] = whole[: ROW * done].reshape(done, ROW)
    return done


def _append(part: Path, start: int, rows: U8) -> None:
    try:
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            file.seek(ROW * start)
            file.write(np.ascontiguousarray(rows).data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write {part}: {error.strerror}") from error


def laid_out(
    about: About,
    truth: Truth,
    key: SecretKey,
    salt: bytes,
    *,
    rows: U8,
    signer: SigningKey,
    least: int,
    executor: Executor | None,
) -> Masked:
    """Cells in both layouts, the hint, and the descriptor, from evaluated records: uint8[n, 40]."""
    found, plain = np.ascontiguousarray(rows[:, :32]), np.ascontiguousarray(rows[:, 32:])
    number = layout.buckets_for(truth.keys, about.place, least)
    where = layout.bucket_of(truth.keys, about.place, number)
    buckets = layout.in_buckets(found, plain, where, epochs=np.zeros(number, dtype=np.uint32))
    splitters, capacity = layout.splitters_for(cells.tags(found), layout.columns_for(len(truth)))
    first = np.zeros(len(splitters), dtype=np.uint32)
    columns = layout.in_columns(found, plain, splitters, epochs=first, capacity=capacity)
    seed = hashlib.sha256(b"matrix" + salt).digest()
    hint = pir.make_hint(database_of(columns), seed, executor=executor)
    parts = Parts(salt, seed, 0, buckets, columns, hint, layout.leaves(columns.data))
    return signed(about, truth, key, parts, signer)


def database_of(columns: layout.Columns) -> I8:
    """The matrix that private questions are answered from: int8[length, m]."""
    return np.ascontiguousarray(columns.data.T).view(np.int8)


@dataclass(frozen=True, eq=False)
class Parts:
    """What a table is made of. leaves: of the columns; revision: how often it was changed since it was built."""

    salt: bytes
    seed: bytes
    revision: int
    buckets: layout.Columns = field(repr=False)
    columns: layout.Columns = field(repr=False)
    hint: U32 = field(repr=False)
    leaves: bytes = field(repr=False)


def signed(about: About, truth: Truth, key: SecretKey, parts: Parts, signer: SigningKey) -> Masked:
    """A table with its descriptor."""
    splitters = parts.columns.splitters
    assert splitters is not None
    said = Descriptor(
        suite=SUITE,
        dataset=about.dataset,
        version=about.version,
        subject=list(about.subject),
        predicate=str(about.predicate),
        spec=truth.spec.to_json(),
        elements=None if truth.elements_spec is None else truth.elements_spec.to_json(),
        records=len(truth),
        epoch=about.epoch,
        revision=parts.revision,
        public=oprf.public_key(key).hex(),
        salt=parts.salt.hex(),
        place=about.place.hex(),
        buckets=_described(parts.buckets, layout.leaves(parts.buckets.data)),
        columns=_described(parts.columns, parts.leaves),
        splitters=layout.splitters_digest(splitters),
        seed=parts.seed.hex(),
        hint=pir.hint_digest(parts.hint),
    )
    database = database_of(parts.columns)
    return Masked(said, said.sign(signer), parts.buckets.data, database, parts.hint, splitters, parts.leaves)


def _described(columns: layout.Columns, leaves: bytes) -> Layout:
    return Layout(columns=columns.shape.columns, capacity=columns.shape.capacity, root=root_of(leaves).hex())


def root_of(leaves: bytes) -> bytes:
    """The root of the tree over leaf hashes, 32 bytes each."""
    built = merkle.Tree()
    built.append_all(leaves)
    return built.root()


FILES: Final = ("buckets", "database", "hint", "splitters", "leaves")


def store(place: Path, masked: Masked) -> None:
    """Keep a table: whole or not at all, readable by its owner alone. Raises ``StoreError``."""
    temporary = place.with_name(f"{place.name}.{secrets.token_hex(4)}.tmp")
    arrays = {
        "buckets": masked.buckets,
        "database": masked.database,
        "hint": masked.hint.astype("<u4", copy=False),
        "splitters": masked.splitters.astype("<u8", copy=False),
        "leaves": np.frombuffer(masked.leaves, dtype=np.uint8),
    }
    try:
        temporary.mkdir(mode=0o700, parents=True)
        for name, array in arrays.items():
            _write(temporary / name, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        _write(temporary / "descriptor", masked.token.encode())
        temporary.rename(place)
    except OSError as error:
        raise StoreError(f"cannot keep the table at {place}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load(place: Path, signer: SigningKey | None = None) -> Masked:
    """A table kept in a directory, its cells mapped into memory. Raises ``VerificationError`` where files do not belong
    together, ``StoreError`` where they cannot be read. signer: whose signature its descriptor must have."""
    try:
        token = (place / "descriptor").read_text(encoding="ascii")
        said = descriptor.read(token) if signer is None else descriptor.verify(token, signer.public)
        buckets, columns = said.buckets.shape, said.columns.shape
        shapes: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            "buckets": (np.dtype(np.uint8), (buckets.columns, buckets.length)),
            "database": (np.dtype(np.int8), (columns.length, columns.columns)),
            "hint": (np.dtype("<u4"), (columns.length, DIMENSION)),
            "splitters": (np.dtype("<u8"), (columns.columns,)),
            "leaves": (np.dtype(np.uint8), (32 * columns.columns,)),
        }
        for name, (dtype, shape) in shapes.items():
            wanted = int(np.prod(shape)) * dtype.itemsize
            if (place / name).stat().st_size != wanted:
                raise VerificationError(f"{place / name} does not have {wanted} bytes: build the table again")
        files = {
            name: np.memmap(place / name, dtype=dtype, mode="r", shape=shape)
            for name, (dtype, shape) in shapes.items()
        }
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read the table in {place}: {error}") from error
    masked = Masked(
        said,
        token,
        files["buckets"],
        files["database"],
        files["hint"],
        np.asarray(files["splitters"]),
        files["leaves"].tobytes(),
    )
    check(masked, cells_too=False)
    return masked


def check(masked: Masked, *, cells_too: bool = True) -> None:
    """Raise ``VerificationError`` unless a table is the one its descriptor says. cells_too: read all of it, not only
    hint, splitters and leaves."""
    said = masked.descriptor
    parts = [
        ("leaves", root_of(masked.leaves).hex(), said.columns.root),
        ("splitters", layout.splitters_digest(masked.splitters), said.splitters),
        ("hint", pir.hint_digest(masked.hint), said.hint),
    ]
    if cells_too:
        columns = np.ascontiguousarray(masked.database.view(np.uint8).T)
        parts.append(("columns", layout.leaves(columns).hex(), masked.leaves.hex()))
        parts.append(("buckets", masked.bucket_tree.root().hex(), said.buckets.root))
    for name, found, wanted in parts:
        if found != wanted:
            raise VerificationError(f"the table's {name} are not those its descriptor names")


def _write(path: Path, data: bytes | memoryview) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
