"""What an asker brings, in the form the holder's table has: rows to distinct questions, and answers back to rows.

Called by ``verify`` and ``Session.verify``. Canonicalisation is that of set intersection (``tc-key/1``), under the
key specification of the descriptor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from trustcompute import tables
from trustcompute.errors import TableError
from trustcompute.kernels.arrays import I64
from trustcompute.tables import KeySpec
from trustcompute.verification.answer import Questions
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.predicate import parse

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Asked:
    """Distinct questions, and for each row of ours which of them it is: int64[rows]."""

    questions: Questions
    rows: I64

    def spread(self, answers: Sequence[T]) -> list[T]:
        """An answer for every row."""
        return [answers[index] for index in self.rows]


def asked(
    said: Descriptor, rows: Any, *, on: Mapping[str, str] | None = None, executor: Executor | None = None
) -> Asked:
    """Questions about a table of ours. on: our columns -> theirs, for those that are called otherwise.

    Raises ``TableError``: a column that is missing, of another kind than theirs, or null or blank in some row.
    """
    table = tables.open_table(rows)
    ours = {theirs: mine for mine, theirs in (on or {}).items()}
    subject = [ours.get(column, column) for column in said.subject]
    keys = _keys(table, subject, said.spec, executor)
    if said.elements is None:
        return Asked(Questions(keys.digests), keys.codes)
    elements = [ours.get(column, column) for column in parse(said.predicate).columns]
    whole = _keys(table, [*subject, *elements], said.elements, executor)
    return Asked(Questions(keys.digests[keys.codes[whole.first_rows]], whole.digests), whole.codes)


def listed(said: Descriptor, keys: Any) -> Any:
    """Keys that were passed as a list, as a table; of several columns, each key a tuple."""
    if len(said.subject) == 1:
        return {said.subject[0]: list(keys)}
    try:
        columns = list(zip(*keys, strict=True))
    except TypeError:
        columns = []
    if len(columns) != len(said.subject):
        raise TableError(f"each key is a tuple of {', '.join(said.subject)}")
    return {name: list(column) for name, column in zip(said.subject, columns, strict=True)}


def subjects(said: Descriptor, keys: Any) -> list[bytes]:
    """Digests of listed keys, one each, as questions about this table have them. Raises ``TableError``."""
    found = _keys(tables.open_table(listed(said, keys)), list(said.subject), said.spec, None)
    return [found.digests[code].tobytes() for code in found.codes]


def _keys(table: tables.Table, columns: list[str], spec: str, executor: Executor | None) -> tables.Keys:
    found = tables.keys(table, columns, spec=KeySpec.from_json(spec), executor=executor)
    if found.nulls:
        row = int(np.flatnonzero(found.codes < 0)[0])
        raise TableError(
            f"{found.nulls} rows have a null or blank in {', '.join(columns)}, the first is row {row} (counted from 0):"
            " nothing can be asked about them, leave them out"
        )
    if not len(found):
        raise TableError("there are no rows to ask about")
    return found
