from __future__ import annotations

import enum
import json
import uuid
from typing import Any, NamedTuple

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.primitives import canonical_by_json as reference
from trustcompute.errors import ParameterError, TrustcomputeError
from trustcompute.primitives import canonical

SAFE = st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER)
KEYS = st.text(st.characters(max_codepoint=127), max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | SAFE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


class Name(str):
    pass


class Count(int):
    pass


class Colour(enum.StrEnum):
    RED = "red"


class Odd(str, enum.Enum):  # noqa: UP042 - this is what is odd
    """Whose text is not its value."""

    ONE = ("text", "value")

    def __new__(cls, text: str, value: str) -> Odd:
        made = str.__new__(cls, text)
        made._value_ = value
        return made


class Level(enum.IntEnum):
    LOW = 1


class Pair(NamedTuple):
    a: int
    b: str


class Table(dict[str, Any]):
    pass


class Row(list[Any]):
    pass


ODD = st.sampled_from(
    [
        *(
            1.5,
            0.0,
            -0.0,
            float("nan"),
            float("inf"),
            2**53,
            -(2**53),
            2**64,
            2**70,
            "\ud800",
            "a\udc00",
            b"x",
        ),
        *(
            Name("n\u0000"),
            Count(7),
            Count(2**53),
            Colour.RED,
            Odd.ONE,
            Level.LOW,
            Pair(1, "é"),
            Pair(1, "\ud800"),
        ),
        *(
            Table(b=1, a=[2]),
            Row([1, "x"]),
            (),
            (1, (2, "y")),
            {1},
            uuid.UUID(int=1),
            object,
            {1: 2},
            {"é": 1},
        ),
        *({Name("b"): 1, "a": 2}, {None: 1}, {"b": 1, "a": Table({"\x7f": 1.5})}, Table({1: 1})),
    ]
)
NESTED = st.integers(28, 36).flatmap(
    lambda levels: st.sampled_from([_nested(levels, 1), _nested(levels, 1.5), _nested(levels, [])])
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | SAFE | TEXT | ODD | NESTED,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS | TEXT, inner, max_size=3)
    ),
    max_leaves=6,
)
SPOILT = st.sampled_from(
    [
        *'{}[]:,"\\ \n-.eE+09é\x00\x1f\ufeff',
        *("-0", "1.0", "1e5", "1E400", "9007199254740992", "99999999999999999999", "1" * 400, "NaN", "true"),
        *('"a":1,', '{"a":', "[" * 33, "]" * 33, "\\ud800", "\\u0041", "\\/"),
    ]
)


def _nested(levels: int, inside: Any) -> Any:
    for level in range(levels):
        inside = [inside] if level % 2 else {"a": inside}
    return inside


def _outcome(function: Any, *arguments: Any, **named: Any) -> tuple[Any, ...]:
    """What a call returns, with the types it is made of, or what it raises."""
    try:
        return "returned", repr(function(*arguments, **named))
    except TrustcomputeError as error:
        return type(error), str(error), getattr(error, "field", None)


@given(ANYTHING)
@settings(max_examples=400, deadline=None)
def test_what_is_written_and_what_is_refused_is_as_by_the_standard_library(value: Any) -> None:
    assert _outcome(canonical.dumps, value) == _outcome(reference.dumps, value)


@given(
    ANYTHING | DOCUMENTS,
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0), SPOILT), max_size=2),
)
@settings(max_examples=400, deadline=None)
def test_what_is_read_and_what_is_refused_is_as_by_the_standard_library(
    value: Any, sort: bool, escape: bool, spoilt: list[tuple[int, str]]
) -> None:
    try:
        text = json.dumps(value, sort_keys=sort, separators=(",", ":"), ensure_ascii=escape)
    except TypeError:
        text = "{}"
    for place, inserted in spoilt:
        at = place % (len(text) + 1)
        text = text[:at] + inserted + text[at:]
    data = text.encode(errors="surrogatepass")
    for form in (data, bytearray(data), memoryview(data)):
        for read in ("loads", "loads_canonical"):
            old, new = getattr(reference, read), getattr(canonical, read)
            assert _outcome(new, form, limit=4096) == _outcome(old, form, limit=4096)


def test_every_character_is_written_as_by_the_standard_library() -> None:
    text = [chr(point) for point in range(0x11000) if not 0xD800 <= point < 0xE000]
    assert canonical.dumps(text) == reference.dumps(text)
    assert canonical.loads_canonical(canonical.dumps(text), limit=10**6) == text


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
        ('{"a":' + "9" * 5000 + "}", "a"),
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
