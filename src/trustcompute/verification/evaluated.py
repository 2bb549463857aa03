"""A table's evaluated records, kept beside it by its holder, so that a change evaluates only what changed.

Called by ``table`` (which keeps them) and ``update``. They are secret: who has them reads every answer. They lie
in a file of their own next to the table's directory, so that the directory can be handed to an auditor.

    keys      32 bytes a record: digests, ascending
    rows      40: root and plain side
    elements  32, for a match: digests of key and elements, zeros where a key has none of its own
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from trustcompute.errors import StoreError
from trustcompute.kernels.arrays import U8
from trustcompute.verification.layout import PIECE
from trustcompute.verification.truth import Truth

ROW: Final = 40
"""Bytes kept of an evaluated record: its root and the plain side of its cell."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """keys: uint8[n, 32]; rows: uint8[n, 40]; elements: uint8[n, 32] for a match."""

    keys: U8 = field(repr=False)
    rows: U8 = field(repr=False)
    elements: U8 | None = field(repr=False)


def path_of(place: Path) -> Path:
    """Where the records of the table in ``place`` are."""
    return place.with_name(f"{place.name}.evaluated")


def keep(place: Path, truth: Truth, rows: U8) -> None:
    """Readable by their owner alone. Raises ``StoreError``."""
    path = path_of(place)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for part in [truth.keys, rows] if truth.elements is None else [truth.keys, rows, truth.elements]:
                for start in range(0, len(part), PIECE):
                    file.write(np.ascontiguousarray(part[start : start + PIECE]).data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def kept(place: Path, records: int, *, matches: bool) -> Evaluated | None:
    """What ``keep`` kept, mapped into memory; None where it is not there, or not whole."""
    path, each = path_of(place), 32 + ROW + (32 if matches else 0)
    if records == 0 or not path.exists() or path.stat().st_size != records * each:
        return None
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    rows_at, elements_at = 32 * records, (32 + ROW) * records
    return Evaluated(
        raw[:rows_at].reshape(records, 32),
        raw[rows_at:elements_at].reshape(records, ROW),
        raw[elements_at:].reshape(records, 32) if matches else None,
    )
