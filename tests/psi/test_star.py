"""psi.star.v1: what it finds, that it shows nothing of two sets, and what its parties refuse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels, psi
from trustcompute.errors import ParameterError, RemoteProtocolError, TableError
from trustcompute.primitives import okvs
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import Scope, Sizes
from trustcompute.protocol.party import Receive, Send
from trustcompute.protocol.star import TooFew, run_star
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import star, zero_sharing
from trustcompute.psi.star_operation import OPERATION, holders

QUICK = kernels.active().name == "native"
LARGE = pytest.mark.skipif(not QUICK, reason="only with the native kernels")
BINDING = Binding("", star.ID, {}, "hub", "leaf")
NAMES = ("aa.example", "bb.example", "cc.example")
PARAMS = {"columns": ["id"], "keys": "0" * 64, "parties": list(NAMES), "session": "5" * 32}


def digests(numbers):
    rows = np.zeros((len(numbers), 32), np.uint8)
    rows[:, :8] = np.asarray(list(numbers), dtype=np.uint64).reshape(-1, 1).view(np.uint8)
    return rows


class Star:
    """Everybody of one star, whose messages a test may look at and change."""

    def __init__(self, ours, sets, *, seen=None, change=lambda leaf, kind, columns: columns):
        self.names = NAMES[: len(sets)]
        self.about = zero_sharing.Holders(self.names, b"s" * 16, "0" * 64, len(ours))
        self.members = in_process(self.names)
        self.ours, self.sets = ours, dict(zip(self.names, sets, strict=True))
        self.seen, self.change = seen if seen is not None else {}, change

    def leaf(self, name, about=None):
        return star.leaf(about or self.about, self.members[name], self.sets[name], Rng.from_os())

    def watched(self, name, party):
        value = None
        while True:
            try:
                step = party.send(value)
            except StopIteration as stop:
                return stop.value
            if isinstance(step, Send):
                message = step.message
                changed = self.change(name, message.kind, dict(message.columns))
                step = Send(Message(message.kind, changed), step.releases)
            value = yield step
            if isinstance(step, Receive):
                self.seen[name, value.kind] = value

    def hub(self):
        recognise = self.members[self.names[0]].recognise
        sizes = {name: len(keys) for name, keys in self.sets.items()}
        rngs = {name: Rng.from_os() for name in self.names}
        return star.hub(self.about, recognise, self.ours, sizes, rngs)

    def run(self, leaves=None):
        leaves = {name: self.watched(name, self.leaf(name)) for name in self.names} | (leaves or {})
        return run_star(self.hub(), leaves, BINDING, patience=60)


SMALL = st.lists(st.integers(0, 9), max_size=12)


@LARGE
@pytest.mark.property
@given(st.lists(SMALL, min_size=3, max_size=5))
@settings(max_examples=12, deadline=None)
def test_it_finds_what_a_plain_intersection_does_duplicates_nulls_and_empty_tables_among_them(tables):
    sources = [{"id": [None if value == 9 else f"N{value}" for value in one]} for one in tables]
    common = set.intersection(*({value for value in one if value != 9} for one in tables))
    found = psi.intersect_many(sources, on="id")
    assert found.left_rows.tolist() == [row for row, value in enumerate(tables[0]) if value in common]
    assert found.count == len(common & set(tables[0]))


@pytest.mark.parametrize("parties", [3, 4, 5] if QUICK else [3])
def test_keys_of_all_are_found_and_keys_of_some_are_not(parties):
    count = 5000 if QUICK else 12
    step = count // 6
    sources = [{"id": np.arange(at * step, at * step + count)} for at in range(parties)]
    found = psi.intersect_many(sources, on="id")
    assert found.left_rows.tolist() == list(range((parties - 1) * step, count))
    assert (found.protocol, found.cost.turns) == ("psi.star.v1", 4)
    assert f"all {parties - 1} others hold" in found.leakage.consumer


@LARGE
def test_columns_of_each_table_several_columns_and_an_executor():
    from concurrent.futures import ThreadPoolExecutor

    ours = {"code": [1, 1, 2], "country": ["AT", "DE", "AT"]}
    others = [{"c": [1, 2], "at": ["AT", "AT"]}, {"nr": [1, 2, 3], "where": ["DE", "AT", "AT"]}]
    on = [["code", "country"], ["c", "at"], ["nr", "where"]]
    with ThreadPoolExecutor(2) as executor:
        found = psi.intersect_many([ours, *others], on=on, executor=executor)
    assert found.left_rows.tolist() == [2]
    assert found.table().column("code").to_pylist() == [2]


@pytest.mark.parametrize(
    ("sources", "on", "error", "words"),
    [
        ([{"id": [1]}], "id", ParameterError, "two or more others"),
        ([{"id": [1]}] * 2, "id", ParameterError, "with one, use an intersection"),
        ([{"id": [1]}] * 34, "id", ParameterError, "2 to 32 leaves"),
        ([{"id": [1]}, {"id": [1]}, {"id": ["1"]}], "id", TableError, "integer"),
        ([{"id": [1]}] * 3, [["id"], ["id"]], ParameterError, "each of 3 tables"),
        ([{"id": [1]}] * 3, [["id"], ["id", "id"], ["id"]], ParameterError, "as many columns"),
        ([{"id": [1]}] * 3, [], ParameterError, "on must be"),
        ([{"id": [1]}] * 3, [["id"], [1], ["id"]], ParameterError, "on must be"),
    ],
)
def test_what_cannot_be_asked_says_so(sources, on, error, words):
    with pytest.raises(error, match=words):
        psi.intersect_many(sources, on=on)


# What the messages show


def test_shares_add_up_to_zero_and_any_of_them_looks_random():
    everyone = Star(digests(range(3)), [digests(range(9))] * 3)
    shares = {}

    def keep(name):
        shares[name] = yield from zero_sharing.agreed(everyone.about, everyone.members[name], Rng.from_os())
        yield from star.vole.function_of_own(star.suite(3), Rng.from_os(), None)
        raise RemoteProtocolError("enough")

    with pytest.raises(TooFew, match="enough"):
        everyone.run({name: keep(name) for name in NAMES})
    parts = [one.of(digests(range(50))) for one in shares.values()]
    assert not np.bitwise_xor.reduce(parts).any()
    for part in (*parts, parts[0] ^ parts[1]):
        assert part.any()
        assert len({row.tobytes() for row in part}) == 50
        assert 0.4 < np.unpackbits(part).mean() < 0.6


def test_a_store_is_as_full_as_a_random_one_whatever_the_keys():
    for count in (0, 1, 40):
        keys, seed = digests(range(count)), Rng.from_os().array(star.SEED)
        made = star.programmed(keys, seed, lambda rows: rows[:, :16].copy(), Rng.from_os(), None)
        assert np.array_equal(star._decoded(keys, seed, made, okvs.shape(count), None), keys[:, :16])
        assert made.any(axis=1).all()
        again = star.programmed(keys, seed, lambda rows: rows[:, :16].copy(), Rng.from_os(), None)
        assert not (made == again).all(axis=1).any()


@LARGE
def test_what_a_leaf_receives_has_the_same_form_whatever_the_others_hold():
    seen = {}
    Star(digests(range(4)), [digests(range(5)), digests(range(40)), digests([])], seen=seen).run()
    of = {name: {kind: value for (who, kind), value in seen.items() if who == name} for name in NAMES}
    for name in NAMES:
        assert list(of[name]) == ["roster", "hello", "noise", "masked"]
    shapes = [{k: {c: v.shape for c, v in m.columns.items()} for k, m in of[n].items()} for n in NAMES]
    assert shapes[0] == shapes[1] == shapes[2]


@LARGE
def test_the_hub_and_one_of_two_leaves_together_learn_what_the_page_says(monkeypatch):
    stores, shares, values = {}, {}, []
    agreed, evaluated = zero_sharing.agreed, star.vole.evaluated_obliviously

    def agreed_and_told(about, member, rng):
        shares[member.name] = yield from agreed(about, member, rng)
        return shares[member.name]

    def evaluated_and_told(*arguments):
        found = yield from evaluated(*arguments)
        values.append(found[0].copy())
        return found

    def tell(name, kind, columns):
        stores[name, kind] = columns
        return columns

    monkeypatch.setattr(zero_sharing, "agreed", agreed_and_told)
    monkeypatch.setattr(star.vole, "evaluated_obliviously", evaluated_and_told)
    everyone = Star(digests(range(8)), [digests(range(4)), digests(range(2, 8))], change=tell)
    assert np.flatnonzero(everyone.run().result.mask).tolist() == [2, 3]

    sent = stores[NAMES[1], "store"]
    opened = star._decoded(everyone.ours, sent["seed"], sent["value"], okvs.shape(6), None) ^ values[1]
    assert len({row.tobytes() for row in opened}) == 8  # to the hub alone eight values that look random
    matches = (opened == shares[NAMES[0]].of(everyone.ours)).all(axis=1)
    assert np.flatnonzero(matches).tolist() == [2, 3, 4, 5, 6, 7]


# What is refused


@LARGE
@pytest.mark.fault
@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("advertise", lambda c: c | {"key": c["key"][::-1].copy()}, "signature of bb.example does not verify"),
        ("advertise", lambda c: c | {"certificate": np.frombuffer(NAMES[2].encode(), np.uint8)}, "signature|another"),
        ("store", lambda c: c | {"value": c["value"] ^ np.uint8(1)}, "arrived altered"),
        ("store", lambda c: c | {"seed": c["seed"] ^ np.uint8(1)}, "arrived altered"),
        ("store", lambda c: c | {"value": c["value"][:-1]}, "another size"),
        ("store", lambda c: c | {"value": np.zeros((10**4, 16), np.uint8)}, "declared sizes"),
        ("choices", lambda c: {"pair": c["pair"][:-1]}, "declared sizes"),
        ("trees", lambda c: c | {"last": c["last"] ^ np.uint8(1)}, "arrived altered"),
    ],
)  # fmt: skip
def test_a_leaf_that_sends_something_else_ends_the_star_and_is_named(kind, change, words):
    def spoil(name, sent, columns):
        return change(columns) if (name, sent) == (NAMES[1], kind) else columns

    with pytest.raises(TooFew, match=words) as failed:
        Star(digests(range(4)), [digests(range(5))] * 3, change=spoil).run()
    assert next(iter(failed.value.reasons)) == NAMES[1]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c | {"key": c["key"][::-1].copy()}, "signature"),
        (lambda c: c | {name: c[name][:1] for name in ("member", "length", "key")}, "2 are needed|as long"),
        (lambda c: c | {"member": c["member"][::-1].copy()}, "in order"),
        (lambda c: c | {"length": c["length"] + 1}, "as long as"),
    ],
)  # fmt: skip
def test_a_leaf_refuses_a_roster_that_the_hub_has_changed(change, words):
    """A hub that shows a key of its own for the other leaf would learn the shares."""
    everyone = Star(digests(range(4)), [digests(range(5))] * 2)

    def spoiled(party):
        value = None
        while True:
            step = party.send(value)
            value = yield step
            if value is not None and value.kind == "roster":
                value = Message("roster", change(dict(value.columns)))

    name = NAMES[0]
    with pytest.raises(TooFew, match=words):
        everyone.run({name: spoiled(everyone.leaf(name))})


@pytest.mark.parametrize(
    "about",
    [
        {"keys": "1" * 64},
        {"session": b"t" * 16},
        {"rows": 5},
    ],
)
def test_leaves_that_were_told_different_things_stop_before_anything_is_evaluated(about):
    everyone = Star(digests(range(4)), [digests(range(5))] * 2)
    other = zero_sharing.Holders(
        **({"parties": everyone.names, "session": b"s" * 16, "keys": "0" * 64, "rows": 4} | about)
    )
    with pytest.raises(TooFew, match="signature"):
        everyone.run({NAMES[0]: everyone.leaf(NAMES[0], other)})


@LARGE
@pytest.mark.fault
@pytest.mark.parametrize("kind", ["advertise", "choices", "trees", "store"])
def test_a_leaf_that_vanishes_at_any_turn_ends_the_star(kind):
    def vanish(name, sent, columns):
        if (name, sent) == (NAMES[0], kind):
            raise RemoteProtocolError("gone")
        return columns

    with pytest.raises(TooFew, match="gone"):
        Star(digests(range(4)), [digests(range(5))] * 2, change=vanish).run()


# The operation


@LARGE
def test_the_bound_covers_the_bytes_that_cross():
    everyone = Star(digests(range(30)), [digests(range(50)), digests(range(7))])
    costs = everyone.run().costs
    params = PARAMS | {"parties": list(NAMES[:2])}
    for name, rows in zip(NAMES, (50, 7), strict=False):
        bound = OPERATION.bound(params, Sizes(30, rows)).bytes
        crossed = costs[name].bytes_sent + costs[name].bytes_received
        slack = 3 * 9000  # certificates are bounded, not known
        assert bound - slack <= crossed <= bound + 8 * 400


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parties": None}, "names of the leaves"),
        ({"parties": list(NAMES[::-1])}, "sorted"),
        ({"parties": [NAMES[0], NAMES[0], NAMES[1]]}, "aa.example would take part twice"),
        ({"parties": [NAMES[0]]}, "with one, use"),
        ({"parties": [*NAMES, 5]}, "names"),
        ({"parties": [f"{n:03d}" for n in range(33)]}, "2 to 32"),
        ({"session": "5" * 31}, "32 hex"),
        ({"session": 5}, "32 hex"),
        ({"columns": []}, "columns"),
        ({"keys": "x"}, "digest"),
        ({"output": "count"}, "a star takes"),
        ({"runs": 2}, "a star takes"),
    ],
)
def test_parameters_that_are_wrong_are_named(change, words):
    with pytest.raises(ParameterError, match=words):
        OPERATION.check(PARAMS | change, Sizes(1, 1))


def test_parameters_of_the_right_form_are_canonical_and_reach_for_columns_and_leaves():
    assert OPERATION.check(PARAMS, Sizes(1, 1)) == PARAMS
    assert OPERATION.scope(PARAMS) == Scope(("id",), 3)
    with pytest.raises(ParameterError, match="takes columns, keys, parties, session"):
        OPERATION.check({k: v for k, v in PARAMS.items() if k != "session"}, Sizes(1, 1))
    assert holders(PARAMS, Sizes(7, 1)).rows == 7
    with pytest.raises(ParameterError, match="at most"):
        OPERATION.check(PARAMS, Sizes(2**31, 1))
