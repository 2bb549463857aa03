"""psi.cascade.v1: the first identifier that matches counts, and what the messages show does not depend on matches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels, psi
from trustcompute.errors import ParameterError, TableError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Scope, Sizes
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import cascading
from trustcompute.psi.cascading import OPERATION

pytestmark = pytest.mark.skipif(kernels.active().name != "native", reason="only with the native kernels")

ON = psi.InOrder("id", ["name", "born"])
OURS = {
    "id": ["a", None, "c", "d", None, "f"],
    "name": ["Ann", "Bob", "Cy", None, "Eve", "Ann"],
    "born": [1990, 1991, 1992, 1993, 1994, 1990],
}
THEIRS = {"id": ["a", "x", None], "name": ["Ann", "Bob", "Eve"], "born": [1990, 1991, 1]}
ONE = {"columns": ["id"], "keys": "0" * 64, "rows": 3, "held": 2}
PARAMS = {"identifiers": [ONE, ONE | {"columns": ["name", "born"], "rows": 4}], "runs": 2}


def expected(ours, theirs, identifiers):
    """By which identifier each row matches, the plain way."""
    found = []
    held = [
        {key for key in zip(*(theirs[column] for column in one), strict=True) if None not in key}
        for one in identifiers
    ]
    for row in range(len(ours[identifiers[0][0]])):
        keys = [tuple(ours[column][row] for column in one) for one in identifiers]
        found.append(next((at for at, key in enumerate(keys) if key in held[at]), -1))
    return found


def test_a_row_matches_by_its_first_identifier_and_nulls_skip_one():
    found = psi.cascade(OURS, THEIRS, on=ON)
    assert found.left_rows.tolist() == [0, 1, 5]
    assert found.by.tolist() == [0, 1, 1]
    assert found.matched == {"id": 1, "name + born": 2}
    assert found.table().column("matched_by").to_pylist() == ["id", "name + born", "name + born"]
    assert found.table("difference").column("id").to_pylist() == ["c", "d", None]
    assert found.table("left").column("matched_by").to_pylist() == [
        "id",
        "name + born",
        None,
        None,
        None,
        "name + born",
    ]
    with pytest.raises(ParameterError, match="how must be one of"):
        found.table("outer")


COLUMN = st.one_of(st.none(), st.sampled_from("abcd"))


@pytest.mark.property
@given(st.data())
@settings(max_examples=10, deadline=None)
def test_it_equals_plain_matching_in_order(data):
    names, sizes = ("one", "two", "three"), [data.draw(st.integers(0, 9)) for _ in range(2)]
    ours, theirs = (
        {name: data.draw(st.lists(COLUMN, min_size=size, max_size=size)) for name in names} for size in sizes
    )
    identifiers = data.draw(st.permutations([["one"], ["two", "three"], ["three"]]))
    found = psi.cascade(ours, theirs, on=psi.InOrder(*identifiers))
    wanted = expected(ours, theirs, identifiers)
    assert found.left_rows.tolist() == [row for row, by in enumerate(wanted) if by >= 0]
    assert found.by.tolist() == [by for by in wanted if by >= 0]


def test_what_crosses_has_the_same_size_whatever_matched_before():
    none = {"id": ["y"] * 2, "name": ["Ann", "Bob"], "born": [1, 2]}
    costs = {psi.cascade(ours, THEIRS, on=ON).cost for ours in (
        {"id": ["a", "b"], "name": ["Ann", "Bob"], "born": [1990, 1991]},
        {"id": ["x", "b"], "name": ["Ann", "Bob"], "born": [1990, 1991]},
        {"id": ["x", "y"], "name": ["Zoe", "Bob"], "born": [1990, 1]},
    )}  # fmt: skip
    assert len(costs) == 1
    assert psi.cascade(none, THEIRS, on=ON).left_rows.tolist() == []


def test_a_key_of_rows_that_matched_before_is_not_asked_for():
    keys = np.arange(3 * 32, dtype=np.uint8).reshape(3, 32)
    wanted = np.array([False, True, False])
    run = run_local(
        cascading.consumer(PARAMS, 0, keys, wanted, Rng.from_os()),
        cascading.provider(PARAMS, 0, keys[:2], Rng.from_os()),
        Binding("", cascading.ID, PARAMS, "consumer", "provider"),
    )
    assert run.consumer.mask.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("identifiers", "words"),
    [
        ((), "2 to 8"),
        (("id",), "with one, use an intersection"),
        (tuple("abcdefghi"), "2 to 8"),
        (("id", ["id"]), "twice"),
        (("id", 5), "on must be"),
        (("id", []), "on must be"),
    ],
)
def test_identifiers_that_are_none_are_named(identifiers, words):
    with pytest.raises(ParameterError, match=words):
        psi.InOrder(*identifiers)


def test_columns_of_different_types_or_that_are_missing_are_refused():
    with pytest.raises(TableError, match="integer"):
        psi.cascade({"id": [1], "name": ["x"]}, {"id": ["1"], "name": ["x"]}, on=psi.InOrder("id", "name"))
    with pytest.raises(TableError, match="born"):
        psi.cascade(OURS, {"id": ["a"], "name": ["Ann"]}, on=ON)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"runs": 1}, "a run for each"),
        ({"runs": 3}, "a run for each"),
        ({"identifiers": [ONE]}, "2 to 8"),
        ({"identifiers": ONE}, "list of identifiers"),
        ({"identifiers": [ONE, {"columns": ["id"]}]}, "columns, keys, rows, held"),
        ({"identifiers": [ONE, ONE | {"rows": "4"}]}, "rows of an identifier"),
        ({"identifiers": [ONE, ONE | {"held": -1}]}, "held of an identifier"),
        ({"identifiers": [ONE, ONE | {"held": 2**31}]}, "held of an identifier"),
        ({"identifiers": [ONE, ONE | {"keys": "x"}]}, "digest"),
        ({"identifiers": [ONE, ONE]}, "all identifiers together"),
        ({"output": "count"}, "a cascade takes"),
    ],
)
def test_parameters_that_are_wrong_are_named(change, words):
    with pytest.raises(ParameterError, match=words):
        OPERATION.check(PARAMS | change, Sizes(7, 4))


def test_parameters_reach_for_all_columns_and_bound_what_crosses():
    assert OPERATION.check(PARAMS, Sizes(7, 4)) == PARAMS
    assert OPERATION.scope(PARAMS) == Scope(("id", "name", "born"))
    found = psi.cascade(OURS, THEIRS, on=ON)
    params = {"identifiers": [ONE | {"rows": 4}, ONE | {"rows": 5, "held": 3}], "runs": 2}
    bound = OPERATION.bound(params, Sizes(9, 5))
    crossed = found.cost.bytes_sent + found.cost.bytes_received
    assert (bound.calls, bound.rows) == (1, 9)
    assert bound.bytes <= crossed <= bound.bytes + 2 * 7 * 400
