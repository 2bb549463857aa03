"""``trustcompute agreement``: quote, appraise, agree, accept, enter; and what use has come to since."""

from __future__ import annotations

import datetime
import itertools
import time
from pathlib import Path
from typing import Annotated

import typer

from trustcompute.broker.clearing import Period, agreement, index
from trustcompute.broker.clearing.export import write_csv
from trustcompute.cli.options import AsJson, IdentityDir
from trustcompute.cli.output import print_fields, print_json, print_table
from trustcompute.cli.own_node import open_book
from trustcompute.cli.price import price_in_words, read_price
from trustcompute.cli.record import KeyFile, read_log_key
from trustcompute.cli.settings import load_settings, read_text, write_text
from trustcompute.primitives.identity import Identity

app = typer.Typer(help="Quote, appraise, agree on a price plan; price indices.", no_args_is_help=True)

Chain = Annotated[Path, typer.Argument(help="The documents so far.")]
Out = Annotated[Path, typer.Option("--out", help="Where to write the documents; hand them on.")]
Price = Annotated[Path, typer.Option("--price", help="Price plan and split (TOML).")]
Settings = Annotated[
    Path, typer.Argument(help="The node's configuration (TOML). The node must not be running.")
]


@app.command("quote")
def quote(
    asset: Annotated[str, typer.Option(help="Id of the dataset.")],
    subject: Annotated[str, typer.Option(help="Thumbprint of the consumer's key.")],
    price: Price,
    identity: IdentityDir,
    out_file: Out,
    days: Annotated[int, typer.Option(min=1, help="How long the offer stands.")] = 30,
) -> None:
    """Offer a price plan for a dataset to a consumer, as its provider."""
    mine = Identity.load(identity)
    plan, shares = read_price(price)
    token = agreement.quote(
        audience=mine.name,
        asset=asset,
        subject=subject,
        price=plan,
        split=shares,
        key=mine.key,
        now=int(time.time()),
        days=days,
    )
    write_text(out_file, token + "\n")
    print_fields([("quoted", price_in_words(plan)), ("plan", agreement.plan_hash(plan, shares))])


@app.command("appraise")
def appraise(
    chain: Chain,
    low: Annotated[str, typer.Option(help="Least worth, exact minor units of the quote's currency.")],
    high: Annotated[str, typer.Option(help="Highest worth.")],
    method: Annotated[str, typer.Option(help="How it was found: market, cost, income …")],
    identity: IdentityDir,
    out_file: Out,
    unit: Annotated[str, typer.Option(help="Of what: row, call, year …")] = "row",
) -> None:
    """Add what the quoted use is worth, in your judgement."""
    mine, quoted = Identity.load(identity), read_text(chain).strip()
    now = int(time.time())
    made = agreement.appraise(quoted, low=low, high=high, unit=unit, method=method, key=mine.key, now=now)
    write_text(out_file, made + "\n")
    print_fields([("appraised", f"{low} to {high} a {unit}"), ("method", method)])


@app.command("agree")
def agree(
    chain: Chain,
    identity: IdentityDir,
    out_file: Out,
    price: Annotated[
        Path | None, typer.Option("--price", help="Terms other than those quoted (TOML).")
    ] = None,
    days: Annotated[int, typer.Option(min=1, help="How long the agreement lasts.")] = 365,
) -> None:
    """Sign what was settled on, as the provider."""
    mine = Identity.load(identity)
    plan, shares = (None, None) if price is None else read_price(price)
    made = agreement.agree(
        read_text(chain).strip(), key=mine.key, now=int(time.time()), price=plan, split=shares, days=days
    )
    write_text(out_file, made + "\n")
    print_fields([("signed", str(out_file)), ("next", "the consumer accepts it")])


@app.command("accept")
def accept(chain: Chain, identity: IdentityDir, out_file: Out) -> None:
    """Accept an agreement, as the consumer it names."""
    made = agreement.accept(read_text(chain).strip(), key=Identity.load(identity).key, now=int(time.time()))
    write_text(out_file, made + "\n")
    print_fields([("accepted", str(out_file)), ("next", "the provider enters it")])


@app.command("check")
def check(
    chain: Chain,
    key: KeyFile,
    as_json: AsJson = False,
) -> None:
    """Check all signatures and hashes of an accepted agreement, offline."""
    node = read_log_key(key)
    name = node.name.partition("/")[0]
    made = agreement.verify(read_text(chain).strip(), provider=node.key, audience=name)
    if as_json:
        print_json({"agreement": made.hash, "plan": made.plan, "claims": made.claims.to_document()})
        return
    print_fields(
        [
            ("agreement", made.hash),
            ("plan", made.plan),
            ("asset", made.claims.asset),
            ("price", price_in_words(made.claims.price)),
            ("appraisals", ", ".join(f"{a.low} to {a.high} a {a.unit}" for a in made.appraisals) or "none"),
        ]
    )


@app.command("enter")
def enter(settings: Settings, chain: Chain, as_json: AsJson = False) -> None:
    """Record an accepted agreement: grants of its asset to its consumer are then issued on its plan."""
    config = load_settings(settings)
    with open_book(config) as broker:
        name = broker.clearing.agree(read_text(chain).strip())
    print_json({"agreement": name}) if as_json else print_fields([("agreement", name)])


@app.command("index")
def index_(
    settings: Settings,
    months: Annotated[int, typer.Option(min=1, max=600, help="How many calendar months (UTC) back.")] = 12,
    min_payers: Annotated[
        int, typer.Option(min=1, help="Leave out months with fewer payers: they would show what each pays.")
    ] = 3,
    csv: Annotated[Path | None, typer.Option(help="Directory for index.csv.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a unit of use came to, month by month: a price index by operation and currency. The node may run."""
    config = load_settings(settings)
    with open_book(config, read_only=True) as broker:
        points = index.price_index(
            broker.clearing.record(), _months(int(time.time()), months), min_payers=min_payers
        )
    if csv is not None:
        write_csv(csv, {"index": index.table(points)})
    if as_json:
        print_json(index.table(points).to_pylist())
        return
    rows = [
        [
            datetime.datetime.fromtimestamp(point.period.start, datetime.UTC).strftime("%Y-%m"),
            point.operation,
            point.currency,
            point.units,
            str(point.unit_value),
            index.decimal(point.level, 2),
        ]
        for point in points
    ]
    print_table(["month", "operation", "currency", "units", "a unit, exact", "index"], rows)


def _months(now: int, count: int) -> list[Period]:
    """The last ``count`` calendar months, the running one included."""
    date = datetime.datetime.fromtimestamp(now, datetime.UTC)
    number = date.year * 12 + date.month - 1
    starts = [
        int(datetime.datetime(each // 12, each % 12 + 1, 1, tzinfo=datetime.UTC).timestamp())
        for each in range(number - count + 1, number + 2)
    ]
    return [Period(*pair) for pair in itertools.pairwise(starts)]
