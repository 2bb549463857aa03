"""The grammar: what is a predicate, what is none, and that each has one canonical text."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustcompute.errors import ParameterError, TableError
from trustcompute.verification import truth
from trustcompute.verification.predicate import MAX_TEXT, match_of, parse

CANONICAL = {
    " present ": "present",
    "match( b,a )": "match(a, b)",
    "seats>=+0100": "seats >= 100",
    "price < 10.50": "price < 10.5",
    "x == -0": "x = 0",
    "year between 1990 and 2000": "year between 1990 and 2000",
    "maker in ('b', 'a', 'b')": "maker in ('a', 'b')",
    "name = 'O''Neill'": "name = 'O''Neill'",
    '"odd name" != true': '"odd name" != true',
    '"match" = 1': '"match" = 1',
}
WRONG = [
    "", "seats", "seats >=", "seats >= 100 or 1 = 1", "seats >= x", "match()", "match(a, a)", "match(a",
    "in in (1)", "__import__('os')", "seats >= 1e9", "a between 1, 2", "a in ()", "present present",
    "a = 'x", "a\n= 1", "x" * (MAX_TEXT + 1), "a = '" + "x" * MAX_TEXT + "'",
]  # fmt: skip


@pytest.mark.parametrize("text", CANONICAL)
def test_a_predicate_has_one_text(text):
    assert str(parse(text)) == CANONICAL[text]
    assert str(parse(str(parse(text)))) == CANONICAL[text]


@pytest.mark.parametrize("text", WRONG)
def test_anything_else_is_refused_with_the_place(text):
    with pytest.raises(ParameterError, match=r"predicate|match takes"):
        parse(text)


@given(st.text(max_size=60))
def test_no_text_does_more_than_parse_or_be_refused(text):
    try:
        found = parse(text)
    except ParameterError:
        return
    assert parse(str(found)) == found


def test_the_order_in_which_one_names_the_elements_of_a_match_does_not_count():
    assert match_of(["phone", "id", "name"], ("id",)) == parse("match(name, phone)")
    with pytest.raises(ParameterError, match="beside those of the key"):
        match_of(["id"], ("id",))


HELD = pa.table(
    {
        "id": ["a", "b", "c", "c", "d", "d", None],
        "n": pa.array([1, None, 3, 4, 5, 5, 6], pa.int32()),
        "f": [0.5, 1.5, float("nan"), 1, 2, 2, 3],
        "d": pa.array([Decimal("1.10"), Decimal("2.20"), None, None, None, None, None], pa.decimal128(9, 2)),
        "t": ["x", "é", "é", "y", None, "", "z"],
        "day": [datetime.date(2020, 1, day) for day in range(1, 8)],
        "yes": [True, False, True, True, None, True, True],
        "maker": pa.array(["p", "q", "p", "p", "q", "q", "q"]).dictionary_encode(),
    }
)
TRUE_OF = {
    "present": "abcd",
    "n >= 3": "cd",
    "n != 3": "ad",
    "n between 1 and 4": "ac",
    "n in (1, 5)": "ad",
    "f < 1.5": "a",
    "d = 1.1": "a",
    "d >= 1.11": "b",
    "t = 'é'": "b",
    "t != 'q'": "abc",
    "t in ('x', 'y', 'é')": "abc",
    "day >= '2020-01-03'": "cd",
    "yes = true": "ac",
    "maker = 'p'": "ac",
    "match(maker)": "abcd",
    "match(n, maker)": "ad",
}


@pytest.mark.parametrize("text", TRUE_OF)
def test_what_holds_of_a_key_holds_of_all_its_rows_and_never_of_a_null(text):
    decided = truth.decide(HELD, ("id",), parse(text))
    names = {}
    for letter in "abcd":
        [digest] = truth.tables.keys({"id": [letter]}, "id").digests
        names[digest.tobytes()] = letter
    assert len(decided) == 4
    held = sorted(names[key.tobytes()] for key in decided.keys[decided.holds])
    assert "".join(held) == TRUE_OF[text]


@pytest.mark.parametrize(
    "text",
    [
        "n >= 1.5",
        "t > 'a'",
        "n = 'a'",
        "f = true",
        "day = 1",
        "yes >= true",
        "day = 'soon'",
        "t = 1",
        "n >= 99999999999",
    ],
)
def test_values_that_the_column_cannot_be_compared_with_are_refused_at_build(text):
    with pytest.raises(ParameterError, match=r"compared|compares"):
        truth.decide(HELD, ("id",), parse(text))


def test_columns_that_are_not_there_and_questions_about_the_key_are_refused():
    with pytest.raises(TableError, match="no column 'seats'"):
        truth.decide(HELD, ("id",), parse("seats > 1"))
    with pytest.raises(ParameterError, match="key itself"):
        truth.decide(HELD, ("id",), parse("id = 'a'"))
    assert len(truth.decide(HELD.to_reader(), ("id",), parse("n > 1"))) == 4  # a stream is read once


def test_rows_that_disagree_are_counted():
    assert truth.decide(HELD, ("id",), parse("n >= 4")).ambiguous == 1
    assert truth.decide(HELD, ("id",), parse("match(n)")).ambiguous == 1
    assert np.array_equal(truth.decide(HELD, ("id",), parse("match(n)")).holds.sum(), 2)
