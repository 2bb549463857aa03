"""Price plans and splits: exact, by their own windows, refused where they make no sense."""

from __future__ import annotations

import datetime
import itertools
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.clearing.conftest import Ledger
from trustcompute.broker import currency
from trustcompute.broker.clearing import Period, plan, split
from trustcompute.broker.grant import PricePlan, Share, Step, Tier
from trustcompute.errors import AuditError, ParameterError
from trustcompute.protocol.operation import Usage

DAY = 86_400
FAR = Period(0, 2**40)


def day(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp())


def tiers(**changes: Any) -> PricePlan:
    terms: dict[str, Any] = {
        "kind": "tiered",
        "currency": "CNY",
        "unit": "rows",
        "window": "month",
        "tiers": (Tier(upto=100, rate="2"), Tier(upto=1000, rate="1"), Tier(rate="1/3")),
    }
    return PricePlan(**terms | changes)


@pytest.mark.parametrize(
    ("rows", "cost"), [(0, "0"), (1, "2"), (100, "200"), (101, "201"), (1000, "1100"), (1003, "1101")]
)
def test_each_unit_costs_the_rate_of_its_tier(rows: int, cost: str) -> None:
    assert plan.rate(tiers(), Usage(rows=rows)) == Fraction(cost)


@pytest.mark.property
@given(st.lists(st.integers(0, 700), max_size=8), st.sampled_from(["calls", "rows"]))
@settings(max_examples=60, deadline=None)
def test_a_window_costs_the_same_however_it_is_cut_into_uses(parts: list[int], unit: str) -> None:
    priced = tiers(unit=unit, window="grant")
    counted = plan.Meter(priced)
    whole = plan.rate(priced, Usage(**{unit: sum(parts)}))
    assert sum((counted.rate(Usage(**{unit: part}), "", 0) for part in parts), Fraction()) == whole
    assert all(
        plan.most(priced, Usage(**{unit: part})) >= plan.rate(priced, Usage(**{unit: part})) for part in parts
    )


def test_windows_are_calendar_months_and_years_not_periods() -> None:
    counted = plan.Meter(tiers())
    times = ["2025-01-31T23:59:59", "2025-02-01T00:00:00"]
    assert [counted.rate(Usage(rows=150), "", day(time)) for time in times] == [250, 250]
    counted = plan.Meter(tiers(window="year"))
    times = ["2025-01-31", "2025-12-31T23:59:59", "2026-01-01"]
    assert [counted.rate(Usage(rows=150), "", day(time)) for time in times] == [250, 150, 250]


def test_conditionally_free_by_purpose_and_by_allowance() -> None:
    priced = PricePlan(
        kind="conditional",
        currency="EUR",
        per_call="10",
        free_for=("research",),
        free_calls=2,
        window="month",
    )
    counted = plan.Meter(priced)
    purposes = ["sale", "research", "sale", "research", "sale", "research"]
    assert [counted.rate(Usage(calls=1), each, 0) for each in purposes] == [0, 0, 0, 0, 10, 0]
    assert counted.rate(Usage(calls=3), "sale", 40 * DAY) == 10


def test_delegated_grants_share_the_allowance_of_their_root() -> None:
    ledger = Ledger()
    priced = PricePlan(kind="conditional", currency="EUR", per_call="10", free_calls=2, window="grant")
    ledger.grant("root", priced, {"a": "1"})
    for name in ("left", "right"):
        ledger.grant(name, priced, {"a": "1"}, parent="root")
    for name in ("left", "right", "left", "right", "root"):
        ledger.use(name)
    assert ledger.clearing().statement(FAR).totals() == {"EUR": 30}


def test_a_fee_falls_due_every_year_until_the_grant_ends() -> None:
    ledger = Ledger(now=day("2024-02-29T10:00"))
    fee = PricePlan(kind="annual", currency="EUR", fee="1000", per_call="1")
    ledger.grant("g", fee, {"a": "1"}, exp=day("2030-01-01"))
    ledger.grant("child", fee, {"a": "1"}, exp=day("2030-01-01"), parent="g")  # covered by its root's fee
    years = [day(f"{year}-01-01") for year in range(2024, 2032)]
    due = [ledger.clearing()._made(Period(*pair), 2).totals() for pair in itertools.pairwise(years)]
    assert due == [{"EUR": 1000}] * 6 + [{}]
    assert list(plan.fees(day("2024-02-29T10:00"), day("2025-03-01"))) == [
        day("2024-02-29T10:00"),
        day("2025-02-28T10:00"),
    ]
    ledger.now = day("2025-06-01")
    ledger.record("grant.revoked", {"grant": "g"})
    assert ledger.clearing()._made(Period(years[2], years[7]), 2).totals() == {}
    (row,) = ledger.clearing()._made(Period(years[0], years[1]), 2).rows
    assert (row.payer, row.operation, row.rated) == ("grantee", "fee", 1000)


def test_a_share_of_declared_revenue() -> None:
    ledger = Ledger()
    ledger.grant("g", PricePlan(kind="revenue_share", currency="EUR", rate="1/8"), {"a": "1/3", "b": "2/3"})
    declared = {"grant": "g", "start": 0, "end": 10, "amount": 1200, "declaration": "00"}
    ledger.record("revenue.declared", declared)
    statement = ledger.clearing().statement(FAR)
    assert {line.account.payee: line.amount for line in statement.lines} == {"a": 50, "b": 100}
    assert (statement.rows[0].operation, statement.rows[0].payer) == ("revenue", "grantee")
    ledger.record("revenue.declared", declared | {"start": 9, "end": 11})
    with pytest.raises(AuditError, match="declares revenue twice"):
        ledger.clearing()


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        ({"kind": "per_use"}, "needs a currency"),
        ({"kind": "per_use", "currency": "XYZ"}, "ISO 4217"),
        ({"kind": "per_use", "currency": "EUR", "per_call": "-1"}, "without sign"),
        ({"kind": "per_use", "currency": "EUR", "per_call": "1e3"}, "without sign"),
        ({"kind": "per_use", "currency": "EUR", "fee": "3"}, "has no fee"),
        ({"kind": "free", "currency": "EUR"}, "no currency"),
        ({"kind": "tiered", "currency": "EUR"}, "needs unit"),
        ({"kind": "annual", "currency": "EUR"}, "needs fee"),
        ({"kind": "annual", "currency": "EUR", "fee": "-5"}, "without sign"),
        ({"kind": "revenue_share", "currency": "EUR", "rate": "9/8"}, "at most 1"),
        ({"kind": "conditional", "currency": "EUR"}, "says what is free"),
        ({"kind": "conditional", "currency": "EUR", "free_calls": 1}, "need a window"),
        ({"kind": "conditional", "currency": "EUR", "free_for": ["a"], "window": "year"}, "need a window"),
    ],
)
def test_plans_that_make_no_sense_are_refused(terms: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        PricePlan.model_validate(terms)


@pytest.mark.parametrize(
    "ends", [(100, None, None), (None,) * 2, (100, 100, None), (200, 100, None), (100, 200)]
)
def test_tiers_rise_and_the_last_is_open(ends: tuple[int | None, ...]) -> None:
    with pytest.raises(ValidationError, match="tiers rise"):
        tiers(tiers=tuple(Tier(upto=end, rate="1") for end in ends))


def test_a_plan_keeps_its_form_where_it_has_no_new_terms() -> None:
    document = {"kind": "per_use", "currency": "CNY", "per_call": "1", "per_row": "0"}
    assert PricePlan.model_validate(document).to_document() == document
    assert Share(party="a", share="1").to_document() == {"party": "a", "share": "1"}
    assert PricePlan.model_validate(tiers().to_document()) == tiers()


STEPPED = (
    Share(party="a", share="1", above=(Step(amount=100, share="1/2"), Step(amount=300, share="1/4"))),
    Share(party="b", share="0", above=(Step(amount=100, share="1/2"), Step(amount=300, share="3/4"))),
)


def test_shares_step_with_what_a_grant_has_cost() -> None:
    ledger = Ledger()
    ledger.grant("g", PricePlan(kind="per_use", currency="EUR", per_call="80"), STEPPED)
    for _ in range(5):
        ledger.use("g")
    amounts = {line.account.payee: line.amount for line in ledger.clearing().statement(FAR).lines}
    assert amounts == {"a": 100 + 100 + 25, "b": 100 + 75}


@pytest.mark.property
@given(st.lists(st.fractions(min_value=0, max_value=200, max_denominator=12), max_size=10))
@settings(max_examples=60, deadline=None)
def test_pieces_sum_to_the_amount_and_depend_on_the_total_only(amounts: list[Fraction]) -> None:
    cutter = split.Cutter(split.heights(STEPPED), "grant")
    pieces = [piece for amount in amounts for piece in cutter.cut(amount, 0)]
    assert sum((amount for _, amount in pieces), Fraction()) == sum(amounts, Fraction())
    whole = split.Cutter(split.heights(STEPPED), "grant").cut(sum(amounts, Fraction()), 0)
    at = {height: sum((a for h, a in pieces if h == height), Fraction()) for height, _ in whole}
    assert at == dict(whole)


def test_shares_must_sum_to_one_at_every_step(world: Any) -> None:
    assert world.claims(split=STEPPED).split == STEPPED
    crooked = (STEPPED[0], Share(party="b", share="0", above=(Step(amount=100, share="1/2"),)))
    with pytest.raises(ParameterError, match="beyond 300 must sum to exactly 1"):
        world.claims(split=crooked)
    with pytest.raises(ValidationError, match="rise in amount"):
        Share(party="a", share="1", above=(Step(amount=2, share="1"), Step(amount=2, share="0")))


def test_a_plan_is_not_changed_under_a_grant() -> None:
    ledger = Ledger()
    for per_call in ("1", "2"):
        ledger.grant("g", PricePlan(kind="per_use", currency="EUR", per_call=per_call), {"a": "1"})
    with pytest.raises(AuditError, match="entry 1 changes the plan"):
        ledger.clearing()


@pytest.mark.parametrize(
    ("minor", "code", "text"),
    [(12345, "EUR", "123.45"), (-5, "CNY", "-0.05"), (7, "JPY", "7"), (1, "KWD", "0.001")],
)
def test_minor_units_are_written_with_the_currencys_digits(minor: int, code: str, text: str) -> None:
    assert currency.decimal(minor, code) == text
    with pytest.raises(ParameterError, match="no currency"):
        currency.decimal(minor, "EURO")
