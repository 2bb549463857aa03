"""Answers are right where noise is small, keep the declared rules whatever the data, and refuse before they read."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trustcompute import dp, tables
from trustcompute.dp import bounding, spill, totals
from trustcompute.dp import measure as measuring
from trustcompute.dp import plan as planning
from trustcompute.dp.bounding import KEY_BYTES
from trustcompute.errors import ParameterError, TableError, TrustcomputeError

KEY = bytes(range(32))
GENEROUS = dp.zcdp(1000)
N = 3000


def flights(seed=1):
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "plane": [f"N{i}" for i in random.integers(0, 400, N)],
            "origin": random.choice(["EWR", "JFK", "LGA"], N),
            "carrier": random.choice(["AA", "UA"], N),
            "delay": random.normal(10, 20, N),
            "minutes": random.integers(30, 600, N),
        }
    )


TABLE = flights()
UNIT = dp.PrivacyUnit("plane", groups=6, rows_per_group=20)
EVERYTHING = [
    dp.count(),
    dp.distinct(),
    dp.sum("minutes", 0, 600),
    dp.mean("delay", -50, 80),
    dp.variance("delay", -50, 80),
    dp.quantile("minutes", ["0.25", "0.5", "0.9"], 0, 600),
    dp.histogram("minutes", [0, 100, 300, 600]),
    dp.top_k("carrier", 1, ["AA", "UA", "XX"]),
]


@pytest.fixture
def noiseless(monkeypatch):
    for name in ("discrete_laplace", "discrete_gaussian"):
        monkeypatch.setattr(measuring, name, lambda rng, scale, count: np.zeros(count, dtype=np.int64))


def test_with_a_generous_budget_answers_are_those_of_the_table():
    frame = TABLE.to_pandas()
    found = (
        dp.release(TABLE, EVERYTHING, by="origin", unit=UNIT, budget=GENEROUS).to_pandas().set_index("origin")
    )
    assert found.index.tolist() == ["EWR", "JFK", "LGA"]
    for origin, rows in frame.groupby("origin"):
        answer = found.loc[origin]
        assert abs(answer["count"] - len(rows)) < 30
        assert abs(answer["distinct"] - rows.plane.nunique()) < 5
        assert answer["sum_minutes"] == pytest.approx(rows.minutes.sum(), abs=20_000)
        assert answer["mean_delay"] == pytest.approx(rows.delay.mean(), abs=2)
        assert answer["variance_delay"] == pytest.approx(rows.delay.var(), rel=0.4)
        assert abs(answer["quantile_minutes_0.5"] - rows.minutes.median()) < 30
        assert (
            answer["quantile_minutes_0.25"] < answer["quantile_minutes_0.5"] < answer["quantile_minutes_0.9"]
        )
        seen = np.histogram(rows.minutes, [0, 100, 300, 600])[0]
        assert np.abs(np.array(answer["histogram_minutes"]) - seen).max() < 40
        assert answer["top_k_carrier"][0] in ("AA", "UA")


def test_without_noise_answers_are_exact(noiseless):
    found = dp.release(TABLE, EVERYTHING[:5], unit=UNIT, budget=GENEROUS).to_arrow().to_pylist()[0]
    frame = TABLE.to_pandas()
    assert found["count"] == N and found["distinct"] == frame.plane.nunique()
    assert found["sum_minutes"] == frame.minutes.sum()
    clamped = frame.delay.clip(-50, 80)
    assert found["mean_delay"] == pytest.approx(clamped.mean(), abs=1e-6)
    assert found["variance_delay"] == pytest.approx(clamped.var(ddof=0), abs=0.05)


@pytest.mark.parametrize(
    "budget", [dp.pure(900), dp.zcdp(900), dp.approx(900, "1e-6"), dp.pure(900, as_zcdp=True)]
)
def test_every_kind_of_budget(budget):
    found = dp.release(TABLE, EVERYTHING, by=dp.public("origin", ["JFK", "ZZZ"]), unit=UNIT, budget=budget)
    table = found.to_pandas().set_index("origin")
    assert table.index.tolist() == ["JFK", "ZZZ"], "public groups are reported in their order, found or not"
    assert abs(table.loc["ZZZ", "count"]) < 200 < table.loc["JFK", "count"]
    assert found.cost == budget.loss if budget.kind == "approx" else found.cost.delta == 0


def test_bounding_does_not_see_the_order_of_rows(noiseless):
    unit = dp.PrivacyUnit("plane", groups=2, rows_per_group=2)
    shuffled = TABLE.take(np.random.default_rng(5).permutation(N))
    answers = [
        dp.release(
            one, EVERYTHING[:5], by=["origin", "carrier"], unit=unit, budget=GENEROUS, bounding_key=key
        )
        for one, key in ((TABLE, KEY), (shuffled, KEY), (TABLE, bytes(32)))
    ]
    first, again, other = (one.measured.values for one in answers)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other), "another key leaves others out"


def test_bounding_keeps_as_many_as_it_may(noiseless):
    frame = TABLE.to_pandas()
    unit = dp.PrivacyUnit("plane", groups=2, rows_per_group=2)
    found = dp.release(
        TABLE, [dp.count(), dp.distinct()], by="origin", unit=unit, budget=GENEROUS
    ).to_pandas()
    pairs = frame.groupby(["plane", "origin"]).size()
    assert found["distinct"].sum() == pairs.groupby("plane").size().clip(upper=2).sum()
    per_group = pairs.clip(upper=2)
    assert found["count"].sum() <= per_group.sum()
    assert found["count"].sum() >= per_group.groupby("plane").apply(lambda one: one.nsmallest(2).sum()).sum()


@pytest.mark.parametrize("source", ["memory", "file"])
def test_a_table_that_is_spilled_gives_the_same_answer(noiseless, monkeypatch, tmp_path, source):
    """Rows in parts on disk, a small part and a small piece at a time: the totals are those of the whole."""
    unit = dp.PrivacyUnit("plane", groups=2, rows_per_group=3)
    table: object = TABLE
    if source == "file":
        table = tmp_path / "flights.parquet"
        pq.write_table(TABLE, table)
    asked = {"unit": unit, "budget": dp.zcdp(1000, "0.1"), "bounding_key": KEY}
    for by in ((), dp.public("origin", ["JFK", "ZZZ"]), ["origin", "carrier"]):
        whole = dp.release(table, EVERYTHING[:5] + EVERYTHING[6:7], by=by, **asked)
        with monkeypatch.context() as patch:
            patch.setattr(spill, "MOST_ROWS", 500)
            patch.setattr(spill, "PARTS", 7)
            patch.setattr(spill, "CHUNK", 700)
            patch.setattr(totals, "CHUNK", 100)
            patch.setattr(bounding, "CHUNK", 90)
            patch.setattr(spill.tempfile, "tempdir", str(tmp_path / "spilled"))
            (tmp_path / "spilled").mkdir(exist_ok=True)
            parts = dp.release(table, EVERYTHING[:5] + EVERYTHING[6:7], by=by, **asked)
        assert parts.measured.labels == whole.measured.labels
        assert np.array_equal(parts.measured.values, whole.measured.values)
        assert not list((tmp_path / "spilled").iterdir()), "nothing stays on disk"
    chosen = dp.release(
        table, [dp.quantile("minutes", "0.5", dp.private()), EVERYTHING[7]], by="origin", **asked
    ).to_pandas()
    assert len(chosen) == 3 and np.all(np.abs(chosen["quantile_minutes_0.5"] - 315) < 40)


def test_rows_that_are_units_are_spilled_too(noiseless, monkeypatch):
    monkeypatch.setattr(spill, "MOST_ROWS", 500)
    monkeypatch.setattr(spill, "PARTS", 7)
    found = dp.release(TABLE, [dp.count(), dp.sum("minutes", 0, 600)], budget=GENEROUS)
    assert found.measured.values.tolist() == [[N, TABLE["minutes"].to_numpy().sum()]]


def test_equal_leading_digits_of_a_hash_are_told_apart_by_the_rest():
    """Which entries stay depends on their own hashes alone: not on how many others there are, nor on order."""
    random = np.random.default_rng(4)
    owner = np.repeat(np.arange(50), random.integers(1, 9, 50))
    rank = random.integers(0, 3, len(owner)).astype(np.uint64) << np.uint64(62) | random.permutation(
        len(owner)
    ).astype(np.uint64)
    keep = bounding.lowest(owner, lambda at: rank[at], 2)
    for one in range(50):
        own = np.flatnonzero(owner == one)
        assert set(own[keep[own]]) == set(own[np.argsort(rank[own])[:2]])


def test_bounds_are_found_within_the_budget():
    random = np.random.default_rng(2)
    table = pa.table({"x": random.normal(40, 10, 50_000), "n": random.integers(1, 1000, 50_000)})
    asked = [dp.mean("x", dp.private()), dp.sum("n", dp.private(0, 10**6)), dp.variance("x", dp.private())]
    for budget in (dp.zcdp("0.5"), dp.pure("3")):
        found = dp.release(table, asked, budget=budget)
        answer = found.to_arrow().to_pylist()[0]
        assert answer["mean_x"] == pytest.approx(40, abs=1) and answer["variance_x"] == pytest.approx(
            100, rel=0.3
        )
        assert answer["sum_n"] == pytest.approx(table["n"].to_numpy().sum(), rel=0.02)
        assert sum("found privately" in rule for rule in found.rules) == 3
        low, high = found.plan.aggregates[1].low, found.plan.aggregates[1].high
        assert 0 <= low <= 4 and 1000 < high <= 2**14, "a step further, now and then"
        assert sum("sparse vectors" in line for line in found.proof) == 3
        assert found.cost == budget.without_delta().loss
        quoted = dp.quote(table.schema, asked, budget=budget)
        assert quoted.accuracy["mean_x"].half_width > found.accuracy["mean_x"].half_width
    narrow = dp.release(
        pa.table({"x": np.full(5000, 5)}), [dp.mean("x", dp.private(0, 100))], budget=dp.zcdp(1)
    )
    low, high = narrow.plan.aggregates[0].low, narrow.plan.aggregates[0].high
    assert 0 <= low <= 4 and 8 <= high <= 100


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_bounds_of_next_to_nothing_are_some_bounds(rows):
    table = pa.table({"x": pa.array([float("nan"), float("inf"), None][:rows], pa.float64())})
    for _ in range(5):
        found = dp.release(table, [dp.mean("x", dp.private(-5, 5)), dp.count()], budget=dp.zcdp("0.1"))
        assert -5 <= found.to_arrow()["mean_x"][0].as_py() <= 5


HOSTILE = pa.table(
    {
        "u": pa.array(["a", None, "b", "c", "d", "e"], pa.string()),
        "g": pa.array(["x", "x", None, "y", "", "z\0z"], pa.string()),
        "f": pa.array([float("nan"), float("inf"), -float("inf"), 1e308, None, -1e308], pa.float64()),
        "i": pa.array([2**63 - 1, -(2**63), 0, None, 7, 2**62], pa.int64()),
        "d": pa.array([None, 1, 2, 3, 4, 5], pa.decimal128(38, 0)),
        "b": pa.array([True, None, False, True, True, True]),
    }
)
ON_HOSTILE = [
    one for name in "fidb" for one in (dp.sum(name, -10, 10), dp.variance(name, 0, 1), dp.count(name))
]
ON_HOSTILE += [dp.quantile("f", "0.5", 0, 1), dp.histogram("i", [0, 1]), dp.top_k("g", 1, ["x", "zz"])]


@pytest.mark.parametrize("by", [(), "g", ["g", "b"], dp.public("i", [7, 2**63 - 1])], ids=str)
@pytest.mark.parametrize("table", [HOSTILE, HOSTILE[:0], HOSTILE[1:2]], ids=["six", "none", "one"])
@pytest.mark.parametrize(
    "unit", [dp.PrivacyUnit("u", 2, 2), dp.PrivacyUnit("i"), None], ids=["u", "i", "rows"]
)
def test_no_data_raise_an_error(by, table, unit):
    asked = [one for one in ON_HOSTILE if not (isinstance(by, dp.Group) and one.column == "i")]
    if unit is not None and unit.column == "i" and isinstance(by, dp.Group):
        return
    found = dp.release(table, asked, by=by, unit=unit, budget=dp.zcdp("0.1"))
    assert set(found.to_arrow().column_names) >= {one.name for one in asked if one.kind != "quantile"}


def test_values_that_are_not_numbers_are_left_out_and_infinities_clamped(noiseless):
    found = dp.release(HOSTILE, [dp.sum("f", -10, 4), dp.count("f"), dp.mean("f", -10, 4)], budget=GENEROUS)
    answer = found.to_arrow().to_pylist()[0]
    assert (
        answer["sum_f"] == 4 - 10 + 4 - 10 and answer["count_f"] == 5
    )  # NaN is a value of the column, no number
    assert answer["mean_f"] == pytest.approx((4 - 10 + 4 - 10) / 4)
    found = dp.release(HOSTILE, [dp.count()], by="g", unit=dp.PrivacyUnit("u"), budget=dp.zcdp(1000, "0.5"))
    assert sum(found.to_pandas()["count"]) <= 6, (
        "rows without a unit or a group do not count, nor may noise be large"
    )


def test_text_in_a_number_column_of_a_file_is_missing(noiseless, tmp_path):
    """Rules for whatever a row may hold; to raise for it would tell that it is there."""
    path = tmp_path / "hostile.csv"
    path.write_bytes(
        b"u,x,n,b,s\na,1.5,3,true,A\nb,abc,4x,maybe,B\nc,,99999999999999999999,0,\xff\xfe\nd,1e999,-5,FALSE,A\n"
        b"e,nan,300,1,A\nf,0x10,7,,\ng,-1e999,-300,yes,A\n"
    )
    types = {"x": pa.float64(), "n": pa.int16(), "b": pa.bool_()}
    table = tables.open_table(path, types=types)
    asked = [
        dp.sum("x", -10, 10),
        dp.sum("n", -1000, 1000),
        dp.count("b"),
        dp.sum("b", 0, 1),
        dp.count("s"),
        dp.count(),
    ]
    found = dp.release(table, asked, budget=GENEROUS).to_arrow().to_pylist()[0]
    assert found == {"sum_x": 1.5, "sum_n": 5.0, "count_b": 4, "sum_b": 2.0, "count_s": 7, "count": 7}
    for kind, wanted in ((pa.int8(), 5.0), (pa.uint8(), 10.0), (pa.uint64(), 310.0)):
        narrow = tables.open_table(path, types={"n": kind})
        answer = (
            dp.release(narrow, [dp.sum("n", -1000, 1000)], budget=GENEROUS).to_arrow()["sum_n"][0].as_py()
        )
        assert answer == wanted, "what does not fit its type is missing"
    grouped = dp.release(table, [dp.count()], by=["s"], budget=dp.zcdp(900, "0.5")).to_arrow()
    assert set(grouped["s"].to_pylist()) <= {"A", "B", "", "\ufffd\ufffd"}


def test_unknown_groups_need_units_and_public_ones_do_not():
    rare = pa.table({"u": range(1001), "g": ["common"] * 1000 + ["rare"]})
    found = dp.release(rare, [dp.count()], by="g", unit=dp.PrivacyUnit("u"), budget=dp.zcdp("0.5", "1e-12"))
    assert found.to_pandas()["g"].tolist() == ["common"]
    assert found.cost.delta == Fraction("1e-12")
    least = dp.release(
        rare, [dp.count()], by="g", unit=dp.PrivacyUnit("u"), budget=dp.zcdp("0.5", "1e-12"), least_units=2000
    )
    assert least.to_arrow().num_rows == 0
    known = dp.PrivacyUnit("u", known={"g": ["common", "rare", "never"]})
    assert len(dp.release(rare, [dp.count()], by="g", unit=known, budget=dp.zcdp("0.5")).to_pandas()) == 3


def refused(**changes):
    arguments = {"aggregates": [dp.count()], "by": (), "unit": UNIT, "budget": dp.zcdp("0.1")} | changes
    aggregates = arguments.pop("aggregates")
    dp.release(TABLE, aggregates, **arguments)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: dp.mean("delay"), "low is missing"),
        (lambda: dp.mean("delay", 0), "high is missing"),
        (lambda: dp.mean("delay", 3, 1), "wrong way round"),
        (lambda: dp.mean("delay", dp.private(3, 1)), "wrong way round"),
        (lambda: dp.mean("delay", dp.private(), 1), "both bounds"),
        (lambda: dp.Aggregate("count", private=True), "private bounds"),
        (lambda: dp.mean("delay", 1, 1), "wrong way round"),
        (lambda: dp.sum("delay", 0.5, 1), "floats are inexact"),
        (lambda: dp.sum("delay", "nan", 1), "not a number"),
        (lambda: dp.sum("delay", 0, 2**63), "2\\^62"),
        (lambda: dp.zcdp(0), "rho must lie"),
        (lambda: dp.zcdp("-1"), "not negative"),
        (lambda: dp.zcdp("nan"), "not negative"),
        (lambda: dp.zcdp("inf"), "not negative"),
        (lambda: dp.zcdp(10**9), "rho must lie"),
        (lambda: dp.zcdp(0.1), "floats"),
        (lambda: dp.pure("abc"), "epsilon must be"),
        (lambda: dp.approx(1, 0), "delta above 0"),
        (lambda: dp.approx(1, "0.9"), "delta must be 0"),
        (lambda: dp.quantile("delay", ["1"], 0, 1), "between 0 and 1"),
        (lambda: dp.histogram("delay", [3, 1]), "ascend"),
        (lambda: dp.top_k("carrier", 3, ["AA"]), "k"),
        (lambda: dp.PrivacyUnit("u", groups=0), "groups"),
        (lambda: dp.PrivacyUnit("u", rows_per_group=True), "rows_per_group"),
        (lambda: dp.PrivacyUnit(None, groups=2), "each row"),
        (lambda: dp.public("g", []), "at least one"),
        (lambda: refused(aggregates=[dp.mean("nothing", 0, 1)]), "nothing"),
        (lambda: refused(aggregates=[dp.mean("carrier", 0, 1)]), "takes numbers"),
        (lambda: refused(aggregates=[dp.count(), dp.count()]), "once"),
        (lambda: refused(aggregates=[]), "1 to 64"),
        (lambda: refused(by="delay"), "group by text"),
        (lambda: refused(by="plane"), "own column"),
        (lambda: refused(by="origin", budget=dp.pure(1)), "delta"),
        (lambda: refused(by="origin", budget=dp.zcdp(1, 0)), "delta"),
        (lambda: refused(by=dp.public("origin", [3])), "of its type"),
        (lambda: refused(by="nothing"), "nothing"),
        (lambda: refused(unit=dp.PrivacyUnit("nothing")), "nothing"),
        (lambda: refused(aggregates=[dp.quantile("delay", ["0.33333333"], 0, 1)]), "multiples"),
        (lambda: refused(bounding_key=b"short"), f"{KEY_BYTES} bytes"),
        (lambda: refused(least_units=0), "least_units"),
        (
            lambda: refused(
                aggregates=[dp.histogram("delay", range(500))],
                by=dp.public("origin", [str(i) for i in range(50_000)]),
            ),
            "groups at most",
        ),
        (
            lambda: refused(
                aggregates=[dp.top_k("carrier", 300, [str(i) for i in range(300)])],
                by=dp.public("origin", [str(i) for i in range(5000)]),
                budget=dp.zcdp(900),
            ),
            "groups at most",
        ),
        (lambda: refused(aggregates=[dp.sum("delay", 0, 1)], budget=dp.pure("0.000000001")), "any use"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(change, says, monkeypatch):
    monkeypatch.setattr(measuring, "_bounded", lambda *_: pytest.fail("the data were touched"))
    with pytest.raises((ParameterError, TableError), match=says) as error:
        change()
    assert isinstance(error.value, TrustcomputeError)


def test_outputs_lie_on_a_lattice_that_the_data_do_not_move():
    """What breaks naive noise: two tables whose floating-point answers come from different sets (Mironov 2012)."""
    seen = []
    for offset in (0.0, 0.1234567891234):
        table = pa.table({"x": np.full(50, offset)})
        answers = [
            dp.release(table, [dp.sum("x", 0, "0.7")], budget=dp.zcdp("0.5")).to_arrow()["sum_x"][0].as_py()
            for _ in range(40)
        ]
        seen.append(answers)
    found = dp.release(TABLE, [dp.sum("delay", 0, "0.7")], budget=dp.zcdp("0.5"))
    step = found.plan.lattice(0).step
    assert step.numerator == 1 and step.denominator & (step.denominator - 1) == 0, "a power of two"
    assert all((Fraction(answer) / step).denominator == 1 for answers in seen for answer in answers)


def test_accuracy_covers_what_noise_does():
    table = pa.table({"x": np.arange(1000) % 7})
    asked = [dp.count(), dp.sum("x", 0, 7), dp.mean("x", 0, 7), dp.variance("x", 0, 7)]
    truth = np.array(
        [1000, (np.arange(1000) % 7).sum(), np.mean(np.arange(1000) % 7), np.var(np.arange(1000) % 7)]
    )
    for budget in (dp.zcdp("0.5"), dp.pure("1")):
        inside, within = np.zeros(4), np.zeros(4)
        quoted = dp.quote(table.schema, asked, budget=budget)
        widths = np.array([quoted.accuracy[one.name].half_width for one in asked])
        for _ in range(120):
            found = dp.release(table, asked, budget=budget)
            answer = np.array([found.to_arrow()[one.name][0].as_py() for one in asked])
            ends = found.intervals()
            low = np.array([ends[f"{one.name}_low"][0].as_py() for one in asked])
            high = np.array([ends[f"{one.name}_high"][0].as_py() for one in asked])
            inside += (low <= truth) & (truth <= high)
            within += np.abs(answer - truth) <= widths
        assert np.all(inside >= 120 * 0.88) and np.all(within >= 120 * 0.88)
        assert widths[0] < 25


def test_a_quote_reads_nothing_and_agrees_with_the_release():
    asked = [dp.count(), dp.mean("delay", -30, 180)]
    quoted = dp.quote(TABLE.schema, asked, by="origin", unit=UNIT, budget=dp.zcdp("0.05"))
    found = dp.release(TABLE, asked, by="origin", unit=UNIT, budget=dp.zcdp("0.05"))
    assert (quoted.cost, quoted.accuracy, quoted.proof) == (found.cost, found.accuracy, found.proof)
    assert quoted.cost.rho == Fraction(1, 20) and quoted.cost.delta == Fraction(1, 10**9)
    assert any("optimal partition selection" in line for line in found.proof)
    assert any("clamped to [-30, 180]" in rule for rule in found.rules)
    assert any("suppressed" in rule for rule in found.rules)


def test_the_least_budget_for_an_error():
    schema = pa.schema([("x", pa.int64())])
    for kind in (dp.zcdp(1), dp.pure(1)):
        found = dp.least_budget(schema, [dp.count()], errors={"count": 10}, budget=kind)
        assert dp.quote(schema, [dp.count()], budget=found).accuracy["count"].half_width <= 10
        smaller = dp.Budget(found.kind, found.main * Fraction(7, 10), found.delta)
        assert dp.quote(schema, [dp.count()], budget=smaller).accuracy["count"].half_width > 10
    with pytest.raises(ParameterError, match="named"):
        dp.least_budget(schema, [dp.count()], errors={"sum": 1}, budget=dp.zcdp(1))
    with pytest.raises(ParameterError, match="accurate"):
        dp.least_budget(schema, [dp.count()], errors={"count": 0}, budget=dp.zcdp(1))


def test_post_processing_is_explicit_and_named():
    empty = pa.table({"g": pa.array([], pa.string())})
    names = [str(i) for i in range(50)]
    found = dp.release(empty, [dp.count()], by=dp.public("g", names), budget=dp.zcdp("0.01"))
    assert min(found.to_arrow()["count"].to_pylist()) < 0 and found.steps == ()
    clean = found.non_negative()
    assert min(clean.to_arrow()["count"].to_pylist()) == 0 and clean.steps == ("non-negative counts",)
    assert found.steps == () and clean.cost == found.cost


def test_what_was_measured_several_times_becomes_one_number():
    table = pa.table({"x": np.arange(2000) % 10, "g": ["a", "b"] * 1000})
    asked = [dp.mean("x", 0, 10), dp.variance("x", 0, 10), dp.histogram("x", [0, 2, 5, 10]), dp.count("x")]
    before, after = np.zeros(3), np.zeros(3)
    for _ in range(60):
        found = dp.release(table, asked, by=dp.public("g", ["a", "b"]), budget=dp.zcdp("0.02"))
        clean = found.consistent()
        for release, error in ((found, before), (clean, after)):
            values = release.measured.values
            totals = [values[:, 0], values[:, 2], values[:, 5:8].sum(axis=1)]
            error += [np.abs(total - 1000).sum() for total in totals]
        assert np.array_equal(totals[0], totals[1]) and np.array_equal(totals[0], totals[2])
        changed = np.flatnonzero((clean.measured.values != found.measured.values).any(axis=0))
        assert set(changed) <= {0, 2, 5, 6, 7}, "a count of x also counts NaN: it is another number"
    assert np.all(after < 0.95 * before), "the average is nearer the truth than any of them"
    assert clean.non_negative().steps == ("consistent counts", "non-negative counts")
    alone = dp.release(table, asked[:1], budget=dp.zcdp("0.02"))
    assert np.array_equal(alone.consistent().measured.values, alone.measured.values)


def test_a_plot_of_error_against_budget_reads_nothing():
    pytest.importorskip("matplotlib")
    schema = pa.schema([("x", pa.float64())])
    for budget, label in (
        (dp.zcdp("0.3"), "ρ"),
        (dp.pure(1), "ε"),
        (dp.approx(1, "1e-6"), "ε, at δ = 1e-06"),
    ):
        axes = dp.plot_accuracy(
            schema, [dp.count(), dp.mean("x", 0, 10)], budget=budget, amounts=["0.1", 1, 4]
        )
        lines = {line.get_label(): line for line in axes.get_lines()}
        assert set(lines) == {"count", "mean_x", "this budget"} and label in axes.get_xlabel()
        x, y = lines["count"].get_data()
        assert list(x) == sorted({0.1, 1.0, 4.0, float(budget.main)}) and list(y) == sorted(y, reverse=True)
        quoted = dp.quote(schema, [dp.count(), dp.mean("x", 0, 10)], budget=budget)
        assert y[list(x).index(float(budget.main))] == quoted.accuracy["count"].half_width
    with pytest.raises(ParameterError):
        dp.plot_accuracy(schema, [dp.sum("x", 0, 1)], budget=dp.pure("0.000000001"))


def test_more_groups_than_can_be_reported_are_cut_after_they_were_chosen(monkeypatch):
    """The last in the order of their labels are left out; whoever else is in the table changes nothing of that."""
    monkeypatch.setattr(planning, "MAX_PICKS", 6)
    table = pa.table({"g": np.repeat(list("dcba"), 200), "x": np.arange(800) % 9})
    found = dp.release(table, [dp.quantile("x", ["0.5", "0.6"], 0, 9)], by="g", budget=dp.zcdp(900, "0.5"))
    assert found.to_arrow()["g"].to_pylist() == ["a", "b", "c"]


def test_very_many_groups_in_the_data_are_a_group_each_and_next_to_none_is_reported():
    table = pa.table({"g": [f"group {i}" for i in range(200_000)], "x": np.ones(200_000)})
    found = dp.release(
        table, [dp.mean("x", 0, 2), dp.quantile("x", "0.5", 0, 2)], by="g", budget=dp.zcdp("0.1")
    )
    assert found.to_arrow().num_rows < 10


def test_any_table_will_do():
    frame = pd.DataFrame({"u": [1, 2, 3], "x": [0.5, None, 1.5]})
    for table in (frame, pa.table(frame), {"u": [1, 2, 3], "x": [0.5, None, 1.5]}):
        found = dp.release(
            table, [dp.count(), dp.sum("x", 0, 2)], unit=dp.PrivacyUnit("u"), budget=dp.zcdp(1)
        )
        assert found.to_pandas().shape == (1, 2)
    dictionary = pa.table({"g": pa.array(["a", "b"] * 50).dictionary_encode()})
    assert (
        len(dp.release(dictionary, [dp.count()], by=dp.public("g", ["a"]), budget=dp.zcdp(1)).to_pandas())
        == 1
    )
    assert set(dp.release(dictionary, [dp.count()], by="g", budget=dp.zcdp(9)).to_pandas()["g"]) == {"a", "b"}


def test_a_release_shows_no_noise_it_did_not_release():
    shown = repr(dp.release(TABLE, [dp.count()], budget=dp.zcdp("0.1")))
    assert "measured" not in shown and "values" not in shown
