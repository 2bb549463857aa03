"""psi.delta.v1: a run over changes finds what a full one does, and moves what has changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels, psi
from trustcompute.errors import ParameterError, RemoteProtocolError, TableError, VerificationError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import Scope, Sizes
from trustcompute.protocol.party import Send
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import changing, delta
from trustcompute.psi.changing import Followed, kept_table, load_followed, new_table, save_followed

QUICK = kernels.active().name == "native"
SETS = st.sets(st.integers(0, 11), max_size=8)


def digests(numbers):
    rows = np.zeros((len(numbers), 32), np.uint8)
    rows[:, 0] = sorted(numbers)
    return rows


@pytest.mark.property
@given(st.lists(st.tuples(SETS, SETS), min_size=1, max_size=6))
@settings(max_examples=12 if QUICK else 2, deadline=None)
def test_any_sequence_of_runs_finds_what_full_runs_do(sequence):
    following = psi.Following(on="id")
    for ours, theirs in sequence:
        left = {"id": [*ours, None, *ours]}
        found = following.run(left, {"id": [*theirs]})
        assert [left["id"][row] for row in found.left_rows] == [
            one for one in (*ours, None, *ours) if one in theirs
        ]
        assert found.count == len(ours & theirs)


def test_what_moves_is_what_has_changed():
    following = psi.Following(on="id")
    first = following.run({"id": range(40)}, {"id": range(20, 60)}).cost
    again = following.run({"id": range(40)}, {"id": range(20, 60)}).cost
    both = following.run({"id": range(1, 43)}, {"id": range(22, 63)}).cost
    assert first.bytes_sent - again.bytes_sent >= 40 * 32
    assert first.bytes_received - again.bytes_received >= 40 * 16 + 40 * 32
    assert 3 * 32 <= both.bytes_sent - again.bytes_sent < 3 * 32 + 9
    assert 3 * 32 + 5 * 16 <= both.bytes_received - again.bytes_received < 3 * 32 + 5 * 16 + 9
    back = following.run({"id": range(1, 43)}, {"id": range(20, 60)})  # a version there was before
    assert back.left_rows.tolist() == list(range(19, 42))


def test_a_key_that_was_gone_is_asked_for_again():
    following = psi.Following(on="id")
    following.run({"id": [1, 2]}, {"id": [2, 3]})
    without = following.run({"id": [2]}, {"id": [2, 3]}).cost
    again = following.run({"id": [1, 2]}, {"id": [2, 3]}).cost
    assert again.bytes_sent - without.bytes_sent >= 32


def test_columns_that_change_their_type_are_refused():
    following = psi.Following(on="id")
    following.run({"id": [1]}, {"id": [1]})
    with pytest.raises(TableError, match="text"):
        following.run({"id": ["1"]}, {"id": ["1"]})


# What is kept


def test_a_table_is_kept_brought_up_to_date_and_forgets_its_oldest_versions(tmp_path):
    rng, ids, lineages = Rng.from_os(), [], set()
    for number in range(changing.KEPT_VERSIONS + 3):
        table = kept_table(digests(range(number, number + 5)), "planes", rng, tmp_path)
        again = kept_table(digests(range(number, number + 5)), "planes", rng, tmp_path)
        assert (again.id, list(again.earlier)) == (table.id, list(table.earlier))
        ids.append(table.id)
        lineages.add(table.lineage)
    assert list(table.earlier) == ids[2:-1]
    assert len(lineages) == 1
    assert {one.base: (one.added, one.removed) for one in table.versions} == {
        base: (min(at, 5), min(at, 5)) for at, base in enumerate(reversed(ids[2:]))
    }
    other = kept_table(digests([1]), "ships", rng, tmp_path)
    assert other.lineage not in lineages


@pytest.mark.parametrize("cut", [0, 3, 40, -1])
def test_a_kept_table_or_set_that_was_altered_is_refused(tmp_path, cut):
    kept_table(digests([1, 2]), "planes", Rng.from_os(), tmp_path)
    path = next(tmp_path.iterdir())
    raw = bytearray(path.read_bytes())
    for changed in (
        raw[:cut] if cut else b"",
        raw[:cut] + bytes([raw[cut] ^ 1]) + raw[cut + 1 :] if cut > 0 else raw[:-1],
    ):
        path.write_bytes(bytes(changed))
        with pytest.raises(VerificationError, match="remove it"):
            kept_table(digests([1, 2]), "planes", Rng.from_os(), tmp_path)


def test_the_set_of_the_last_run_is_bound_by_the_commitment_of_its_request(tmp_path):
    followed = Followed("0" * 64, b"s" * 32, changing.Evaluations(digests([1, 2]), np.ones((2, 16), np.uint8)),
                        np.zeros((0, 16), np.uint8), "", 3)  # fmt: skip
    save_followed(tmp_path / "kept", followed)
    assert load_followed(tmp_path / "kept").commitment() == followed.commitment()
    assert (tmp_path / "kept").stat().st_mode & 0o077 == 0
    other = replace(followed, own=changing.Evaluations(digests([1, 3]), followed.own.values))
    assert other.commitment() != followed.commitment() != replace(followed, run=4).commitment()
    head, parts = changing._read(tmp_path / "kept")
    kept = {name: head[name] for name in ("lineage", "table", "run", "set")}
    changing._write(tmp_path / "kept", kept, parts | {"digests": digests([1, 3])})
    with pytest.raises(VerificationError, match="committed to"):
        load_followed(tmp_path / "kept")


# The protocol


def both(change=lambda message: message, **params):
    rng = Rng.from_os()
    table = new_table(rng).next(digests([1, 2, 3]))
    followed = Followed.none(table.lineage, b"s" * 32)
    keys = digests([3, 4])
    made = delta.parameters(["id"], "0" * 64, table, followed, keys, base="", added=3, removed=0) | params
    sizes = Sizes(2, 3)

    def changed(party):
        value = None
        while True:
            try:
                step = party.send(value)
            except StopIteration as stop:
                return stop.value
            value = yield Send(change(step.message), step.releases) if isinstance(step, Send) else step

    return run_local(
        delta.consumer(made, sizes, keys, followed, rng),
        changed(delta.provider(made, sizes, table)),
        Binding("", delta.ID, made, "consumer", "provider"),
    )


def test_the_two_parties_agree():
    run = both()
    assert run.consumer.found.mask.tolist() == [True, False]
    assert (run.consumer.followed.run, len(run.consumer.followed.table)) == (1, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda columns: columns | {"added": columns["added"] ^ np.uint8(1)},
        lambda columns: columns | {"added": columns["added"][[0, 0, 1]]},
        lambda columns: columns | {"added": columns["added"][:2]},
    ],
)
def test_changes_that_do_not_lead_to_the_named_table_are_refused(change):
    def spoil(message):
        return Message(message.kind, change(dict(message.columns))) if message.kind == "changes" else message

    with pytest.raises(RemoteProtocolError, match=r"catalogue|declared sizes"):
        both(spoil)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"base": "1" * 64}, "not kept"),
        ({"table": "1" * 64}, "not kept"),
        ({"added": 2}, "added and removed"),
    ],
)
def test_versions_and_numbers_that_are_not_the_tables_are_refused(params, words):
    with pytest.raises(ParameterError, match=words):
        both(**params)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"table": "x"}, "table must be"),
        ({"base": None}, "base must be"),
        ({"earlier": ""}, "earlier must be"),
        ({"now": "0" * 63}, "now must be"),
        ({"added": -1}, "added must be"),
        ({"removed": True}, "removed must be"),
        ({"fetch": True}, "takes columns"),
        ({"columns": []}, "columns"),
    ],
)
def test_parameters_that_are_wrong_are_named(change, words):
    good = {"columns": ["id"], "keys": "0" * 64, "table": "1" * 64, "base": "", "added": 3, "removed": 0}
    good |= {"earlier": "2" * 64, "now": "3" * 64}
    assert delta.check(good, Sizes(2, 3)) == good
    assert delta.OPERATION.scope(good) == Scope(("id",))
    assert delta.bound(good | {"removed": 2}, Sizes(4, 3)).bytes == 4 * 64 + 5 * 16
    with pytest.raises(ParameterError, match=words):
        delta.check(good | change, Sizes(2, 3))
