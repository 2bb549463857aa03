"""The specification: one digest for one meaning, slots that cannot wrap, encoding that raises."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.aggregation import Bounds, Noise, Spec, Unusable
from trustcompute.aggregation.encoding import encode, in_range
from trustcompute.errors import ParameterError

DELAYS = Spec(
    columns={"delay": Bounds(-60, 1800)},
    statistics=["count", "sum", "mean", "variance"],
    by={"origin": ["EWR", "JFK"]},
    max_rows=10**5,
)


def test_a_specification_survives_its_document_and_its_digest_tells_every_difference():
    specs = [
        DELAYS,
        Spec(columns={"delay": Bounds("-60.5", 1800, scale=10)}, max_rows=10),
        Spec(columns={"a": Bounds(0, 9), "w": Bounds(0, 5)}, weight="w", max_rows=10),
        Spec(columns={"a": Bounds(0, 9)}, histograms={"a": [0, 3, 9]}, max_rows=10, min_parties=4),
        Spec(columns={"value": Bounds(-1, 1)}, length=100, reveal="everyone"),
        Spec(columns={"a": Bounds(0, 9)}, noise=Noise("0.5"), max_rows=10),
        Spec(columns={"a": Bounds(0, 9)}, noise=Noise("0.5", colluders=1), max_rows=10),
    ]
    for spec in specs:
        assert Spec.from_document(spec.to_document()) == spec
    assert len({spec.digest for spec in specs}) == len(specs)


def test_a_document_that_is_not_canonical_is_refused():
    document = DELAYS.to_document()
    for change in (
        {"rounding": "down"},
        {"max_rows": "10"},
        {"statistics": ["sum"]},
        {"columns": [["delay", "-60", "1800.0", 1]]},
        {"more": 1},
        {"noise": {"rho": 0.5}},
    ):
        with pytest.raises(ParameterError):
            Spec.from_document(document | change)
    with pytest.raises(ParameterError, match="exactly the members"):
        Spec.from_document([])


def test_the_slot_formula_leaves_room_for_the_largest_sum_of_squares():
    assert DELAYS.layout[2].reach == 930**2
    largest = 16 * 10**5 * 930**2
    assert DELAYS.payload_bits == (2 * largest).bit_length() == 42
    assert DELAYS.slot_bits == 50
    assert in_range(np.array([largest, -largest]), DELAYS)
    assert not any(in_range(np.array([one]), DELAYS) for one in (2**42, -(2**42), 2**62))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": {"a": Bounds(0, 2**40)}, "statistics": ["variance"]}, "bits"),
        ({"columns": {"a": Bounds(0, 2**40)}, "max_rows": 10**9}, "bits"),
        ({"columns": {"a": (0, 1)}}, "Bounds"),
        ({"statistics": ["median"]}, "median"),
        ({"by": {"a": ["x", 1]}}, "one kind"),
        ({"by": {"a": ["x", "x"]}}, "twice"),
        ({"by": {"a": list(range(1001)), "b": list(range(1000))}}, "groups"),
        ({"weight": "w"}, "weight"),
        ({"columns": {"a": Bounds(0, 1), "w": Bounds(-1, 1)}, "weight": "w"}, "0 or more"),
        ({"histograms": {"a": [0, 1]}}, "bounds"),
        ({"columns": {"a": Bounds(0, 9)}, "histograms": {"a": [3, 3]}}, "ascending"),
        ({"length": 5}, "value"),
        ({"max_parties": 256}, "max_parties"),
        ({"min_parties": 1}, "min_parties"),
        ({"max_rows": 0}, "max_rows"),
        ({"reveal": "me"}, "reveal"),
    ],
)
def test_what_cannot_be_agreed_on_is_refused(options, words):
    with pytest.raises(ParameterError, match=words):
        Spec(**options)


@pytest.mark.parametrize(
    "arguments", [(0.5, 1), (1, 0), ("x", 1), ("0.5", 1), (0, 2**63), (0, 1, 0), (0, 1, True), (True, 2)]
)
def test_bounds_are_exact_and_not_empty(arguments):
    with pytest.raises(ParameterError):
        Bounds(*arguments)


def table(**columns):
    return pa.table({"origin": ["EWR", "JFK"], "delay": [1, 2]} | columns)


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        (table(delay=[1, 1801]), "rule bounds: column 'delay'"),
        (table(delay=[1.0, -60.51]), "rule bounds"),
        (table(delay=[1.0, float("nan")]), "rule numbers"),
        (table(delay=[1.0, float("inf")]), "rule numbers"),
        (table(delay=[1.0, 1e300]), "rule bounds"),
        (table(delay=pa.array([1, 2**64 - 1], pa.uint64())), "rule bounds"),
        (table(delay=[1, None]), "rule nulls"),
        (table(delay=["1", "2"]), "rule type"),
        (table(origin=["EWR", "EWX"]), "rule groups"),
        (table(origin=["EWR", None]), "rule nulls"),
        (table(origin=[1, 2]), "rule groups"),
        (table(delay=pa.array([Decimal("1"), Decimal("1800.9")])), "rule bounds"),
        ({"origin": ["EWR"] * 100_001, "delay": [0] * 100_001}, "rule max_rows"),
        ({"origin": ["EWR"]}, "no column 'delay'"),
    ],
)
def test_what_breaks_the_specification_raises_and_names_party_and_rule(source, rule):
    with pytest.raises(Unusable, match=f"^ua: .*{rule}"):
        encode(source, DELAYS, "ua")


@pytest.mark.parametrize(
    "values", [[0.5, -0.5, 1.5, 2.5], [Decimal("0.5"), Decimal("-0.5"), Decimal("1.5"), Decimal("2.5")]]
)
def test_rounding_is_half_to_even(values):
    spec = Spec(columns={"a": Bounds(-10, 10)}, max_rows=10)
    assert encode({"a": values}, spec, "p").tolist() == [4, 4]  # 0, 0, 2, 2


@pytest.mark.property
@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(-999, 999), st.sampled_from(["x", "y", "z"]), st.booleans()), max_size=40
    ),
    scale=st.sampled_from([1, 10, 100]),
)
def test_encoded_sums_are_those_of_exact_arithmetic(rows, scale):
    spec = Spec(
        columns={"a": Bounds(-999, 999, scale)},
        statistics=["variance"],
        by={"g": ["x", "y", "z"], "h": [False, True]},
        max_rows=100,
        histograms={"a": [-999, 0, "1.5" if scale > 1 else 1, 999]},
        max_parties=3,
    )
    source = {
        "a": np.array([value for value, _, _ in rows], dtype=np.int64),
        "g": pa.array([g for _, g, _ in rows], pa.string()).dictionary_encode(),
        "h": pa.array([h for _, _, h in rows], pa.bool_()),
    }
    sums = encode(source, spec, "p").reshape(6, -1)
    for at, (g, h) in enumerate([(g, h) for g in "xyz" for h in (False, True)]):
        mine = [value * scale for value, a, b in rows if (a, b) == (g, h)]
        third = Fraction(3, 2) * scale if scale > 1 else 1
        buckets = [
            sum(value < 0 for value in mine),
            sum(0 <= value < third for value in mine),
            sum(value >= third for value in mine),
        ]
        assert sums[at].tolist() == [len(mine), sum(mine), sum(value**2 for value in mine), *buckets]


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(low=st.integers(-(2**30), 0), width=st.integers(0, 2**31), scale=st.integers(1, 2**10), data=st.data())
def test_no_value_wraps_or_is_clipped(low, width, scale, data):
    """Whatever is offered: it is encoded exactly, or it raises."""
    bounds = Bounds(low, low + width, scale)
    spec = Spec(columns={"value": bounds}, length=1, max_parties=3, min_parties=2)
    value = data.draw(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(low, low + width)))
    try:
        [encoded] = encode(np.array([value]), spec, "p")
    except Unusable:
        assert not low <= value <= low + width
    else:
        assert low <= value <= low + width
        assert int(encoded) + bounds.shift == value * scale


def test_vectors_and_decimals():
    spec = Spec(columns={"value": Bounds("-0.5", "0.5", scale=1000)}, length=3, max_parties=3)
    assert encode([0.25, -0.4996, 0.5], spec, "p").tolist() == [250, -500, 500]
    with pytest.raises(Unusable, match="rule length"):
        encode([0.25], spec, "p")
    with pytest.raises(Unusable, match="rule bounds"):
        encode([0.25, 0.5006, 0], spec, "p")
