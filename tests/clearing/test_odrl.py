"""Grants as documents of data spaces: valid, without loss, and closed to what a grant cannot say.

``SCHEMA`` is a subset of contract-schema.json of the Dataspace Protocol 2025-1 (Eclipse Dataspace Protocol project,
artifacts/src/main/resources/negotiation/contract-schema.json, Apache-2.0), put down as a checker of our own: required
members, types of operands, the list of operators, no target in an offer.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.broker import contract, odrl
from trustcompute.broker.grant import AssetClaim, Bounds, Grant, Limit, PricePlan, Share, new_grant
from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import OutputForm

OPERATORS = {
    *("eq", "neq", "gt", "gteq", "lt", "lteq", "term-lteq", "hasPart"),
    *("isA", "isAllOf", "isAnyOf", "isNoneOf", "isPartOf"),
}
TIMESTAMP = re.compile(r"-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?")
THUMB, OTHER = "A" * 43, "B" * 43


def check_schema(policy: dict[str, Any]) -> None:
    """Raises ``AssertionError`` where the subset of the schema does not hold."""
    assert isinstance(policy["@id"], str) and policy["@type"] in ("Agreement", "Offer")
    assert isinstance(policy["profile"], str)
    for kind in ("permission", "prohibition", "obligation"):
        assert isinstance(policy[kind], list) and policy[kind]
        for rule in policy[kind]:
            assert isinstance(rule["action"], str)
            for each in rule.get("constraint", []):
                assert isinstance(each["leftOperand"], str) and each["operator"] in OPERATORS
                assert isinstance(each["rightOperand"], str | dict | list)
    if policy["@type"] == "Offer":
        assert "target" not in policy
    else:
        assert all(isinstance(policy[name], str) for name in ("target", "assigner", "assignee", "timestamp"))
        assert TIMESTAMP.match(policy["timestamp"])


labels = st.lists(st.sampled_from(["credit", "audit", "research", "统计"]), min_size=1, unique=True).map(
    tuple
)
maybe = st.none() | labels
counts = st.none() | st.integers(0, 10**15)
bounds = st.builds(
    Bounds,
    columns=maybe,
    predicates=maybe,
    max_rows=counts,
    min_rows=counts,
    min_group=counts,
    counterparties=st.none() | st.just((THUMB, OTHER)),
)
prices = st.sampled_from(
    [
        PricePlan(kind="free"),
        PricePlan(kind="per_use", currency="CNY", per_call="1/3"),
        PricePlan(kind="annual", currency="EUR", fee="120000", per_row="0.05"),
    ]
)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    begin = draw(st.integers(0, 2**33))
    return new_grant(
        issuer=THUMB,
        audience="bureau.example",
        subject="bank.example",
        subject_key=OTHER,
        asset=AssetClaim(
            id="companies",
            version=draw(st.none() | st.just("2025-06")),
            classification="enterprise",
            grade=draw(st.sampled_from(["general", "important", "core"])),
            personal=draw(st.booleans()),
        ),
        operations=draw(
            st.dictionaries(st.sampled_from(["psi.vole.v1", "dp.release.v1"]), bounds, min_size=1)
        ),
        purposes=draw(labels),
        outputs=draw(st.lists(st.sampled_from(list(OutputForm)), min_size=1, unique=True)),
        contingency="5c" * 32,
        now=begin,
        days=draw(st.integers(1, 4000)),
        limits=draw(
            st.dictionaries(
                st.sampled_from(["calls", "rows"]),
                st.builds(Limit, total=st.none() | st.integers(0, 2**62), per_day=counts),
            )
        ),
        price=draw(prices),
        split=[Share(party=THUMB, share="2/3"), Share(party="public:fund", share="1/3")],
        right=draw(st.sampled_from(["hold", "process", "operate"])),
        scenarios=draw(maybe),
        territory=draw(maybe),
        review=draw(st.none() | st.integers(0, 2**33)),
        depth=draw(st.integers(0, 8)),
        payer=draw(st.none() | st.just(THUMB)),
        consent=draw(st.none() | st.just("form 7")),
    )


@pytest.mark.property
@settings(max_examples=40, deadline=None)
@given(grants())
def test_there_and_back_without_loss(claims: Grant) -> None:
    for kind in ("Agreement", "Offer"):
        policy = odrl.export_policy(claims, kind)
        check_schema(policy)
        assert odrl.import_policy(copy.deepcopy(policy)) == claims
    made = contract.fields(claims)
    assert list(made) == ["content", "user", "method", "count", "scope", "environment"]
    assert contract.claims(made) == claims


@pytest.fixture
def policy(world: Any) -> dict[str, Any]:
    found = odrl.export_policy(world.claims(operations=["psi.test.v1", "psi.other.v1"]))
    check_schema(found)
    return found


def _constraint(left: str, operator: str = "eq", right: Any = "x") -> dict[str, Any]:
    return {"leftOperand": left, "operator": operator, "rightOperand": right}


def test_what_a_grant_cannot_say_is_refused(policy: dict[str, Any]) -> None:
    def changed(change: Any) -> dict[str, Any]:
        found = copy.deepcopy(policy)
        change(found)
        return found

    first = policy["permission"][0]
    for change, reason in [
        (lambda p: p["permission"][0]["constraint"].append(_constraint("industry")), "cannot say industry"),
        (
            lambda p: p["permission"][0]["constraint"].append(_constraint("purpose", "neq")),
            "cannot say purpose",
        ),
        (lambda p: p["permission"][0]["constraint"].append({"and": []}), "nothing else"),
        (lambda p: p["permission"][0]["constraint"].append(first["constraint"][0]), "two constraints"),
        (lambda p: p["permission"][0]["constraint"].pop(), "differ|Field required|required"),
        (lambda p: p["permission"][0].update(duty=[]), "nothing else"),
        (lambda p: p["permission"][0].update(action="use"), "does not begin"),
        (lambda p: p["permission"].append(first), "two permissions"),
        (lambda p: p["obligation"].append({"action": "attribute"}), "one obligation"),
        (lambda p: p.update(prohibition=[{"action": "print"}]), "prohibition"),
        (lambda p: p.update(inheritFrom="x"), "'inheritFrom'"),
        (lambda p: p.update(profile="other"), "profile"),
        (lambda p: p.update(target="others"), "target"),
        (lambda p: p.update(timestamp="yesterday"), "a time is written"),
        (lambda p: p.update({"@type": "Set"}), "Agreement or an Offer"),
        (lambda p: p.update(permission=[]), "one permission or more"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            odrl.import_policy(changed(change))
    for wrong in (None, [], {}, {"x": "y" * 2**18}):
        with pytest.raises(ParameterError):
            odrl.import_policy(wrong)


def test_numbers_are_text_and_times_have_an_end(world: Any, policy: dict[str, Any]) -> None:
    for rule in policy["permission"]:
        rule["constraint"].append(_constraint(odrl.NAMESPACE + "rows", "lteq", 1000))
    with pytest.raises(ParameterError, match="decimal text"):
        odrl.import_policy(policy)
    with pytest.raises(ParameterError, match="year 9999"):
        odrl.export_policy(world.claims(review=2**40))
    with pytest.raises(ParameterError, match="an Agreement or an Offer"):
        odrl.export_policy(world.claims(), "Set")


def test_a_contract_with_other_fields_is_refused(world: Any) -> None:
    made = contract.fields(world.claims())
    for wrong, reason in [
        (None, "has the fields"),
        ({**made, "more": {}}, "has the fields"),
        ({**made, "user": {**made["user"], "name": "x"}}, "field user has"),
        ({**made, "method": {**made["method"], "operations": "all"}}, "lists operations"),
        ({**made, "scope": {"bounds": {"psi.else.v1": {}}}}, "granted operations"),
        ({**made, "scope": {"bounds": {"psi.test.v1": {"columns": ["a"]}}}}, "granted operations"),
        ({**made, "scope": {"bounds": []}}, "objects by operation"),
        ({**made, "environment": {}}, "Field required"),
        ({**made, "count": {**made["count"], "exp": 0.5}}, "exp is a float"),
    ]:
        with pytest.raises(ParameterError, match=reason):
            contract.claims(wrong)
