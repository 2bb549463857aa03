"""Verification over a node: metered answers, grants that name predicates, hints that travel once, failures that stay
silent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from world import AIRLINE, PLANES, REGISTRY, RIVAL, World

from trustcompute.broker import delegation
from trustcompute.broker.grant import AssetClaim, Bounds
from trustcompute.errors import (
    GrantError,
    JobInterrupted,
    ParameterError,
    Refused,
    TableError,
    VerificationError,
)
from trustcompute.node import Dataset, Node, Published
from trustcompute.node.dataset import HeldDataset
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import proof
from trustcompute.verification.table import Table

BUCKET, PRIVATE, DOWNLOAD = "verify.bucket.v1", "verify.private.v1", "verify.download.v1"
ASKED = ["N3", "N25", "absent"]
CODES = ["mismatch", "match", "no record"]


class VerificationWorld(World):
    """The world of intersections, its dataset answering predicates."""

    version, directory_name = "2013", "verification"
    download, offered = True, None
    predicates = ("seats >= 20", "present", "match(seats)")

    def start(self):
        super().start()
        self.node.close()
        self.node = Node(REGISTRY, self.broker, [self.offered or self.dataset()])

    def dataset(self, version="2013", planes=PLANES, **options):
        directory = self.directory / self.directory_name
        options = {"directory": directory, "download": self.download} | options
        verified = Published(self.predicates, "tailnum", **options)
        return Dataset("planes", planes, version=version, keys=["tailnum"], verified=verified)

    def tables(self):
        return self.node._datasets["planes"].verification.by_id

    def check(self, predicate="seats >= 20"):
        [made] = [one for one in self.tables().values() if one.descriptor.predicate == predicate]
        return proof.issue(made.id, made.masked.database, Rng.from_os(), RIVAL.key)

    def audited(self):
        return super().check()


@pytest.fixture
def world(tmp_path):
    made = VerificationWorld(tmp_path, operations={BUCKET: Bounds(), PRIVATE: Bounds(), DOWNLOAD: Bounds()})
    yield made
    made.stop()


@pytest.mark.parametrize("private", [False, True])
def test_answers_are_metered_proven_and_open_offline(world, private):
    session = world.session()
    check = world.check() if private else None
    found = session.verify("planes", "seats >= 20", keys=ASKED, check=check)
    assert found.codes == CODES
    assert found.operation == (PRIVATE if private else BUCKET)
    assert found.receipt.verify(world.broker.log_key).type == "job.posted"
    assert found.plan.bytes <= found.cost.bytes_sent + found.cost.bytes_received <= found.plan.bytes + 4000
    for answer in found.answers:
        assert answer.proof.verify(REGISTRY.key.public).code is answer.code
    assert world.used() == 1
    world.audited()


def test_a_match_of_several_elements_gives_one_code(world):
    rows = {"plate": ["N3", "N4", "Q"], "places": [3, 3, 3]}
    found = world.session().verify(
        "planes", match=["seats", "tailnum"], rows=rows, on={"plate": "tailnum", "places": "seats"}
    )
    assert found.codes == ["match", "mismatch", "no record"]


def test_the_hint_travels_once_and_prepared_questions_are_taken(world, tmp_path):
    check = world.check()
    with world.session(state=tmp_path / "state") as session:
        first = session.verify("planes", "seats >= 20", keys=ASKED, check=check)
        assert session.prepare_verification("planes", "seats >= 20", count=2) == 2
        second = session.verify("planes", "seats >= 20", keys=ASKED, check=check)
        assert session.prepare_verification("planes", "seats >= 20", count=0) == 0
    with world.session(state=tmp_path / "state") as session:  # another process
        third = session.verify("planes", "seats >= 20", keys=ASKED, check=check)
    assert first.codes == second.codes == third.codes == CODES
    assert second.cost.bytes_received == third.cost.bytes_received < first.cost.bytes_received / 50
    with pytest.raises(ParameterError, match="no hint yet"):
        world.session().prepare_verification("planes", "present")


def test_a_batch_is_padded_and_charged_as_it_is_seen(world):
    session = world.session()
    found = session.verify("planes", "seats >= 20", keys=ASKED, check=world.check(), mode="batch")
    assert found.codes == CODES and found.plan.questions == 16
    assert "at most" in found.leakage.provider
    assert found.receipt.verify(world.broker.log_key).fields["usage"]["rows"] == 16


def test_a_masked_table_travels_once_and_only_where_the_holder_gives_it(world, tmp_path):
    with world.session(state=tmp_path / "state") as session:
        first = session.verify("planes", "seats >= 20", keys=ASKED, mode="download")
        second = session.verify("planes", "seats >= 20", keys=["N25"], mode="download")
    with world.session(state=tmp_path / "state") as session:  # another process
        third = session.verify("planes", "seats >= 20", keys=ASKED, mode="download")
    assert (first.codes, second.codes, third.codes) == (CODES, ["match"], CODES)
    assert third.cost.bytes_received < first.cost.bytes_received / 2
    assert first.answers[0].proof.verify(REGISTRY.key.public).text == "mismatch"
    [cells] = (tmp_path / "state").glob("*.cells")
    cells.write_bytes(b"\1" + cells.read_bytes()[1:])
    with (
        world.session(state=tmp_path / "state") as session,
        pytest.raises(VerificationError, match="altered"),
    ):
        session.verify("planes", "seats >= 20", keys=ASKED, mode="download")
    used = world.used()
    world.node._datasets["planes"].dataset.verified.__dict__["download"] = False
    with pytest.raises(Refused) as refused:
        world.session().verify("planes", "seats >= 20", keys=ASKED, mode="download")
    assert (refused.value.rule, world.used()) == ("download", used)


@pytest.mark.parametrize("kept", [True, False])
def test_versions_and_key_epochs_change_without_an_outage(tmp_path, kept):
    asset = AssetClaim(id="planes", classification="general", grade="general", personal=False)
    world = VerificationWorld(tmp_path, operations={BUCKET: Bounds(), PRIVATE: Bounds()}, asset=asset)
    options = {} if kept else {"directory": None}
    if not kept:
        world.node.renew(world.dataset(**options, earlier=0))
    session, check = world.session(), world.check()
    assert session.verify("planes", "seats >= 20", keys=ASKED, check=check).codes == CODES
    [old] = [id_ for id_, one in world.tables().items() if one.descriptor.predicate == "seats >= 20"]
    changed = PLANES.slice(0, 20)
    world.node.renew(world.dataset("2014", changed, epoch=2, **options))
    # Who holds the old descriptor, hint and check goes on; so does who holds the check and reads the new catalogue.
    assert session.verify("planes", "seats >= 20", keys=ASKED, check=check).codes == CODES
    fresh = world.session()
    assert fresh.verify("planes", "seats >= 20", keys=ASKED, check=check).codes == CODES
    assert fresh.verify("planes", "seats >= 20", keys=ASKED).codes == ["mismatch", "no record", "no record"]
    entries = [entry.fields for entry in world.broker.entries() if entry.type == "asset.registered"]
    assert old in entries[1]["tables"] + entries[-2]["tables"]
    assert set(entries[-1]["tables"]) == set(world.tables())
    if kept:
        world.offered = world.dataset("2014", changed, epoch=2)
        world.restart()
        session = world.session()
        assert session.verify("planes", "seats >= 20", keys=ASKED, check=check).codes == CODES
    world.node.renew(world.dataset("2015", changed, epoch=3, **options))
    assert old not in world.tables()
    [new] = [
        one.id
        for one in world.node._datasets["planes"].verification.current.values()
        if one.descriptor.predicate == "seats >= 20"
    ]
    used = world.used()
    with pytest.raises(ParameterError, match=f"replaced by {new} .version '2015', key epoch 3"):
        session.verify("planes", "seats >= 20", keys=ASKED, check=check)
    assert world.used() == used
    with pytest.raises(ParameterError, match="no dataset 'cars'"):
        world.node.renew(replace(world.dataset(), id="cars"))
    world.stop()


def test_a_grant_says_which_predicates_and_a_delegated_one_names_no_more(world):
    bounds = {BUCKET: Bounds(predicates=("seats >= 20", "present"))}
    grant = world.issue(operations=bounds, depth=1)
    session = world.session(grant=grant)
    assert session.verify("planes", "present", keys=["N3"]).codes == ["match"]
    with pytest.raises(Refused) as refused:
        session.verify("planes", match=["seats"], rows={"tailnum": ["N3"], "seats": [3]})
    assert (refused.value.rule, refused.value.field) == ("predicates", "params.predicate")
    narrower = {"issuer": AIRLINE.key.public, "subject": RIVAL.name, "subject_key": RIVAL.thumbprint}
    wider = {BUCKET: Bounds(predicates=("match(seats)",))}
    with pytest.raises(GrantError) as wrong:
        delegation.delegate(grant, now=world.clock.now(), operations=wider, **narrower)
    assert wrong.value.field == f"operations.{BUCKET}.predicates"
    only = {BUCKET: Bounds(predicates=("present",))}
    claims = delegation.delegate(grant, now=world.clock.now(), operations=only, **narrower)
    child = world.session(identity=RIVAL, grant=delegation.extend(grant, claims, AIRLINE.key))
    assert child.verify("planes", "present", keys=["N3"]).codes == ["match"]
    with pytest.raises(Refused):
        child.verify("planes", "seats >= 20", keys=["N3"])


def test_columns_that_a_grant_does_not_name_are_not_asked_about(world):
    grant = world.issue(operations={BUCKET: Bounds(columns=("tailnum",))})
    session = world.session(grant=grant)
    assert session.verify("planes", "present", keys=["N3"]).codes == ["match"]
    with pytest.raises(Refused):
        session.verify("planes", "seats >= 20", keys=["N3"])


def test_what_cannot_be_answered_is_refused_early_and_spends_nothing(world):
    session = world.session()
    for call, error, reason in (
        (
            lambda: session.verify("planes", "seats >= 30", keys=["N3"]),
            ParameterError,
            "it answers: seats >= 20",
        ),
        (lambda: session.verify("planes", "seats >=", keys=["N3"]), ParameterError, "predicate"),
        (lambda: session.verify("planes", "present", keys=[None]), TableError, "null"),
        (lambda: session.verify("planes", "present", keys=[3]), TableError, "integer|text"),
        (lambda: session.verify("planes", "present"), ParameterError, "keys="),
        (lambda: session.verify("planes", "present", keys=["N3"], mode="private"), ParameterError, "auditor"),
        (
            lambda: session.verify("planes", "present", keys=["N3"], check=world.check()),
            VerificationError,
            "version",
        ),
        (
            lambda: session.verify(
                "planes", "seats >= 20", keys=[f"N{i}" for i in range(1025)], check=world.check()
            ),
            ParameterError,
            "1 to 1024 questions",
        ),
    ):
        with pytest.raises(error, match=reason):
            call()
    assert world.used() == 0


def test_a_stale_descriptor_is_refused_by_the_node(world):
    with world.session() as session:
        session.verify("planes", "seats >= 20", keys=ASKED)
        world.directory_name = "other"  # another secret, other tables
        world.stop()
        world.start()
        with world.session() as fresh:
            fresh._catalog = session._catalog  # one that has not looked since
            with pytest.raises(ParameterError, match="catalogue again"):
                fresh.verify("planes", "seats >= 20", keys=ASKED)


def test_a_restarted_node_answers_from_the_tables_it_kept(world):
    before = set(world.tables())
    world.restart()
    assert set(world.tables()) == before


@pytest.mark.fault
@pytest.mark.parametrize("private", [False, True])
def test_an_altered_answer_is_countersigned_charged_caught_and_never_asked_again(world, tmp_path, private):
    check = world.check() if private else None
    with world.session() as session:
        session.verify("planes", "seats >= 20", keys=ASKED, check=check)
    honest = [entry.type for entry in world.broker.entries()]
    for name, made in world.tables().items():  # the holder answers from other cells than it promised
        buckets, database = np.array(made.masked.buckets), np.array(made.masked.database)
        buckets[:, 40] ^= 1
        database[40] ^= 1
        world.tables()[name] = Table(replace(made.masked, buckets=buckets, database=database), made.key)
    with world.session(state=tmp_path / "state") as session:
        with pytest.raises(VerificationError):
            session.verify("planes", "seats >= 20", keys=ASKED, check=check)
        entries = world.broker.entries()[len(honest) :]
        of_a_job = honest[-len(entries) :]
        assert [entry.type for entry in entries] == of_a_job  # the holder's record is that of an honest job
        [job] = [entry.fields["job"] for entry in entries if entry.type == "job.posted"]
        assert [one.kind for one in world.broker.evidence(job)].count("countersignature") == 1
        with pytest.raises(VerificationError, match="not asked again"):
            session.verify("planes", "seats >= 20", keys=ASKED)
    with world.session(state=tmp_path / "state") as session, pytest.raises(VerificationError, match="again"):
        session.verify("planes", "seats >= 20", keys=ASKED)
    assert world.used() == 2


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "cut answer", "repeat"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_turn_is_sent_again_and_charged_once(world, fault, number):
    session = world.session(plan={number: fault})
    found = session.verify("planes", "seats >= 20", keys=ASKED, check=world.check())
    assert found.codes == CODES
    assert world.used() == 1


@pytest.mark.fault
def test_an_interrupted_job_goes_on_in_another_process(world, tmp_path):
    plan = dict.fromkeys(range(9), "lose answer")
    with (
        world.session(plan=plan, state=tmp_path / "state") as session,
        pytest.raises(JobInterrupted) as stopped,
    ):
        session.verify("planes", "seats >= 20", keys=ASKED)
    with world.session(state=tmp_path / "state") as session:
        found = session.verify("planes", "seats >= 20", keys=ASKED, job=stopped.value.job)
    assert found.codes == CODES
    assert world.used() == 1


def test_what_is_published_must_be_answerable(tmp_path):
    with pytest.raises(ParameterError, match="each once"):
        Published(["present", " present"], "tailnum")
    wrong = Dataset("planes", PLANES, version="1", verified=Published(["seats >= 'a'"], "tailnum"))
    with pytest.raises(ParameterError, match="compare"):
        HeldDataset(wrong, signer=SigningKey.generate())
