"""Sorting and telling apart digests, also those that somebody made to collide in their first bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.tables.distinct import DigestRows, group_rows, sort_digests

# Digests that agree in long prefixes, or in everything but their last byte.
DIGESTS = st.builds(
    lambda head, middle, tail: head + bytes(7) + middle + bytes(22) + tail,
    st.sampled_from([b"\x00", b"\x03", b"\x04", b"\xff"]),
    st.sampled_from([b"\x00", b"\x80"]),
    st.sampled_from([b"\x00", b"\x01", b"\xff"]),
)


def plain(rows: list[bytes]) -> tuple[list[bytes], list[int], list[int]]:
    distinct = sorted(set(rows))
    return distinct, [distinct.index(row) for row in rows], [rows.index(digest) for digest in distinct]


def as_array(rows: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)


@pytest.mark.property
@settings(max_examples=200)
@given(st.lists(DIGESTS, max_size=40))
def test_sorting_agrees_with_python(rows):
    order, starts = sort_digests(as_array(rows))
    assert order.tolist() == sorted(range(len(rows)), key=lambda row: (rows[row], row))
    assert [rows[order[start]] for start in starts] == sorted(set(rows))


@pytest.mark.property
@settings(max_examples=100)
@given(st.lists(st.lists(st.one_of(st.none(), DIGESTS), max_size=12), max_size=5))
def test_collecting_in_batches_agrees_with_python(batches):
    collected, start = DigestRows(), 0
    for batch in batches:
        there = np.array([start + i for i, digest in enumerate(batch) if digest], np.int64)
        collected.append(as_array([digest for digest in batch if digest]), there)
        start += len(batch)
    digests, codes, first_rows = collected.finish(start)
    rows = [digest for batch in batches for digest in batch]
    distinct, wanted_codes, _ = plain([digest for digest in rows if digest])
    assert [row.tobytes() for row in digests] == distinct
    assert codes[codes >= 0].tolist() == wanted_codes
    assert [code < 0 for code in codes] == [digest is None for digest in rows]
    assert first_rows.tolist() == [rows.index(digest) for digest in distinct]


def test_thousands_of_digests_with_one_64_bit_prefix():
    generator = np.random.default_rng(3)
    digests = generator.integers(0, 256, (20_000, 32), np.uint8)
    digests[:10_000, :8] = 7
    digests[5_000:10_000] = digests[:5_000]
    order, starts = sort_digests(digests)
    rows = [row.tobytes() for row in digests]
    assert [rows[i] for i in order] == sorted(rows)
    assert len(starts) == 15_000 == len(set(rows))


@pytest.mark.property
@settings(max_examples=100)
@given(st.lists(st.integers(-1, 5), max_size=30))
def test_groups(codes):
    rows, starts = group_rows(np.array(codes, np.int64), 6)
    for code in range(6):
        wanted = [row for row, found in enumerate(codes) if found == code]
        assert rows[starts[code] : starts[code + 1]].tolist() == wanted
    assert starts[-1] == len(rows) == sum(code >= 0 for code in codes)
