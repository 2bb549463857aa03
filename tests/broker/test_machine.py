"""Random lives of jobs against a model that fits on a screen; after every step log, meter and model agree."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from trustcompute.broker.grant import Limit
from trustcompute.broker.job import Fault, JobState
from trustcompute.errors import Conflict, JobForfeited, Refused, TrustcomputeError
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.operation import Usage


def _world_module() -> Any:
    """The conftest beside this file, which a state machine cannot get as a fixture."""
    name = "broker_world"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("conftest.py"))
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


CALLS = 4  # a grant's limit
ROWS = 900  # the dataset's, across grants


class Lives(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.home = tempfile.TemporaryDirectory()
        self.world = _world_module().World(Path(self.home.name) / "book")
        self.broker = self.world.broker(limits={"rows": Limit(total=ROWS)})
        limits = {"calls": Limit(total=CALLS)}
        self.grants = [self.broker.issue(self.world.claims(limits=limits)) for _ in range(2)]
        self.revoked: set[str] = set()
        self.state: dict[str, JobState] = {}
        self.grant: dict[str, str] = {}
        self.rows: dict[str, int] = {}  # reserved or charged
        self.tokens: dict[str, Any] = {}

    def used(self, grant: str | None = None) -> tuple[int, int]:
        """(calls, rows) reserved or charged, of a grant or of all."""
        counted = (JobState.RESERVED, JobState.ARMED, JobState.POSTED, JobState.FORFEITED)
        jobs = [j for j, s in self.state.items() if s in counted and grant in (None, self.grant[j])]
        return len(jobs), sum(self.rows[job] for job in jobs)

    @rule(target=jobs, which=st.integers(0, 1), rows=st.integers(1, 400))
    def reserve(self, which: int, rows: int) -> str:
        grant = self.grants[which]
        verified = self.world.verified(self.broker, grant, rows=rows)
        fits = self.used(grant)[0] < CALLS and self.used()[1] + rows <= ROWS and grant not in self.revoked
        self.grant[verified.job], self.rows[verified.job] = grant, rows
        self.tokens[verified.job] = verified
        try:
            self.broker.reserve(verified, self.world.operation)
        except Refused:
            assert not fits
            self.state[verified.job] = JobState.DENIED
        else:
            assert fits
            self.state[verified.job] = JobState.RESERVED
        return verified.job

    @rule(job=jobs)
    def repeat(self, job: str) -> None:
        try:
            assert self.broker.reserve(self.tokens[job], self.world.operation).state is self.state[job]
        except Refused:
            assert self.state[job] is JobState.DENIED

    @rule(job=jobs)
    def arm(self, job: str) -> None:
        if self.state[job] not in (JobState.RESERVED, JobState.ARMED):
            with pytest.raises((Conflict, JobForfeited)):
                self.broker.arm(job)
        elif self.state[job] is JobState.RESERVED and self.grant[job] in self.revoked:
            with pytest.raises(Refused):
                self.broker.arm(job)
            self.state[job] = JobState.VOIDED
        else:
            self.broker.arm(job)
            self.state[job] = JobState.ARMED

    @rule(job=jobs, part=st.integers(0, 3))
    def post(self, job: str, part: int) -> None:
        rows = self.rows[job] * part // 3
        usage = Usage(calls=1, rows=rows)
        was = self.state[job]
        try:
            self.broker.post(job, release=self.world.release(job), usage=usage)
        except TrustcomputeError:
            gone = was in (JobState.RESERVED, JobState.ARMED)
            assert self.grant[job] in self.revoked or (not gone and was is not JobState.POSTED)
            if gone:
                self.state[job] = JobState.FORFEITED if was is JobState.ARMED else JobState.VOIDED
        else:
            assert was in (JobState.RESERVED, JobState.ARMED, JobState.POSTED)
            if was is not JobState.POSTED:
                assert self.grant[job] not in self.revoked
                self.state[job], self.rows[job] = JobState.POSTED, rows

    @rule(job=jobs, fault=st.sampled_from(Fault))
    def abandon(self, job: str, fault: Fault) -> None:
        self.broker.abandon(job, "failed", fault)
        ended = {JobState.RESERVED: JobState.VOIDED, JobState.ARMED: JobState.FORFEITED}
        self.state[job] = ended.get(self.state[job], self.state[job])

    @rule(job=jobs)
    def countersign(self, job: str) -> None:
        record = self.broker.job(job)
        token = self.tokens[job].token
        if record.state is JobState.POSTED:
            self.broker.countersign(self.world.countersigned(token, record))
        else:
            release = self.world.release(job)
            with pytest.raises(Conflict):
                self.broker.countersign(self.world.countersigned(token, record.but(releases=(release,))))

    @rule(which=st.integers(0, 1))
    def revoke(self, which: int) -> None:
        self.broker.revoke(token_hash(self.grants[which]), "over")
        self.revoked.add(self.grants[which])

    @rule(hours=st.sampled_from([1, 2, 25]))
    def wait(self, hours: int) -> None:
        """Time passes: leases run out, days change."""
        self.world.clock.time += hours * 3600 + 1
        self.broker.sweep()
        for job, state in self.state.items():
            record = self.broker.job(job)
            if record.state is not state:
                ended = {JobState.RESERVED: JobState.EXPIRED, JobState.ARMED: JobState.FORFEITED}
                assert record.state is ended[state] and record.lease < self.world.clock.time
                self.state[job] = record.state

    @rule()
    def restart(self) -> None:
        self.broker.close()
        self.broker = self.world.open()
        ended = {JobState.RESERVED: JobState.VOIDED, JobState.ARMED: JobState.FORFEITED}
        self.state = {job: ended.get(state, state) for job, state in self.state.items()}

    @invariant()
    def everything_agrees(self) -> None:
        self.broker.audit()
        held = self.world.balances(self.broker)
        for unit, used in zip(("calls", "rows"), self.used(), strict=True):
            assert sum(held.get(("dataset", unit), (0, 0))) == used
        for job, state in self.state.items():
            assert self.broker.job(job).state is state

    def teardown(self) -> None:
        self.broker.close()
        self.home.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLives.pytestmark = [pytest.mark.property]
