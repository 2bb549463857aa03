"""A table is built on disk in bounded memory, goes on wherever it was stopped, and is the one built in memory."""

from __future__ import annotations

import os
import signal
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from scene import HOLDER, PLACE, SEED, built

from trustcompute import kernels
from trustcompute.errors import StoreError
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.tables import spread
from trustcompute.verification import audit, building, evaluated, layout, pir, truth
from trustcompute.verification.predicate import parse
from trustcompute.verification.shelf import Shelf
from trustcompute.verification.table import About

HELD = pa.table({"id": [f"N{i % 140}" for i in range(150)], "seats": [i % 140 for i in range(150)]})


@pytest.fixture
def pieces(monkeypatch):
    """Everything in many pieces, also of a small table."""
    monkeypatch.setattr(building, "PIECE", 32)
    monkeypatch.setattr(layout, "PIECE", 32)
    monkeypatch.setattr(layout, "BLOCK", 1000)
    monkeypatch.setattr(pir, "COLUMNS_AT_ONCE", 64)
    monkeypatch.setattr(spread, "BUFFER", 2000)


def files(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def built_in(directory, predicate):
    """Decided and built in a directory, as a node does."""
    about = About(dataset="held", version="1", subject=("id",), predicate=parse(predicate), place=PLACE)
    decided = truth.decide(HELD, ("id",), about.predicate, shelf=Shelf(directory / "truth"))
    made = building.build(about, decided, SEED, HOLDER, directory=directory / "tables", least_in_bucket=20)
    return made.id


def calls_until_killed(directory, predicate, at):
    """Build in a process of its own that is killed at its call number ``at``; the number of calls if it ends before."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        count = 0

        def profile(frame, event, argument):
            nonlocal count
            count += event in ("call", "c_call")
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(profile)
            built_in(directory, predicate)
            sys.setprofile(None)
            os.write(writing, str(count).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return int(told) if told else None


@pytest.mark.fault
def test_killed_at_any_point_and_gone_on_with_it_is_the_same_table(tmp_path, pieces):
    predicate = "match(seats)"
    built_in(tmp_path / "whole", predicate)
    whole = files(tmp_path / "whole" / "tables")
    calls = calls_until_killed(tmp_path / "counted", predicate, -1)
    rng = np.random.default_rng(7)
    for run in range(5):
        here = tmp_path / str(run)
        for at in rng.integers(1, calls, 2):
            calls_until_killed(here, predicate, int(at))
        built_in(here, predicate)
        assert files(here / "tables") == whole


def test_what_was_finished_is_not_made_again(tmp_path, pieces, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(pir, "make_hint", stop)
        with pytest.raises(KeyboardInterrupt):
            built_in(tmp_path, "seats >= 100")
    for where, name in (
        (building, "evaluate"), (building, "Spread"), (building, "_across"), (building, "_down"),
        (layout, "leaves_across"),
    ):  # fmt: skip
        monkeypatch.setattr(where, name, stop)
    assert built_in(tmp_path, "seats >= 100")


@pytest.mark.parametrize("predicate", ["seats >= 100", "match(seats)", "present"])
def test_on_disk_and_in_memory_it_is_the_same(tmp_path, predicate, pieces):
    in_memory = built(HELD, predicate, least_in_bucket=20)
    assert built_in(tmp_path, predicate) == in_memory.id
    audit.examine(in_memory.masked)


def test_two_tags_that_fall_together_take_another_salt(tmp_path, monkeypatch):
    usual = built(HELD, "present")
    roots = []

    def colliding(values, salt):
        found = usual_roots(values, salt)
        roots.append(salt)
        if salt == roots[0]:
            found[:2, :8] = 7
        return found

    usual_roots = building.cells.roots
    monkeypatch.setattr(building.cells, "roots", colliding)
    made = built(HELD, "present", directory=tmp_path)
    assert made.descriptor.salt == roots[-1].hex() != usual.descriptor.salt
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".evaluated"]
    audit.examine(made.masked)


def test_a_disk_that_is_full_says_so(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError, match="No space left"):
        built(HELD, "present", directory=tmp_path)
    monkeypatch.undo()
    assert built(HELD, "present", directory=tmp_path).descriptor.records == 140


@pytest.mark.skipif(
    kernels.active().name == "reference", reason="the reference kernels widen what they multiply"
)
def test_memory_does_not_grow_with_the_records_but_by_the_stated_parts(tmp_path, monkeypatch):
    records, piece, buffer, block, at_once = 2**16, 2**11, 2**18, 2**18, 2**8
    monkeypatch.setattr(building, "PIECE", piece)
    monkeypatch.setattr(layout, "PIECE", piece)
    monkeypatch.setattr(layout, "BLOCK", block)
    monkeypatch.setattr(pir, "COLUMNS_AT_ONCE", at_once)
    monkeypatch.setattr(spread, "BUFFER", buffer)
    rng = np.random.default_rng(3)
    keys = np.memmap(tmp_path / "keys", np.uint8, "w+", shape=(records, 32))
    keys[:] = rng.integers(0, 256, (records, 32), dtype=np.uint8)
    about = About(dataset="held", version="1", subject=("id",), predicate=parse("present"), place=PLACE)
    spec = truth.decide(HELD, ("id",), about.predicate).spec
    many = truth.Truth(spec, keys, np.ones(records, dtype=np.bool_), None, None, 0)
    shelf = Shelf(tmp_path / "part")
    rows = shelf.rows("rows", evaluated.ROW)
    rows.append(rng.integers(0, 256, (records, evaluated.ROW), dtype=np.uint8))
    making = building.Making(about, many, oprf.derive_key(SEED, b"", Mode.VOPRF), HOLDER, shelf)
    tracemalloc.start()
    masked = building.from_rows(making, rows.array(), bytes(32), least=64)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    length = masked.descriptor.columns.shape.length
    hint, matrix = 5632 * length, 5632 * at_once
    of_columns = 64 * (masked.descriptor.columns.columns + masked.descriptor.buckets.columns)
    assert peak < 2 * hint + matrix + 4 * buffer + 4 * block + 4 * of_columns
    assert peak < 2.5 * rows.array().nbytes  # memory used to hold them several times over
    audit.examine(masked)
