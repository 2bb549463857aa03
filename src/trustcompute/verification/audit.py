"""What an auditor does: read a whole table once, open a sample of it against the registered data, and hand out checks.

Called by ``trustcompute verify audit``. The auditor holds the masked table, without keys, and does not work with the
holder against the asker. ``examine`` shows that root, hint, splitters and cells belong together; ``sampled`` that the
cells say what the registered data say, by asking ordinary questions (the holder cannot tell them from others');
``proof.issue`` then makes a check for one client.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import numpy as np

from trustcompute.errors import VerificationError
from trustcompute.primitives.rng import Rng
from trustcompute.verification import layout, pir, table
from trustcompute.verification.answer import Questions, VerifiedAnswer
from trustcompute.verification.cells import CELL, Code
from trustcompute.verification.layout import HEADER
from trustcompute.verification.table import Masked
from trustcompute.verification.truth import Truth

ROWS: Final = 10_000
"""Records opened: finds a table of which 0.1 % is wrong with probability 99.995 %."""
AT_ONCE: Final = 256
"""Questions of one request of the auditor's."""


@dataclass(frozen=True)
class Audited:
    """What was looked at: the table's id, its records, and how many of them were opened."""

    table: str
    records: int
    opened: int

    def finds(self, share: float) -> float:
        """The probability that a table of which this share is wrong would have been found."""
        wrong = round(share * self.records)
        if wrong + self.opened > self.records:
            return 1.0 if wrong else 0.0
        left = np.log1p(
            -self.opened / (self.records - np.arange(wrong))
        ).sum()  # none of the wrong ones was drawn
        return float(-np.expm1(left))


def examine(masked: Masked, *, executor: Executor | None = None) -> None:
    """Read all of a table. Raises ``VerificationError`` where its parts, or its two layouts, do not belong together."""
    table.check(masked)
    said = masked.descriptor
    hint = pir.make_hint(masked.database, bytes.fromhex(said.seed), executor=executor)
    if not np.array_equal(hint, masked.hint):
        raise VerificationError("the hint is not that of the table's cells")
    lasts = layout.last_tags(masked.splitters)
    records = 0
    for start, columns in layout.across(masked.database):
        for number, column in enumerate(columns, start):
            told = layout.header(column)
            if (told.number, told.first, told.last) != (number, masked.splitters[number], lasts[number]):
                raise VerificationError(f"column {number} does not say where it stands")
            records += _check_cells(column, number, told.first, told.last)
    in_buckets = 0
    for number, column in enumerate(masked.buckets):
        if layout.header(column).number != number:
            raise VerificationError(f"bucket {number} does not say where it stands")
        in_buckets += _check_cells(column, number, 0, layout.LARGEST_TAG)
    if (records, in_buckets) != (said.records, said.records):
        raise VerificationError(f"the table has not the {said.records} records its descriptor says")


def _check_cells(column: np.ndarray, number: int, first: int, last: int) -> int:
    """How many there are, in order."""
    body = column[HEADER:].reshape(-1, CELL)
    tags = np.ascontiguousarray(body[:, :8]).view(">u8").reshape(-1).astype(np.uint64)
    used = tags[tags != 0]
    if len(used) and (tags[: len(used)] != used).any():
        raise VerificationError(f"column {number} has a gap between its cells")
    if body[len(used) :].any():
        raise VerificationError(f"column {number} has something behind its cells")
    if (used[1:] <= used[:-1]).any() or (len(used) and not first <= int(used[0]) <= int(used[-1]) <= last):
        raise VerificationError(f"the cells of column {number} are not in order, or do not belong there")
    return len(used)


def sampled(
    masked: Masked,
    registered: Truth,
    ask: Callable[[Questions], Sequence[VerifiedAnswer]],
    rng: Rng,
    *,
    rows: int = ROWS,
) -> Audited:
    """Open random records of the registered data. registered: the predicate decided over them by the auditor.

    ask: puts questions to the holder, as any client does. Raises ``VerificationError`` saying how many answers were
    wrong.
    """
    if len(registered) != masked.descriptor.records:
        raise VerificationError(
            f"the registered data have {len(registered)} keys, the table {masked.descriptor.records} records"
        )
    drawn = rng.permutation(len(registered))[:rows]
    wrong = 0
    for at in range(0, len(drawn), AT_ONCE):
        part = drawn[at : at + AT_ONCE]
        elements = None if registered.elements is None else registered.elements[part]
        answers = ask(Questions(registered.keys[part], elements))
        right = np.where(registered.holds[part], Code.MATCH, Code.MISMATCH)
        wrong += int((np.array([answer.code for answer in answers]) != right).sum())
    if wrong:
        raise VerificationError(
            f"{wrong} of {len(drawn)} records that were opened do not say what the registered data say"
        )
    return Audited(masked.id, len(registered), len(drawn))
