"""Releases through a node: metered, replayed and refused, charged by declared parameters alone."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
import world as worlds

from trustcompute import dp
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim, Bounds, Limit, PricePlan
from trustcompute.dp import parties
from trustcompute.dp.measure import Measured
from trustcompute.errors import JobForfeited, ParameterError, Refused, RemoteProtocolError
from trustcompute.node import Dataset, Node, releasing
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import OutputForm

ROWS = 2000
RHO = 10**12
TABLE = pa.table(
    {
        "person": [f"p{i % 500}" for i in range(ROWS)],
        "town": [("A", "B", "C")[i % 3] for i in range(ROWS)],
        "age": [i % 90 for i in range(ROWS)],
        "weight": [i % 50 + 0.5 for i in range(ROWS)],
        "smokes": [i % 2 == 0 for i in range(ROWS)],
    }
)
UNIT = dp.PrivacyUnit("person", groups=3, rows_per_group=4, known={"town": ["A", "B", "C"]})


class People(worlds.World):
    """A registry of people, with a privacy unit and a budget of ρ = 1 for all grantees together."""

    limits = {"rho": Limit(total=RHO), "delta": Limit(total=10**12)}  # noqa: RUF012

    def start(self):
        self.broker = Broker.open(self.directory / "book", worlds.REGISTRY, clock=self.clock)
        dataset = Dataset("people", TABLE, version="1", personal=True, unit=UNIT, limits=self.limits)
        self.node = Node(worlds.REGISTRY, self.broker, [dataset])

    def claims(self, subject=worlds.AIRLINE, **changes):
        made = {
            "asset": AssetClaim(id="people", classification="general", grade="general", personal=True),
            "operations": {"dp.release.v1": Bounds()},
            "outputs": [OutputForm.DP_RELEASE],
            "limits": {"rho": Limit(total=RHO // 2)},
            "price": PricePlan(kind="free"),
            "split": [],
        }
        return super().claims(subject, **(made | changes))

    def count(self, session=None, **options):
        arguments = {"budget": dp.zcdp("0.1")} | options
        return (session or self.session()).release("people", [dp.count()], **arguments)

    def spent(self):
        quoted = self.session().quote_release("people", [dp.count()], budget=dp.zcdp("0.1"))
        return RHO // 2 - int(quoted.price.left["rho"]["total"])


@pytest.fixture
def people(tmp_path):
    made = People(tmp_path)
    yield made
    made.stop()


def test_a_metered_release_has_answer_receipt_cost_and_leakage(people):
    asked = [dp.count(), dp.mean("age", 0, 100), dp.sum("weight", 0, 60), dp.quantile("age", ["0.5"], 0, 100)]
    found = people.session().release("people", asked, by="town", budget=dp.zcdp("0.4"))
    frame = found.to_pandas().set_index("town")
    assert frame.index.tolist() == ["A", "B", "C"]
    assert np.all(np.abs(frame["count"] - ROWS / 3) < 200)
    assert np.all(np.abs(frame["mean_age"] - 44.5) < 30)
    entry = found.receipt.verify(people.broker.log_key)
    assert entry.fields["usage"] == {"calls": 1, "rho": 4 * RHO // 10}
    assert found.cost.rho == Fraction(2, 5) and found.cost.delta == 0
    assert "presence of no privacy unit" in found.leakage.consumer
    assert found.traffic.turns == 1 and people.spent() == 4 * RHO // 10
    people.check()


def test_unknown_groups_of_every_kind_of_label(people):
    for by, kinds in (("smokes", bool), (["town", "smokes"], str)):
        found = people.session().release("people", [dp.distinct()], by=by, budget=dp.zcdp("0.25", "1e-7"))
        first = found.to_arrow().column(0).to_pylist()
        assert first and all(type(label) is kinds for label in first)
        assert found.receipt.verify(people.broker.log_key).fields["usage"]["delta"] == 10**11


def test_the_catalogue_tells_the_unit_and_no_counts(people):
    [entry] = people.session().catalog().datasets
    assert (entry.unit.column, entry.unit.groups, entry.unit.rows_per_group) == ("person", 3, 4)
    assert entry.unit.known == {"town": ["A", "B", "C"]} and entry.keys == []
    assert str(ROWS) not in entry.model_dump_json() and "500" not in entry.model_dump_json()


def test_exact_counts_of_keys_are_for_those_who_may_match_them(people):
    """A dataset with keys and a unit: whoever may only ask for releases is not told how many people there are."""
    people.node.close()
    dataset = Dataset(
        "people", TABLE, version="1", keys=["person"], personal=True, unit=UNIT, limits=people.limits
    )
    people.node = Node(worlds.REGISTRY, people.broker, [dataset])
    both = people.issue(
        operations={"dp.release.v1": Bounds(), "psi.ecdh.v1": Bounds()},
        outputs=[OutputForm.DP_RELEASE, OutputForm.COUNT],
    )
    [entry] = people.session().catalog().datasets
    assert entry.keys == [] and "500" not in entry.model_dump_json()
    assert people.session(grant=both).catalog().datasets[0].keys[0].distinct == 500
    assert abs(people.count().to_arrow()["count"][0].as_py() - ROWS) < 100


def test_a_replayed_job_returns_the_stored_answer_and_costs_nothing(people, tmp_path):
    session = people.session(plan=dict.fromkeys(range(9), "lose answer"), state=tmp_path / "jobs")
    with pytest.raises(Exception, match="go on") as interrupted:
        people.count(session)
    assert people.spent() == RHO // 10, "it is charged before the answer leaves"
    job = interrupted.value.job
    once = people.count(people.session(state=tmp_path / "jobs"), job=job)
    people.restart()
    assert people.spent() == RHO // 10
    assert isinstance(once.to_arrow()["count"][0].as_py(), int)
    people.check()


def test_the_same_bytes_again_after_the_node_restarts(people, tmp_path):
    answers = []
    for restart in (False, True):
        session = people.session(plan=dict.fromkeys(range(9), "lose answer"), state=tmp_path / str(restart))
        with pytest.raises(Exception, match="go on") as interrupted:
            people.count(session)
        job = interrupted.value.job
        stored = people.broker.answer(job, 0, 0)
        if restart:
            people.restart()
        found = people.count(people.session(state=tmp_path / str(restart)), job=job)
        values = np.frombuffer(stored[-1][-1], dtype="<i8")
        assert values.tolist() == found.measured.values.ravel().tolist()
        answers.append(values)
    people.check()


def test_the_grants_budget_cannot_be_overspent(people):
    for _ in range(5):
        people.count()
    with pytest.raises(Refused, match="quota") as refused:
        people.count()
    assert "rho" in refused.value.fix
    assert people.spent() == RHO // 2
    people.check()


def test_the_datasets_budget_holds_across_grantees(people):
    grants = [people.issue(limits={"rho": Limit(total=RHO)}) for _ in range(3)]
    answered = 0
    for grant in grants:
        for _ in range(5):
            try:
                people.count(people.session(grant=grant))
                answered += 1
            except Refused:
                pass
    assert answered == 10, "ρ = 1 in tenths, whoever asks"
    people.check()


@pytest.mark.parametrize(
    ("budget", "by"), [(dp.pure("0.1"), ()), (dp.approx("0.1", "1e-9"), ()), (dp.zcdp("0.1", "1e-5"), "age")]
)
def test_a_budget_the_dataset_does_not_keep_is_refused(people, budget, by):
    """δ = 1e-5 is limited, and more than is left; ε is not limited: both are refused and cost nothing."""
    with pytest.raises(Refused) as refused:
        people.count(budget=budget, by=by)
    assert refused.value.rule in ("privacy budget", "quota")
    assert people.spent() == 0


def test_pure_noise_charged_as_rho(people):
    found = people.count(budget=dp.pure("0.1", as_zcdp=True))
    assert found.cost.rho == Fraction(1, 200) and people.spent() == RHO // 200
    assert "Laplace" in found.proof[0]


def test_the_charge_does_not_depend_on_the_data(people, monkeypatch):
    usages = []
    for table in (TABLE, TABLE[:0], TABLE[:1]):
        held = people.node._datasets["people"]
        monkeypatch.setattr(
            held, "dataset", Dataset("people", table, version="1", unit=UNIT, limits=people.limits)
        )
        found = people.count(by=("town", "smokes"), budget=dp.zcdp("0.1", "1e-9"))
        usages.append(found.receipt.verify(people.broker.log_key).fields["usage"])
    assert usages[0] == usages[1] == usages[2] == {"calls": 1, "rho": RHO // 10, "delta": 10**9}


def test_a_quote_says_cost_accuracy_and_what_is_left_before_anything_is_spent(people):
    session = people.session()
    quoted = session.quote_release("people", [dp.count()], by="town", budget=dp.zcdp("0.1"))
    assert quoted.equal_left == 5 and quoted.cost.rho == Fraction(1, 10)
    assert int(quoted.price.usage["rho"]) == RHO // 10
    assert 10 < quoted.accuracy["count"].half_width < 60
    people.count()
    assert people.session().quote_release("people", [dp.count()], budget=dp.zcdp("0.1")).equal_left == 4


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ([dp.sum("nothing", 0, 1)], {}),
        ([dp.sum("town", 0, 1)], {}),
        ([dp.count()], {"by": "weight"}),
        ([dp.count()], {"by": "person"}),
        ([dp.count()], {"by": "town", "least_units": 5}),
    ],
)
def test_wrong_questions_cost_nothing(people, asked, options):
    with pytest.raises(ParameterError):
        people.session().release("people", asked, budget=dp.zcdp("0.1"), **options)
    assert people.spent() == 0


def test_a_grant_bounds_columns_and_output(people):
    bounded = people.issue(operations={"dp.release.v1": Bounds(columns=["age"])})
    people.session(grant=bounded).release("people", [dp.mean("age", 0, 9)], budget=dp.zcdp("0.1"))
    with pytest.raises(Refused, match="columns"):
        people.session(grant=bounded).release(
            "people", [dp.mean("age", 0, 9)], by="town", budget=dp.zcdp("0.1")
        )
    people.count(people.session(grant=bounded))  # names no column, and reads none
    with pytest.raises(Refused, match="columns"):
        people.session(grant=bounded).release("people", [dp.count("town")], budget=dp.zcdp("0.1"))
    with pytest.raises(Refused, match="output"):
        people.count(people.session(grant=people.issue(outputs=[OutputForm.COUNT])))


def test_a_failure_after_the_data_were_touched_forfeits_the_budget(people, monkeypatch):
    def fail(*_):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr("trustcompute.node.release.run", fail)
    with pytest.raises((RuntimeError, JobForfeited)):
        people.count()
    assert people.spent() == RHO // 10
    people.check()


def test_a_node_refuses_a_unit_it_cannot_protect(tmp_path):
    with Broker.open(tmp_path / "book", worlds.REGISTRY) as broker:
        for wrong, says in (
            ({"unit": UNIT}, "no limit"),
            ({"unit": dp.PrivacyUnit("nobody"), "limits": People.limits}, "nobody"),
            ({}, "no privacy unit"),
        ):
            with pytest.raises(ParameterError, match=says):
                Node(worlds.REGISTRY, broker, [Dataset("people", TABLE, version="1", **wrong)])


def test_nothing_is_released_without_a_unit(world):
    grant = world.issue(operations={"dp.release.v1": Bounds()}, outputs=[OutputForm.DP_RELEASE])
    with pytest.raises(ParameterError, match="privacy unit"):
        world.session(grant=grant).release("planes", [dp.count()], budget=dp.zcdp(1))


@pytest.fixture
def epsilon_people(tmp_path, monkeypatch):
    """The registry with a budget kept in ε and δ."""
    monkeypatch.setattr(
        People, "limits", {"epsilon": Limit(total=10 * RHO), "delta": Limit(total=3 * 10**12)}
    )
    made = People(tmp_path)
    made.grant = made.issue(
        operations={"dp.plan.v1": Bounds(), "dp.release.v1": Bounds()},
        limits={"epsilon": Limit(total=10 * RHO), "delta": Limit(total=10**13)},
    )
    yield made
    made.stop()


def test_a_fixed_plan_is_charged_as_one_event(epsilon_people):
    people = epsilon_people
    tenth = dp.question([dp.count()], by="town", budget=dp.pure("0.1"))
    plan = dp.fixed_plan([tenth] * 100, delta="1e-6")
    found = people.session().release_plan("people", plan)
    assert len(found.answers) == 100
    counts = np.array([one.to_arrow()["count"].to_pylist() for one in found.answers])
    assert np.all(np.abs(counts.mean(axis=0) - ROWS / 3) < 100), (
        "the mean of a hundred, each with its own noise"
    )
    assert len({tuple(row) for row in counts.tolist()}) > 90
    usage = found.receipt.verify(people.broker.log_key).fields["usage"]
    assert 4_774_000_000_000 < usage["epsilon"] <= 4_774_600_000_000 and usage["delta"] == 10**12
    assert found.cost.ledger()["epsilon"] == usage["epsilon"]
    assert "100 questions" in found.leakage.consumer and found.traffic.turns == 1
    people.session().release_plan("people", plan)
    with pytest.raises(Refused, match="quota"):
        people.session().release_plan("people", plan)
    people.check()


def test_a_fixed_plan_is_replayed_like_a_release(epsilon_people, tmp_path):
    plan = dp.fixed_plan(
        [dp.question([dp.mean("age", dp.private(0, 128))], budget=dp.pure(1))] * 2, delta="1e-6"
    )
    session = epsilon_people.session(plan=dict.fromkeys(range(9), "lose answer"), state=tmp_path / "jobs")
    with pytest.raises(Exception, match="go on") as interrupted:
        session.release_plan("people", plan)
    job = interrupted.value.job
    stored = epsilon_people.broker.answer(job, 0, 0)
    found = epsilon_people.session(state=tmp_path / "jobs").release_plan("people", plan, job=job)
    kept = b"".join(bytes(part) for frame in stored for part in frame)
    assert all(one.measured.values.astype("<i8").tobytes() in kept for one in found.answers)
    epsilon_people.check()


def test_a_fixed_plan_needs_a_budget_in_epsilon_and_a_grant_for_it(people):
    plan = dp.fixed_plan([dp.question([dp.mean("age", 0, 100)], budget=dp.pure(1))], delta="1e-6")
    grant = people.issue(operations={"dp.plan.v1": Bounds(columns=["age"])}, limits={})
    with pytest.raises(Refused, match="not kept in epsilon"):
        people.session(grant=grant).release_plan("people", plan)
    with pytest.raises(Refused, match="operation"):
        people.session().release_plan("people", plan)


def feed(plan, **columns):
    party = parties.consumer(plan)
    next(party)
    try:
        party.send(Message("release", {"bounds": np.zeros(0, dtype=np.int64)} | columns))
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the party waits for more")


def test_a_consumer_refuses_labels_that_are_not_what_the_plan_says(people):
    plan, _ = releasing.planned(
        people.session(), "people", [dp.count()], by=["town", "age"], budget=dp.zcdp("0.1"), least_units=1
    )
    values = np.zeros((1, 1), dtype=np.int64)
    fine = feed(plan, labels=np.frombuffer(b'[["A"],["7"]]', dtype=np.uint8), values=values)
    assert isinstance(fine, Measured) and fine.labels == (["A"], [7])
    for labels in (b"[]", b'[["A"]]', b'[["A"],["x"]]', b'[["A"],[7]]', b'[["A","B"],["1","2"]]', b"{", b'[["A"],"7"]',
                   b'[["A"],["99999999999999999999"]]'):  # fmt: skip
        with pytest.raises(RemoteProtocolError, match="labels"):
            feed(plan, labels=np.frombuffer(labels, dtype=np.uint8), values=values)


def test_long_labels_are_cut_and_too_many_left_out(monkeypatch):
    measured = Measured((["x" * 1000, "y", "z"],), np.arange(3).reshape(3, 1))
    labels, count = parties._packed(measured)
    assert count == 3 and len(labels) < 300
    monkeypatch.setattr(parties, "MAX_LABELS", 264)
    labels, count = parties._packed(measured)
    assert count == 2 and b"z" not in labels.tobytes()
