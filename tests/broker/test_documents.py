"""Grants, requests and countersignatures as documents: what is malformed is refused by name."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trustcompute.broker import grant as grants
from trustcompute.broker import request as requests
from trustcompute.broker.grant import GRANT_TYPE, AssetClaim, Bounds, Grant, Limit, PricePlan, Share
from trustcompute.broker.request import COUNTERSIGNATURE_TYPE, LIFETIME, REQUEST_TYPE
from trustcompute.errors import GrantError, ParameterError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import OutputForm

SLOW_FIXTURE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sign_raw(payload: bytes, header_type: str, key: SigningKey) -> str:
    """A well-signed token over any bytes, as a hostile issuer would make it."""
    signed = signing.header(header_type).decode() + "." + signing.b64url(payload)
    return f"{signed}.{signing.b64url(key.sign(signed.encode()))}"


def altered(document: dict[str, Any], path: str, value: Any) -> bytes:
    """The canonical-looking bytes of a document with one member set, whatever the value."""
    changed = copy.deepcopy(document)
    target: Any = changed
    *parents, last = path.split(".")
    for name in parents:
        target = target[int(name)] if isinstance(target, list) else target[name]
    target[int(last) if isinstance(target, list) else last] = value
    return json.dumps(changed, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def removed(document: dict[str, Any], name: str) -> bytes:
    return canonical.dumps({key: value for key, value in document.items() if key != name})


REQUIRED = [
    "iss",
    "sub",
    "cnf",
    "aud",
    "jti",
    "iat",
    "nbf",
    "exp",
    "asset",
    "right",
    "operations",
    "purposes",
]
REQUIRED += ["outputs", "limits", "price", "contingency"]

WRONG_GRANTS = [
    ("iss", 7),
    ("iss", "short"),
    ("sub", "Bank.Example"),
    ("sub", "bank.example\n"),
    ("cnf", {}),
    ("cnf", {"jkt": "x" * 43, "jwk": {}}),
    ("aud", ""),
    ("jti", "x" * 65),
    ("jti", None),
    ("iat", "1750000000"),
    ("iat", True),
    ("iat", -1),
    ("nbf", 2**50),
    ("exp", 5),
    ("asset.id", "../companies"),
    ("asset.version", 3),
    ("asset.schema", "xyz"),
    ("asset.schema_hash", "5c" * 32),
    ("asset.grade", "secret"),
    ("asset.class", ""),
    ("asset.personal", 1),
    ("right", "own"),
    ("operations", {}),
    ("operations", []),
    ("operations", {"PSI": {}}),
    ("operations.psi\\.test\\.v1", {"max_rows": -1}),
    ("operations.psi\\.test\\.v1", {"max_rows": "100"}),
    ("operations.psi\\.test\\.v1", {"columns": []}),
    ("operations.psi\\.test\\.v1", {"columns": ["a", "a"]}),
    ("operations.psi\\.test\\.v1", {"rows": 1}),
    ("operations.psi\\.test\\.v1", {"counterparties": ["bank"]}),
    ("purposes", []),
    ("purposes", "credit"),
    ("purposes", ["credit", "credit"]),
    ("purposes", ["credit\u0000"]),
    ("purposes", [" credit"]),
    ("purposes", ["x" * 129]),
    ("purposes", [str(i) for i in range(65)]),
    ("scenarios", []),
    ("outputs", ["raw_rows"]),
    ("outputs", []),
    ("territory", [1]),
    ("limits", {"euros": {}}),
    ("limits", {"rows": {"total": -1}}),
    ("limits", {"rows": {"total": "100"}}),
    ("limits", {"rows": {"total": "09007199254740993"}}),
    ("limits", {"rows": {"total": str(2**63)}}),
    ("limits", {"rows": {"per_month": 1}}),
    ("limits", {"rows": 5}),
    ("price", {"kind": "per_use"}),
    ("price", {"kind": "free", "currency": "CNY"}),
    ("price", {"kind": "per_use", "currency": "CNY", "per_row": "-1"}),
    ("price", {"kind": "per_use", "currency": "CNY", "per_row": "1e3"}),
    ("price", {"kind": "per_use", "currency": "CNY", "per_row": "1/0"}),
    ("price", {"kind": "per_use", "currency": "CNY", "per_row": "0.1234567890123"}),
    ("price", {"kind": "per_use", "currency": "CNY", "per_row": 1}),
    ("price", {"kind": "per_use", "currency": "yuan"}),
    ("split", []),
    ("split", [{"party": "a", "share": "1/2"}, {"party": "b", "share": "1/3"}]),
    ("split", [{"party": "a", "share": "1/2"}, {"party": "a", "share": "1/2"}]),
    ("split", [{"party": "a", "share": "3/2"}]),
    ("contingency", "plan"),
    ("review", "tomorrow"),
    ("depth", 9),
    ("depth", -1),
    ("parent", "x"),
    ("consent", ""),
    ("surprise", 1),
    ("__class__", "Grant"),
]


def _path(path: str) -> tuple[str, str]:
    """A path for ``altered`` whose member names may hold dots (escaped), and its first member."""
    return path.replace("\\.", "\0"), path.split(".", maxsplit=1)[0]


@pytest.mark.parametrize(("path", "value"), WRONG_GRANTS, ids=lambda value: str(value)[:40])
def test_a_malformed_grant_is_refused_by_the_claims_name(world: Any, path: str, value: Any) -> None:
    broker = world.broker()
    document = world.claims().to_document()
    encoded, first = _path(path)
    if "\0" in encoded:
        document["operations"]["psi.test.v1"] = value
        payload = canonical.dumps(document)
    else:
        payload = altered(document, encoded, value)
    with pytest.raises(GrantError) as caught:
        broker.verify(sign_raw(payload, GRANT_TYPE, world.bureau.key))
    assert caught.value.field.split(".")[0] == first
    assert [entry.type for entry in broker.entries()] == ["log.opened", "asset.registered"]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_grant_lacking_a_claim_is_refused_by_its_name(world: Any, name: str) -> None:
    token = sign_raw(removed(world.claims().to_document(), name), GRANT_TYPE, world.bureau.key)
    with pytest.raises(GrantError) as caught:
        world.broker().verify(token)
    assert caught.value.field == name


def test_doubled_floating_and_badly_spelled_claims_are_refused(world: Any) -> None:
    broker = world.broker()
    good = canonical.dumps(world.claims().to_document())
    cases = [
        (good[:-1] + b',"jti":"other"}', "jti"),
        (good.replace(b'"iat":1', b'"iat":1.0e0,"x":1', 1), "iat"),
        (good.replace(b'"depth":0', b'"depth":0.0'), "depth"),
        (good.replace(b'"depth":0', b'"depth":1e0'), "depth"),
        (good.replace(b'"depth":0', b'"depth": 0'), "payload"),
        (good.replace(b'"aud"', b'"\\u0061ud"'), "payload"),
        (b"[]", "payload"),
        (b"{" + b'"a":' * 5000, "payload"),
    ]
    for payload, field in cases:
        with pytest.raises(GrantError) as caught:
            broker.verify(sign_raw(payload, GRANT_TYPE, world.bureau.key))
        assert caught.value.field == field, payload[:80]


@pytest.mark.property
@given(st.data())
@SLOW_FIXTURE
def test_any_changed_byte_of_a_grant_or_request_is_refused(world: Any, data: st.DataObject) -> None:
    broker = world.opened[0] if world.opened else world.broker()
    grant = grants.sign(world.claims(), world.bureau.key)
    request = world.request(grant).sign(world.bank.key)
    for token, accept in (
        (grant, broker.verify),
        (request, lambda token: broker.verify_request(token, peer="bank.example", grant=grant)),
    ):
        accept(token)
        changed = bytearray(token.encode())
        position = data.draw(st.integers(0, len(changed) - 1))
        changed[position] ^= data.draw(st.integers(1, 255))
        with pytest.raises(GrantError):
            accept(changed.decode("latin-1"))


def test_tokens_of_one_type_do_not_serve_as_another(world: Any) -> None:
    broker = world.broker()
    claims = world.claims()
    for other in (REQUEST_TYPE, COUNTERSIGNATURE_TYPE):
        token = sign_raw(canonical.dumps(claims.to_document()), other, world.bureau.key)
        with pytest.raises(GrantError) as caught:
            broker.verify(token)
        assert caught.value.field == "header"


def test_grants_of_others_for_others_and_without_their_parent_are_refused(world: Any) -> None:
    broker = world.broker()
    stranger = SigningKey.generate()
    cases = [
        (world.claims(issuer=stranger.thumbprint), stranger, "iss"),
        (world.claims(audience="other.example"), world.bureau.key, "aud"),
        (world.claims(parent="ab" * 32), world.bureau.key, "parent"),
        (world.claims(key=world.bureau.key.public.x), world.bureau.key, "key"),
    ]
    for claims, key, field in cases:
        with pytest.raises(GrantError) as caught:
            broker.verify(grants.sign(claims, key))
        assert caught.value.field == field
    forged = sign_raw(canonical.dumps(world.claims().to_document()), GRANT_TYPE, stranger)
    with pytest.raises(GrantError) as caught:
        broker.verify(forged)
    assert caught.value.field == "signature"


def test_a_grant_survives_the_wire_as_it_is(world: Any) -> None:
    claims = world.claims(
        asset=AssetClaim(
            id="people/2025",
            version="7",
            schema_hash=None,
            classification="个人信息",
            grade="important",
            personal=True,
        ),
        operations={
            "psi.test.v1": Bounds(columns=("code",), max_rows=10, min_group=3),
            "dp.count.v1": Bounds(),
        },
        outputs=[OutputForm.COUNT, OutputForm.DP_RELEASE],
        territory=["CN"],
        scenarios=["loan"],
        limits={"delta": Limit(total=2**60), "rows": Limit(per_call=2**53 - 1, per_day=2**53)},
        review=world.clock.time + 86400,
        consent="register 12/7",
    )
    token = grants.sign(claims, world.bureau.key)
    assert world.broker().verify(token).claims == claims == grants.read(token)
    wire = json.loads(signing.b64url_decode(token.split(".")[1]))
    assert wire["limits"]["delta"]["total"] == str(2**60)
    assert wire["limits"]["rows"] == {"total": None, "per_call": 2**53 - 1, "per_day": str(2**53)}
    assert wire["asset"]["class"] == "个人信息" and wire["asset"]["schema"] is None


def test_free_plans_need_no_split_and_priced_ones_do(world: Any) -> None:
    assert world.claims(price=PricePlan(kind="free"), split=()).split == ()
    with pytest.raises(ParameterError, match="sum to exactly 1"):
        world.claims(split=())
    thirds = [Share(party=name, share="1/3") for name in "abc"]
    assert len(world.claims(split=thirds).split) == 3
    with pytest.raises(ParameterError, match="sum to exactly 1"):
        world.claims(split=[Share(party=name, share="0.333333333333") for name in "abc"])


def test_the_largest_grant_fits_a_token_and_an_entry(world: Any) -> None:
    names = [f"{i:03}" + "x" * 60 for i in range(64)]
    claims = world.claims(
        operations={f"o{i}": Bounds(columns=("c" * 40,)) for i in range(64)},
        purposes=names,
        split=[Share(party=f"{i}" + "p" * 60, share="1/64") for i in range(64)],
    )
    broker = world.broker()
    token = broker.issue(claims)
    assert broker.verify(token).claims == claims
    with pytest.raises(ParameterError, match="32768 characters"):
        broker.issue(
            world.claims(
                purposes=["p" * 100 + f"{i}" for i in range(64)],
                scenarios=names,
                territory=["t" * 100 + f"{i}" for i in range(64)],
                operations={
                    f"o{i}": Bounds(columns=tuple(f"{j}" + "c" * 50 for j in range(10))) for i in range(64)
                },
            )
        )


def test_verified_grants_are_remembered_but_dates_are_not(world: Any) -> None:
    broker = world.broker()
    token = broker.issue(world.claims())
    assert broker.verify(token) is broker.verify(token)


# Requests

WRONG_REQUESTS = [
    ("jti", "ab"),
    ("jti", "AB" * 16),
    ("op", "PSI"),
    ("dataset", "a b"),
    ("params", []),
    ("params", {"x": 1.5}),
    ("sizes", {"consumer": -1}),
    ("sizes", {"consumer": 1, "provider": 2}),
    ("sizes", {"consumer": "1"}),
    ("purpose", ""),
    ("purpose", None),
    ("key", "x" * 43),
    ("key", "short"),
    ("iat", None),
    ("exp", 1.5),
    ("grant", "00"),
    ("asker", "bank"),
    ("surprise", {}),
]


@pytest.mark.parametrize(("path", "value"), WRONG_REQUESTS, ids=lambda value: str(value)[:40])
def test_a_malformed_request_is_refused_by_the_claims_name(world: Any, path: str, value: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    payload = altered(world.request(grant).to_document(), path, value)
    token = sign_raw(payload, REQUEST_TYPE, world.bank.key)
    with pytest.raises(GrantError) as caught:
        broker.verify_request(token, peer="bank.example", grant=grant)
    assert caught.value.field.split(".")[0] == path
    assert broker.entries()[-1].type == "grant.issued"


def test_a_request_must_fit_its_grant_its_node_its_peer_and_the_time(world: Any) -> None:
    broker = world.broker()
    grant, other = broker.issue(world.claims()), broker.issue(world.claims())
    now = world.clock.time
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({}, "bureau.example", "san"),
        ({"san": "other.example"}, "other.example", "san"),
        ({"audience": "other.example"}, "bank.example", "aud"),
        ({"grant": other}, "bank.example", "grant"),
        ({"now": now + 121}, "bank.example", "iat"),
        ({"now": now - LIFETIME}, "bank.example", "exp"),
        ({"now": now - 100, "lifetime": 100}, "bank.example", "exp"),
        ({"lifetime": LIFETIME + 1}, "bank.example", "exp"),
        ({"lifetime": 0}, "bank.example", "exp"),
    ]
    for changes, peer, field in cases:
        token = world.request(**({"grant": grant} | changes)).sign(world.bank.key)
        with pytest.raises(GrantError) as caught:
            broker.verify_request(token, peer=peer, grant=grant)
        assert caught.value.field == field, changes
    stolen = world.request(grant).to_document()
    thief = SigningKey.generate()
    for payload in (canonical.dumps(stolen), altered(stolen, "key", thief.public.x)):
        with pytest.raises(GrantError) as caught:
            broker.verify_request(sign_raw(payload, REQUEST_TYPE, thief), peer="bank.example", grant=grant)
        assert caught.value.field in ("signature", "key")


def test_requests_are_signed_with_the_key_they_name(world: Any) -> None:
    with pytest.raises(ParameterError, match="another key"):
        world.request("token").sign(SigningKey.generate())
    with pytest.raises(ParameterError, match="purpose"):
        world.request("token", purpose="")


def test_job_ids_are_unique_and_ordered_by_time() -> None:
    first = requests.new_job()
    jobs = [requests.new_job() for _ in range(1000)]
    assert len(set(jobs)) == 1000
    assert all(len(job) == 32 and job[12] == "7" and job[16] in "89ab" for job in jobs)
    stamps = [int(job[:12], 16) for job in (first, *jobs)]
    assert stamps == sorted(stamps)


@pytest.mark.property
@given(st.data())
@SLOW_FIXTURE
def test_any_document_is_refused_or_accepted_never_an_accident(world: Any, data: st.DataObject) -> None:
    """Well-signed rubbish in every place of a grant: ``GrantError``, or a grant that round-trips."""
    broker = world.opened[0] if world.opened else world.broker()
    document = world.claims().to_document()
    name = data.draw(st.sampled_from(sorted(document)))
    rubbish = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20) | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=5,
    )
    payload = json.dumps(document | {name: data.draw(rubbish)}, sort_keys=True, separators=(",", ":"))
    try:
        verified = broker.verify(sign_raw(payload.encode(), GRANT_TYPE, world.bureau.key))
    except GrantError as error:
        assert error.field
    else:
        assert Grant.model_validate(verified.claims.to_document(), by_alias=True) == verified.claims
