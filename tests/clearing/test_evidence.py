"""Evidence bundles: what both sides' papers settle, and which papers are false."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trustcompute.broker import receipt as receipts
from trustcompute.broker.clearing.dispute import Bundle
from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import canonical, checkpoint, merkle
from trustcompute.primitives.checkpoint import Checkpoint


@pytest.fixture
def charged(world: Any) -> Any:
    """Two jobs under one grant, the first acknowledged."""
    broker = world.broker()
    grant = broker.issue(world.claims())
    jobs = []
    for acknowledged in (True, False):
        request = world.request(grant).sign(world.bank.key)
        verified = broker.verify_request(request, peer=world.bank.name, grant=grant)
        job = broker.reserve(verified, world.operation)
        broker.arm(job.id)
        record = broker.post(job.id, release=world.release(job.id), usage=job.reserved)
        if acknowledged:
            broker.countersign(world.countersigned(request, record))
        jobs.append(broker.job(job.id))
    return world, broker, jobs


def test_a_bundle_shows_who_asked_what_it_costs_and_that_it_arrived(charged: Any) -> None:
    world, broker, (first, second) = charged
    bundle = Bundle.from_json(broker.clearing.evidence(first.entry).to_json())
    finding = bundle.check(broker.log_key)
    assert finding.acknowledged and finding.supports == "provider" and not finding.contradicted
    assert finding.amount is not None and str(finding.amount) == "400/3"
    assert finding.grant.cnf.jkt == world.bank.thumbprint
    assert any("signed for the answer" in words for words in finding.in_words())
    silent = broker.clearing.evidence(second.entry).check(broker.log_key, theirs=broker.receipt(second.id))
    assert not silent.acknowledged and silent.supports == "neither" and not silent.contradicted
    with pytest.raises(ParameterError, match="charges nothing"):
        broker.clearing.evidence(0)


def test_two_histories_speak_for_the_payer(charged: Any) -> None:
    """The keeper of the book signs another entry in the place of the one whose receipt it gave away."""
    world, broker, (_, second) = charged
    theirs = broker.receipt(second.id)
    entry = theirs.verify(broker.log_key)
    forged = canonical.dumps(dict(entry.fields) | {"usage": {"calls": 1, "rows": 9999}})
    tree = merkle.Tree([merkle.leaf_hash(b"filler")] * entry.index + [merkle.leaf_hash(forged)])
    note = checkpoint.sign(Checkpoint(broker.log_key.name, len(tree), tree.root()), world.bureau.key)
    proof = tuple(tree.inclusion_proof(entry.index, len(tree)))
    shown = replace(
        broker.clearing.evidence(second.entry), receipt=receipts.Receipt(forged, entry.index, proof, note)
    )
    finding = shown.check(broker.log_key, theirs=theirs)
    assert finding.contradicted and finding.supports == "payer"


def test_papers_of_other_charges_and_altered_papers_are_refused(charged: Any) -> None:
    world, broker, (first, second) = charged
    one, two = (broker.clearing.evidence(job.entry) for job in (first, second))
    other = broker.issue(world.claims(purposes=["other"]))
    swapped = {
        "the request is not": replace(one, request=two.request),
        "acknowledgement is of another": replace(two, countersignature=one.countersignature),
        "the grant is not": replace(one, grant=other),
        "the signature": replace(
            one, request=one.request[:-6] + ("AAAAAA" if one.request[-6:] != "AAAAAA" else "BBBBBB")
        ),
        "entry of|charges nothing|another acknowledgement": replace(one, countersigned=one.receipt),
    }
    for reason, bundle in swapped.items():
        with pytest.raises(VerificationError, match=reason):
            bundle.check(broker.log_key)
    with pytest.raises(VerificationError, match="of another charge"):
        two.check(broker.log_key, theirs=one.receipt)
    document = one.to_document()
    for wrong in ({**document, "v": 2}, {**document, "more": 1}, {**document, "grant": 3}):
        with pytest.raises(VerificationError):
            Bundle.from_json(canonical.dumps(wrong))
