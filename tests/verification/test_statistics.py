"""Statistical queries in one process: exact numbers, rules and their names, and what earlier answers rule out."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import verification
from trustcompute.errors import ParameterError, Refused, StoreError, TableError, VerificationError
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import Rules, Tabulator
from trustcompute.verification.statistical import answer, operation
from trustcompute.verification.statistical.answer import Figures
from trustcompute.verification.statistical.network import Network, Shape
from trustcompute.verification.statistical.rules import Shares, Status, primary

SIGNER = SigningKey.from_seed(b"s" * 32)
FIRMS = {
    "town": ["a"] * 5 + ["b"] * 4 + ["c"] * 6,
    "trade": ["x", "x", "x", "y", "y", "x", "x", "x", "y", "x", "x", "x", "y", "y", "y"],
    "pay": [10, 12, 9, 11, 10, 8, 9, 10, 7, 10, 11, 9, 8, 10, 11],
}


def tabulator(table=FIRMS, path=None, **options):
    rules = {"by": {"town": (), "trade": ()}, "columns": ["pay"]} | options
    return Tabulator(table, Rules(**rules), SIGNER, path=path)


def test_cells_that_are_shown_are_exact():
    found = verification.statistics(FIRMS, "pay", by="town")
    assert [cell.rows for cell in found.cells] == [5, 4, 6, 15]
    assert found.cell(town="b").sums == {"pay": 34}
    assert found.cell(town="b").mean("pay") == Fraction(17, 2)
    assert found.cell().sums["pay"] == sum(FIRMS["pay"])
    assert not found.suppressed
    shown = found.to_arrow()
    assert shown["town"].to_pylist() == ["a", "b", "c", "(all)"]
    assert shown["pay.mean"].to_pylist()[1] == Decimal("8.500000")
    with pytest.raises(ParameterError, match="no such cell"):
        found.cell(town="z")


def test_a_suppressed_cell_says_by_which_rule_and_not_how_much():
    found = verification.statistics(FIRMS, "pay", by=["town", "trade"])
    said = {tuple(cell.groups.values()): cell.suppressed for cell in found.suppressed}
    assert said[("a", "y")] == said[("b", "y")] == "minimum frequency"  # two, and one
    assert "complementary" not in said.values() or len(said) > 2
    assert all(cell.rows is None and not cell.sums and cell.mean("pay") is None for cell in found.suppressed)
    assert found.to_arrow()["suppressed"].null_count == len(found.cells) - len(found.suppressed)


@pytest.mark.parametrize(
    ("sizes", "status"),
    [
        ([], Status.SHOWN),
        ([5], Status.FREQUENCY),
        ([5, 5], Status.FREQUENCY),
        ([5, 5, 5], Status.SHOWN),
        ([76, 12, 12], Status.DOMINANCE),  # more than 75 %
        ([75, 13, 12], Status.SHOWN),
        ([70, 25, 5], Status.P_PERCENT),  # 5 is less than a tenth of 70
        ([70, 23, 7], Status.SHOWN),
        ([0, 0, 0], Status.SHOWN),
    ],
)
def test_primary_rules(sizes, status):
    rules = Rules(by={"a": ()})
    assert primary(rules, Shares(tuple(sizes[:2]), len(sizes), sum(sizes))) is status


def test_contributors_count_and_not_their_rows():
    table = {"town": ["a"] * 6 + ["b"] * 6, "pay": [1] * 12, "firm": ["p"] * 5 + ["q"] + list("pqrstu")}
    by_row = verification.statistics(table, "pay", by="town")
    assert not by_row.suppressed
    rules = Rules(by={"town": ()}, columns=["pay"], contributor="firm")
    by_firm = verification.statistics(table, "pay", by="town", rules=rules)
    assert by_firm.cell(town="a").suppressed == "minimum frequency"
    assert by_firm.cell(town="b").suppressed == "complementary"
    assert by_firm.cell().rows == 12


def test_negative_amounts_decimals_nulls_and_other_values():
    amounts = [Decimal(f"{n}.25") for n in (-3, 4, 5, -6, 7, 8) * 2] + [None]
    table = pa.table(
        {
            "town": ["a", "a", "a", "b", "b", "b"] * 2 + [None],
            "pay": pa.array(amounts, pa.decimal128(9, 2)),
        }
    )
    with pytest.raises(TableError, match="negative"):
        verification.statistics(table, "pay", by="town")
    rules = Rules(by={"town": ("a", "b")}, columns=["pay"], signed=["pay"], dominance=None, p_percent=1)
    found = verification.statistics(table, "pay", by="town", rules=rules)
    assert found.cell().sums["pay"] == sum(one for one in amounts if one is not None)
    assert (found.cell().rows, found.cell().counts["pay"]) == (13, 12)
    assert found.cell(town=None).suppressed == "minimum frequency"
    assert found.terms.rest == ["town"]
    assert "(other)" in found.to_arrow()["town"].to_pylist()


def test_empty_tables_and_single_contributors():
    empty = verification.statistics(
        {"town": pa.array([], pa.string()), "pay": pa.array([], pa.int64())}, "pay", by="town"
    )
    assert [cell.rows for cell in empty.cells] == [0]
    assert empty.cell().mean("pay") is None
    alone = verification.statistics({"town": ["a"], "pay": [5]}, "pay", by="town")
    assert {cell.suppressed for cell in alone.cells} == {"whole table"}
    assert verification.statistics({"town": ["a"] * 3, "pay": [5] * 3}).cell().rows == 3


def test_what_cannot_be_published_is_refused_with_the_reason():
    for table, options, reason in (
        ({"pay": [1.5] * 15} | {"town": FIRMS["town"], "trade": FIRMS["trade"]}, {}, "exactly"),
        (FIRMS, {"columns": ["debt"]}, "no column"),
        (FIRMS, {"by": {"town": (1, 2)}}, "type"),
        ({**FIRMS, "country": FIRMS["town"]}, {"by": {"town": (), "country": ()}}, "tells column"),
        ({**FIRMS, "pay": [2**61] * 15}, {}, "2\\^62"),
        ({**FIRMS, "pay": pa.array([2**63] * 15, pa.uint64())}, {}, "64 bits"),
        ({**FIRMS, "town": [1.5] * 15}, {}, "names no groups"),
        ({**FIRMS, "pay": pa.array([-(2**63)] * 15)}, {"signed": ["pay"]}, "2\\^62"),
        ({**FIRMS, "town": pa.array([b"\xff"] * 15).view(pa.string())}, {}, "UTF-8"),
    ):
        with pytest.raises((ParameterError, TableError), match=reason):
            tabulator(table, **options)
    for options, reason in (
        ({"by": dict.fromkeys("abcdefghijklmnopq", ())}, "at most 16"),
        ({"by": {"town": (1, "a")}}, "one kind"),
        ({"by": {"town": (1, 1)}}, "different"),
        ({"min_frequency": 2}, "min_frequency"),
        ({"dominance": (0, 75)}, "dominance"),
        ({"p_percent": 0}, "p_percent"),
        ({"signed": ["debt"]}, "signed"),
        ({"contributor": "town"}, "once"),
    ):
        with pytest.raises(ParameterError, match=reason):
            Rules(**({"by": {"town": ()}, "columns": ["pay"]} | options))


def test_questions_are_checked_before_anything_is_looked_at():
    terms = tabulator().terms
    for by, sums, reason in (
        (["firm"], [], "not by 'firm'"),
        (["town"], ["debt"], "not added up"),
        (["town", "town"], [], "different"),
    ):
        with pytest.raises(ParameterError, match=reason):
            operation.parameters(terms, "0" * 64, by, sums)
    good = operation.parameters(terms, "0" * 64, ["town"], ["pay"])
    for wrong, reason in (
        ({"x": 1}, "unknown"),
        ({"by": ["b", "a", "c"]}, "at most 2"),
        ({"columns": []}, "columns"),
        ({"cells": 513}, "cells"),
        ({"terms": "zz"}, "terms"),
        ({"min_group": 0}, "min_group"),
        ({"sums": "pay"}, "sums"),
    ):
        with pytest.raises(ParameterError, match=reason):
            operation.check(good | wrong, operation.Sizes(0, 0))
    with pytest.raises(ParameterError, match="declare 0"):
        operation.check(good, operation.Sizes(1, 0))


def test_margins_of_what_was_told_are_told_alike_in_any_order():
    held = tabulator()
    whole = verification.statistics(held, "pay", by=["town", "trade"])
    turned = verification.statistics(held, "pay", by=["trade", "town"])
    for cell in whole.cells:
        assert turned.cell(**cell.groups).status is cell.status
    towns = verification.statistics(held, "pay", by="town")
    for cell in towns.cells:
        assert cell.status is whole.cell(**cell.groups).status
        assert cell.sums == whole.cell(**cell.groups).sums


def test_tables_that_could_be_subtracted_are_refused_from_history_alone(tmp_path):
    rng = np.random.default_rng(3)
    table = {name: rng.integers(0, 3, 600) for name in "abc"} | {"pay": rng.integers(90, 110, 600)}
    rules = {"by": {"a": (), "b": (), "c": ()}}
    held = tabulator(table, tmp_path / "told", **rules)
    for by in (["a", "b"], ["b", "c"], "a", (), "c"):
        assert not verification.statistics(held, "pay", by=by).suppressed
    again = tabulator(table, tmp_path / "told", **rules)  # another process
    for one in (held, again):
        with pytest.raises(Refused) as refused:
            verification.statistics(one, "pay", by=["c", "a"])
        assert (refused.value.rule, refused.value.field) == ("overlap", "params.by")
        assert "dp.release.v1" in refused.value.fix
    with pytest.raises(ParameterError, match="new version"):
        tabulator(table, tmp_path / "told", **rules, min_frequency=4)
    body = (tmp_path / "told").read_bytes()
    (tmp_path / "told").write_bytes(body + b'{"about":"x"')  # a stop cut it off
    assert len(tabulator(table, tmp_path / "told", **rules)._history.told) == 2
    (tmp_path / "told").write_bytes(body + b"{}\n")
    with pytest.raises(StoreError):
        tabulator(table, tmp_path / "told", **rules)


def test_a_column_told_with_gaps_is_not_told_with_another():
    held = tabulator()
    told = verification.statistics(held, "pay", by=["town", "trade"])
    assert told.suppressed
    gaps = Tabulator(FIRMS | {"size": [1, 2, 2] * 5}, Rules(by={"town": (), "trade": (), "size": ()}), SIGNER)
    first = verification.statistics(gaps, by=["town", "trade"])
    margins = [cell for cell in first.cells if set(cell.groups) == {"town"}]
    if any(cell.suppressed for cell in margins):
        with pytest.raises(Refused):
            verification.statistics(gaps, by=["town", "size"])
    else:
        verification.statistics(gaps, by=["town", "size"])


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=2, unique=True).map(tuple), min_size=1, max_size=6),
    st.integers(0, 2**32),
    st.integers(0, 2**32),
)
def test_refusals_are_a_function_of_what_was_told(asked, one, other):
    """Two different tables whose answers have the same gaps refuse the same questions."""
    holders = []
    for seed in (one, other):
        rng = np.random.default_rng(seed)
        table = {name: rng.integers(0, 2, 400) for name in "abcd"}
        holders.append(tabulator(table, by=dict.fromkeys("abcd", ()), columns=[]))
    for by in asked:
        outcomes = []
        for held in holders:
            try:
                outcomes.append(verification.statistics(held, by=by).figures.status.tobytes())
            except Refused:
                outcomes.append(None)
        assert outcomes[0] == outcomes[1] == (None if outcomes[0] is None else bytes(len(outcomes[0])))


def test_an_answer_that_contradicts_itself_is_not_believed():
    shape = Shape((2,))
    right = {
        "status": np.zeros(3, np.uint8),
        "rows": np.array([3, 4, 7]),
        "counts": np.array([[3, 4, 7]]),
        "sums": np.array([[1, 2, 3]]),
    }
    answer.check(shape, Figures(**right))
    for wrong in (
        {"rows": np.array([3, 4, 8])},
        {"sums": np.array([[1, 2, 4]])},
        {"counts": np.array([[3, 5, 8]])},
        {"rows": np.array([-3, 4, 1]), "counts": np.array([[-3, 4, 1]])},
        {"status": np.array([0, 9, 0], np.uint8)},
        {"status": np.array([0, 1, 0], np.uint8)},
    ):
        with pytest.raises(VerificationError):
            answer.check(shape, Figures(**(right | wrong)))


def test_flows_bound_a_cell_as_its_equations_do():
    shape = Shape((2, 2))  # 1 2 | 3, 4 5 | 9, 5 7 | 12
    network = Network(shape, [1, 2, 3, 4, 5, 9, 5, 7, 12], [(0, 1 << 99)] * 9)
    square = {0, 1, 3, 4}
    assert network.change(0, square, 100, {}, rising=True) == 2  # 3 - 1: its row's total
    assert network.change(0, square, 100, {}, rising=False) == 1
    assert network.change(4, square, 100, {1: (2, 9)}, rising=True) == 0  # 1 cannot fall
    assert Network(shape, [1, 2, 3, 4, 5, 9, 5, 7, 12], [(0, 99)] * 9).change(0, {0}, 9, {}, rising=True) == 0
