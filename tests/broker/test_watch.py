"""What hooks are told, and the instruments made of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.broker.conftest import BUREAU
from trustcompute.broker import metrics, watch
from trustcompute.broker.commands import ARMED_LEASE, RESERVED_LEASE
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import Fault, JobState
from trustcompute.broker.watch import (
    BudgetLeft,
    BudgetLow,
    BurnRate,
    Committed,
    Denied,
    Event,
    JobEnded,
    LeaseExpired,
    SplitView,
)
from trustcompute.broker.witness import Quorum, Witness
from trustcompute.errors import ParameterError, Refused, VerificationError
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import Usage


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def watched(world: Any, told: list[Event]) -> Any:
    broker = world.open(hooks=[told.append])
    broker.register(world.asset())
    return broker


def of(told: list[Event], kind: type) -> list[Any]:
    return [event for event in told if type(event) is kind]


def test_a_charge_is_told_with_what_it_left(world: Any, watched: Any, told: list[Event]) -> None:
    grant = watched.issue(world.claims(limits={"calls": Limit(total=10, per_day=5)}))
    told.clear()
    job = world.posted(watched, grant)
    (ended,) = of(told, JobEnded)
    assert (ended.job, ended.state, ended.used) == (job.id, JobState.POSTED, job.charged)
    assert (ended.time, ended.dataset, ended.grant) == (world.clock.time, "companies", job.grant)
    spans = {(each.span, each.posted, each.pending, each.limit, each.left) for each in of(told, BudgetLeft)}
    assert {("total", 1, 0, 10, 9), ("per_day", 1, 0, 5, 4)} <= spans
    assert not of(told, BudgetLow), "a fifth of a limit is no cause for alarm"


def test_commits_are_told_with_their_size_and_time(world: Any, watched: Any, told: list[Event]) -> None:
    grant = watched.issue(world.claims())
    told.clear()
    world.posted(watched, grant)
    commits = of(told, Committed)
    assert [each.entries for each in commits] == [0, 0, 1], "reserved, armed, posted"
    assert all(each.commands == 1 and 0 < each.nanoseconds < 60 * 10**9 for each in commits)


def test_a_refusal_is_told_once_with_its_first_rule(world: Any, watched: Any, told: list[Event]) -> None:
    grant = watched.issue(world.claims())
    asked = world.verified(watched, grant, purpose="marketing")
    for _ in range(2):
        with pytest.raises(Refused):
            watched.reserve(asked, world.operation)
    (denied,) = of(told, Denied)
    assert (denied.rule, denied.field, denied.asker) == ("purpose", "purpose", world.bank.thumbprint)
    assert "marketing" not in repr(told), "what was asked for is not repeated"


def test_each_threshold_of_a_limit_is_told_once(world: Any, watched: Any, told: list[Event]) -> None:
    grant = watched.issue(world.claims(limits={"calls": Limit(total=20)}))
    for _ in range(20):
        world.posted(watched, grant)
    low = [(each.percent, each.posted + each.pending) for each in of(told, BudgetLow) if each.unit == "calls"]
    assert low == [(50, 10), (80, 16), (95, 19), (100, 20)]


def test_a_threshold_is_told_again_after_use_fell_below_it(
    world: Any, watched: Any, told: list[Event]
) -> None:
    grant = watched.issue(world.claims(limits={"calls": Limit(total=2)}))
    for _ in range(2):
        job = watched.reserve(world.verified(watched, grant), world.operation)
        watched.abandon(job.id, "cancelled", Fault.PEER)
    assert [each.percent for each in of(told, BudgetLow)] == [50, 50]


def test_a_budget_that_will_not_last_the_day_is_told_once_an_hour(
    world: Any, watched: Any, told: list[Event]
) -> None:
    grant = watched.issue(world.claims(limits={"calls": Limit(total=100)}))
    for _ in range(30):  # one in two minutes
        world.posted(watched, grant)
        world.clock.time += 120
    burning = of(told, BurnRate)
    assert len(burning) == 1 and burning[0].unit == "calls"
    assert burning[0].per_hour == 30 and burning[0].seconds_left == burning[0].left * 120
    world.clock.time += 120
    world.posted(watched, grant)
    assert len(of(told, BurnRate)) == 2, "another hour, another word"


def test_slow_use_is_no_cause_for_alarm(world: Any, watched: Any, told: list[Event]) -> None:
    grant = watched.issue(world.claims(limits={"calls": Limit(total=10_000)}, days=365))
    for _ in range(5):
        world.posted(watched, grant)
        world.clock.time += 600
    assert not of(told, BurnRate)


@pytest.mark.parametrize("armed", [False, True])
def test_a_lease_that_ran_out_is_told(world: Any, watched: Any, told: list[Event], armed: bool) -> None:
    job = watched.reserve(world.verified(watched, watched.issue(world.claims())), world.operation)
    if armed:
        watched.arm(job.id)
    world.clock.time += (ARMED_LEASE if armed else RESERVED_LEASE) + 1
    watched.sweep()
    (expired,) = of(told, LeaseExpired)
    (ended,) = of(told, JobEnded)
    assert (expired.job, expired.armed) == (job.id, armed)
    assert ended.used == (job.reserved if armed else Usage())


def test_a_job_forfeited_otherwise_is_no_lease(world: Any, watched: Any, told: list[Event]) -> None:
    job = watched.reserve(world.verified(watched, watched.issue(world.claims())), world.operation)
    watched.arm(job.id)
    watched.abandon(job.id, "gone", Fault.PEER)
    assert [each.state for each in of(told, JobEnded)] == [JobState.FORFEITED]
    assert not of(told, LeaseExpired)


def test_a_hook_that_raises_is_logged_and_changes_nothing(world: Any, caplog: Any, told: list[Event]) -> None:
    def broken(event: Event) -> None:
        raise ValueError("secret")

    broker = world.open(hooks=[broken, told.append])
    broker.register(world.asset())
    with caplog.at_level(logging.WARNING):
        job = world.posted(broker, broker.issue(world.claims()))
    assert broker.job(job.id).state is JobState.POSTED and of(told, JobEnded)
    assert "ValueError" in caplog.text and "secret" not in caplog.text


def test_a_hook_may_ask_the_broker(world: Any) -> None:
    seen: list[JobState] = []

    def ask(event: Event) -> None:
        if isinstance(event, JobEnded):
            seen.append(broker.job(event.job).state)

    broker = world.open(hooks=[ask])
    broker.register(world.asset())
    world.posted(broker, broker.issue(world.claims()))
    assert seen == [JobState.POSTED]


class InProcess:
    """A witness asked without a network."""

    def __init__(self, witness: Witness) -> None:
        self.cosigner, self._witness = witness.cosigner, witness

    def add_checkpoint(self, body: bytes) -> Any:
        return self._witness.add_checkpoint(body)


def test_a_witness_that_saw_another_log_is_told(
    world: Any, watched: Any, told: list[Event], tmp_path: Path
) -> None:
    witness = Witness(
        tmp_path / "seen", "regulator.example", SigningKey.generate(), [watched.log_key], lambda: 1
    )
    quorum = Quorum((witness.cosigner,), needed=1)
    watched.cosign([InProcess(witness)], quorum)
    assert not of(told, SplitView)
    other = replace(world, directory=tmp_path / "fork", opened=[])
    fork = other.open(hooks=[told.append])
    fork.register(world.asset(version="another"))
    for _ in range(3):
        fork.issue(world.claims())
    with pytest.raises(VerificationError):
        fork.cosign([InProcess(witness)], quorum)
    (split,) = of(told, SplitView)
    assert (split.witness, split.size) == ("regulator.example", len(fork.entries()))
    fork.close()


def exercise(world: Any, hook: watch.Hook) -> None:
    broker = world.open(hooks=[hook])
    broker.register(world.asset())
    grant = broker.issue(world.claims(limits={"calls": Limit(total=4)}))
    for _ in range(2):
        world.posted(broker, grant)
    with pytest.raises(Refused):
        broker.reserve(world.verified(broker, grant, purpose="marketing"), world.operation)
    broker.reserve(world.verified(broker, grant), world.operation)
    world.clock.time += RESERVED_LEASE + 1
    broker.sweep()
    hook(SplitView(0, "regulator.example", 3))
    hook(BurnRate(0, "grant:00", "calls", 10, 5, 1800))


def test_prometheus_shows_what_happened(world: Any) -> None:
    client = pytest.importorskip("prometheus_client", reason="the extra watch")
    registry = client.CollectorRegistry()
    exercise(world, metrics.prometheus(registry))
    labels = {"operation": "psi.test.v1", "dataset": "companies"}
    value = registry.get_sample_value
    assert value("trustcompute_jobs_total", labels | {"state": "posted"}) == 2
    assert value("trustcompute_jobs_total", labels | {"state": "expired"}) == 1
    assert value("trustcompute_used_total", {"unit": "rows", "dataset": "companies"}) == 200
    assert value("trustcompute_denials_total", {"rule": "purpose", "dataset": "companies"}) == 1
    assert value("trustcompute_leases_expired_total", {"state": "reserved", "dataset": "companies"}) == 1
    assert value("trustcompute_split_views_total", {"witness": "regulator.example"}) == 1
    assert value("trustcompute_budget_seconds_left", {"account": "grant:00", "unit": "calls"}) == 1800
    assert value("trustcompute_commit_seconds_count", {}) > 5
    exposed = client.generate_latest(registry).decode()
    (left,) = [line for line in exposed.splitlines() if line.startswith("trustcompute_budget_left{")]
    assert 'unit="calls"' in left and left.endswith(" 2.0")
    assert BUREAU.name not in exposed and "bank.example" not in exposed, "labels name no party"


def test_opentelemetry_records_the_same(world: Any) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics", reason="the SDK that the test exports to")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    exercise(world, metrics.opentelemetry(MeterProvider([reader]).get_meter("test")))
    found = {
        metric.name: list(metric.data.data_points)
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    jobs = {point.attributes["state"]: point.value for point in found["trustcompute_jobs"]}
    assert jobs == {"posted": 2, "expired": 1}
    assert [point.value for point in found["trustcompute_budget_left"]] == [2]
    assert found["trustcompute_commit_seconds"][0].count > 5
    assert set(found) == {*metrics.COUNTERS, *metrics.GAUGES, metrics.HISTOGRAM}


@pytest.mark.parametrize(
    ("make", "module"),
    [(metrics.prometheus, "prometheus_client"), (metrics.opentelemetry, "opentelemetry")],
)
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, make: Any, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ParameterError, match=r"trustcompute\[watch\]"):
        make()


def test_nothing_is_imported_until_it_is_asked_for() -> None:
    code = (
        "import sys, trustcompute.broker.metrics\n"
        "assert not {'prometheus_client', 'opentelemetry'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
