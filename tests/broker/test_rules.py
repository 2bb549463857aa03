"""Deny-lists and policies: what they refuse, who may lay them down, and that the strictest wins."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from trustcompute.broker.grant import Limit, hash_of
from trustcompute.broker.job import JobState
from trustcompute.broker.request import Parties
from trustcompute.broker.rules import MAX_DENIED, Ceiling, DenyList, Trustee
from trustcompute.errors import GrantError, ParameterError, Refused
from trustcompute.primitives.signing import SigningKey, token_hash
from trustcompute.protocol.operation import OutputForm, Scope, Usage, scope_by_name

BOTH_STORES = True


def refused(world: Any, broker: Any, grant: str, **request: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant, **request), world.operation)
    return caught.value


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        ("keys subject", "grant"),
        ("keys issuer", "grant"),
        ("names", "grant"),
        ("datasets", "dataset"),
        ("operations", "op"),
        ("purposes", "purpose"),
    ],
)
def test_a_deny_list_refuses_first_and_struck_off_allows_again(world: Any, entry: str, field: str) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    kind, _, whose = entry.partition(" ")
    value = {
        "keys": world.bank.thumbprint if whose == "subject" else world.bureau.thumbprint,
        "names": "bank.example",
        "datasets": "companies",
        "operations": "psi.test.v1",
        "purposes": "credit",
    }[kind]
    token = world.denylist(version=3, **{kind: [value]})
    broker.publish(token)
    error = refused(world, broker, grant, rows=9999)  # beyond the quota too
    assert (error.rule, error.field, error.owner) == ("denylist", field, world.bureau.thumbprint)
    assert value not in error.fix and "quota" in str(error).partition("also refused by: ")[2]
    denied = broker.entries()[-1].fields
    mine = {"kind": "denylist", "issuer": world.bureau.thumbprint, "version": 3, "hash": token_hash(token)}
    assert denied["type"] == "job.denied" and denied["rules"] == [mine]
    assert denied["versions"][f"denylist/{world.bureau.thumbprint}"] == f"3 {token_hash(token)}"
    broker.publish(world.denylist(version=4))
    job = world.posted(broker, grant)
    assert broker.entries()[job.entry].fields["rules"][0]["version"] == 4
    assert [kept.kind for kept in broker.evidence(token_hash(token))] == ["denylist"]
    broker.audit()


def test_a_delegators_key_denied_stops_what_it_delegated(world: Any) -> None:
    from trustcompute.broker import delegation

    broker = world.broker()
    root = broker.issue(world.claims(subject="hq.example", subject_key=world.bureau.thumbprint, depth=1))
    child = delegation.delegate(
        root,
        issuer=world.bureau.key.public,
        subject="bank.example",
        subject_key=world.bank.thumbprint,
        now=world.clock.time,
    )
    chain = delegation.extend(root, child, world.bureau.key)
    world.posted(broker, chain)
    broker.publish(world.denylist(version=1, names=["hq.example"]))
    assert refused(world, broker, chain).rule == "denylist"


def test_a_version_that_is_not_newer_is_refused_and_changes_nothing(world: Any) -> None:
    broker = world.broker()
    token = world.denylist(version=5, purposes=["spam"])
    broker.publish(token)
    size = len(broker.entries())
    broker.publish(token)
    for older in (world.denylist(version=5), world.denylist(version=4)):
        with pytest.raises(GrantError, match="version 5 of this denylist is in force") as caught:
            broker.publish(older)
        assert caught.value.field == "version"
    assert len(broker.entries()) == size
    [(reference, rules)] = broker.rules()
    assert reference.version == 5 and isinstance(rules, DenyList) and rules.purposes == ("spam",)


def test_only_whom_the_node_trusts_lays_down_rules(world: Any) -> None:
    broker, stranger = world.broker(), SigningKey.generate()
    size = len(broker.entries())
    for token, field in (
        (world.denylist(version=1, key=stranger), "iss"),
        (world.policy(version=1, key=stranger), "iss"),
        (world.request(broker.issue(world.claims())).sign(world.bank.key), "header"),
        (world.denylist(version=1)[:-4] + "AAAA", "signature"),
        (
            DenyList(iss=world.bureau.thumbprint, aud="other.example", version=1, iat=0).sign(
                world.bureau.key
            ),
            "aud",
        ),
    ):
        with pytest.raises(GrantError) as caught:
            broker.publish(token)
        assert caught.value.field == field
    assert len(broker.entries()) == size + 1  # the grant
    with pytest.raises(ParameterError, match="names issuer"):
        DenyList(iss=stranger.thumbprint, aud="bureau.example", version=1, iat=0).sign(world.bureau.key)


def test_rules_outlive_a_restart(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    broker.publish(world.denylist(version=1, purposes=["credit"]))
    broker.close()
    assert refused(world, world.open(), grant).rule == "denylist"


def test_who_is_denied_meanwhile_is_stopped_before_anything_leaves(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    reserved, armed = (broker.reserve(world.verified(broker, grant), world.operation) for _ in range(2))
    broker.arm(armed.id)
    broker.publish(world.denylist(version=1, names=["bank.example"]))
    with pytest.raises(Refused) as caught:
        broker.arm(reserved.id)
    assert caught.value.rule == "denylist"
    with pytest.raises(Refused):
        broker.post(armed.id, release=world.release(armed.id), usage=armed.reserved)
    assert broker.job(reserved.id).state is JobState.VOIDED
    assert (broker.job(armed.id).state, broker.job(armed.id).detail) == (JobState.FORFEITED, "denylist")
    broker.audit()


CEILINGS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    # rule, ceiling for important data, request, a request within it
    ("policy.deny", {"deny": True}, {}, {}),
    ("policy.operation", {"operations": ["dp.*"]}, {}, {}),
    ("policy.output", {"outputs": [OutputForm.COUNT]}, {}, {"params": {"output": "count"}}),
    ("policy.purpose", {"purposes": ["research"]}, {}, {"purpose": "research"}),
    ("policy.min_group", {"min_group": 5}, {"params": {"min_group": 4}}, {"params": {"min_group": 5}}),
    ("policy.max_rows", {"max_rows": 99}, {"rows": 100}, {"rows": 99}),
    ("policy.per_call", {"per_call": {"rows": 99}}, {"rows": 100}, {"rows": 99}),
    ("policy.total", {"total": {"calls": 9}}, {}, {}),
]


@pytest.mark.parametrize("case", CEILINGS, ids=lambda case: case[0])
def test_a_policys_ceiling_stands_above_every_grant(world: Any, case: Any) -> None:
    rule, ceiling, request, within = case
    broker = world.broker()
    claims = {"outputs": list(OutputForm), "purposes": ["credit", "research"]}
    grant = broker.issue(world.claims(**claims))
    broker.publish(world.policy(version=1, grades={"important": Ceiling(**ceiling)}))
    error = refused(world, broker, grant, **request)
    assert (error.rule, error.owner) == (rule, world.bureau.thumbprint) and error.fix
    if within:
        world.posted(broker, grant, **within)
    broker.publish(world.policy(version=2, grades={"general": Ceiling(**ceiling)}))  # of another grade
    world.posted(broker, grant, **request)


def test_a_grant_within_the_total_ceiling_is_allowed_and_one_without_a_limit_is_not(world: Any) -> None:
    broker = world.broker()
    broker.publish(world.policy(version=1, classes={"enterprise": Ceiling(total={"calls": 9})}))
    world.posted(broker, broker.issue(world.claims(limits={"calls": Limit(total=9)})))
    assert refused(world, broker, broker.issue(world.claims(limits={}))).rule == "policy.total"


def test_of_several_owners_rules_the_strictest_wins(world: Any) -> None:
    owner = SigningKey.generate()
    broker = world.open(trusted=[owner.public])
    broker.register(world.asset())
    grant = broker.issue(world.claims())
    broker.publish(world.policy(version=1, grades={"important": Ceiling(max_rows=200)}))
    broker.publish(
        world.policy(
            version=1,
            key=owner,
            datasets=["companies"],
            personal=Ceiling(deny=True),
            classes={"enterprise": Ceiling(max_rows=100)},
        )
    )
    error = refused(world, broker, grant, rows=150)
    assert (error.rule, error.owner, error.fix) == (
        "policy.max_rows",
        owner.thumbprint,
        "bring at most 100 rows",
    )
    error = refused(world, broker, grant, rows=250)
    assert {each.owner for each in world.explain(broker, grant, rows=250).reasons} == {
        owner.thumbprint,
        world.bureau.thumbprint,
    }
    world.posted(broker, grant, rows=100)
    broker.publish(
        world.policy(version=2, key=owner, datasets=["others"], classes={"enterprise": Ceiling(deny=True)})
    )
    world.posted(broker, grant, rows=200)


def test_core_data_are_denied_until_a_policy_opens_them(world: Any) -> None:
    from tests.broker.test_policy import claim

    broker = world.broker(grade="core")
    grant = broker.issue(world.claims(**claim(grade="core")))
    assert refused(world, broker, grant).rule == "grade"
    broker.publish(world.policy(version=1, datasets=["others"], grades={"core": Ceiling()}))
    assert refused(world, broker, grant).rule == "grade"
    broker.publish(world.policy(version=2, grades={"core": Ceiling(max_rows=10)}))
    assert refused(world, broker, grant).rule == "policy.max_rows"
    world.posted(broker, grant, rows=10)


def test_data_of_persons_may_ask_for_a_consent(world: Any) -> None:
    from tests.broker.test_policy import claim

    broker = world.broker(personal=True)
    broker.publish(world.policy(version=1, consent=True))
    terms = claim(personal=True)
    assert refused(world, broker, broker.issue(world.claims(**terms))).rule == "policy.consent"
    world.posted(broker, broker.issue(world.claims(**terms, consent="register/2025/17")))


def test_a_trustee_grants_what_it_holds_in_trust_and_names_the_consent(world: Any) -> None:
    trustee = SigningKey.generate()
    broker = world.open(trusted=[trustee.public])
    broker.register(world.asset())

    def grant(**terms: Any) -> str:
        from trustcompute.broker import grant as grants

        return grants.sign(world.claims(issuer=trustee.thumbprint, **terms), trustee)

    world.posted(broker, grant())  # not yet named a trustee: trusted as any issuer
    broker.publish(
        world.policy(version=1, trustees=[Trustee(key=trustee.thumbprint, datasets=["companies"])])
    )
    assert "consent" in refused(world, broker, grant()).fix
    world.posted(broker, grant(consent="register/2025/17"))
    broker.publish(world.policy(version=2, trustees=[Trustee(key=trustee.thumbprint, datasets=["others"])]))
    assert refused(world, broker, grant(consent="register/2025/17")).rule == "policy.trustee"


def test_an_explanation_has_a_verdict_for_every_rule_and_spends_nothing(world: Any) -> None:
    from trustcompute.broker.policy import RULES

    broker = world.broker()
    grant = broker.issue(world.claims())
    broker.publish(world.policy(version=1, grades={"important": Ceiling(max_rows=50)}))
    size, held = len(broker.entries()), world.balances(broker)
    request = world.request(grant, purpose="other")  # never signed
    found = broker.explain(broker.verify(grant), request, world.operation)
    assert [verdict.rule for verdict in found.decision.verdicts] == list(RULES)
    assert [verdict.rule for verdict in found.decision.verdicts if not verdict.allowed] == [
        "purpose",
        "policy",
    ]
    assert found.quote.usage == Usage(calls=1, rows=100, bytes=32 * 5100)
    assert (found.quote.price, found.quote.currency) == (Fraction(400, 3), "CNY")
    assert found.quote.left["calls"] == {"total": 10, "per_day": 5}
    assert (len(broker.entries()), world.balances(broker)) == (size, held)
    assert broker.explain(broker.verify(grant), world.request(grant, rows=10), world.operation).allowed


def test_an_operation_tells_what_its_parameters_reach_for(world: Any) -> None:
    from tests.broker.test_policy import bounds

    assert scope_by_name({"on": "a", "by": ["b"], "min_group": 7}) == Scope(("a", "b"), 7)
    assert scope_by_name({"on": ["a", 5]}) == scope_by_name({}) == Scope()
    broker = world.broker()
    grant = broker.issue(world.claims(**bounds(columns=("code",))))
    world.operation = replace(world.operation, scope=lambda params: Scope(("secret",)))
    assert refused(world, broker, grant).rule == "columns"
    world.operation = replace(world.operation, scope=lambda params: Scope(()))
    world.posted(broker, grant)


def test_a_long_deny_list_is_no_burden(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    keys = [f"{number:043d}" for number in range(MAX_DENIED)]
    broker.publish(world.denylist(version=1, keys=keys))
    world.posted(broker, grant)
    with pytest.raises(Exception, match="keys"):
        world.denylist(version=2, keys=[*keys, "x" * 43])


def test_an_issuer_may_agree_to_pay_and_nobody_else(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(payer=world.bureau.thumbprint))
    for payer, allowed in ((world.bureau.thumbprint, True), (world.bank.thumbprint, True), ("x" * 43, False)):
        request = world.request(grant, parties=Parties(payer=payer))
        assert broker.explain(broker.verify(grant), request, world.operation).allowed is allowed
    with pytest.raises(ParameterError, match="payer"):
        world.claims(payer=world.bank.thumbprint)
    assert hash_of(grant)
