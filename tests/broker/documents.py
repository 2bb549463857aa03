"""A whole document of every signed kind, with every optional claim present, and how a broker is given it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from trustcompute.broker import certificate, credit, delegation, register
from trustcompute.broker import grant as grants
from trustcompute.broker.clearing import agreement, claims
from trustcompute.broker.grant import (
    GRANT_TYPE,
    AssetClaim,
    Bounds,
    Limit,
    PricePlan,
    Share,
    Step,
    Tier,
    hash_of,
)
from trustcompute.broker.order import ORDER_TYPE
from trustcompute.broker.request import COUNTERSIGNATURE_TYPE, REQUEST_TYPE
from trustcompute.broker.rules import Ceiling, DenyList, Policy, Trustee
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import OutputForm


@dataclass(frozen=True)
class Kind:
    """One kind of document. give: hands a token to the broker as a peer would."""

    name: str
    header: str
    document: dict[str, Any]
    key: SigningKey
    give: Callable[[str], Any]


def kinds(world: Any, broker: Any) -> list[Kind]:
    key = world.bureau.key
    grant = broker.issue(world.claims(review=world.clock.time + 9))
    whole = world.claims(
        asset=AssetClaim(
            id="companies",
            version="2025-06",
            schema_hash="5c" * 32,
            classification="enterprise",
            grade="important",
            personal=False,
        ),
        operations={
            "psi.test.v1": Bounds(
                columns=("code",), max_rows=9, min_rows=1, min_group=2, counterparties=("c" * 43,)
            )
        },
        scenarios=["loan"],
        territory=["CN"],
        limits={"rows": Limit(total=5, per_call=4, per_day=3)},
        price=PricePlan(kind="per_use", currency="CNY", per_call="1/3", per_row="0.5"),
        split=[Share(party="a", share="1/2"), Share(party="b", share="1/2")],
        review=world.clock.time + 9,
        depth=1,
        consent="register/1",
        payer=world.bureau.thumbprint,
    )
    child = delegation.delegate(
        grants.sign(world.claims(depth=1), key),
        issuer=world.bank.key.public,
        subject="bank.example",
        subject_key=world.bank.thumbprint,
        now=world.clock.time,
    )
    parent = grants.sign(world.claims(depth=1), key)
    child = child.model_copy(update={"parent": hash_of(parent)})
    job = broker.reserve(world.verified(broker, grant), world.operation)
    request = next(each.token for each in broker.evidence(job.id))
    posted = broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    counter = signing.parse(world.countersigned(request, posted), COUNTERSIGNATURE_TYPE).claims
    own = {"iss": key.thumbprint, "aud": "bureau.example", "version": 1, "iat": 1}
    ceiling = Ceiling(
        operations=("dp.*",),
        outputs=(OutputForm.COUNT,),
        purposes=("p",),
        min_group=1,
        max_rows=1,
        per_call={"rho": 1},
        total={"rho": 1},
    )
    denied = DenyList(
        **own, keys=["k" * 43], names=["n.example"], datasets=["d"], operations=["o.v1"], purposes=["p"]
    )
    policy = Policy(
        **own,
        datasets=["d"],
        grades={"important": ceiling},
        classes={"c": Ceiling(max_rows=1)},
        personal=Ceiling(deny=True),
        consent=True,
        trustees=[Trustee(key="t" * 43, datasets=["d"])],
    )
    order = signing.parse(
        world.order("review", grant, next_review=world.clock.time + 99, reason="because"), ORDER_TYPE
    ).claims
    asked = world.request(grant, scenario="loan", territory="CN").to_document()

    def verify_request(token: str) -> None:
        broker.verify_request(token, peer="bank.example", grant=grant)

    return [
        Kind("grant", GRANT_TYPE, whole.to_document(), key, broker.verify),
        Kind(
            "delegated",
            GRANT_TYPE,
            child.to_document(),
            world.bank.key,
            lambda token: broker.verify(f"{parent}~{token}"),
        ),
        Kind("request", REQUEST_TYPE, asked, world.bank.key, verify_request),
        Kind("countersignature", COUNTERSIGNATURE_TYPE, counter, world.bank.key, broker.countersign),
        Kind("denylist", DenyList.header, denied.to_document(), key, broker.publish),
        Kind("policy", Policy.header, policy.to_document(), key, broker.publish),
        Kind("order", ORDER_TYPE, order, key, lambda token: broker.order(token, grant)),
        *_credit(world, broker),
        *_certificates(world, broker),
        *_agreement(world, broker),
        *_claims(world, broker, posted.entry),
    ]


def _credit(world: Any, broker: Any) -> list[Kind]:
    """A ceiling, and the repair of another that is open."""
    key, number = world.bureau.key, world.clock.time * 1000
    about = {"reason": "late", "audience": world.bureau.name, "key": key}
    limits = {"rows": Limit(total=1, per_call=1, per_day=1)}
    lowered = credit.lower("p" * 43, credit.Ceiling(percent=50, limits=limits), number=number, **about)
    event = credit.lower("q" * 43, credit.Ceiling(bar=True), number=number, **about)
    broker.credit(event)
    repaired = credit.repair("q" * 43, signing.token_hash(event), number=number + 1, **about)
    return [
        _kind("credit", credit.CREDIT_TYPE, lowered, key, broker.credit),
        _kind("repair", credit.CREDIT_TYPE, repaired, key, broker.credit),
    ]


def _certificates(world: Any, broker: Any) -> list[Kind]:
    asset = AssetClaim(
        id="companies", version="1", schema_hash="5c" * 32, classification="c", grade="general", personal=True
    )
    issued = broker.certificates.issue(
        holder=world.bank.thumbprint, asset=asset, right="process", source="own records", days=9
    )
    order = register.order(
        broker.certificates.standing(signing.token_hash(issued)),
        node=world.bureau.name,
        key=world.bank.key,
        now=world.clock.time,
        use="a loan",
    )
    return [
        _kind(
            "certificate",
            certificate.CERTIFICATE_TYPE,
            issued,
            world.bureau.key,
            lambda token: certificate.read(token, broker.log_key),
        ),
        _kind("certificate order", register.ORDER_TYPE, order, world.bank.key, broker.certificates.carry_out),
    ]


def _agreement(world: Any, broker: Any) -> list[Kind]:
    """Each document of a chain, the others as they should be."""
    key, consumer, now = world.bureau.key, world.bank.key, world.clock.time
    steps = ({"amount": 5, "share": "1/4"}, {"amount": 5, "share": "3/4"})
    shares = [
        Share(party=party, share="1/2", above=(Step(**step),))
        for party, step in zip("ab", steps, strict=True)
    ]
    price = PricePlan(
        kind="tiered",
        currency="CNY",
        unit="rows",
        tiers=(Tier(upto=10, rate="1"), Tier(rate="1/2")),
        window="month",
    )
    quoted = agreement.quote(
        audience=world.bureau.name,
        asset="companies",
        subject=consumer.thumbprint,
        price=price,
        split=shares,
        key=key,
        now=now,
    )
    appraised = agreement.appraise(
        quoted, low="1/3", high="2", unit="row", method="market", key=consumer, now=now
    )
    chain = agreement.accept(agreement.agree(appraised, key=key, now=now), key=consumer, now=now)
    names = ("quote", "appraisal", "agreement", "acceptance")
    headers = (
        agreement.QUOTE_TYPE,
        agreement.APPRAISAL_TYPE,
        agreement.AGREEMENT_TYPE,
        agreement.ACCEPTANCE_TYPE,
    )
    tokens = chain.split(grants.SEPARATOR)

    def give(place: int) -> Callable[[str], Any]:
        return lambda token: broker.clearing.agree(
            grants.SEPARATOR.join([*tokens[:place], token, *tokens[place + 1 :]])
        )

    signers = (key, consumer, key, consumer)
    return [
        _kind(name, header, tokens[place], signers[place], give(place))
        for place, (name, header) in enumerate(zip(names, headers, strict=True))
    ]


def _claims(world: Any, broker: Any, charged: int) -> list[Kind]:
    """A dispute over an entry, and revenue declared under a grant that has a share of it."""
    key, now = world.bank.key, world.clock.time
    shared = broker.issue(
        world.claims(price=PricePlan(kind="revenue_share", currency="CNY", rate="1/10"), limits={})
    )
    disputed = claims.dispute(audience=world.bureau.name, entries=[charged], reason="twice", key=key, now=now)
    declared = claims.revenue(
        audience=world.bureau.name, grant=hash_of(shared), start=0, end=now, amount=5, key=key, now=now
    )
    return [
        _kind("dispute", claims.DISPUTE_TYPE, disputed, key, broker.clearing.dispute),
        _kind("revenue", claims.REVENUE_TYPE, declared, key, broker.clearing.declare),
    ]


def _kind(name: str, header: str, token: str, key: SigningKey, give: Callable[[str], Any]) -> Kind:
    return Kind(name, header, signing.parse(token, header).claims, key, give)
