"""Text that is left alone because it needs no normalising must need none."""

from __future__ import annotations

import itertools
import random
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.tables.text import TRIMMED, _inert, normalised

INERT = [chr(point) for point in np.flatnonzero(_inert())]


def test_no_inert_character_decomposes_or_composes_with_what_stands_before_it():
    inert = set(INERT)
    for point in range(0x110000):
        character = chr(point)
        if unicodedata.normalize("NFKC", character) != character:
            assert character not in inert
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            assert chr(int(parts[1], 16)) not in inert
        if unicodedata.combining(character):
            assert character not in inert
    assert not inert & {chr(point) for point in range(0x1160, 0x1200)}  # Hangul vowels and finals


def test_inert_characters_in_any_order_are_normalised():
    generator = random.Random(11)
    for _ in range(5):
        generator.shuffle(INERT)
        assert unicodedata.is_normalized("NFKC", "".join(INERT))


def test_ordinary_text_is_inert():
    inert = set(INERT)
    for text in (
        "Zoë Müller-Łukasz",
        "企业信用代码",
        "ひらがなカタカナ",
        "한국어",
        "Привет",
        "Ελλάδα",
        "العربية",
    ):
        assert set(text) - {" "} <= inert


def test_the_trimmed_set_is_the_one_on_the_page():
    white = {chr(p) for p in range(0x110000) if chr(p).isspace()} - set("\x1c\x1d\x1e\x1f")
    assert set(TRIMMED) == white | set("\u200b\u2060\ufeff")


@pytest.mark.property
@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.none(), st.text(st.sampled_from("aZ é企가각\u0301\u3099が（１ﬁßİ\u3000\U0001d400"), max_size=5)
        ),
        max_size=15,
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_columns_agree_with_python_row_by_row(values, skipped, casefold):
    offsets, data = normalised(pa.array(values, pa.large_string())[skipped:], casefold=casefold)
    found = [data[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets)]
    wanted = []
    for value in values[skipped:]:
        text = unicodedata.normalize("NFKC", value or "")
        if casefold:
            text = unicodedata.normalize("NFKC", text.casefold())
        wanted.append(text.strip(TRIMMED))
    assert found == wanted
