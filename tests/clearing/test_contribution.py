"""Contribution: the four axioms of Shapley, intervals that cover, evaluations that are charged."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustcompute.broker.clearing import contribution
from trustcompute.broker.clearing.contribution import Coalition, leave_one_out, sampled_shapley, shapley
from trustcompute.broker.grant import Limit, PricePlan
from trustcompute.broker.valuation import Charged
from trustcompute.errors import ParameterError, Refused
from trustcompute.protocol.operation import Usage

PARTIES = ("a", "b", "c", "d")
ALL = [frozenset(p for n, p in enumerate(PARTIES) if mask >> n & 1) for mask in range(16)]
games = st.fixed_dictionaries({each: st.fractions(-50, 50, max_denominator=12) for each in ALL})
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.property
@FEW
@given(games, games)
def test_efficiency_and_additivity(one: dict[Coalition, Fraction], other: dict[Coalition, Fraction]) -> None:
    first, second = shapley(PARTIES, one.__getitem__), shapley(PARTIES, other.__getitem__)
    assert sum(first.amounts.values()) == one[ALL[-1]] - one[ALL[0]] == first.total
    both = shapley(PARTIES, lambda coalition: one[coalition] + other[coalition])
    assert both.amounts == {party: first.amounts[party] + second.amounts[party] for party in PARTIES}
    assert both.evaluations == 16


@pytest.mark.property
@FEW
@given(games)
def test_symmetry_and_null_player(game: dict[Coalition, Fraction]) -> None:
    def symmetric(coalition: Coalition) -> Fraction:
        """Of a and b only how many are in matters, of c nothing."""
        number = len(coalition & {"a", "b"})
        return game[frozenset(("a", "b")[:number]) | (coalition & {"d"})]

    found = shapley(PARTIES, symmetric)
    assert found.amounts["a"] == found.amounts["b"] and found.amounts["c"] == 0
    assert leave_one_out(PARTIES, symmetric).amounts["c"] == 0
    sampled = sampled_shapley(PARTIES, symmetric, samples=8, seed=bytes(32), span=400)
    assert sampled.amounts["c"] == 0 and sum(sampled.amounts.values()) == found.total


@pytest.mark.property
@FEW
@given(games, st.binary(min_size=32, max_size=32))
def test_sampled_intervals_cover_the_exact_value(game: dict[Coalition, Fraction], seed: bytes) -> None:
    exact = shapley(PARTIES, game.__getitem__)
    found = sampled_shapley(
        PARTIES, game.__getitem__, samples=60, seed=seed, span=200, confidence="0.999999999"
    )
    again = sampled_shapley(
        PARTIES[::-1], game.__getitem__, samples=60, seed=seed, span=200, confidence="0.999999999"
    )
    assert found == again and found.hash == again.hash and found.hash != exact.hash
    assert found.intervals is not None
    for party, (low, high) in found.intervals.items():
        assert low <= exact.amounts[party] <= high


def test_intervals_narrow_with_samples() -> None:
    def value(coalition: Coalition) -> int:
        return len(coalition) ** 2

    few, many = (sampled_shapley(PARTIES, value, samples=n, seed=bytes(32), span=6) for n in (200, 800))
    widths = [found.intervals["a"][1] - found.intervals["a"][0] for found in (few, many) if found.intervals]
    assert abs(widths[1] / widths[0] - Fraction(1, 2)) < Fraction(1, 1000)
    assert abs(many.amounts["a"] - 4) < widths[1]


@pytest.mark.property
@FEW
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.fractions(0, 9), min_size=1))
def test_weights_sum_to_one_and_are_millionths(amounts: dict[str, Fraction]) -> None:
    found = contribution.Contribution("given", amounts, sum(amounts.values(), Fraction()), 1)
    if not any(amounts.values()):
        with pytest.raises(ParameterError, match="nobody contributed"):
            found.weights()
        return
    weights = found.weights()
    assert sum(weights.values()) == 1 and all(10**6 % weight.denominator == 0 for weight in weights.values())
    whole = sum(amounts.values())
    assert all(abs(weights.get(p, 0) - amount / whole) < Fraction(1, 10**6) for p, amount in amounts.items())


def test_bad_input_is_refused() -> None:
    for parties, value, reason in [
        ((), lambda _: 1, "each once"),
        (("a", "a"), lambda _: 1, "each once"),
        (("a",), lambda _: 0.5, "exact"),
        (("a",), lambda _: True, "exact"),
        (("a",), lambda _: "1/0", "write a value"),
        (("a",), lambda _: 10**60, "digits"),
        ([str(n) for n in range(13)], lambda _: 1, "use sampled_shapley"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            shapley(parties, value)  # type: ignore[arg-type]
    terms: dict[str, Any] = {"samples": 4, "seed": bytes(32), "span": 1}
    for changes, reason in [
        ({"samples": 0}, "samples"),
        ({"confidence": "1"}, "confidence"),
        ({"span": "0.5"}, "further apart"),
        ({"seed": b"short"}, "seed"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            sampled_shapley(PARTIES, lambda c: len(c) ** 2, **terms | changes)


def test_every_evaluation_is_a_charged_job(world: Any) -> None:
    broker = world.broker()
    price = PricePlan(kind="per_use", currency="CNY", per_call="5")
    grant = broker.issue(world.claims(price=price, limits={"calls": Limit(total=9)}))
    worth = {"h1": 3, "h2": 5, "h3": 0}
    asked: list[Coalition] = []

    def evaluate(coalition: Coalition) -> tuple[int, Usage]:
        asked.append(coalition)
        return sum(worth[party] for party in coalition), Usage(calls=1)

    value = Charged(broker, lambda _: world.verified(broker, grant, rows=1), world.operation, evaluate)
    found = shapley(list(worth), value)
    assert found.amounts == worth and len(asked) == 8 == len(value.jobs)
    assert broker.statement(0, world.clock.time + 1).totals() == {"CNY": 40}
    start = world.clock.time // 86_400 * 86_400
    broker.clearing.weigh(
        "pool:x", start, start + 86_400, found.weights(), method=found.method, evidence=found.hash
    )
    with pytest.raises(Refused) as refused:
        leave_one_out(list(worth), value)
    assert refused.value.rule == "quota" and len(asked) == 9
    assert broker.audit().jobs["posted"] == 9


def test_a_failing_evaluation_forfeits_its_job(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))

    def evaluate(coalition: Coalition) -> tuple[int, Usage]:
        raise ZeroDivisionError

    value = Charged(broker, lambda _: world.verified(broker, grant, rows=1), world.operation, evaluate)
    with pytest.raises(ZeroDivisionError):
        shapley(["h1"], value)
    assert broker.audit().jobs == {"forfeited": 1} and not broker.statement(0, 2**40).rows
