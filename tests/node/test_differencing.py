"""A budget for similar runs: what counts, what does not, what survives."""

from __future__ import annotations

import numpy as np
import pytest
from world import AIRLINE, REGISTRY, RIVAL, World

from trustcompute.broker.grant import Bounds, Similar
from trustcompute.errors import ParameterError, Refused, StoreError, TransportError
from trustcompute.node import differencing

LIMITED = Bounds(similar=Similar(keys=3, runs=2))
AIRLINE_KEYS = np.arange(20 * 32, dtype=np.uint8).reshape(20, 32)
OPERATIONS = {"psi.ecdh.v1": LIMITED, "psi.dh.v1": LIMITED}


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path, operations=OPERATIONS)
    yield made
    made.stop()


def run(world, numbers, session=None, **options):
    table = {"tail": [f"N{i}" for i in numbers]}
    asked = {"protocol": "psi.ecdh.v1"} | options
    return (session or world.session()).intersect("planes", table, on={"tail": "tailnum"}, **asked)


def test_similar_sets_count_and_the_same_or_other_sets_do_not(world):
    run(world, range(20))
    run(world, range(20))  # the same again
    run(world, range(20, 40))  # another one
    run(world, range(21))  # one key more
    run(world, range(21), protocol="psi.dh.v1")  # the same again, of another operation
    run(world, range(2, 21))  # the second that is like an earlier one
    with pytest.raises(Refused, match="differs from an earlier one by 3 keys or fewer") as refused:
        run(world, range(1, 20))
    assert (refused.value.rule, refused.value.field) == ("differencing", "params.sketch")
    assert refused.value.owner == REGISTRY.thumbprint
    assert "more than 3 keys" in refused.value.fix
    run(world, range(20))
    run(world, [*range(10), *range(30, 40)])
    world.check()


def test_a_refusal_costs_nothing(world):
    for numbers in (range(20), range(21), range(22)):
        run(world, numbers)
    before = world.used()
    with pytest.raises(Refused):
        run(world, range(23))
    assert world.used() == before == 3
    assert world.types().count("job.posted") == 3


def test_what_was_brought_is_remembered_after_a_restart_and_a_retry_counts_once(world, tmp_path):
    run(world, range(20))
    run(world, range(21))
    world.restart()

    def gone(number):
        raise TransportError("the line is broken")

    from trustcompute.errors import JobInterrupted

    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as failed:
        run(world, range(22), world.session(before=gone, state=state))
    run(world, range(22), world.session(state=state), job=failed.value.job)
    with pytest.raises(Refused, match="2 such runs"):
        run(world, range(23))


def test_everybody_has_a_budget_of_their_own(world):
    other = world.issue(subject=RIVAL, operations=OPERATIONS)
    for numbers in (range(20), range(21), range(22)):
        run(world, numbers)
        run(world, numbers, world.session(identity=RIVAL, grant=other))
    for session in (world.session(), world.session(identity=RIVAL, grant=other)):
        with pytest.raises(Refused):
            run(world, range(23), session)


def test_a_second_grant_does_not_make_it_begin_anew(world):
    for numbers in (range(20), range(21), range(22)):
        run(world, numbers)
    with pytest.raises(Refused):
        run(world, range(23), world.session(grant=world.issue(operations=OPERATIONS)))


def test_a_request_without_a_sketch_or_with_another_secret_is_refused(world, monkeypatch):
    run(world, range(20))
    with monkeypatch.context() as patch:
        patch.setattr(differencing, "of_ours", lambda *_: {})
        with pytest.raises(Refused, match="without a sketch"):
            run(world, range(20))
    with monkeypatch.context() as patch:
        patch.setattr(differencing, "_DOMAIN", b"another\n")
        with pytest.raises(Refused, match="another secret"):
            run(world, range(20))
    with monkeypatch.context() as patch:
        patch.setattr(differencing.sketch, "SIZE", 5)
        made = differencing.sketch.sketched(b"s" * 32, AIRLINE_KEYS, "0" * 64).to_params()
    with monkeypatch.context() as patch:
        patch.setattr(differencing, "of_ours", lambda *_: {"sketch": made})
        with pytest.raises(ParameterError, match="has 20 values"):
            run(world, range(20))


def test_a_grant_without_the_limit_asks_for_no_sketch(tmp_path):
    plain = World(tmp_path)
    try:
        session = plain.session()
        save, asked = session._states.save, []
        session._states.save = lambda state: (asked.append(state.asked["params"]), save(state))
        run(plain, range(20), session)
        assert "sketch" not in asked[0]
        assert not list((tmp_path / "book").glob("sketches-*"))
    finally:
        plain.stop()


def test_sketches_of_one_asker_are_the_same_in_every_session_and_of_two_are_not(world):
    session, other = (
        world.session(),
        world.session(identity=RIVAL, grant=world.issue(subject=RIVAL, operations=OPERATIONS)),
    )
    keys = differencing_keys()
    first = differencing.of_ours(session, "psi.ecdh.v1", "planes", keys, 9)
    assert first == differencing.of_ours(world.session(), "psi.ecdh.v1", "planes", keys, 9)
    second = differencing.of_ours(other, "psi.ecdh.v1", "planes", keys, 9)
    assert not set(first["sketch"].values()) & set(second["sketch"].values())
    assert AIRLINE.name != RIVAL.name


def differencing_keys():
    from trustcompute import tables

    return tables.keys({"id": range(9)}, "id")


def test_what_is_kept_and_cannot_be_read_stops_runs(world):
    run(world, range(20))
    kept = next((world.directory / "book").glob("sketches-*"))
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:-9] + b"\n")
    world.restart()
    with pytest.raises(StoreError, match="sets were brought before"):
        run(world, range(20))


def test_files_are_limited_alike(world, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def run_file(numbers):
        pq.write_table(pa.table({"tail": [f"N{i}" for i in numbers]}), tmp_path / "ours.parquet")
        with world.session(state=tmp_path / "state") as session:
            return session.intersect_file(
                "planes", tmp_path / "ours.parquet", on={"tail": "tailnum"}, out=tmp_path / "out.csv",
                protocol="psi.dh.v1",
            )  # fmt: skip

    run(world, range(20))
    assert run_file(range(20)).count == 20
    for numbers in (range(21), range(22)):
        run_file(numbers)
    with pytest.raises(Refused, match="2 such runs"):
        run_file(range(23))
