"""psi.sum.v1 equals plain sums, tells nothing of too few keys, and refuses what a peer may not send."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import kernels, psi
from trustcompute.errors import ParameterError, Refused, RemoteProtocolError, TableError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.party import Receive, Send
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi.sums import parties
from trustcompute.psi.sums.operation import OPERATION
from trustcompute.psi.sums.terms import Terms

REFERENCE = kernels.active().name == "reference"
LARGEST = 60 if REFERENCE else 400
EXAMPLES = 5 if REFERENCE else 30
LABELS = ["a", "b", "c"]


@pytest.mark.property
@settings(max_examples=EXAMPLES, deadline=None)
@given(data=st.data(), n=st.integers(0, LARGEST), m=st.integers(0, LARGEST), scale=st.sampled_from([1, 100]))
def test_equal_to_plain_sums_in_all_and_by_group(data, n, m, scale):
    made = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    space = max(n, m, 1) * data.draw(st.sampled_from([1, 3]))
    reach = 10 ** data.draw(st.sampled_from([0, 4, 13]))
    left = pd.DataFrame({"id": made.integers(0, space, n)})
    units = made.integers(-reach, reach + 1, (m, 2))
    right = pd.DataFrame(
        {
            "key": made.integers(0, space, m),
            "paid": [Decimal(int(one)) / scale for one in units[:, 0]],
            "owed": units[:, 1],
            "town": made.choice([*LABELS, "elsewhere"], m) if m else np.array([], dtype=str),
        }
    )
    most = int(right["key"].value_counts().max()) * reach if m else reach
    bounds = psi.Bounds(str(Fraction(-most, scale)), str(Fraction(most, scale)), scale)
    values = {"paid": bounds, "owed": psi.Bounds(-most, most)}
    matched = right[right["key"].isin(left["id"])]
    count, least = matched["key"].nunique(), data.draw(st.integers(1, 4))
    for by in (None, {"town": [*LABELS, "nowhere"]}):
        ask = {"on": {"id": "key"}, "values": values, "by": by, "min_group": least}
        if count < least:
            with pytest.raises(Refused, match="fewer than"):
                psi.intersect_sum(left, typed(right), **ask)
            continue
        found = psi.intersect_sum(left, typed(right), **ask)
        assert found.count == count
        for group in [None] if by is None else by["town"]:
            rows = matched if group is None else matched[matched["town"] == group]
            keys = rows["key"].nunique()
            if group is not None and keys < least:
                assert found.sum("paid", group) is None and group in found.left_out
                continue
            assert found.sum("paid", group) == Fraction(sum(rows["paid"], Decimal(0)))
            assert found.sum("owed", group) == int(rows["owed"].sum())
            assert found.mean("owed", group) == Fraction(int(rows["owed"].sum()), keys)


def typed(right):
    """The table with types, also where it is empty."""
    schema = {"key": pa.int64(), "paid": pa.decimal128(38, 2), "owed": pa.int64(), "town": pa.string()}
    return pa.table({name: pa.array(right[name].tolist(), kind) for name, kind in schema.items()})


LEFT = {"id": [f"k{i}" for i in range(15, 60)]}
RIGHT = {
    "id": [f"k{i}" for i in range(30)],
    "paid": list(range(30)),
    "town": ["a", "b", "c"] * 10,
}
ON = {"on": "id", "values": {"paid": psi.Bounds(0, 100)}}


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 5), (5, 0), (1, 1), (1, 40), (40, 1), (33, 21)])
@pytest.mark.parametrize("by", [None, {"odd": [0, 1]}])
def test_any_two_sizes(n, m, by):
    left = {"id": np.arange(n)}
    right = {"id": np.arange(n // 2, n // 2 + m), "v": np.arange(m), "odd": np.arange(m) % 2}
    shared = [i - n // 2 for i in range(n) if n // 2 <= i < n // 2 + m]
    ask = {"on": "id", "values": ["v"], "by": by, "min_group": 1}
    if not shared:
        with pytest.raises(Refused):
            psi.intersect_sum(left, right, **ask)
        return
    found = psi.intersect_sum(left, right, **ask)
    assert found.count == len(shared)
    if by is None:
        assert found.sum("v") == sum(shared)
    else:
        sums = [sum(i for i in shared if i % 2 == odd) for odd in (0, 1)]
        assert [found.sum("v", odd) or 0 for odd in (0, 1)] == sums


def test_what_it_says_of_itself():
    found = psi.intersect_sum(LEFT, RIGHT, **ON, by={"town": ["a", "b", "x"]}, min_group=5)
    assert found.protocol == "psi.sum.v1" and found.count == 15 and found.left_out == ("x",)
    assert found.to_arrow().to_pydict() == {
        "town": ["a", "b", "x"],
        "count": [5, 5, None],
        "sum_paid": [105, 110, None],
    }
    assert list(found.to_pandas()["town"]) == ["a", "b", "x"]
    assert "in each group of town" in found.leakage.provider and "at least 5" in found.leakage.consumer
    cents = psi.intersect_sum(LEFT, RIGHT, on="id", values={"paid": psi.Bounds(0, "29.00", 100)})
    assert cents.sum("paid") == 330 and cents.to_arrow().column("sum_paid").to_pylist() == [Decimal("330.00")]
    halves = psi.intersect_sum(LEFT, RIGHT, on="id", values={"paid": psi.Bounds(0, 29, 2)})
    assert halves.to_arrow().column("sum_paid").to_pylist() == [330.0]
    counted = psi.intersect_sum(LEFT, RIGHT, on="id", by={"town": ["c"]}, min_group=1)
    assert counted.to_arrow().to_pydict() == {"town": ["c"], "count": [5]}
    for wrong in (lambda: found.sum("none", "a"), lambda: found.sum("paid"), lambda: found.sum("paid", "y")):
        with pytest.raises(ParameterError):
            wrong()


def test_keys_with_several_rows_add_all_of_them_and_rows_without_a_key_nothing():
    right = {"id": ["a", "a", "b", None, " "], "v": [1, 2, 4, 8, 16], "g": ["x", "y", "x", "x", "x"]}
    found = psi.intersect_sum({"id": ["a", "b", "b"]}, right, on="id", values=["v"], min_group=1)
    assert (found.count, found.sum("v")) == (2, 7)
    found = psi.intersect_sum({"id": ["a"]}, right, on="id", values=["v"], by={"g": ["x", "y"]}, min_group=1)
    assert found.count == 1 and [found.sum("v", group) for group in "xy"] == [1, 2]


@pytest.mark.parametrize(
    ("values", "bounds", "rule"),
    [
        ([1, 101], (0, 100), "bounds"),
        ([1, -1], (0, 100), "bounds"),
        ([60, 60], (0, 100), "bounds"),  # the rows of one key
        ([1, None], (0, 100), "nulls"),
        ([1.0, float("nan")], (0, 100), "n"),
        (["1", "2"], (0, 100), "type"),
        ([2**62, 2**62], (-(2**62), 2**62), "2\\^63"),
        ([2**63 - 1, 0], (-(2**62), 2**62), "bounds"),
    ],
)
def test_what_is_out_of_bounds_is_an_error_of_the_holder_and_never_wraps(values, bounds, rule):
    right = {"id": ["a", "a"], "v": values}
    with pytest.raises(TableError, match=f"rule.*{rule}"):
        psi.intersect_sum({"id": ["a"]}, right, on="id", values={"v": psi.Bounds(*bounds)}, min_group=1)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"values": []}, "names values"),
        ({"values": "paid"}, "list of columns"),
        ({"values": ["paid", "paid"]}, "twice"),
        ({"values": {"paid": (0, 1)}}, "bounds"),
        ({"values": {f"v{i}": psi.Bounds(0, 1) for i in range(17)}}, "at most 16"),
        ({"by": {"town": []}}, "1 to 64"),
        ({"by": {"town": list(range(65))}}, "1 to 64"),
        ({"by": {"town": ["a", 1]}}, "one kind"),
        ({"by": {"town": ["a", "a"]}}, "twice"),
        ({"by": {"town": "abc"}}, "list of its groups"),
        ({"by": "town"}, "one column"),
        ({"by": {"town": ["x" * 257]}}, "256"),
        ({"by": {"town": [2**70]}}, "below 2\\^63"),
        ({"min_group": 0}, "min_group"),
        ({"min_group": True}, "min_group"),
        ({"min_group": 2**31 + 1}, "min_group"),
    ],
)
def test_terms_that_cannot_be_are_refused(asked, says):
    with pytest.raises(ParameterError, match=says):
        psi.intersect_sum(LEFT, RIGHT, **({"on": "id", "values": ["paid"]} | asked))


def test_noise_is_one_or_the_other_and_of_an_amount_that_can_be_drawn():
    for wrong in ({}, {"rho": "1", "epsilon": "1"}, {"rho": "0"}, {"epsilon": "1001"}, {"rho": 0.5}):
        with pytest.raises(ParameterError):
            psi.Noise(**wrong)
    with pytest.raises(ParameterError, match="can be drawn"):
        Terms({"v": psi.Bounds(0, 2**62)}, noise=psi.Noise(epsilon="0.000001"))
    with pytest.raises(ParameterError, match="noise is added to sums"):
        Terms({}, ("g", ("a",)), noise=psi.Noise(rho="1"))


@pytest.mark.parametrize("noise", [psi.Noise(rho="0.5"), psi.Noise(epsilon="1")], ids=["rho", "epsilon"])
@pytest.mark.statistical
def test_noise_has_the_spread_that_was_asked_for(noise):
    """Of 16 columns, each with a part of the budget: the mean square of 64 draws is within a factor 4."""
    names = [f"v{i}" for i in range(16)]
    left, right = {"id": range(20)}, {"id": range(20), "g": list("ab") * 10} | {n: [5] * 20 for n in names}
    values = dict.fromkeys(names, psi.Bounds(0, 10))
    drawn = []
    for _ in range(2):
        found = psi.intersect_sum(left, right, on="id", values=values, by={"g": ["a", "b"]}, noise=noise)
        drawn += [int(found.sum(name, group)) - 50 for name in names for group in "ab"]
    spread = noise.spread(values["v0"], 16)
    variance = float(spread if noise.epsilon is None else 2 * spread**2)
    assert spread == (Fraction(100, 1) * 16 if noise.epsilon is None else Fraction(160))
    assert variance / 4 < np.mean(np.square(drawn)) < 4 * variance
    assert "with noise" in found.leakage.consumer


def test_noise_protects_a_key_in_one_group_only():
    right = {"id": ["a", "a"], "v": [1, 2], "g": ["x", "y"]}
    ask = {"on": "id", "values": {"v": psi.Bounds(0, 9)}, "by": {"g": ["x", "y"]}, "min_group": 1}
    with pytest.raises(TableError, match="two groups"):
        psi.intersect_sum({"id": ["a"]}, right, **ask, noise=psi.Noise(rho="1"))


def test_the_charge_is_a_function_of_what_is_declared():
    keyed = {"columns": ["id"], "keys": "0" * 64}
    terms = Terms({"paid": psi.Bounds(0, "10.5", 10)}, ("town", ("a", "b")), 7, psi.Noise(epsilon="0.25"))
    params = OPERATION.check(keyed | terms.to_document(), Sizes(30, 40))
    assert (
        Terms.from_document(params).to_document() == terms.to_document()
        and OPERATION.check(params, Sizes(30, 40)) == params
    )
    usage = OPERATION.bound(params, Sizes(30, 40))
    assert (usage.calls, usage.rows, usage.epsilon, usage.rho) == (1, 30, 250_000_000_000, 0)
    scope = OPERATION.scope(params)
    assert scope.columns == ("id", "paid", "town") and scope.min_group == 7
    assert OPERATION.output(params) is OutputForm.AGGREGATE
    for wrong in (
        {"values": [["paid", 0, 1]]},
        {"values": [["paid", 0.5, 1, 1]]},
        {"values": [["paid", "0", "1", 1], ["paid", "0", "1", 1]]},
        {"values": None},
        {"values": [["paid", "1e999999999", "1", 1]]},
        {"values": [["paid", "0", "", 1]]},
        {"by": ["town"]},
        {"by": "town"},
        {"noise": {"sigma": "1"}},
        {"noise": 1},
        {"output": "rows"},
        {"columns": []},
        {"keys": "x"},
    ):
        with pytest.raises(ParameterError):
            OPERATION.check(params | wrong, Sizes(30, 40))


class Recorded:
    """Both parties, and what they sent."""

    def __init__(self, terms, n=20, m=30):
        self.terms, self.sizes, self.sent = terms, Sizes(n, m), []
        keys = np.zeros((n + m, 32), np.uint8)
        keys[:, 0] = [*range(n), *range(n // 2, n // 2 + m)]
        cells = np.ones((m, terms.slots), np.int64)
        self.consumer = parties.consumer(keys[:n], terms, self.sizes, Rng.from_os())
        self.provider = parties.provider(
            lambda: parties.Holder(keys[n:], cells), terms, self.sizes, Rng.from_os()
        )

    def run(self, change=lambda kind, columns: None):
        """Messages of both go through ``change``; returns what each side learnt."""
        sides, results = [self.consumer, self.provider], [None, None]
        pending = [next(self.consumer), next(self.provider)]
        while any(isinstance(one, Send) for one in pending):
            mine = 0 if isinstance(pending[0], Send) else 1
            message = pending[mine].message
            columns = {name: np.array(values) for name, values in message.columns.items()}
            change(message.kind, columns)
            self.sent.append((mine, message.kind, pending[mine].releases, columns))
            assert isinstance(pending[1 - mine], Receive)
            for side, value in ((1 - mine, Message(message.kind, columns)), (mine, None)):
                try:
                    pending[side] = sides[side].send(value)
                except StopIteration as stop:
                    pending[side], results[side] = None, stop.value
        return results


TERMS = Terms({"v": psi.Bounds(0, 9)}, min_group=3)
GROUPED = Terms({"v": psi.Bounds(0, 9)}, ("g", ("a",)), min_group=3)


def test_nothing_is_out_before_a_message_that_releases_and_bytes_are_as_declared():
    for terms in (TERMS, GROUPED):
        run = Recorded(terms)
        found, counted = run.run()
        assert found.count == counted.count == 10
        assert found.groups[0].count == 10 and found.groups[0].sums == (10,)
        kinds = [(kind, releases) for _, kind, releases, _ in run.sent]
        assert kinds == [
            ("asked", False),
            ("held", False),
            ("table", False),
            ("compared", False),
            ("matched", True),
            ("chosen", False),
            ("sums", True),
        ]
        sent = sum(values.nbytes for *_, columns in run.sent for values in columns.values())
        assert sent == parties.message_bytes(terms, run.sizes)


def test_too_few_keys_are_told_nothing_not_even_how_many():
    terms = Terms({"v": psi.Bounds(0, 9)}, min_group=11)
    run = Recorded(terms)
    found, counted = run.run()
    assert found.count is None and found.groups == () and counted.count == 10
    assert [kind for _, kind, _, _ in run.sent][-1] == "matched"
    assert not run.sent[-1][3]["bits"].any()


def test_a_provider_touches_nothing_before_the_peer_has_spoken():
    class Untouchable:
        def __getattr__(self, name):
            raise AssertionError("touched")

    assert isinstance(next(parties.provider(Untouchable(), TERMS, Sizes(2, 2), Untouchable())), Receive)


def altered(kind, column, do):
    def change(sent, columns):
        if sent == kind:
            do(columns[column])

    return change


def put(values, at, what):
    values[at] = what


@pytest.mark.parametrize(
    ("kind", "column", "do"),
    [
        ("asked", "point", lambda one: put(one, 3, 0)),
        ("asked", "point", lambda one: put(one, 3, 255)),
        ("held", "point", lambda one: put(one, 3, 0)),
        ("held", "point", lambda one: put(one, 3, 255)),
        ("compared", "value", lambda one: put(one, slice(None), one[::-1].copy())),
        ("table", "body", lambda one: put(one, 0, 255)),
        ("matched", "enough", lambda one: put(one, 0, 2)),
        ("matched", "enough", lambda one: put(one, 0, 0)),
        ("matched", "bits", lambda one: put(one, slice(None), 255)),
        ("matched", "bits", lambda one: put(one, slice(None), 0)),
        ("chosen", "sum", lambda one: put(one, (0, 1), 255)),
        ("sums", "count", lambda one: put(one, 0, 99)),
        ("sums", "count", lambda one: put(one, 0, -1)),
        ("sums", "sum", lambda one: put(one, (0, 0), 255)),
    ],
)
@pytest.mark.parametrize("terms", [TERMS, GROUPED], ids=["all", "grouped"])
def test_what_cannot_be_is_refused(kind, column, do, terms):
    with pytest.raises(RemoteProtocolError):
        Recorded(terms).run(altered(kind, column, do))


@pytest.mark.parametrize("kind", ["table", "chosen"])
def test_an_altered_ciphertext_gives_no_sum_but_an_error(kind):
    """A flipped bit moves what is decrypted by up to 2^99: a sum within the bounds has probability 2^-36."""

    def change(sent, columns):
        if sent == kind:
            columns["body" if kind == "table" else "sum"][0, 0, 100:120] ^= 1

    with pytest.raises(RemoteProtocolError):
        Recorded(TERMS).run(change)


def test_choosing_more_than_matched_shows_in_the_counts():
    """A count of each group is decrypted: rows chosen twice, or that do not match, go beyond the number of matches."""
    of = GROUPED.shape(20, 30)
    run = Recorded(GROUPED)
    tables = []

    def change(kind, columns):
        if kind == "table":
            tables.append((columns["seed"], columns["body"]))
        if kind == "chosen":
            everything = np.arange(20)
            columns["sum"][:], _ = parties.chosen_sums.choose(
                of, tables[0], everything, open_slots=parties._counts(GROUPED), rng=Rng.from_os()
            )

    with pytest.raises(RemoteProtocolError, match="other rows"):
        run.run(change)


def test_secrets_are_fresh_and_orders_meaningless():
    runs = [Recorded(TERMS) for _ in range(2)]
    for run in runs:
        run.run()
    for (_, kind, _, one), (_, _, _, other) in zip(runs[0].sent, runs[1].sent, strict=True):
        if kind in ("asked", "held", "compared"):
            (a,), (b,) = one.values(), other.values()
            assert not (a == b).all(axis=1).any(), kind


def test_orders_are_shuffled_by_both():
    """With both secrets fixed, only permutations differ between seeds that agree on nothing else."""
    keys = np.zeros((8, 32), np.uint8)
    keys[:, 0] = range(8)
    orders = set()
    for _ in range(12):
        party = parties.consumer(keys, TERMS, Sizes(8, 8), Rng.from_os())
        first = next(party).message["point"]
        orders.add(tuple(np.argsort(first[:, 0]).tolist()))
    assert len(orders) > 6


def test_executors_change_nothing():
    wanted = psi.intersect_sum(LEFT, RIGHT, **ON)
    with ThreadPoolExecutor(2) as threads:
        assert psi.intersect_sum(LEFT, RIGHT, **ON, executor=threads).groups == wanted.groups
        big = {"id": np.arange(1100), "paid": np.ones(1100, np.int64)}
        if not REFERENCE:
            found = psi.intersect_sum({"id": np.arange(550, 1650)}, big, **ON, executor=threads)
            assert (found.count, found.sum("paid")) == (550, 550)


@pytest.mark.slow
def test_processes_change_nothing():
    with ProcessPoolExecutor(2) as processes:
        assert psi.intersect_sum(LEFT, RIGHT, **ON, executor=processes).sum("paid") == 330


def test_both_sides_hold_one_transcript():
    run = Recorded(TERMS)
    binding = Binding("", OPERATION.id, {}, "consumer", "provider")
    found = run_local(run.consumer, run.provider, binding)
    assert found.cost.turns == 3 and found.consumer.count == 10
