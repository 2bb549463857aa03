"""What two sides compare first: its canonical form, its bounds, and errors that say which cast to make."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import tables
from trustcompute.errors import TableError
from trustcompute.tables import KeyColumn, KeySpec, Kind

COLUMNS = st.one_of(
    st.builds(KeyColumn, st.just(Kind.TEXT), st.booleans()), st.sampled_from(Kind).map(KeyColumn)
)
SPECS = st.lists(COLUMNS, min_size=1, max_size=16).map(lambda columns: KeySpec("tc-key/1", tuple(columns)))


def spec(*kinds: Kind, casefold: bool = False) -> KeySpec:
    return KeySpec("tc-key/1", tuple(KeyColumn(kind, casefold and kind is Kind.TEXT) for kind in kinds))


@pytest.mark.property
@settings(max_examples=100)
@given(SPECS, SPECS)
def test_one_spec_has_one_text_and_one_digest(one, other):
    assert KeySpec.from_json(one.to_json()) == one == KeySpec.from_json(one.to_json().encode())
    assert rfc8785.dumps(json.loads(one.to_json())) == one.to_json().encode()
    assert (one == other) == (one.to_json() == other.to_json()) == (one.digest == other.digest)
    assert len(one.to_json()) <= 2048


def test_names_are_not_part_of_a_spec():
    assert tables.key_spec({"id": ["a"]}, "id") == tables.key_spec({"code": ["b"]}, "code")


GOOD = spec(Kind.TEXT).to_json()


@pytest.mark.parametrize(
    "document",
    [
        "",
        "{}",
        "[]",
        "null",
        "3",
        '"tc-key/1"',
        "[" * 2000,
        GOOD.replace("tc-key/1", "tc-key/2"),
        GOOD.replace(":", ": "),
        GOOD + " ",
        GOOD[:-1],
        GOOD[:-1] + ',"more":1}',
        GOOD.replace('"kind":"text"', '"kind":"text","name":"id"'),
        GOOD.replace('"casefold":false,', ""),
        GOOD.replace("false", "0"),
        GOOD.replace("false", "null"),
        GOOD.replace('"text"', '"TEXT"'),
        GOOD.replace('"text"', '["text"]'),
        GOOD.replace('"text"', "1.0"),
        GOOD.replace('"casefold":false', '"casefold":true,"casefold":false'),
        GOOD.replace('"text"', '"integer"').replace("false", "true"),
        '{"columns":[],"version":"tc-key/1"}',
        '{"columns":{"0":1},"version":"tc-key/1"}',
        '{"columns":["text"],"version":"tc-key/1"}',
        '{"columns":[' + ",".join(['{"casefold":false,"kind":"text"}'] * 17) + '],"version":"tc-key/1"}',
        '{"columns":[{"casefold":false,"kind":"\\ud800"}],"version":"tc-key/1"}',
        "\ud800",
        " " * 2049,
    ],
    ids=lambda document: document.encode(errors="replace")[:50].decode(),
)
def test_anything_but_the_canonical_document_is_refused(document):
    with pytest.raises(TableError):
        KeySpec.from_json(document)


def test_bytes_that_are_not_utf8_are_refused():
    with pytest.raises(TableError):
        KeySpec.from_json(b"\xff")


def test_a_spec_cannot_be_built_wrong():
    for build in (
        lambda: KeySpec("tc-key/2", (KeyColumn(Kind.TEXT),)),
        lambda: KeySpec("tc-key/1", ()),
        lambda: KeySpec("tc-key/1", (KeyColumn(Kind.TEXT),) * 17),
        lambda: KeyColumn(Kind.INTEGER, casefold=True),
        lambda: KeyColumn("text"),
    ):
        with pytest.raises(TableError):
            build()


def mismatch(left: KeySpec, right: KeySpec) -> str:
    names = [f"left{n}" for n in range(len(left.columns))], [f"right{n}" for n in range(len(right.columns))]
    with pytest.raises(TableError) as caught:
        left.check_matches(right, *names)
    return str(caught.value)


def test_equal_specs_match():
    spec(Kind.TEXT, Kind.DATE).check_matches(spec(Kind.TEXT, Kind.DATE), ["a", "b"], ["c", "d"])


def test_text_and_integers_never_fail_in_silence():
    left, right = tables.key_spec({"id": ["123"]}, "id"), tables.key_spec({"code": [123]}, "code")
    assert left.digest != right.digest
    with pytest.raises(TableError) as caught:
        left.check_matches(right, ["id"], ["code"])
    for words in (
        "left column 'id' (text)",
        "right column 'code' (integer)",
        "cast right column 'code' to text",
        "CAST(... AS VARCHAR)",
    ):
        assert words in str(caught.value)
    with pytest.raises(TableError, match="cast left column 'code' to text"):
        right.check_matches(left, ["code"], ["id"])


@pytest.mark.parametrize(
    ("one", "other", "target", "how"),
    [
        (Kind.DATE, Kind.TIMESTAMP, "date", ".dt.date"),
        (Kind.TIMESTAMP_UTC, Kind.TIMESTAMP, "timestamp_utc", "tz_localize(zone)"),
        (Kind.INTEGER, Kind.DECIMAL, "integer", "BIGINT"),
        (Kind.INTEGER, Kind.BOOLEAN, "integer", "Int64"),
        (Kind.TEXT, Kind.BINARY, "text", "str.decode"),
        (Kind.DATE, Kind.INTEGER, "date", "pl.Date"),
    ],
)
def test_the_cast_to_make(one, other, target, how):
    assert f"cast right column 'right1' to {target}" in mismatch(spec(Kind.TEXT, one), spec(Kind.TEXT, other))
    text = mismatch(spec(other), spec(one))
    assert f"cast left column 'left0' to {target}" in text
    assert how in text


def test_every_pair_of_kinds_has_an_error():
    for one in Kind:
        for other in Kind:
            if one is not other:
                assert f"({one})" in mismatch(spec(one), spec(other))
                assert f"({other})" in mismatch(spec(one), spec(other))


def test_case_folding_on_one_side_only():
    text = mismatch(spec(Kind.TEXT, casefold=True), spec(Kind.TEXT))
    assert "declare casefold for right column 'right0' too, or for neither" in text


def test_columns_without_a_type_match_nothing():
    assert "right column 'right0' holds no value" in mismatch(spec(Kind.TEXT), spec(Kind.NULL))
    assert "left column 'left0' and right column 'right0' holds no value" in mismatch(
        spec(Kind.NULL), spec(Kind.NULL)
    )


def test_numbers_of_columns():
    text = mismatch(spec(Kind.TEXT, Kind.DATE), spec(Kind.TEXT))
    assert "2 columns ('left0', 'left1'), the right one 1 ('right0')" in text
    with pytest.raises(TableError, match="1 column names were given for a key of 2 columns"):
        spec(Kind.TEXT, Kind.DATE).check_matches(spec(Kind.TEXT), ["a"], ["b"])
