"""Every rule of the policy: it refuses, says what to do, and what it says suffices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trustcompute.broker import grant as grants
from trustcompute.broker.grant import AssetClaim, Bounds, Limit
from trustcompute.broker.policy import Asset
from trustcompute.errors import ParameterError, Refused
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import OutputForm

OTHER = SigningKey.from_seed(bytes(32)).thumbprint
CLAIM: dict[str, Any] = {
    "id": "companies",
    "schema_hash": "5c" * 32,
    "classification": "enterprise",
    "grade": "important",
    "personal": False,
}


def bounds(**terms: Any) -> dict[str, Any]:
    return {"operations": {"psi.test.v1": Bounds(**terms)}}


def claim(**terms: Any) -> dict[str, Any]:
    return {"asset": AssetClaim(**CLAIM | terms)}


# (rule, field, claims of the grant, claims of the request, what satisfies: changes of grant and request)
RULES: list[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("right", "grant", {"right": "hold"}, {}, {"right": "process"}, {}),
    ("right", "grant", {"right": "hold"}, {}, {"right": "operate"}, {}),
    ("operation", "op", {"operations": ["dp.count.v1"]}, {}, {"operations": ["psi.test.v1"]}, {}),
    ("purpose", "purpose", {}, {"purpose": "marketing"}, {}, {"purpose": "credit"}),
    ("scenario", "scenario", {"scenarios": ["loan"]}, {}, {}, {"scenario": "loan"}),
    ("scenario", "scenario", {"scenarios": ["loan"]}, {"scenario": "card"}, {"scenarios": ["card"]}, {}),
    ("territory", "territory", {"territory": ["CN"]}, {"territory": "FR"}, {}, {"territory": "CN"}),
    ("output", "params", {}, {"params": {"output": "count"}}, {"outputs": [OutputForm.COUNT]}, {}),
    (
        "columns",
        "params",
        bounds(columns=("code",)),
        {"params": {"on": ["name"]}},
        {},
        {"params": {"on": ["code"]}},
    ),
    (
        "columns",
        "params",
        bounds(columns=("code",)),
        {"params": {"on": ["code", "name"]}},
        {},
        {"params": {}},
    ),
    ("columns", "params", bounds(columns=("code",)), {"params": {"on": []}}, {}, {"params": {"on": "code"}}),
    ("max_rows", "sizes.consumer", bounds(max_rows=99), {}, {}, {"rows": 99}),
    ("min_rows", "sizes.consumer", bounds(min_rows=101), {}, {}, {"rows": 101}),
    ("min_group", "params.min_group", bounds(min_group=5), {}, {}, {"params": {"min_group": 5}}),
    ("min_group", "params.min_group", bounds(min_group=5), {"params": {"min_group": True}}, bounds(), {}),
    ("asset", "dataset", claim(id="others"), {}, claim(), {}),
    ("asset.version", "dataset", claim(version="2024-01"), {}, claim(version="2025-06"), {}),
    ("asset.schema", "dataset", claim(schema_hash="00" * 32), {}, claim(schema_hash=None), {}),
    ("asset.class", "dataset", claim(classification="person"), {}, claim(), {}),
    ("asset.grade", "dataset", claim(grade="general"), {}, claim(), {}),
    ("asset.personal", "dataset", claim(personal=True), {}, claim(), {}),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule[0])
def test_a_rule_refuses_and_its_fix_satisfies(world: Any, rule: Any) -> None:
    name, field, claims, request, better_claims, better_request = rule
    broker = world.broker()
    grant = broker.issue(world.claims(**claims))
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant, **request), world.operation)
    error = caught.value
    assert (error.rule, error.field, error.owner) == (name, field, world.bureau.thumbprint)
    assert error.fix and error.fix in str(error)
    grant = broker.issue(world.claims(**claims | better_claims))
    world.posted(broker, grant, **request | better_request)


def test_a_grant_is_in_force_from_nbf_until_before_exp(world: Any) -> None:
    broker = world.broker()
    claims = world.claims(days=1)
    start, end = claims.nbf, claims.exp
    token = broker.issue(claims.model_copy(update={"nbf": start + 60}))
    for time, allowed in ((start + 59, False), (start + 60, True), (end - 1, True), (end, False)):
        world.clock.time = time
        decision = world.explain(broker, token)
        assert decision.allowed is allowed
        assert [reason.rule for reason in decision.reasons] == ([] if allowed else ["expired"])


def test_a_dataset_must_be_registered(world: Any) -> None:
    broker = world.open()
    grant = broker.issue(world.claims())
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant), world.operation)
    assert (caught.value.rule, caught.value.owner) == ("asset", "bureau.example")
    broker.register(world.asset())
    world.posted(broker, grant)


def test_core_data_are_denied_whatever_the_grant_says(world: Any) -> None:
    broker = world.broker(grade="core")
    grant = broker.issue(world.claims(**claim(grade="core")))
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant), world.operation)
    assert (caught.value.rule, caught.value.owner) == ("grade", "bureau.example")


def test_the_operation_the_node_runs_is_the_one_that_was_asked_for(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(operations=["psi.test.v1", "psi.other.v1"]))
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant), replace(world.operation, id="psi.other.v1"))
    assert caught.value.rule == "operation"


@pytest.mark.parametrize("role", ["asker", "recipient"])
def test_others_ask_and_receive_only_where_the_grant_names_them(world: Any, role: str) -> None:
    broker = world.broker()
    for allowed, terms in ((False, {}), (True, bounds(counterparties=(OTHER,)))):
        grant = broker.issue(world.claims(**terms))
        token = world.request(grant).model_copy(update={role: OTHER}).sign(world.bank.key)
        verified = broker.verify_request(token, peer="bank.example", grant=grant)
        decision = world.explained(broker, verified)
        assert decision.allowed is allowed
        assert {(reason.rule, reason.field) for reason in decision.reasons} <= {("counterparties", role)}


def test_nobody_else_can_be_made_to_pay(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(**bounds(counterparties=(OTHER,))))
    token = world.request(grant).model_copy(update={"payer": OTHER}).sign(world.bank.key)
    verified = broker.verify_request(token, peer="bank.example", grant=grant)
    with pytest.raises(Refused) as caught:
        broker.reserve(verified, world.operation)
    assert (caught.value.rule, caught.value.field) == ("counterparties", "payer")


def test_all_reasons_are_given_in_the_order_of_the_rules(world: Any) -> None:
    broker = world.broker()
    claims = world.claims(
        scenarios=["loan"], territory=["CN"], **claim(version="2024"), **bounds(columns=("code",), max_rows=9)
    )
    token = broker.issue(claims)
    from trustcompute.primitives.signing import token_hash

    broker.revoke(token_hash(token), "")
    verified = world.verified(
        broker, token, purpose="other", params={"output": "count", "on": ["name"]}, now=world.clock.time
    )
    world.clock.time = claims.exp
    decision = world.explained(broker, verified)
    assert [reason.rule for reason in decision.reasons] == [
        "revoked",
        "expired",
        "purpose",
        "scenario",
        "territory",
        "output",
        "columns",
        "max_rows",
        "asset.version",
    ]
    document = decision.to_document()
    verdicts = {each["rule"]: each for each in document["verdicts"]}
    assert document["allowed"] is False and verdicts["revoked"]["reasons"][0]["field"] == "grant"
    assert [rule for rule, each in verdicts.items() if not each["allowed"]] == [
        "revoked",
        "expired",
        "purpose",
        "scenario",
        "territory",
        "output",
        "columns",
        "max_rows",
        "asset",
    ]


def test_reasons_do_not_repeat_what_the_peer_wrote(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(**bounds(columns=("code",))))
    marker = "zz-the-peers-words"
    found = world.explain(
        broker, grant, purpose=marker, scenario=marker, territory=marker, params={"on": [marker]}
    )
    assert not found.allowed and marker not in str(found.to_document())


def test_assets_are_described_sensibly() -> None:
    terms: dict[str, Any] = {
        "id": "a",
        "version": "1",
        "schema_hash": "00" * 32,
        "classification": "c",
        "grade": "general",
        "personal": False,
        "rows": 1,
    }
    Asset(**terms)
    with pytest.raises(ParameterError, match="grade"):
        Asset(**terms | {"grade": "secret"})
    for wrong in ({"rows": -1}, {"id": "a b"}, {"limits": {"euros": Limit()}}, {"schema_hash": "x"}):
        with pytest.raises(ParameterError, match=next(iter(wrong)).removesuffix("_hash")):
            Asset(**terms | wrong)
    assert Asset(**terms).claim().schema_hash == "00" * 32


def test_reading_a_grant_needs_no_key(world: Any) -> None:
    token = grants.sign(world.claims(), world.bureau.key)
    assert grants.read(token).purposes == ("credit",)
