"""A holder's table for one predicate: kept in a directory, mapped into memory, served from.

Called by ``building``, which makes it, the parties and ``audit``. What a ``Masked`` table holds tells nothing to
whoever has no evaluations of the OPRF; the ``Table`` adds the secret key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from trustcompute.errors import StoreError, VerificationError
from trustcompute.kernels.arrays import I8, U8
from trustcompute.primitives import merkle
from trustcompute.primitives.oprf import SecretKey
from trustcompute.primitives.signing import SigningKey, token_hash
from trustcompute.verification import descriptor, layout, pir
from trustcompute.verification.cells import U32, U64
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.predicate import Predicate


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


def key_info(predicate: str, dataset: str, epoch: int) -> bytes:
    """What a predicate's key is derived with: one predicate's evaluations say nothing of another's."""
    return "\n".join((predicate, dataset, str(epoch))).encode()


def root_of(leaves: bytes) -> bytes:
    """The root of the tree over leaf hashes, 32 bytes each."""
    built = merkle.Tree()
    built.append_all(leaves)
    return built.root()


FILES: Final = ("buckets", "database", "hint", "splitters", "leaves")


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
        parts.append(("columns", layout.leaves_across(masked.database).hex(), masked.leaves.hex()))
        parts.append(("buckets", masked.bucket_tree.root().hex(), said.buckets.root))
    for name, found, wanted in parts:
        if found != wanted:
            raise VerificationError(f"the table's {name} are not those its descriptor names")
