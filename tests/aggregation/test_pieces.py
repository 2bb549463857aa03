"""Long vectors come in pieces: exact whoever vanishes between them, and never two vectors under one mask."""

from __future__ import annotations

import numpy as np
import pytest
from acting import acting
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import aggregation
from trustcompute.aggregation import Bounds, Spec, masked, pieces
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.pieces import Masked, cut, send_all
from trustcompute.aggregation.round import Round
from trustcompute.errors import RemoteProtocolError, TableError
from trustcompute.primitives.masks import Stream
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.star import TooFew, run_star
from trustcompute.protocol.transcript import Binding


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(pieces, "PIECE", 4)


def star(rows, *, reveal="aggregator", sent=None, **changes):
    names = tuple(f"p{at}" for at in range(len(rows)))
    spec = Spec(columns={"value": Bounds(-1000, 1000)}, length=len(rows[0]), reveal=reveal)
    about, known = Round(spec, names, b"s" * 16), in_process(names)

    def watched(name):
        def watch(columns):
            (sent if sent is not None else []).append((name, columns["value"].tobytes()))
            return columns

        return watch

    parties = {
        name: acting(
            name,
            masked.contributor(about, known[name], lambda row=row: np.array(row), Rng.from_os(), Cohorts()),
            tamper={(name, "masked"): watched(name)},
            **changes,
        )
        for name, row in zip(names, rows, strict=True)
    }
    binding = Binding("", masked.ID, {}, "aggregator", "contributor")
    return run_star(masked.aggregator(about, known["p0"].recognise), parties, binding, patience=60)


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(
    shape=st.tuples(st.integers(3, 6), st.integers(1, 23)),
    gone=st.dictionaries(st.integers(0, 5), st.integers(0, 5), max_size=2),
    everyone=st.booleans(),
    seed=st.integers(0),
)
def test_whoever_vanishes_between_pieces_is_not_in_the_sum(shape, gone, everyone, seed):
    rows = np.random.default_rng(seed).integers(-1000, 1000, shape)
    parts = len(cut(shape[1] + (3 if everyone else 0)))
    vanish = {(f"p{at}", "masked", nth) for at, nth in gone.items() if at < shape[0] and nth < parts}
    left = [at for at in range(shape[0]) if f"p{at}" not in {name for name, _, _ in vanish}]
    about = {"reveal": "everyone" if everyone else "aggregator", "vanish": vanish}
    if len(left) < max(2 * shape[0] // 3 + 1, 3):
        with pytest.raises(TooFew):
            star(rows, **about)
        return
    run = star(rows, **about)
    assert run.result[1] == tuple(f"p{at}" for at in left)
    assert run.result[0].tolist() == rows[left].sum(axis=0).tolist()
    if everyone:
        assert all(np.array_equal(run.outputs[f"p{at}"], run.result[0]) for at in left)


def test_what_is_sent_again_is_the_same_to_the_byte():
    sent = []
    star(np.arange(40).reshape(4, 10), sent=sent, vanish={("p3", "masked", 2)})
    of_first = [value for name, value in sent if name == "p0"]
    assert len(of_first) == 6  # three pieces, and once more from the first
    assert of_first[:3] == of_first[3:]
    assert len(set(of_first)) == 3


def party(vector, passes=3):
    made = Masked(vector, lambda: ([Stream(b"s" * 32, b"m")], []), b"", np.empty(0, dtype=np.int64))
    running = send_all(made, "ann", passes)
    next(running)
    return running


def ask(running, piece):
    running.send(None)
    return running.send(Message("next", {"piece": np.array([piece])}))


@pytest.mark.parametrize("asked", [[2], [1, 1], [1, 3], [-1], [3], [2**62], [1, 2, 1]])
def test_pieces_are_given_in_order(asked):
    running = party(np.arange(10))
    with pytest.raises(RemoteProtocolError, match="is next"):
        for piece in asked:
            ask(running, piece)


def test_nobody_begins_again_for_ever_nor_with_other_data():
    running = party(np.arange(10))
    with pytest.raises(RemoteProtocolError, match="more often"):
        for _ in range(4):
            ask(running, 0)
    data = np.arange(10)
    running = party(data)
    data[1] = 7
    with pytest.raises(TableError, match=r"ann: rule unchanged"):
        ask(running, 0)
    running = party(np.arange(10))
    ask(running, 1)
    ask(running, 2)
    running.send(None)
    with pytest.raises(StopIteration):
        running.send(Message("next", {"piece": np.array([3])}))


class Stored:
    """A vector on disk, as far as the library can tell."""

    def __init__(self, values):
        self.values, self.shape, self.most = np.array(values), (len(values),), 0

    def __getitem__(self, part):
        found = self.values[part]
        self.most = max(self.most, len(found))
        return found


def test_sources_are_read_by_pieces_and_mistakes_in_a_late_one_name_the_party():
    spec = Spec(columns={"value": Bounds(-100, 100)}, length=11)
    given = {name: Stored(range(at, at + 11)) for at, name in enumerate(["ann", "bob", "cyd"])}
    assert aggregation.aggregate(given, spec).vector().tolist() == [3 * at + 3 for at in range(11)]
    assert all(one.most == 4 for one in given.values())
    given["bob"].values[9] = 101
    with pytest.raises(aggregation.Unusable, match="bob: rule bounds"):
        aggregation.aggregate(given, spec)
    with pytest.raises(aggregation.Unusable, match="cyd: rule length"):
        aggregation.aggregate(given | {"cyd": [1, 2]}, spec)
