"""Rounding: every line, every payer and every payee within one unit of what is exactly owed."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clearing.conftest import Ledger
from trustcompute.broker.clearing import Account, Period, apportion
from trustcompute.broker.clearing.rounding import balanced
from trustcompute.broker.grant import PricePlan

PERIOD = Period(0, 100)
parties = st.sampled_from("abcdefgh")
owed_amounts = st.dictionaries(
    st.builds(Account, parties, parties, st.sampled_from(["CNY", "EUR"])),
    st.fractions(min_value=0, max_value=40, max_denominator=30).map(lambda exact: exact - Fraction(9, 10)),
    min_size=1,
    max_size=40,
)


def sides(owed: dict[Account, Any]) -> dict[tuple[bool, str, str], Any]:
    sums: dict[tuple[bool, str, str], Any] = defaultdict(int)
    for account, amount in owed.items():
        sums[True, account.payer, account.currency] += amount
        sums[False, account.payee, account.currency] += amount
    return sums


@pytest.mark.property
@given(owed_amounts, st.randoms())
@settings(max_examples=200, deadline=None)
def test_lines_payers_and_payees_go_to_their_floor_or_ceiling(
    owed: dict[Account, Fraction], random: Random
) -> None:
    amounts = balanced(PERIOD, owed)
    assert amounts.keys() == owed.keys()
    assert all(amounts[each] in (math.floor(owed[each]), math.ceil(owed[each])) for each in owed)
    exact = sides(owed)
    assert all(
        math.floor(exact[side]) <= total <= math.ceil(exact[side]) for side, total in sides(amounts).items()
    )
    shuffled = list(owed.items())
    random.shuffle(shuffled)
    assert balanced(PERIOD, dict(shuffled)) == amounts


def test_many_payers_do_not_add_up_to_a_payees_gain() -> None:
    """A hundred payers who each owe a and b 2/5 and c 1/5: by the largest remainder alone, c would get nothing."""
    owed = {
        Account(f"p{n}", payee, "EUR"): Fraction(share)
        for n in range(100)
        for payee, share in (("a", "2/5"), ("b", "2/5"), ("c", "1/5"))
    }
    alone, fair = sides(apportion(PERIOD, owed)), sides(balanced(PERIOD, owed))
    assert alone[False, "c", "EUR"] == 0
    assert [fair[False, payee, "EUR"] for payee in "abc"] == [40, 40, 20]


def test_where_the_largest_remainder_is_fair_nothing_is_moved() -> None:
    owed = {
        Account("p", name, "CNY"): Fraction(tenths, 10) for name, tenths in (("a", 16), ("b", 19), ("c", 15))
    }
    assert balanced(PERIOD, owed) == apportion(PERIOD, owed)


@pytest.mark.slow
def test_three_equal_shares_of_a_hundred_thousand_small_events_differ_by_at_most_one_cent() -> None:
    ledger = Ledger()
    ledger.grant("g", PricePlan(kind="per_use", currency="CNY", per_call="1"), dict.fromkeys("abc", "1/3"))
    record = ledger.clearing()
    template = ledger.use("g")
    (entry,) = list(ledger.entries())[template:]
    events, total = 100_000, 0
    for index in range(1, events + 1):
        cents = 1 + index * 7 % 5
        total += cents
        record.feed(type(entry)(index, b"", dict(entry.fields) | {"usage": {"calls": cents}}))
    amounts = [line.amount for line in record.statement(PERIOD).lines]
    assert len(amounts) == 3 and max(amounts) - min(amounts) <= 1 and abs(sum(amounts) - total) < 1
