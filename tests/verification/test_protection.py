"""No suppressed cell can be concluded: attackers solve the table's equations, from outside and as contributors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.verification.statistical.cells import Source
from trustcompute.verification.statistical.rules import Rules, Status
from trustcompute.verification.statistical.suppress import pattern

pytest.importorskip("scipy", reason="the attackers of these tests solve linear programs with scipy")
from attack import interval

CLOSE = 1e-6
SENSITIVE = (Status.FREQUENCY, Status.DOMINANCE, Status.P_PERCENT)


def tables(*, ways, who=False, most=400):
    """Tables with a few heavy cells and many light ones."""
    row = st.tuples(
        *(st.sampled_from([0, 0, 0, 1, 1, 2, 3]) for _ in range(ways)),
        st.one_of(st.integers(0, 9), st.integers(0, most)),
        st.integers(0, 7),
    )
    return st.lists(row, min_size=1, max_size=40).map(
        lambda rows: {
            **{f"way{way}": [one[way] for one in rows] for way in range(ways)},
            "amount": [one[-2] for one in rows],
            **({"who": [one[-1] for one in rows]} if who else {}),
        }
    )


def opened(table, ways, **options):
    by = {f"way{way}": (0, 1, 2, 3) for way in range(ways)}
    rules = Rules(by=by, columns=["amount"], contributor="who" if "who" in table else None, **options)
    try:
        source = Source(table, rules)
    except Exception as error:  # one way tells the other
        assert "tells column" in str(error)
        return None
    return rules, source.cells(list(by))


def amounts_of(rules, cells, status):
    sums = cells.columns["amount"].sums.tolist()
    shown = {cell: sums[cell] for cell in range(len(sums)) if not status[cell]}
    return sums, shown, [0] * len(sums), [None] * len(sums)


@settings(max_examples=25, deadline=None)
@given(st.data(), st.sampled_from([1, 2]), st.booleans())
def test_amounts_stay_uncertain_to_everybody(data, ways, who):
    found = opened(data.draw(tables(ways=ways, who=who)), ways)
    if found is None:
        return
    rules, cells = found
    status = pattern(rules, cells)
    sums, shown, lower, upper = amounts_of(rules, cells, status)
    amount = cells.columns["amount"]
    suppressed = [cell for cell in range(len(sums)) if status[cell]]
    if status[cells.shape.total]:
        return  # nothing is told at all
    people = sorted(set(amount.who.tolist()))
    for cell in suppressed:
        brought = {one: amount.of(one).get(cell) for one in people}
        within = {one: own for one, own in brought.items() if own is not None}
        if status[cell] not in (*SENSITIVE, Status.TABLE) or not within:
            continue
        low, high = interval(cells.shape, shown, cell, lower=lower, upper=upper)
        assert low <= sums[cell] <= high
        check_protected(rules, within, None, high)
        if len(within) < rules.min_frequency and sums[cell]:
            assert high - low > CLOSE
        for one in people:
            known_low, known_high = list(lower), list(upper)
            for other, own in amount.of(one).items():
                if other in suppressed:
                    known_low[other] = own
                    if amount.shares(other, 2).count == 1:
                        known_high[other] = own
            low, high = interval(cells.shape, shown, cell, lower=known_low, upper=known_high)
            check_protected(rules, within, one, high)


def check_protected(rules, within, one, high):
    """The largest contribution of others is not known to p %."""
    others = [own for other, own in within.items() if other != one]
    if others:
        least = max(others) * (1 + rules.p_percent / 100)
        assert high - within.get(one, 0) >= least - CLOSE


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([1, 2]), st.sampled_from([3, 5]))
def test_small_numbers_of_rows_tell_no_more_than_that_they_are_small(data, ways, least):
    found = opened(data.draw(tables(ways=ways)), ways, min_frequency=least)
    if found is None:
        return
    rules, cells = found
    status = pattern(rules, cells)
    if status[cells.shape.total]:
        return
    rows = cells.rows.count.tolist()
    shown = {cell: rows[cell] for cell in range(len(rows)) if not status[cell]}
    label = [Status(one) for one in status.tolist()]
    lower = [
        0 if one in (Status.FREQUENCY, Status.TABLE) else min(least, count)
        for one, count in zip(label, rows, strict=True)
    ]
    upper = [least - 1 if one is Status.FREQUENCY else None for one in label]
    for cell, count in enumerate(rows):
        if status[cell] and 0 < count < least:
            low, high = interval(cells.shape, shown, cell, lower=lower, upper=upper)
            assert low <= 1 + CLOSE
            assert high >= least - 1 - CLOSE


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_cells_told_before_stay_shown_and_the_others_are_protected(data):
    table = data.draw(tables(ways=2, who=True))
    found = opened(table, 2)
    if found is None:
        return
    rules, cells = found
    first = pattern(rules, opened_one(table, rules, "way0"))
    if first.any():
        return
    status = pattern(rules, cells, cells.shape.margin(0))
    assert not status[cells.shape.margin(0)].any()
    _, shown, lower, upper = amounts_of(rules, cells, status)
    amount = cells.columns["amount"]
    for cell in np.flatnonzero(status).tolist():
        within = {int(one): amount.of(int(one))[cell] for one in amount.largest(cell, 40)}
        if within and status[cell] in (*SENSITIVE, Status.TABLE):
            _, high = interval(cells.shape, shown, cell, lower=lower, upper=upper)
            check_protected(rules, within, None, high)


def opened_one(table, rules, way):
    return Source(table, rules).cells([way])


def test_a_contributor_cannot_subtract_its_own():
    """Two firms alone in their cells of a row would know each other's part from the row's total."""
    table = {
        "way0": [0, 0] + [0] * 6 + [1] * 12,
        "way1": [0, 1] + [2] * 6 + [0, 1, 2] * 4,
        "amount": [100, 80] + [30] * 6 + [40] * 12,
        "who": list("pq") + list("abcdef") + list("ghijklmnorst"),
    }
    rules = Rules(by={"way0": (0, 1), "way1": (0, 1, 2)}, columns=["amount"], contributor="who")
    cells = Source(table, rules).cells(["way0", "way1"])
    status = pattern(rules, cells)
    assert status[cells.shape.cell(0, 0)] == status[cells.shape.cell(0, 1)] == Status.FREQUENCY
    in_row = [cells.shape.cell(0, way) for way in range(4)]
    assert np.count_nonzero(status[in_row]) > 2  # with two alone, each would tell the other
