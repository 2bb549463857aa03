"""Documents that nobody signed, or whose signature somebody else looks at: every member of each spoilt in every way.

Receipts, evidence bundles, dossiers, proofs and openings of answers, specifications of aggregates, plans of releases,
forms of keys, and what a node and its peers send each other: refused with the member named, and nothing is written.
``tests/broker/test_bad_input.py`` does the same with signed documents.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from test_plaintext import CUSTOMERS, HOLDERS, SPEC, TOWNS, Scene
from world import AIRLINE

from tests.broker.spoiling import encode, spoilt
from trustcompute import dp
from trustcompute.aggregation import Noise, Spec
from trustcompute.broker.certificate import Dossier
from trustcompute.broker.clearing.dispute import Bundle
from trustcompute.broker.grant import AssetClaim
from trustcompute.broker.receipt import Receipt
from trustcompute.dp.fixed import FixedPlan
from trustcompute.errors import ParameterError, TrustcomputeError
from trustcompute.node import authority, documents, inspection
from trustcompute.primitives import canonical
from trustcompute.primitives.signing import token_hash
from trustcompute.tables import KeySpec
from trustcompute.tables.spec import VERSION, KeyColumn, Kind
from trustcompute.verification.answer import Proof
from trustcompute.verification.querylog import Opening

PREDICATE = "revenue >= 5000000000"


@dataclass(frozen=True)
class Paper:
    """read: what takes the document's bytes. inner: members whose inside is judged elsewhere. free: members at any
    depth that may be as large as the whole may be; numbers: that may be numbers too."""

    document: dict[str, Any]
    read: Callable[[bytes], Any]
    inner: tuple[str, ...] = ()
    free: tuple[str | int, ...] = ()
    numbers: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    made = Scene(tmp_path_factory.mktemp("scene"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def papers(scene):
    """One of each kind, as it is made in earnest."""
    session, name = scene.session(), HOLDERS[0]
    broker, node, heard = scene.brokers[name], scene.nodes[name], {}
    channel = session._channel

    class Listening:
        def __getattr__(self, name):
            return getattr(channel, name)

        def action(self, name, body):
            heard[name] = body, channel.action(name, body)
            return heard[name][1]

    session._channel = Listening()
    found = session.verify("companies", PREDICATE, keys=CUSTOMERS["code"].to_pylist()[:2])
    session.quote("psi.ecdh.v1", "companies", rows=5)
    session.explain("psi.ecdh.v1", "companies", rows=5)
    posted = next(entry for entry in broker.entries() if entry.type == "job.posted")
    asset = AssetClaim(id="companies", classification="general", grade="general", personal=False)
    certificate = token_hash(
        broker.certificates.issue(holder=AIRLINE.thumbprint, asset=asset, right="hold", source="records")
    )
    [request] = [one.token for one in broker.evidence(found.job) if one.kind == "request"]
    grant = json.loads(heard["quote"][0])["grant"]
    turn = {
        "job": found.job,
        "run": 0,
        "turn": 0,
        "opening": {"grant": grant, "request": request, "rows": 60},
    }

    def taken(what):
        return lambda data: what.from_document(canonical.loads(data, limit=10**7))

    def asked(action):
        return lambda data: node.action(AIRLINE.name, action, data)

    spec = Spec(
        columns=SPEC.columns, statistics=["sum"], by={"town": TOWNS}, max_rows=9, noise=Noise(rho="0.5")
    )
    question = dp.question([dp.count(), dp.mean("revenue", 0, 9)], budget=dp.pure("0.5"))
    plan = dp.fixed_plan([question], delta="1e-6")
    keys = KeySpec(VERSION, (KeyColumn(Kind.TEXT),))
    return {
        "receipt": Paper(
            found.receipt.to_document(), lambda data: Receipt.from_json(data).verify(broker.log_key)
        ),
        "bundle": Paper(
            json.loads(broker.clearing.evidence(posted.index).to_json()),
            lambda data: Bundle.from_json(data).check(broker.log_key),
        ),
        "dossier": Paper(
            json.loads(broker.certificates.dossier(certificate).to_json()),
            lambda data: Dossier.from_json(data).verify(broker.log_key),
        ),
        "proof": Paper(
            json.loads(found.answers[0].proof.to_json()),
            lambda data: Proof.from_json(data).verify(broker.identity.key.public),
        ),
        "opening": Paper(
            json.loads(session.opening(found.job).to_json()), Opening.from_json, free=("request", "table")
        ),
        "specification": Paper(spec.to_document(), taken(Spec), free=(0, 1, 2)),
        "plan": Paper(
            plan.to_document(), taken(FixedPlan), free=("column",), numbers=("low", "high", "delta", "amount")
        ),
        "form of keys": Paper(json.loads(keys.to_json()), KeySpec.from_json),
        "catalog": Paper(json.loads(heard["catalog"][0]), asked("catalog")),
        "quote": Paper(json.loads(heard["quote"][0]), asked("quote"), inner=("params",)),
        "explain": Paper(json.loads(heard["explain"][0]), asked("explain"), inner=("request",)),
        "countersign": Paper(json.loads(heard["countersign"][0]), asked("countersign")),
        "job": Paper({"job": found.job}, asked("receipt")),
        "turn": Paper(turn, documents.TurnDescriptor.parse, free=("grant", "request")),
        "order": Paper(
            {"order": request, "grant": grant}, authority.OrderRequest.parse, free=("order", "grant")
        ),
        "rules": Paper({"rules": request}, authority.RulesRequest.parse, free=("rules",)),
        "page": Paper({"start": 1}, inspection.PageRequest.parse),
        "statement": Paper({"start": 1, "end": 2}, inspection.StatementRequest.parse),
        "quoted": Paper(
            json.loads(heard["quote"][1]),
            documents.Quote.parse,
            inner=("usage", "left"),
            free=("usage", "left"),
        ),
        "ordered": Paper({"do": "review", "grant": grant[:64]}, authority.Ordered.parse),
    }


KINDS = [
    *(
        "receipt",
        "bundle",
        "dossier",
        "proof",
        "opening",
        "specification",
        "plan",
        "form of keys",
        "catalog",
        "quote",
    ),
    *("explain", "countersign", "job", "turn", "order", "rules", "page", "statement", "quoted", "ordered"),
]
CALLED = {
    "checkpoint": "note",
    "index": "entry",
    "amount": "epsilon",
    "version": "normalisation",
    "by": "domain",
    "params": "parameter",
    "certificate": "token",
    "countersigned": "receipt",
}


def is_named(error, document, done, path):
    """The member or one around it, by its name or by what people call it; or all there may be."""
    said = f"{error} {getattr(error, 'field', '')}"
    names = {part.rstrip("s") for part in path if isinstance(part, str)}
    names |= {CALLED[part] for part in path if part in CALLED}
    return (
        any(name in said for name in names)
        or getattr(error, "field", "") in ("token", "header", "payload")
        or (done == "unknown" and all(member in said for member in document))
        or (done == "huge" and "bytes" in said)
    )


@pytest.mark.parametrize("name", KINDS)
def test_every_member_spoilt_in_every_way_is_refused_by_name(scene, papers, name):
    paper, tried = papers[name], 0
    paper.read(encode(paper.document))  # or what follows would pass for another reason
    before = {name: broker.checkpoint() for name, broker in scene.brokers.items()}
    for done, path, payload in spoilt(paper.document):
        skipped = (path[0] in paper.inner and len(path) > 1) or (path[-1] in paper.free and done == "huge")
        if (
            skipped
            or payload == encode(paper.document)
            or (path[-1] in paper.numbers and done.endswith("-1"))
        ):
            continue
        with pytest.raises(TrustcomputeError) as caught:
            paper.read(payload)
            pytest.fail(f"{path} {done} was taken")
        assert is_named(caught.value, paper.document, done, path), (path, done, str(caught.value))
        tried += 1
    assert tried >= 5
    assert {name: broker.checkpoint() for name, broker in scene.brokers.items()} == before


NUMBERS = [
    "1e9999999999",
    "-1E99999999",
    "1e-9999999999",
    "1/0",
    "9" * 5000,
    "0x10",
    "1_0",
    "inf",
    "nan",
    "٣",
    "",
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_in_words_of_a_peers_is_bounded_before_it_is_worked_out(number):
    """An exponent must not make an integer of a thousand million digits."""
    for attempt in (
        lambda: dp.mean("revenue", 0, number),
        lambda: dp.quantile("revenue", [number], 0, 9),
        lambda: dp.pure(number),
        lambda: dp.fixed_plan([], delta=number),
        lambda: Noise(rho=number),
        lambda: Spec(columns={"x": type(SPEC.columns["revenue"])(0, number)}, max_rows=9),
        lambda: Spec(columns=SPEC.columns, histograms={"revenue": [0, number]}, max_rows=9),
    ):
        with pytest.raises(ParameterError):
            attempt()
