"""Netting: fewer payments, the same net positions."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.broker.clearing import Account, Period, netting
from trustcompute.broker.clearing.netting import Payment

PERIOD = Period(0, 100)
PARTIES = [*"abcdef", "public:fund"]
lines = st.dictionaries(
    st.builds(Account, st.sampled_from(PARTIES), st.sampled_from(PARTIES), st.sampled_from(["CNY", "EUR"])),
    st.integers(-1, 1000),
    max_size=40,
)


def positions(gross: dict[Account, int]) -> dict[tuple[str, str], int]:
    net: dict[tuple[str, str], int] = defaultdict(int)
    for account, amount in gross.items():
        net[account.payer, account.currency] -= amount
        net[account.payee, account.currency] += amount
    return {key: value for key, value in net.items() if value}


@pytest.mark.property
@given(lines, st.sets(st.sampled_from(PARTIES)))
@settings(max_examples=150, deadline=None)
def test_every_net_position_is_preserved(gross: dict[Account, int], members: set[str]) -> None:
    made = netting.net(PERIOD, "00", gross, members)
    assert {key: value for key, value in made.positions().items() if value} == positions(gross)
    assert all(each.amount > 0 and each.payer != each.payee for each in made.payments)
    assert made.gross == gross
    for currency in ("CNY", "EUR"):
        among = [each for each in made.payments if {each.payer, each.payee} <= members - {"public:fund"}]
        settled = {each.payer for each in among} | {each.payee for each in among}
        assert len([each for each in among if each.currency == currency]) <= max(len(settled) - 1, 0)
    shuffled = dict(sorted(gross.items(), reverse=True))
    assert netting.net(PERIOD, "00", shuffled, members).payments == made.payments


def test_between_two_and_among_all() -> None:
    gross = {
        Account("a", "b", "EUR"): 10,
        Account("b", "a", "EUR"): 4,
        Account("b", "c", "EUR"): 6,
        Account("c", "a", "EUR"): 6,
        Account("a", "public:fund", "EUR"): 2,
        Account("public:fund", "a", "EUR"): 1,
    }
    bilateral = netting.net(PERIOD, "00", gross).payments
    assert set(bilateral) == {
        Payment("a", "b", "EUR", 6),
        Payment("b", "c", "EUR", 6),
        Payment("c", "a", "EUR", 6),
        Payment("a", "public:fund", "EUR", 2),  # earmarked: never set off
        Payment("public:fund", "a", "EUR", 1),
    }
    assert netting.net(PERIOD, "00", gross, "abc").payments == tuple(
        each for each in sorted(bilateral) if "public:fund" in each
    )


def test_instructions_are_decimal_amounts_under_ids_of_their_own() -> None:
    gross = {Account("a", "b", "EUR"): 1005, Account("a", "c", "JPY"): 7}
    first, second = netting.net(PERIOD, "ab" * 32, gross).instructions()
    assert (first["debtor"], first["creditor"], first["amount"], first["currency"]) == (
        "a",
        "b",
        "10.05",
        "EUR",
    )
    assert second["amount"] == "7" and first["id"] != second["id"]
    assert list(netting.net(PERIOD, "ab" * 32, gross).instructions()) == [first, second]
    other: Any = list(netting.net(PERIOD, "cd" * 32, gross).instructions())
    assert other[0]["id"] != first["id"]
