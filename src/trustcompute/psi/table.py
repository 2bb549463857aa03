"""A holder's keys, evaluated once under an OPRF key that is kept: what ``psi.lookup.v1`` answers from.

Called by ``psi.lookup`` and the node. A directory holds, for each set of keys, ``key`` (the OPRF key, readable by its
owner alone), ``values`` (16 bytes a key, sorted, mapped into memory) and ``table.json``. The directory's name is the
digest of the set, so other data never meet this key: values of two versions cannot be linked.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import ParameterError, StoreError, VerificationError
from trustcompute.primitives import canonical, oprf
from trustcompute.primitives.oprf import Mode, SecretKey
from trustcompute.primitives.rng import Rng
from trustcompute.psi import matching
from trustcompute.psi.matching import U8

FORMAT: Final = 1
WIDTH: Final = 16
"""Bytes of a value: with 2³¹ rows, 2⁴⁰ lookups in a table's life see a wrong match with probability below 2⁻⁵⁶."""

_LABEL: Final = b"trustcompute evaluated table v1\n"
_MAX_DOCUMENT: Final = 4096


@dataclass(frozen=True, eq=False)
class EvaluatedTable:
    """The key, and F_k of every key of the set, uint8[rows, 16] in ascending order. ``id`` names the values."""

    key: SecretKey
    values: U8 = field(repr=False)
    id: str

    def __len__(self) -> int:
        return len(self.values)


def evaluated(
    keys: U8, spec: str, rng: Rng, directory: Path | None, *, executor: Executor | None = None
) -> EvaluatedTable:
    """The table of a set of keys: the one kept in ``directory``, or a new one under a fresh key, kept there if given.

    keys: uint8[rows, 32], distinct digests, ascending; spec: the digest of their key specification. Raises
    ``VerificationError`` for a kept table that was altered, ``StoreError`` where it cannot be read or written.
    """
    data = hashlib.sha256(_LABEL + spec.encode() + np.ascontiguousarray(keys).data).hexdigest()
    place = None if directory is None else directory / data
    if place is not None and place.exists():
        return _load(place, data, len(keys))
    key = oprf.generate_key(rng)
    values = oprf.evaluate_inputs(key, keys, Mode.OPRF, executor=executor)[:, :WIDTH]
    _, values = matching.in_order(values)
    table = EvaluatedTable(key, values, values_id(values))
    if place is not None:
        _store(place, data, table)
    return table


def values_id(values: U8) -> str:
    """What a table's values are called: 64 hex digits, a hash of them all. Tells nothing that they do not."""
    header = _LABEL + len(values).to_bytes(8, "big")
    return hashlib.sha256(header + np.ascontiguousarray(values).data).hexdigest()


def found(values: U8, table: U8) -> npt.NDArray[np.bool_]:
    """Which of ``values`` (uint8[n, 16]) are in ``table`` (uint8[m, 16], ascending): bool[n], log₂ m steps each."""
    rows, wanted = (np.ascontiguousarray(part).view(f"S{WIDTH}").ravel() for part in (table, values))
    if not len(rows):
        return np.zeros(len(wanted), dtype=np.bool_)
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    return np.asarray(rows[at] == wanted)


def store_values(path: Path, values: U8) -> None:
    """Keep a table that was received. Raises ``StoreError``."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        _write(temporary, np.ascontiguousarray(values).data)
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot keep a table at {path}: {error.strerror}") from error


def load_values(path: Path, rows: int, table_id: str) -> U8:
    """Values kept, mapped into memory: uint8[rows, 16]. Raises ``VerificationError`` if they are not that table."""
    try:
        if path.stat().st_size != rows * WIDTH:
            raise VerificationError(f"{path} does not hold {rows} values: remove it")
        mapped: U8 = (
            np.memmap(path, dtype=np.uint8, mode="r", shape=(rows, WIDTH))
            if rows
            else np.empty((0, WIDTH), dtype=np.uint8)
        )
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if not hmac.compare_digest(values_id(mapped), table_id):
        raise VerificationError(f"{path} does not hold the table it was kept as: remove it")
    return mapped


def _load(place: Path, data: str, rows: int) -> EvaluatedTable:
    try:
        document = canonical.loads((place / "table.json").read_bytes(), limit=_MAX_DOCUMENT)
        secret = (place / "key").read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read the table in {place}: {error.strerror}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise VerificationError(f"{place} holds a table of another format: remove it to have it made anew")
    public = None if len(secret) != 32 else _public(secret)
    if (document.get("data"), document.get("rows"), document.get("public")) != (data, rows, public):
        raise VerificationError(f"{place} holds the table of another key or set: remove it")
    table_id = str(document.get("id"))
    return EvaluatedTable(SecretKey(secret), load_values(place / "values", rows, table_id), table_id)


def _public(secret: bytes) -> str | None:
    try:
        return oprf.public_key(SecretKey(secret)).hex()
    except ParameterError:
        return None


def _store(place: Path, data: str, table: EvaluatedTable) -> None:
    """Whole or not at all: written beside, flushed, renamed."""
    temporary = place.with_name(f"{place.name}.{secrets.token_hex(4)}.tmp")
    document = {
        "format": FORMAT,
        "data": data,
        "rows": len(table),
        "public": oprf.public_key(table.key).hex(),
        "id": table.id,
    }
    try:
        temporary.mkdir(mode=0o700, parents=True)
        _write(temporary / "key", table.key.to_bytes())
        _write(temporary / "values", np.ascontiguousarray(table.values).data)
        _write(temporary / "table.json", canonical.dumps(document))
        temporary.rename(place)
    except OSError as error:
        raise StoreError(f"cannot keep the table at {place}: {error.strerror}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(path: Path, data: bytes | memoryview) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
