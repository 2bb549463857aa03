"""Delegated grants: never more than the parent, claim by claim; siblings share a quota; any link can be revoked."""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import campaign_chains

from trustcompute.broker import delegation
from trustcompute.broker import grant as grants
from trustcompute.broker.batch import Asked
from trustcompute.broker.broker import Answer, Broker, Work
from trustcompute.broker.clearing import Clearing, Period
from trustcompute.broker.grant import (
    MAX_CHAIN,
    MAX_DEPTH,
    MAX_LINKS,
    AssetClaim,
    Bounds,
    Grant,
    Limit,
    PricePlan,
    Share,
    hash_of,
)
from trustcompute.broker.job import Fault
from trustcompute.broker.request import VerifiedRequest
from trustcompute.errors import GrantError, ParameterError, Refused
from trustcompute.primitives.identity import CertificateAuthority, Identity
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import OutputForm, Sizes

AUTHORITY = CertificateAuthority.create("Test authority")
FUND, DESK, SHOP = (AUTHORITY.issue(f"{name}.example") for name in ("fund", "desk", "shop"))
OP = "psi.test.v1"
THIRD = SigningKey.from_seed(bytes(32)).thumbprint
FOURTH = SigningKey.from_seed(bytes(31) + b"\x01").thumbprint


def root(world: Any, **changes: Any) -> str:
    """A grant to the bank that it may delegate."""
    return grants.sign(world.claims(**{"depth": 2} | changes), world.bureau.key)


def child(world: Any, parent: str, to: Identity = FUND, by: Identity | None = None, **narrower: Any) -> str:
    by = by or world.bank
    claims = delegation.delegate(
        parent,
        issuer=by.key.public,
        subject=to.name,
        subject_key=to.thumbprint,
        now=world.clock.time,
        **narrower,
    )
    return delegation.extend(parent, claims, by.key)


def asked(world: Any, broker: Broker, grant: str, who: Identity = FUND, **changes: Any) -> VerifiedRequest:
    token = world.request(grant, key=who.key, san=who.name, **changes).sign(who.key)
    return broker.verify_request(token, peer=who.name, grant=grant)


def raw_child(world: Any, above_token: str, /, by: Identity | None = None, **changes: Any) -> str:
    """A chain whose last link says what it likes, signed by its issuer, as an attacker would make it."""
    by = by or world.bank
    above = delegation.read(above_token)
    same = {name: getattr(above, name) for name in Grant.model_fields}
    same |= {
        "iss": by.thumbprint,
        "parent": hash_of(above_token),
        "key": by.key.public.x,
        "depth": above.depth - 1,
    }
    same |= {"sub": FUND.name, "cnf": grants.Confirmation(jkt=FUND.thumbprint), "jti": "mine"}
    return above_token + "~" + grants.sign(Grant(**same | changes), by.key)


ROOT: dict[str, Any] = {
    "depth": 3,
    "operations": {
        OP: Bounds(columns=("a", "b"), max_rows=100, min_rows=10, min_group=5, counterparties=(THIRD,)),
        "dp.count.v1": Bounds(),
    },
    "purposes": ["credit", "audit"],
    "scenarios": ["loan", "card"],
    "territory": ["CN", "SG"],
    "outputs": [OutputForm.COUNT, OutputForm.MATCHED_IDS],
    "limits": {"calls": Limit(total=10, per_day=5), "rows": Limit(total=5000, per_call=1000)},
    "consent": "register 12/7",
}


def _asset(**changes: Any) -> AssetClaim:
    same: dict[str, Any] = {
        "id": "companies",
        "schema_hash": "5c" * 32,
        "classification": "enterprise",
        "grade": "important",
        "personal": False,
    }
    return AssetClaim(**same | changes)


def _bounds(**changes: Any) -> dict[str, Bounds]:
    return {OP: Bounds(**changes)}


NOON = 1_750_000_000 // 86400 * 86400 + 43200
END = NOON + 365 * 86400
SHARES = (Share(party="me", share="1"),)
WIDER: list[tuple[str, dict[str, Any]]] = [
    ("aud", {"aud": "other.example"}),
    ("price", {"price": PricePlan(kind="per_use", currency="CNY", per_call="99", per_row="1/3")}),
    ("price", {"price": PricePlan(kind="free"), "split": ()}),
    ("split", {"split": SHARES}),
    ("consent", {"consent": "another"}),
    ("depth", {"depth": 3}),
    ("depth", {"depth": 8}),
    ("asset.id", {"asset": _asset(id="people")}),
    ("asset.schema", {"asset": _asset(schema_hash="00" * 32)}),
    ("asset.class", {"asset": _asset(classification="open")}),
    ("asset.grade", {"asset": _asset(grade="general")}),
    ("asset.personal", {"asset": _asset(personal=True)}),
    ("right", {"right": "hold"}),
    ("purposes", {"purposes": ("credit", "marketing")}),
    ("scenarios", {"scenarios": ("loan", "all")}),
    ("territory", {"territory": ("CN", "FR")}),
    ("outputs", {"outputs": (OutputForm.AGGREGATE,)}),
    ("limits.calls.total", {"limits": {"calls": Limit(total=11)}}),
    ("limits.calls.per_day", {"limits": {"calls": Limit(total=1, per_day=6)}}),
    ("limits.rows.per_call", {"limits": {"rows": Limit(per_call=1001)}}),
    ("operations.psi.other.v1", {"operations": {OP: Bounds(), "psi.other.v1": Bounds()}}),
    (f"operations.{OP}.columns", {"operations": _bounds(columns=("a", "c"))}),
    (f"operations.{OP}.max_rows", {"operations": _bounds(max_rows=101)}),
    (f"operations.{OP}.min_rows", {"operations": _bounds(min_rows=9)}),
    (f"operations.{OP}.min_group", {"operations": _bounds(min_group=4)}),
    (f"operations.{OP}.counterparties", {"operations": _bounds(counterparties=(THIRD, FOURTH))}),
    (
        "operations.dp.count.v1.counterparties",
        {"operations": {"dp.count.v1": Bounds(counterparties=(THIRD,))}},
    ),
    ("nbf", {"nbf": NOON - 1}),
    ("exp", {"exp": END + 1}),
    ("review", {"review": END}),
]
NARROWER: list[dict[str, Any]] = [
    {},
    {"depth": 0},
    {"asset": _asset(version="2025-06")},
    {"asset": _asset(schema_hash=None)},
    {"right": "operate"},
    {"purposes": ("audit",)},
    {"scenarios": ("card",)},
    {"territory": ("SG",)},
    {"outputs": (OutputForm.COUNT,)},
    {"limits": {}},
    {"limits": {"calls": Limit(total=0), "bytes": Limit(total=5)}},
    {"operations": _bounds(columns=("b",), max_rows=99, min_rows=11, min_group=6, counterparties=())},
    {"operations": {"dp.count.v1": Bounds(max_rows=3)}},
    {"nbf": NOON + 1},
    {"exp": END - 1},
    {"review": NOON + 5},
    {"contingency": "11" * 32},
]


@pytest.mark.parametrize(("field", "claims"), WIDER, ids=lambda value: str(value)[:40])
def test_a_claim_that_is_wider_than_the_parents_is_refused_by_its_name(
    world: Any, field: str, claims: dict[str, Any]
) -> None:
    parent = root(world, **ROOT | {"review": NOON + 9})
    with pytest.raises(GrantError) as caught:
        world.broker().verify(raw_child(world, parent, **claims))
    assert caught.value.field == field
    if field not in ("aud", "depth"):  # the delegator is told the same before it signs
        with pytest.raises(GrantError) as caught:
            child(world, parent, **claims)
        assert caught.value.field == field


@pytest.mark.parametrize("claims", NARROWER, ids=lambda value: str(value)[:40])
def test_a_claim_that_is_narrower_is_accepted(world: Any, claims: dict[str, Any]) -> None:
    parent = root(world, **ROOT | {"review": NOON + 9})
    verified = world.broker().verify(child(world, parent, **claims))
    for name, value in claims.items():
        if name not in ("operations", "limits", "asset"):
            assert getattr(verified.claims, name) == value
    assert [link.hash for link in verified.chain] == [verified.hash, hash_of(parent)]
    assert verified.claims.iss == world.bank.thumbprint and verified.claims.cnf.jkt == FUND.thumbprint


def test_what_is_absent_is_inherited(world: Any) -> None:
    parent = root(world, **ROOT | {"review": NOON + 9})
    absent = {
        "scenarios": None,
        "territory": None,
        "review": None,
        "consent": None,
        "asset": _asset(schema_hash=None),
        "operations": _bounds(max_rows=50),
        "limits": {"calls": Limit(total=3)},
    }
    chain = raw_child(world, parent, **absent)
    claims = world.broker().verify(chain).claims
    assert claims == delegation.read(chain)
    assert claims.scenarios == ("loan", "card") and claims.territory == ("CN", "SG")
    assert claims.review == NOON + 9 and claims.consent == "register 12/7"
    assert claims.asset.schema_hash == "5c" * 32
    assert claims.operations == _bounds(
        columns=("a", "b"), max_rows=50, min_rows=10, min_group=5, counterparties=(THIRD,)
    )
    assert claims.limits == {"calls": Limit(total=3, per_day=5), "rows": Limit(total=5000, per_call=1000)}


def test_a_right_is_delegated_downwards_only(world: Any) -> None:
    broker = world.broker()
    for right, allowed in (("hold", 3), ("process", 2), ("operate", 1)):
        parent, taken = root(world, right=right), 0
        for below in delegation.RIGHTS:
            try:
                taken += broker.verify(raw_child(world, parent, right=below)).claims.right == below
            except GrantError as error:
                assert error.field == "right"
        assert taken == allowed
    holder = root(world, right="hold")
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, holder), world.operation)
    assert caught.value.rule == "right"
    operated = child(world, holder, right="operate")
    assert broker.reserve(asked(world, broker, operated), world.operation).state == "reserved"


def long_chain(world: Any, links: int) -> str:
    """Bank, fund, desk, bank, ... each delegating to the next."""
    chain, holders = root(world, depth=MAX_DEPTH), [world.bank, FUND, DESK]
    for number in range(1, links):
        chain = child(world, chain, to=holders[number % 3], by=holders[(number - 1) % 3])
    return chain


def test_chains_have_nine_links_at_most(world: Any) -> None:
    broker = world.broker()
    chain = long_chain(world, MAX_LINKS)
    verified = broker.verify(chain)
    assert len(verified.chain) == MAX_LINKS and verified.claims.depth == 0
    assert [grant.depth for grant in delegation.read_chain(chain)] == list(range(MAX_DEPTH, -1, -1))
    with pytest.raises(GrantError) as caught:
        child(world, chain, by=DESK)
    assert caught.value.field == "depth"
    for oversized in (chain + "~" + chain, "~" * MAX_LINKS, "a" * (MAX_CHAIN + 1)):
        with pytest.raises(GrantError) as caught:
            broker.verify(oversized)
        assert caught.value.field == "token"
    with pytest.raises(ParameterError, match="at most 9"):
        delegation.extend(chain, delegation.read(chain), FUND.key)


def test_every_reordering_repetition_and_loss_of_links_is_refused(world: Any) -> None:
    broker = world.broker()
    first, second, third = long_chain(world, 3).split("~")
    broker.verify("~".join((first, second, third)))
    for links in (
        (second,),
        (third,),
        (first, third),
        (second, first),
        (second, third),
        (first, first),
        (first, second, second),
        (first, second, first),
        (first, third, second),
        (first, second, third, second),
        (first, second, third, first),
        (root(world), second),
    ):
        with pytest.raises(GrantError) as caught:
            broker.verify("~".join(links))
        assert caught.value.field == "parent", links
    for broken in (first + "~", "~" + first, f"{first}~~{second}", first + "~" + second[:-1]):
        with pytest.raises(GrantError):
            broker.verify(broken)


@pytest.mark.property
def test_any_changed_character_of_a_chain_is_refused(world: Any) -> None:
    broker, chance = world.broker(), random.Random(5)
    chain = long_chain(world, 3)
    for _ in range(300):
        position = chance.randrange(len(chain))
        changed = chance.choice([each for each in "~.=-_aZ9\x00é " if each != chain[position]])
        with pytest.raises(GrantError):
            broker.verify(chain[:position] + changed + chain[position + 1 :])
    assert {entry.type for entry in broker.entries()} == {"log.opened", "asset.registered"}


def test_a_link_must_be_made_by_whom_its_parent_names(world: Any) -> None:
    broker = world.broker()
    parent = root(world)
    for claims, by, field in (
        ({}, FUND, "iss"),
        ({"key": None}, world.bank, "key"),
        ({"key": "A" * 43}, world.bank, "key"),
        ({"key": FUND.key.public.x}, world.bank, "key"),
        ({"parent": "ab" * 32}, world.bank, "parent"),
        ({"parent": None}, world.bank, "parent"),
    ):
        with pytest.raises(GrantError) as caught:
            broker.verify(raw_child(world, parent, by=by, **claims))
        assert caught.value.field == field
    good = raw_child(world, parent)
    forged = good.rsplit(".", 1)[0] + "." + raw_child(world, parent, jti="x").rsplit(".", 1)[1]
    with pytest.raises(GrantError) as caught:
        broker.verify(forged)
    assert caught.value.field == "signature"
    with pytest.raises(GrantError) as caught:
        child(world, parent, by=DESK)
    assert caught.value.field == "iss"


def test_a_root_must_be_trusted_however_many_links_follow(world: Any) -> None:
    own = grants.sign(world.claims(issuer=world.bank.thumbprint, depth=2), world.bank.key)
    with pytest.raises(GrantError) as caught:
        world.broker().verify(child(world, own))
    assert caught.value.field == "iss"


def test_malformed_terms_of_a_delegation_are_refused_by_name(world: Any) -> None:
    parent = root(world)
    for claims, name in (
        ({"purposes": ()}, "purposes"),
        ({"depth": -1}, "depth"),
        ({"days": 0}, "exp"),
        ({"colour": "red"}, "colour"),
    ):
        with pytest.raises(ParameterError, match=name):
            child(world, parent, **claims)


# The meter: every ancestor is debited.


def siblings(world: Any) -> tuple[str, list[str]]:
    parent = root(world, limits={"calls": Limit(total=3)})
    return parent, [child(world, parent, limits={"calls": Limit(total=3)}) for _ in range(2)]


def test_two_siblings_with_three_calls_each_have_three_calls_together(world: Any) -> None:
    broker = world.broker()
    parent, (one, other) = siblings(world)
    posted = 0
    for number in range(6):
        try:
            job = broker.reserve(asked(world, broker, (one, other)[number % 2]), world.operation)
        except Refused as error:
            assert (error.rule, error.field) == ("quota", "limits.calls.total")
            assert "0 are left" in error.fix
            continue
        broker.arm(job.id)
        broker.post(job.id, release=world.release(job.id), usage=job.reserved)
        assert meter_grants(job.accounts)[-1] == hash_of(parent)
        posted += 1
    assert posted == 3
    with pytest.raises(Refused):
        broker.reserve(world.verified(broker, parent), world.operation)
    quote = broker.quote(broker.verify(one), world.operation, {}, Sizes(100, 5000))
    assert quote.left["calls"]["total"] == 0
    report = broker.audit()
    totals = {
        key.account: n for key, n in report.balances.items() if key.window == -1 and key.unit == "calls"
    }
    expected = {hash_of(parent): 3, hash_of(one): 2, hash_of(other): 1}
    assert totals == {f"grant:{name}": n for name, n in expected.items()} | {"dataset:companies": 3}
    types = [entry.type for entry in broker.entries()]
    assert types.count("grant.accepted") == 3
    accepted = [entry.fields for entry in broker.entries() if entry.type == "grant.accepted"]
    assert [fields.get("parent") for fields in accepted] == [None, hash_of(parent), hash_of(parent)]


def meter_grants(accounts: tuple[str, ...]) -> list[str]:
    return [name.removeprefix("grant:") for name in accounts if name.startswith("grant:")]


def test_siblings_that_ask_at_once_do_not_overrun_their_parent(world: Any) -> None:
    broker = world.broker()
    _, children = siblings(world)
    requests = [asked(world, broker, children[number % 2]) for number in range(24)]
    got: list[str] = []

    def ask(own: list[VerifiedRequest]) -> None:
        for each in own:
            try:
                got.append(broker.reserve(each, world.operation).id)
            except Refused as error:
                assert error.rule == "quota"

    threads = [threading.Thread(target=ask, args=(requests[number::4],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got)) == 3


def test_a_voided_job_gives_back_to_every_link_and_a_forfeited_one_takes_from_every_link(world: Any) -> None:
    broker = world.broker()
    _, (one, other) = siblings(world)
    for _ in range(4):
        broker.abandon(broker.reserve(asked(world, broker, one), world.operation).id, "test", Fault.PEER)
    for _ in range(3):
        job = broker.reserve(asked(world, broker, one), world.operation)
        broker.arm(job.id)
        broker.abandon(job.id, "lost", Fault.PEER)
    with pytest.raises(Refused):
        broker.reserve(asked(world, broker, other), world.operation)
    assert broker.audit().jobs == {"voided": 4, "forfeited": 3, "denied": 1}


@pytest.mark.parametrize("link", [0, 1, 2])
def test_revoking_any_link_stops_the_whole_chain_below_it(world: Any, link: int) -> None:
    broker = world.broker()
    chain = long_chain(world, 3)  # bureau, bank, fund: held by the desk
    links = chain.split("~")

    def reserve() -> Any:
        return broker.reserve(asked(world, broker, chain, DESK), world.operation)

    reserved, armed, posted = reserve(), reserve(), reserve()
    broker.arm(armed.id)
    broker.arm(posted.id)
    broker.post(posted.id, release=world.release(posted.id), usage=posted.reserved)
    broker.revoke(hash_of(links[link]), "over")
    for attempt in (
        reserve,
        lambda: broker.arm(reserved.id),
        lambda: broker.post(armed.id, release=world.release(armed.id), usage=armed.reserved),
        lambda: broker.post(posted.id, release=world.release(posted.id, run=1), usage=posted.reserved),
        lambda: broker.admit(broker.verify(chain)),
    ):
        with pytest.raises(Refused) as caught:
            attempt()
        assert caught.value.rule == "revoked"
    above = broker.reserve(world.verified(broker, links[0]), world.operation) if link else None
    assert (above is not None) == (link > 0)  # those above the revoked link go on
    report = broker.audit()
    assert report.jobs == {"voided": 1, "forfeited": 1, "posted": 1, "denied": 1}


def test_each_link_has_its_own_dates(world: Any) -> None:
    broker = world.broker()
    parent = root(world)
    chain = child(world, parent, days=2, nbf=world.clock.time + 100)
    with pytest.raises(Refused) as caught:
        broker.reserve(asked(world, broker, chain), world.operation)
    assert caught.value.rule == "expired"
    world.clock.time += 100
    broker.reserve(asked(world, broker, chain), world.operation)
    world.clock.time += 2 * 86400
    with pytest.raises(Refused) as caught:
        broker.reserve(asked(world, broker, chain), world.operation)
    assert (caught.value.rule, caught.value.owner) == ("expired", world.bank.thumbprint)
    broker.reserve(world.verified(broker, parent), world.operation)


def test_who_holds_the_delegated_grant_pays_the_roots_price_to_the_roots_parties(world: Any) -> None:
    broker = world.broker()
    chain = child(world, root(world), limits={"calls": Limit(total=2)})
    job = broker.reserve(asked(world, broker, chain, rows=30), world.operation)
    broker.arm(job.id)
    broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    statement = Clearing.of(broker.entries()).statement(Period(0, world.clock.time + 1))
    (row,) = statement.rows
    assert (row.payer, row.grant, row.jobs, row.rated) == (FUND.thumbprint, hash_of(chain), 1, 110)
    assert {line.account.payee for line in statement.lines} == {world.bureau.thumbprint, "public-fund"}
    broker.close()
    again = world.open()  # the book alone knows the chain
    assert again.audit().meter
    assert again.job(job.id).accounts == job.accounts


def test_a_delegated_grant_is_used_by_its_own_holder_only(world: Any) -> None:
    broker = world.broker()
    chain = child(world, root(world))
    for who in (world.bank, DESK):
        with pytest.raises(GrantError) as caught:
            asked(world, broker, chain, who)
        assert caught.value.field == "key"


@pytest.mark.property
def test_random_trees_of_grants_amplify_nothing() -> None:
    outcome = campaign_chains.run(2000, seed=7)
    assert outcome.chains >= 2000
    assert min(outcome.allowed, outcome.turned_down, outcome.jobs - outcome.turned_down) > 500
    claims = {
        "purposes",
        "scenarios",
        "territory",
        "outputs",
        "limits",
        "operations",
        "asset",
        "right",
        "depth",
    }
    assert claims | {"nbf", "exp"} <= set(outcome.refused)


def test_many_requests_under_a_chain_are_verified_at_once(world: Any) -> None:
    broker = world.broker()
    _, (one, _) = siblings(world)
    made = [world.request(one, key=FUND.key, san=FUND.name).sign(FUND.key) for _ in range(3)]
    first, second, stranger = broker.verify_requests(
        [Asked(made[0], FUND.name, one), Asked(made[1], FUND.name, one), Asked(made[2], DESK.name, one)]
    )
    assert isinstance(stranger, GrantError) and stranger.field == "san"
    assert [len(each.grant.chain) for each in (first, second)] == [2, 2]
    works = [Work(each, world.operation) for each in (first, second)]
    receipts = broker.run_many(works, lambda job: Answer(world.release(job.id), job.reserved))
    assert [len(receipt.verify(broker.log_key).fields["accounts"]) for receipt in receipts] == [3, 3]
    assert broker.audit().jobs == {"posted": 2}
