"""A privacy budget cannot be overspent: processes killed at every write, clients that race, clocks that go back."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from killing import killed_at
from test_release import RHO, People

from trustcompute import dp
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import JobState
from trustcompute.dp.answer import run as really_run
from trustcompute.errors import Refused, TrustcomputeError

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


def begin(directory: Path) -> Callable[[], object]:
    """People in a child, their grant left for the test, and one release."""
    made = People(directory)
    (directory / "grant").write_text(made.grant)

    def release() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trustcompute.node.release.run", noted(directory))
            made.count(made.session(state=directory / "jobs"))

    return release


def test_killed_at_every_write_noise_that_was_drawn_is_paid_for_and_never_drawn_again(tmp_path, monkeypatch):
    for boundary in range(1, 100):
        directory = tmp_path / str(boundary)
        directory.mkdir()
        if not killed_at(boundary, partial(begin, directory)):
            assert boundary > 8
            return
        people = People.reopened(directory)
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
