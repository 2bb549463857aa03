"""A privacy budget cannot be overspent: processes killed at every write, clients that race, clocks that go back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest
import world as worlds
from test_release import RHO, People

from trustcompute import dp
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import JobState
from trustcompute.broker.outbox import Outbox
from trustcompute.broker.writer import Writer
from trustcompute.dp.answer import run as really_run
from trustcompute.errors import Refused, TrustcomputeError
from trustcompute.node.state import StateStore

pytestmark = pytest.mark.fault
TENTH = RHO // 10


@pytest.fixture
def people(tmp_path):
    made = People(tmp_path)
    yield made
    made.stop()


def noted(directory: Path):
    """Runs a release, and notes what it drew where a test can see it: one line for every time data were touched."""

    def run(*arguments):
        measured = really_run(*arguments)
        with (directory / "drawn").open("a") as file:
            file.write(json.dumps(measured.values.tolist()) + "\n")
        return measured

    return run


def drawn(directory: Path) -> list[list[list[int]]]:
    path = directory / "drawn"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def release_and_die(directory: Path, deadly: int) -> None:
    """In a child: one release; die at the ``deadly``-th boundary of a write, as kill -9 would."""
    count = 0

    def boundary():
        nonlocal count
        count += 1
        if count == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(kind, name):
        real = getattr(kind, name)

        def wrapped(self, *arguments, **options):
            boundary()
            result = real(self, *arguments, **options)
            boundary()
            return result

        setattr(kind, name, wrapped)

    made = People(directory)
    (directory / "grant").write_text(made.grant)
    for kind, name in ((Writer, "commit"), (Outbox, "write"), (Outbox, "discard"), (StateStore, "_write")):
        wrap(kind, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trustcompute.node.release.run", noted(directory))
        made.count(made.session(state=directory / "jobs"))
    os._exit(0)


def died(directory: Path, boundary: int) -> bool:
    child = os.fork()
    if child == 0:
        try:
            release_and_die(directory, boundary)
        finally:
            os._exit(1)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_every_write_noise_that_was_drawn_is_paid_for_and_never_drawn_again(tmp_path, monkeypatch):
    for boundary in range(1, 100):
        directory = tmp_path / str(boundary)
        directory.mkdir()
        if not died(directory, boundary):
            assert boundary > 8
            return
        people = People.__new__(People)
        people.directory, people.clock, people.results = (
            directory,
            worlds.FakeClock(int(worlds.time.time())),
            [],
        )
        people.grant = (directory / "grant").read_text()
        people.start()
        monkeypatch.setattr("trustcompute.node.release.run", noted(directory))
        check_budget(people, directory)
        people.stop()
    raise AssertionError("the child never finished")


def check_budget(people, directory: Path) -> None:
    before = drawn(directory)
    assert len(before) <= 1
    if before:
        assert people.spent() == TENTH, "data were touched: that is spent, whatever became of the answer"
    for path in (directory / "jobs").glob("*.job.json"):
        job = path.name[:32]
        try:
            answer = people.count(people.session(state=directory / "jobs"), job=job)
        except TrustcomputeError:
            record = people.broker.job(job)
            assert record is None or record.state in (JobState.FORFEITED, JobState.VOIDED)
        else:
            assert drawn(directory) == [answer.measured.values.tolist()], (
                "one draw of noise, and it is this one"
            )
            assert people.spent() == TENTH
    assert people.spent() in (0, TENTH) and len(drawn(directory)) <= 1
    assert (people.spent() == 0) <= (not drawn(directory))
    people.check()


def test_64_clients_racing_for_one_budget(people):
    """Four grants of half the dataset's budget each: together they get all of it, to the last unit, and no more."""
    grants = [people.issue(limits={"rho": Limit(total=RHO // 2)}) for _ in range(4)]
    outcomes: Counter[str] = Counter()
    start = threading.Barrier(64)

    def ask(number):
        session = people.session(grant=grants[number % 4])
        session.catalog()
        start.wait()
        try:
            people.count(session, budget=dp.zcdp("0.04"))
            outcomes["answered"] += 1
        except Refused as refused:
            outcomes[refused.rule] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"answered": 25, "quota": 39}
    assert people.check().jobs == {"posted": 25, "denied": 39}
    with pytest.raises(Refused):
        people.count(people.session(grant=grants[0]), budget=dp.zcdp("0.000000001"))


def test_one_job_asked_for_by_many_is_charged_and_drawn_once(people, tmp_path, monkeypatch):
    monkeypatch.setattr("trustcompute.node.release.run", noted(tmp_path))
    session = people.session(plan=dict.fromkeys(range(9), "lose answer"), state=tmp_path / "jobs")
    with pytest.raises(TrustcomputeError) as interrupted:
        people.count(session)
    job, answers = interrupted.value.job, []

    def again(number):
        own = shutil.copytree(
            tmp_path / "jobs", tmp_path / str(number)
        )  # a directory of jobs is one process's
        answers.append(people.count(people.session(state=own), job=job).measured.values.tolist())

    threads = [threading.Thread(target=again, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (
        len(answers) == 8
        and all(answer == drawn(tmp_path)[0] for answer in answers)
        and len(drawn(tmp_path)) == 1
    )
    assert people.spent() == TENTH


def test_a_clock_that_goes_back_gives_no_budget_back(people):
    grant = people.issue(limits={"rho": Limit(per_day=2 * TENTH)})
    day = 24 * 3600

    def ask():
        return people.count(people.session(grant=grant))

    ask(), ask()
    with pytest.raises(Refused, match="per_day"):
        ask()
    people.clock.advance(-day)
    with pytest.raises(TrustcomputeError):
        ask()
    people.restart()
    with pytest.raises(TrustcomputeError):
        ask()
    people.clock.advance(2 * day)
    ask()
    people.check()
