"""Columns become bytes of one width and come back; bytes from a peer that are none are refused."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import TableError
from trustcompute.tables import labels
from trustcompute.tables.labels import LabelColumn, LabelKind

MOMENT = dt.datetime(2024, 2, 29, 12, 30, 1, 5)
TABLE = pa.table(
    {
        "whole": pa.array([1, None, -(2**63), 2**63 - 1]),
        "small": pa.array([1, 2, None, 255], pa.uint8()),
        "float": pa.array([0.5, None, -1e300, 0.0]),
        "truth": pa.array([True, False, None, True]),
        "date": pa.array([dt.date(2024, 2, 29), None, dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
        "moment": pa.array([MOMENT, None, MOMENT, MOMENT], pa.timestamp("ms")),
        "utc": pa.array([MOMENT, None, MOMENT, MOMENT], pa.timestamp("us", "Europe/Oslo")),
        "text": pa.array(["", "Ünï", None, "x" * 9]),
        "choice": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "bytes": pa.array([b"\0", b"", None, b"\xff" * 3]),
    }
)


def form(table=TABLE, **widths):
    return labels.form_of(table, labels.widths_of(table, table.column_names) | widths)


def test_there_and_back():
    made = form(text=12)
    assert labels.row_bytes(made) == 8 * 7 + 12 + 1 + 3 + 2 * 10
    found = labels.decode(labels.encode(TABLE, np.array([3, 0, 1, 2]), made), made)
    expected = TABLE.take([3, 0, 1, 2])
    for name in ("whole", "float", "truth", "date", "text", "bytes"):
        assert found[name].to_pylist() == expected[name].to_pylist(), name
    assert found["small"].to_pylist() == [255, 1, 2, None]
    assert found["choice"].to_pylist() == ["a", "a", "b", None]
    assert found["moment"].type == pa.timestamp("us")
    assert found["utc"].cast(pa.timestamp("us", "Europe/Oslo")).equals(expected["utc"])


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=6)), max_size=9), st.integers(0, 3))
def test_any_text_comes_back_from_any_slice(texts, skipped):
    table = pa.table({"text": pa.array(texts, pa.string())}).slice(skipped)
    made = form(table)
    found = labels.decode(labels.encode(table, np.arange(table.num_rows), made), made)
    assert found["text"].to_pylist() == texts[skipped:]
    assert found["text"].type == pa.large_string()


def test_what_cannot_be_a_label():
    with pytest.raises(TableError, match="values of 9 bytes: give it that width, not 8"):
        labels.check_fits(TABLE, labels.form_of(TABLE, {"text": 8}))
    with pytest.raises(TableError, match="longer than its width"):
        labels.encode(TABLE, np.array([3]), labels.form_of(TABLE, {"text": 8}))
    with pytest.raises(TableError, match="take 8 bytes"):
        labels.form_of(TABLE, {"whole": 4})
    with pytest.raises(TableError, match="allowed are integer"):
        labels.form_of(pa.table({"list": [[1]]}), {"list": 8})
    with pytest.raises(TableError, match="no column"):
        labels.form_of(TABLE, {"texts": 8})
    with pytest.raises(TableError, match="4096"):
        labels.form_of(TABLE, {"text": 4000, "bytes": 4000})
    with pytest.raises(TableError, match="cast it to text"):
        large = pa.table({"n": pa.array([2**64 - 1], pa.uint64())})
        labels.encode(large, np.array([0]), form(large))
    for width in (0, 5000):
        with pytest.raises(TableError, match="1 to 4096"):
            LabelColumn("text", LabelKind.TEXT, width)


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        (LabelKind.TEXT, b"\x0a\x00" + b"x" * 8),  # nine bytes of eight
        (LabelKind.TEXT, b"\x02\x00\xff" + b"\0" * 7),  # no UTF-8
        (LabelKind.INTEGER, b"\x05\x00" + b"\0" * 8),
        (LabelKind.BOOLEAN, b"\x09\x00\x02" + b"\0" * 7),
        (LabelKind.DATE, b"\x09\x00" + b"\xff" * 7 + b"\x7f"),
    ],
)
def test_bytes_that_are_no_labels_are_refused(kind, cell):
    with pytest.raises(TableError, match="no labels of kind"):
        labels.decode(np.frombuffer(cell, np.uint8).reshape(1, -1), (LabelColumn("c", kind, 8),))


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(LabelKind)), st.binary(min_size=20, max_size=20))
def test_no_bytes_do_harm(kind, cells):
    made = (LabelColumn("c", kind, 8),)
    try:
        found = labels.decode(np.frombuffer(cells, np.uint8).reshape(2, 10), made)
    except TableError:
        return
    found.validate(full=True)
    assert found.num_rows == 2
