"""The auditor finds what does not belong together, and a table that says other than the registered data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from scene import HOLDER, built

from trustcompute.errors import VerificationError
from trustcompute.primitives import merkle
from trustcompute.primitives.rng import Rng
from trustcompute.verification import audit, layout, pir, table, truth
from trustcompute.verification.local import ask
from trustcompute.verification.predicate import parse

HELD = pa.table({"id": [f"N{i}" for i in range(90)], "seats": range(90)})


def asker(made):
    return lambda questions: ask(made, questions, HOLDER, mode="bucket")[0]


@pytest.mark.parametrize("predicate", ["seats >= 40", "match(seats)", "present"])
def test_an_honest_table_passes(predicate):
    made = built(HELD, predicate)
    audit.examine(made.masked)
    found = audit.sampled(
        made.masked, truth.decide(HELD, ("id",), parse(predicate)), asker(made), Rng.from_os(), rows=50
    )
    assert (found.opened, found.records) == (50, 90)


def test_the_sample_finds_as_often_as_it_says():
    assert audit.Audited("", 10**6, 10_000).finds(0.001) == pytest.approx(0.99995, abs=5e-5)
    assert audit.Audited("", 100, 100).finds(0.01) == 1
    assert audit.Audited("", 100, 10).finds(0) == 0


def test_a_table_that_says_other_than_the_registered_data_is_found():
    made = built(HELD, "seats >= 40")
    for other in (HELD.set_column(1, "seats", pa.array(range(1, 91))), HELD.slice(1)):
        registered = truth.decide(other, ("id",), parse("seats >= 40"))
        with pytest.raises(VerificationError, match="registered data"):
            audit.sampled(made.masked, registered, asker(made), Rng.from_os(), rows=90)


def resealed(made, *, database=None, buckets=None):
    """A table whose descriptor is made anew over other cells: consistent by every hash."""
    masked = made.masked
    database = masked.database if database is None else database
    buckets = masked.buckets if buckets is None else buckets
    hint = pir.make_hint(database, bytes.fromhex(masked.descriptor.seed))
    leaves = layout.leaves(np.ascontiguousarray(database.view(np.uint8).T))
    tree = merkle.Tree()
    tree.append_all(layout.leaves(buckets))
    said = masked.descriptor
    said = said.model_copy(
        update={
            "hint": pir.hint_digest(hint),
            "columns": said.columns.model_copy(update={"root": table.root_of(leaves).hex()}),
            "buckets": said.buckets.model_copy(update={"root": tree.root().hex()}),
        }
    )
    return table.Masked(said, said.sign(HOLDER), buckets, database, hint, masked.splitters, leaves)


def test_layouts_that_contradict_themselves_are_found():
    made = built(HELD, "present")
    header = layout.HEADER
    changes = {
        "number": lambda column: column.__setitem__(7, column[7] ^ 1),
        "range": lambda column: column.__setitem__(8, column[8] ^ 1),
        "missing": lambda column: column.__setitem__(slice(header, None), 0),
        "order": lambda column: column.__setitem__(header, column[header] ^ 0x80),
        "behind": lambda column: column.__setitem__(-1, 1),
    }
    for change in changes.values():
        database = np.array(made.masked.database)
        column = database[:, 5].view(np.uint8).copy()
        change(column)
        database[:, 5] = column.view(np.int8)
        masked = resealed(made, database=database)
        table.check(masked)
        with pytest.raises(VerificationError):
            audit.examine(masked)
    buckets = np.array(made.masked.buckets)
    buckets[0, header : header + 16] = 0
    with pytest.raises(VerificationError):
        audit.examine(resealed(made, buckets=buckets))


def test_a_hint_of_other_cells_is_found():
    made = built(HELD, "present")
    hint = np.array(made.masked.hint)
    hint[3, 3] += 1
    said = made.descriptor.model_copy(update={"hint": pir.hint_digest(hint)})
    masked = dataclasses.replace(made.masked, descriptor=said, token=said.sign(HOLDER), hint=hint)
    table.check(masked)
    with pytest.raises(VerificationError, match="hint"):
        audit.examine(masked)
