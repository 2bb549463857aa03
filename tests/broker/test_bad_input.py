"""Every field of every signed document, spoilt in every way: refused with the field named, and nothing written.

The documents are whole ones, with every optional claim present. Each claim, at any depth, is taken away where it must
be there, doubled, made another type, made huge, joined by one that nobody knows; each token gets another algorithm,
another type, another key's signature, a bent signature, spaces, padding.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.broker.documents import kinds
from tests.broker.spoiling import encode, spoilt, with_value, without
from trustcompute.broker import grant as grants
from trustcompute.errors import GrantError, ParameterError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey


def token_of(payload: bytes, header: str, key: SigningKey) -> str:
    signed = f"{signing.header(header).decode()}.{signing.b64url(payload)}"
    return f"{signed}.{signing.b64url(key.sign(signed.encode()))}"


ALL_KINDS = [
    *("grant", "delegated", "request", "countersignature", "denylist", "policy", "order", "credit", "repair"),
    *(
        "certificate",
        "certificate order",
        "quote",
        "appraisal",
        "agreement",
        "acceptance",
        "dispute",
        "revenue",
    ),
]


@pytest.mark.parametrize("name", ALL_KINDS)
def test_every_field_spoilt_in_every_way_is_refused_by_name(world: Any, name: str) -> None:
    broker = world.broker()
    kind = next(each for each in kinds(world, broker) if each.name == name)
    before, tried = [entry.body for entry in broker.entries()], 0
    for done, path, payload in spoilt(kind.document):
        if payload == encode(kind.document):
            continue
        with pytest.raises(GrantError) as caught:
            kind.give(token_of(payload, kind.header, kind.key))
            pytest.fail(f"{name}: {path} {done} was taken")
        field = caught.value.field
        assert field, (path, done, str(caught.value))
        top = str(path[0])
        assert top in field or field in ("token", "payload") or any(str(part) in field for part in path), (
            path,
            done,
            field,
            str(caught.value),
        )
        tried += 1
    assert tried >= 15 and [entry.body for entry in broker.entries()] == before and broker.rules() == []


REQUIRED = {
    "grant": "iss sub cnf aud jti iat nbf exp asset right operations purposes outputs limits price contingency",
    "request": "jti op dataset params sizes purpose aud san key iat exp grant asker recipient payer",
    "countersignature": "job request answers iat",
    "denylist": "iss aud version iat",
    "policy": "iss aud version iat",
    "order": "iss key aud grant do number",
    "credit": "iss aud party do number reason",
    "certificate": "iss aud jti holder asset right source iat",
    "certificate order": "aud certificate previous kind iat key",
    "quote": "aud asset subject price iat exp key",
    "appraisal": "quote unit low high method iat key",
    "agreement": "aud asset subject price iat exp key quote",
    "acceptance": "agreement iat key",
    "dispute": "aud entries reason iat key",
    "revenue": "aud grant start end amount iat key",
}


@pytest.mark.parametrize("name", REQUIRED)
def test_a_claim_that_must_be_there_is_missed_by_name(world: Any, name: str) -> None:
    broker = world.broker()
    kind = next(each for each in kinds(world, broker) if each.name == name)
    before = [entry.body for entry in broker.entries()]
    for claim in REQUIRED[name].split():
        for document in (without(kind.document, (claim,)), with_value(kind.document, (claim,), None)):
            with pytest.raises(GrantError) as caught:
                kind.give(token_of(encode(document), kind.header, kind.key))
            assert caught.value.field == claim
    assert [entry.body for entry in broker.entries()] == before


@pytest.mark.parametrize("name", ALL_KINDS)
def test_another_algorithm_type_key_or_encoding_is_refused_by_name(world: Any, name: str) -> None:
    broker = world.broker()
    kind = next(each for each in kinds(world, broker) if each.name == name)
    before = [entry.body for entry in broker.entries()]
    payload = canonical.dumps(kind.document)
    good = token_of(payload, kind.header, kind.key)
    body, signature = good.split(".")[1:]
    stranger = SigningKey.generate()
    headers = [
        {"alg": "none", "typ": kind.header},
        {"alg": "HS256", "typ": kind.header},
        {"alg": "EdDSA", "typ": kind.header},
        {"alg": "Ed25519", "typ": "jwt"},
        {"alg": "Ed25519", "typ": kind.header, "kid": "1"},
        {"alg": "Ed25519", "typ": kind.header, "jwk": {}},
        {"typ": kind.header, "alg": "Ed25519"},
    ]
    wrong: list[tuple[str, set[str]]] = []
    for header in headers:
        encoded = signing.b64url(json.dumps(header, separators=(",", ":")).encode())
        again = signing.b64url(kind.key.sign(f"{encoded}.{body}".encode()))
        wrong.append((f"{encoded}.{body}.{again}", {"header"}))
    wrong += [
        (token_of(payload, kind.header, stranger), {"signature"}),
        (f"{good[: good.rindex('.')]}.{'A' * 86}", {"signature"}),
        (f"{good[: good.rindex('.')]}.", {"signature"}),
        (f"{good[: good.rindex('.')]}.{signature}=", {"signature"}),
        (good + " ", {"signature", "token"}),
        (good + ".x", {"token"}),
        (good.rpartition(".")[0], {"token"}),
        ("", {"token", "header"}),
        ("ü" + good, {"token", "header"}),
        (token_of(payload + b" ", kind.header, kind.key), {"payload", "token"}),
        (token_of(b"[]", kind.header, kind.key), {"payload"}),
        (token_of(b"\xff\xfe", kind.header, kind.key), {"payload", "token"}),
        (token_of(encode(kind.document)[:-1], kind.header, kind.key), {"payload", "token"}),
        ("x" * 2_000_000, {"token", "header"}),
    ]
    for token, fields in wrong:
        with pytest.raises(GrantError) as caught:
            kind.give(token)
        assert caught.value.field in fields, (token[:80], caught.value.field, str(caught.value))
    assert [entry.body for entry in broker.entries()] == before and broker.rules() == []


def test_the_documents_are_taken_where_nothing_is_spoilt(world: Any) -> None:
    """Or the tests above would pass for another reason."""
    broker = world.broker()
    for kind in kinds(world, broker):
        token = token_of(canonical.dumps(kind.document), kind.header, kind.key)
        kind.give(token)


def test_makers_of_documents_say_which_claim_is_wrong(world: Any) -> None:
    for claim, value in (
        ("purposes", []),
        ("audience", "Not A Name"),
        ("depth", 99),
        ("contingency", "none"),
    ):
        with pytest.raises(ParameterError, match={"audience": "aud"}.get(claim, claim)):
            world.claims(**{claim: value})
    grant = grants.sign(world.claims(), world.bureau.key)
    for claim, value in (("purpose", ""), ("san", "-"), ("rows", -1)):
        with pytest.raises(ParameterError, match={"rows": "consumer"}.get(claim, claim)):
            world.request(grant, **{claim: value})
