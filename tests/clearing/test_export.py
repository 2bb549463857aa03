"""Statements as tables and pages: rebuilt in SQL from the exported facts, read by a real browser."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.clearing.conftest import Ledger
from trustcompute.broker.clearing import Clearing, Period, export, page
from trustcompute.broker.clearing.commands import ClosePeriod, Net
from trustcompute.broker.grant import PricePlan, Tier

PERIODS = [Period(0, 100), Period(100, 200)]

# Exact arithmetic in HUGEINT over a common denominator; the largest remainder by window functions, ties by SHA-256.
SQL = """
WITH priced AS (
    SELECT u.payer, g.grant, g.currency,
           u.calls::HUGEINT * (g.per_call_num::HUGEINT * $scale // g.per_call_den::HUGEINT)
         + u.rows::HUGEINT * (g.per_row_num::HUGEINT * $scale // g.per_row_den::HUGEINT) AS cost
    FROM uses u JOIN grants g USING (grant) WHERE g.currency IS NOT NULL
), shared AS (
    SELECT payer, party AS payee, currency,
           sum(cost * (share_num::HUGEINT * $scale // share_den::HUGEINT))::HUGEINT AS owed
    FROM priced JOIN splits USING (grant) GROUP BY ALL
    UNION ALL SELECT payer, payee, currency, owed FROM carried
), owed AS (
    SELECT payer, payee, currency, sum(owed)::HUGEINT AS owed FROM shared GROUP BY ALL
), floors AS (
    SELECT *, greatest(owed, 0) // ($scale * $scale) AS whole, greatest(owed, 0) % ($scale * $scale) AS rest,
           sha256(format('[{},{},"{}","{}","{}"]', $start, $end, payer, payee, currency)) AS lot
    FROM owed
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY payer, currency ORDER BY rest DESC, lot) AS place,
           (sum(rest) OVER (PARTITION BY payer, currency)) // ($scale * $scale) AS units
    FROM floors
)
SELECT payer, payee, currency, (whole + CASE WHEN place <= units THEN 1 ELSE 0 END)::BIGINT AS amount,
       (owed - (whole + CASE WHEN place <= units THEN 1 ELSE 0 END) * $scale * $scale)::HUGEINT AS residual
FROM ranked ORDER BY payer, payee, currency
"""
SCALE = 6300  # every rate and every share below is a whole multiple of 1/6300


def market(payers: int = 2) -> Ledger:
    """Two months of three grants in two currencies; each grant has so many payers."""
    ledger = Ledger()
    thirds = {"h1": "1/3", "h2": "1/3", "operator": "1/3"}
    ledger.grant("g1", PricePlan(kind="per_use", currency="CNY", per_call="10", per_row="0.05"), thirds)
    ledger.grant(
        "g2", PricePlan(kind="per_use", currency="CNY", per_call="1/7"), {"h2": "3/5", "public:fund": "2/5"}
    )
    ledger.grant(
        "g3", PricePlan(kind="per_use", currency="EUR", per_row="1/9"), {"h1": "9/10", "operator": "1/10"}
    )
    ledger.grant("g4", PricePlan(kind="free"))
    for period in PERIODS:
        for step in range(30):
            ledger.now = period.start + step
            usage = {"calls": 1 + step % 3, "rows": 37 * step + period.start}
            ledger.use(
                f"g{1 + step % 4}", payer=f"bank{step // 4 % payers}", usage=usage, operation=f"op{step % 2}"
            )
        ledger.now = period.end
        ledger.apply(ClosePeriod(period))
    return ledger


# No line, payer or payee may be a unit or more off what SQL finds is owed to them.
OFF = """
SELECT count(*) FROM (
    SELECT sum(l.amount)::HUGEINT * $scale * $scale - sum(f.exact) AS off
    FROM lines l JOIN found f USING (payer, payee, currency)
    GROUP BY GROUPING SETS ((payer, payee, currency), (payer, currency), (payee, currency))
) WHERE abs(off) >= $scale * $scale
"""


@pytest.mark.parametrize("payers", [1, 2])
def test_sql_over_the_exported_parquet_agrees_to_the_cent(tmp_path: Path, payers: int) -> None:
    """With one payer the largest remainder is all there is to it; with two, units move between payees as well."""
    record = market(payers).clearing()
    connection = duckdb.connect()
    connection.execute("CREATE TABLE carried (payer TEXT, payee TEXT, currency TEXT, owed HUGEINT)")
    for period in PERIODS:
        statement = record.statement(period)
        folder = tmp_path / str(period.start)
        export.write_parquet(folder, export.tables(record, statement))
        for name in ("uses", "grants", "splits", "lines"):
            connection.execute(f"CREATE OR REPLACE VIEW {name} AS FROM '{folder}/{name}.parquet'")
        found = connection.execute(SQL, {"scale": SCALE, "start": period.start, "end": period.end}).fetchall()
        theirs = connection.execute(
            "SELECT payer, payee, currency, amount, "
            f"(residual_num::HUGEINT * {SCALE * SCALE} // residual_den::HUGEINT) FROM lines ORDER BY ALL"
        ).fetchall()
        whole = SCALE * SCALE
        owed = [(*row[:3], row[3] * whole + row[4]) for row in found]
        assert owed == [(*row[:3], row[3] * whole + row[4]) for row in theirs]
        assert {row[2] for row in found} == {"CNY", "EUR"}
        if payers == 1:
            assert found == theirs
        connection.execute(
            "CREATE OR REPLACE TABLE found (payer TEXT, payee TEXT, currency TEXT, exact HUGEINT)"
        )
        connection.executemany("INSERT INTO found VALUES (?, ?, ?, ?)", owed)
        assert connection.execute(OFF, {"scale": SCALE}).fetchall() == [(0,)]
        connection.execute("DELETE FROM carried")
        connection.executemany(
            "INSERT INTO carried VALUES (?, ?, ?, ?)", [(*row[:3], row[4]) for row in theirs]
        )
    assert any(row[4] for row in theirs)  # something was carried


def test_csv_has_money_as_people_write_it(tmp_path: Path) -> None:
    record = market().clearing()
    statement = record.statement(PERIODS[0])
    paths = export.write_csv(tmp_path, export.tables(record, statement))
    assert {path.stem for path in paths} >= {"lines", "rows", "uses", "splits", "positions"}
    with (tmp_path / "lines.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["amount"]) for row in rows] == [line.amount for line in statement.lines]
    assert all(float(row["money"]) * 100 == pytest.approx(int(row["amount"])) for row in rows)


def test_payments_as_a_table(tmp_path: Path) -> None:
    ledger = market()
    made = ledger.apply(Net(PERIODS[0], ("bank0", "bank1", "h1", "h2", "operator")))
    table = export.payments(made)
    assert table.num_rows == len(made.payments) > 2
    export.write_csv(tmp_path, {"payments": table})
    assert (tmp_path / "payments.csv").read_text().startswith('"id","debtor","creditor","currency","amount"')


def test_tiers_and_weights_are_exported() -> None:
    ledger = Ledger()
    tiers = (Tier(upto=10, rate="2"), Tier(rate="1/2"))
    price = PricePlan(kind="tiered", currency="EUR", unit="rows", window="year", tiers=tiers)
    ledger.grant("g", price, {"pool:x": "1"})
    ledger.record(
        "pool.weighed", {"pool": "pool:x", "start": 0, "end": 100, "weights": [["a", "1/3"], ["b", "2/3"]]}
    )
    ledger.use("g", usage={"calls": 1, "rows": 12})
    record = ledger.clearing()
    made = export.tables(record, record.statement(PERIODS[0]))
    assert made["tiers"].to_pydict()["upto"] == [10, None]
    assert made["weights"].to_pydict()["party"] == ["a", "b"]
    assert made["uses"].to_pydict()["rated_num"] == [21]
    assert made["lines"].to_pydict()["amount"] == [7, 14]


def rendered(tmp_path: Path, text: str) -> str:
    """The page's text as a browser sees it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on the PATH: the page is not opened in a browser")
    file = tmp_path / "statement.html"
    file.write_text(text, encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [browser, *flags, profile, f"file://{file}"], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    return done.stdout


def test_the_page_shows_money_plots_and_no_markup_of_others(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    ledger = market()
    record = ledger.clearing()
    text = page.page(
        record.statement(PERIODS[1]),
        origin="bureau.example/<script>alert(1)</script>",
        names={"bank0": 'Bank "zero" & <b>sons</b>'},
        burns=[page.Burn("ab" * 32, "rows", 10_000, ((110, 500), (150, 4000)))],
    )
    dom = rendered(tmp_path, text)
    assert "<script" not in dom and "<b>" not in dom and "&lt;b&gt;sons" in dom
    assert dom.count("<svg") == 3 and "What is left of the grants' limits" in dom
    line = record.statement(PERIODS[1]).lines[0]
    assert f">{line.amount // 100}.{line.amount % 100:02}<" in dom
    assert page.page(record.statement(PERIODS[1]), origin="x") == page.page(
        record.statement(PERIODS[1]), origin="x"
    )


def test_what_is_left_of_a_limit_follows_from_the_log(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    for rows in (10, 100):
        world.posted(broker, grant, rows=rows)
    burns = {burn.unit: burn for burn in page.burn_down(broker.entries(), world.clock.time + 1)}
    assert burns["rows"].total == 5000 and [used for _, used in burns["rows"].points] == [10, 110]
    assert [used for _, used in burns["calls"].points] == [1, 2]
    assert Clearing.of(broker.entries()).uses
