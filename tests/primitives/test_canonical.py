from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError
from trustcompute.primitives import canonical

SAFE = st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER)
KEYS = st.text(st.characters(max_codepoint=127), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | SAFE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.peer
@given(DOCUMENTS)
@settings(max_examples=150, deadline=None)
def test_bytes_are_those_of_rfc8785(document: Any) -> None:
    written = canonical.dumps(document)
    assert written == rfc8785.dumps(document)
    assert canonical.loads_canonical(written, limit=10**6) == document


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"a":{"b":1.0}}', "a.b"),
        ('{"a":1e3}', "a"),
        ('{"a":1,"a":1}', "a"),
        ('{"a":{"b":1,"b":2}}', "b"),
        ('{"a":[9007199254740992]}', "a"),
        ('{"a":-0}', ""),
        ('{"a":NaN}', ""),
        ('{"a":Infinity}', ""),
        ('{"é":1}', ""),
        ('{"a":"\\ud800"}', "a"),
        ('{"a":' + "9" * 5000 + "}", ""),
        ("[" * 100 + "]" * 100, ""),
        ("[" * 100_000, ""),
        ("{", ""),
        ("", ""),
        ("\ufeff{}", ""),
        ("{} {}", ""),
    ],
)
def test_what_has_no_canonical_form_is_refused_by_name(text: str, field: str) -> None:
    with pytest.raises(canonical.DocumentError) as caught:
        canonical.loads(text.encode(), limit=10**6)
    assert caught.value.field == field


def test_bytes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(canonical.DocumentError, match="UTF-8"):
        canonical.loads(b'{"a":"\xff"}', limit=100)


def test_a_document_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(canonical.DocumentError, match="may have 3 bytes, not 4"):
        canonical.loads(b"nope", limit=3)


@pytest.mark.parametrize("text", ['{"b":1,"a":2}', '{"a": 1}', '{"a":"\\u0041"}', '{"a":1}\n', '{"a":"\\/"}'])
def test_a_second_spelling_is_parsed_but_not_canonical(text: str) -> None:
    assert canonical.loads(text.encode(), limit=100) == json.loads(text)
    with pytest.raises(canonical.DocumentError, match="not in canonical form"):
        canonical.loads_canonical(text.encode(), limit=100)


@pytest.mark.parametrize(
    "value", [1.5, {"a": [0.0]}, {1: 2}, {"é": 1}, 2**53, "\ud800", {"a": b"bytes"}, {"a": {1, 2}}]
)
def test_values_without_a_canonical_form_cannot_be_written(value: Any) -> None:
    with pytest.raises(ParameterError):
        canonical.dumps(value)


@given(st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_integers_have_one_form_each(value: int) -> None:
    form = canonical.integer(value)
    assert canonical.parse_integer(json.loads(canonical.dumps(form))) == value
    other = str(value) if isinstance(form, int) else value
    with pytest.raises(canonical.DocumentError):
        canonical.parse_integer(other, "amount")


@pytest.mark.parametrize("value", [True, None, 1.0, "", "01", "+5", "9007199254740991", "٣", [1], "9" * 21])
def test_what_is_not_an_integer_is_refused_as_one(value: object) -> None:
    with pytest.raises(canonical.DocumentError) as caught:
        canonical.parse_integer(value, "limits.rows")
    assert caught.value.field == "limits.rows"
