"""Identifiers in order of preference, and which rows are left for the next one.

Called by ``psi.cascading`` and the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.run import Cost
from trustcompute.psi.intersection import How, On, Rows, new_name, split_on

MAX_IDENTIFIERS: Final = 8
Mask = npt.NDArray[np.bool_]


class InOrder:
    """Identifiers by which rows are matched, the most trusted first: each a column, several, or a mapping of our
    columns to theirs.

    >>> InOrder("id", ["name", "birth"]).names
    ('id', 'name + birth')
    """

    def __init__(self, *identifiers: On) -> None:
        """Raises ``ParameterError`` for fewer than two, more than eight, or one that is there twice."""
        if not 2 <= len(identifiers) <= MAX_IDENTIFIERS:
            raise ParameterError(
                f"a cascade has 2 to {MAX_IDENTIFIERS} identifiers, not {len(identifiers)}:"
                " with one, use an intersection"
            )
        self.pairs = [split_on(one) for one in identifiers]  # (our columns, theirs)
        if len({tuple(ours) for ours, _ in self.pairs}) < len(self.pairs):
            raise ParameterError("an identifier is there twice: name each once")

    @property
    def names(self) -> tuple[str, ...]:
        """What results call them."""
        return tuple(" + ".join(ours) for ours, _ in self.pairs)

    def __repr__(self) -> str:
        return f"InOrder({', '.join(map(repr, self.names))})"


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """Which rows of the left table match, and by what.

    left_rows: int64, ascending; by: int8, for each of them the first identifier that the right side holds, an index
    into names. cost: of all runs. leakage: what each side learnt, in words (consumer is left).
    """

    left_rows: Rows
    by: npt.NDArray[np.int8]
    names: tuple[str, ...]
    protocol: str
    cost: Cost
    leakage: Leakage
    left: Any

    @property
    def matched(self) -> dict[str, int]:
        """Rows that matched, by identifier."""
        return {name: int((self.by == at).sum()) for at, name in enumerate(self.names)}

    def table(self, how: How = "inner") -> pa.Table:
        """Rows of the left table, in their order, with a column ``matched_by`` after the others.

        how: ``inner``: those that match; ``difference``: those that do not; ``left``: all. Of rows that do not match
        ``matched_by`` is null.
        """
        if how not in get_args(How):
            raise ParameterError(f"how must be one of {', '.join(get_args(How))}, not {how!r}")
        every = np.full(tables.row_count(self.left), -1, dtype=np.int8)
        every[self.left_rows] = self.by
        chosen = {"inner": every >= 0, "difference": every < 0, "left": np.ones(len(every), np.bool_)}[how]
        rows = np.flatnonzero(chosen)
        found = tables.take(self.left, rows)
        names = pa.array([self.names[at] if at >= 0 else None for at in every[rows]], pa.string())
        return found.append_column(new_name("matched_by", found.column_names), names)


def matched_by(keys: Sequence[tables.Keys], found: Iterable[Mask]) -> npt.NDArray[np.int8]:
    """For each row the first identifier whose key was found, or -1. found: bool[d] for the keys of the first ones."""
    by = np.full(len(keys[0].codes), -1, dtype=np.int8)
    for at, (one, mask) in enumerate(zip(keys, found, strict=False)):
        rows = one.rows_of(mask)
        by[rows[by[rows] < 0]] = at
    return by


def left_over(keys: tables.Keys, by: npt.NDArray[np.int8]) -> Mask:
    """Which keys rows have that are not matched yet: bool[d]."""
    mask = np.zeros(len(keys), dtype=np.bool_)
    mask[keys.codes[(by < 0) & (keys.codes >= 0)]] = True
    return mask


def input_digest(keys: Sequence[tables.Keys]) -> bytes:
    """Changes whenever a key or its row does: which keys are asked for depends on both."""
    digest = hashlib.sha256(canonical.dumps([[one.digest, len(one.codes)] for one in keys]))
    for one in keys:
        digest.update(np.ascontiguousarray(one.codes))
    return digest.digest()
