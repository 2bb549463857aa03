"""A statement to read and to print: one HTML file with its plots inside, nothing loaded from anywhere.

Plots (matplotlib, the extra ``plot``): what each party receives and pays, use by operation, and how much of each
grant's limits is left over time. Names and purposes are escaped; the page has no script.
"""

from __future__ import annotations

import datetime
import html
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from trustcompute.broker import currency as currencies
from trustcompute.broker import meter
from trustcompute.broker.clearing.statement import Period, Statement
from trustcompute.broker.log import Entry
from trustcompute.errors import ParameterError

MAX_ROWS: Final = 2000  # of one table: what is longer is for the Parquet files
MAX_BARS: Final = 24

_STYLE: Final = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1c2733; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: 0 } h2 { font-size: 1.1rem; margin-top: 2rem }
p.about { color: #5b6b7a; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 } caption { text-align: left; color: #5b6b7a }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #d8dee5; overflow-wrap: anywhere }
th { font-weight: 600 } td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1rem 0 } figure svg { max-width: 100%; height: auto }
@media print {
  body { margin: 0; max-width: none } h2, figure { break-inside: avoid } thead { display: table-header-group }
}
"""


@dataclass(frozen=True, slots=True)
class Burn:
    """How a limit was used up. points: (time, used since the grant began), rising; total: the limit."""

    grant: str
    unit: str
    total: int
    points: tuple[tuple[int, int], ...]


def burn_down(entries: Iterable[Entry], until: int) -> list[Burn]:
    """The use of every limited unit of every grant before ``until``, from the log: descendants' use is the grant's."""
    limits: dict[str, dict[str, int]] = {}
    used: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for entry in entries:
        fields = entry.fields
        if entry.type in ("grant.issued", "grant.accepted"):
            spans = fields["limits"].items()
            limits[fields["grant"]] = {unit: int(span["total"]) for unit, span in spans if "total" in span}
        elif entry.type in ("job.posted", "job.forfeited") and entry.time < until:
            for grant in meter.grants_of(fields["accounts"]):
                for unit, amount in meter.used(meter.parse_usage(fields["usage"])):
                    points = used[grant, unit]
                    points.append((entry.time, amount + (points[-1][1] if points else 0)))
    return [
        Burn(grant, unit, total, tuple(used[grant, unit]))
        for grant, units in limits.items()
        for unit, total in units.items()
        if used[grant, unit]
    ]


def page(
    statement: Statement, *, origin: str, names: Mapping[str, str] | None = None, burns: Sequence[Burn] = ()
) -> str:
    """The HTML. origin: of the log; names: of parties by thumbprint; burns: of ``burn_down``.

    Raises ``ParameterError`` where matplotlib is not installed.
    """
    named = dict(names or {})
    figures = [
        ("What each party receives and pays", revenue_plot(statement, named)),
        ("Use by operation", use_plot(statement)),
        ("What is left of the grants' limits", burn_plot(burns, statement.period)),
    ]
    parts = [
        f"<h1>Statement {_escape(origin)}</h1>",
        f'<p class="about">{_utc(statement.period.start)} to {_utc(statement.period.end)}, '
        f"{'closed' if statement.closed else 'open: it may still grow'}<br>{statement.hash}</p>",
        "<h2>Owed</h2>",
        _table(
            ("from", "to", "currency", "amount", "carried on"),
            [
                (
                    _name(line.account.payer, named),
                    _name(line.account.payee, named),
                    line.account.currency,
                    currencies.decimal(line.amount, line.account.currency),
                    str(line.residual),
                )
                for line in statement.lines
            ],
            numbers=(3, 4),
        ),
        "<h2>Net positions</h2>",
        _table(
            ("party", "currency", "net"),
            [
                (_name(party, named), code, currencies.decimal(net, code))
                for (party, code), net in sorted(statement.positions().items())
            ],
            numbers=(2,),
        ),
        "<h2>Use</h2>",
        _table(
            ("payer", "operation", "jobs", "calls", "rows", "currency", "rated, exact minor units"),
            [
                (_name(row.payer, named), row.operation, f"{row.jobs:,}", f"{row.calls:,}", f"{row.rows:,}",
                 row.currency or "free", str(row.rated))
                for row in statement.rows
            ],
            numbers=(2, 3, 4, 6),
        ),
    ]  # fmt: skip
    for title, postings in (
        ("Adjustments", statement.adjustments),
        ("Held back by disputes", statement.held),
    ):
        if postings:
            rows = [
                (str(each.index), _name(each.account.payer, named), _name(each.account.payee, named),
                 each.account.currency, str(each.amount))
                for each in postings
            ]  # fmt: skip
            parts += [
                f"<h2>{title}</h2>",
                _table(("entry", "from", "to", "currency", "exact"), rows, numbers=(0, 4)),
            ]
    parts += [f"<h2>{title}</h2><figure>{svg}</figure>" for title, svg in figures if svg]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>Statement {_escape(origin)}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def revenue_plot(statement: Statement, names: Mapping[str, str]) -> str:
    """SVG: net amounts by party, a panel for each currency."""
    by_currency: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (party, code), net in statement.positions().items():
        by_currency[code].append((net, _short(party, names)))
    if not by_currency:
        return ""
    plt = _pyplot()
    figure, axes = plt.subplots(len(by_currency), squeeze=False, figsize=(7, 0.6 + 2.2 * len(by_currency)))
    for axis, (code, found) in zip(axes[:, 0], sorted(by_currency.items()), strict=True):
        shown = sorted(found, key=lambda each: (-abs(each[0]), each[1]))[:MAX_BARS]
        scale = 10 ** currencies.DIGITS[code]
        amounts = [float(Fraction(net, scale)) for net, _ in reversed(shown)]
        axis.barh(
            [party for _, party in reversed(shown)],
            amounts,
            color=["#c0504d" if a < 0 else "#4f81bd" for a in amounts],
        )
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_xlabel(f"net, {code}")
    return _svg(plt, figure)


def use_plot(statement: Statement) -> str:
    """SVG: jobs by operation."""
    jobs: dict[str, int] = defaultdict(int)
    for row in statement.rows:
        jobs[row.operation] += row.jobs
    if not jobs:
        return ""
    plt = _pyplot()
    shown = sorted(jobs.items(), key=lambda each: -each[1])[:MAX_BARS]
    figure, axis = plt.subplots(figsize=(7, 1 + 0.4 * len(shown)))
    axis.barh([name for name, _ in reversed(shown)], [count for _, count in reversed(shown)], color="#4f81bd")
    axis.set_xlabel("jobs")
    return _svg(plt, figure)


def burn_plot(burns: Sequence[Burn], period: Period) -> str:
    """SVG: the share of each limit that is left, over the period."""
    if not burns:
        return ""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(7, 3.2))
    for burn in burns[:MAX_BARS]:
        before = max((used for time, used in burn.points if time < period.start), default=0)
        within = [(time, used) for time, used in burn.points if period.start <= time < period.end]
        times = [period.start, *(time for time, _ in within), within[-1][0] if within else period.end]
        left = [
            1 - used / burn.total if burn.total else 0.0 for used in (before, *(used for _, used in within))
        ]
        dates = [datetime.datetime.fromtimestamp(time, datetime.UTC) for time in times]
        axis.step(dates, [*left, left[-1]], where="post", label=f"{burn.unit} of {burn.grant[:8]}")
    axis.set(ylim=(0, 1.02), ylabel="left of the limit")
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.legend(fontsize="small")
    figure.autofmt_xdate()
    return _svg(plt, figure)


def _pyplot() -> Any:
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra

        mpl.use("agg", force=False)
        import matplotlib.pyplot as plt  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ParameterError("the page's plots need matplotlib: pip install 'trustcompute[plot]'") from error
    return plt


def _svg(plt: Any, figure: Any) -> str:
    """The figure as an element; the same figure gives the same text."""
    figure.tight_layout()
    buffer = io.StringIO()
    with plt.rc_context({"svg.hashsalt": "statement", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[int]) -> str:
    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="number">{_escape(value)}</{tag}>'
            if n in numbers
            else f"<{tag}>{_escape(value)}</{tag}>"
            for n, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows[:MAX_ROWS])
    more = f"<caption>the first {MAX_ROWS:,} of {len(rows):,}</caption>" if len(rows) > MAX_ROWS else ""
    return f"<table>{more}<thead><tr>{cells('th', headings)}</tr></thead><tbody>{body}</tbody></table>"


def _name(party: str, names: Mapping[str, str]) -> str:
    return names.get(party, party)


def _short(party: str, names: Mapping[str, str]) -> str:
    name = _name(party, names)
    short = name if len(name) <= 28 else name[:25] + "…"
    return short.replace("$", r"\$")  # a dollar would begin a formula


def _escape(text: str) -> str:
    return html.escape(text, quote=True)


def _utc(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
