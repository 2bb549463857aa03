"""``trustcompute release``: ask a node for aggregates with differential privacy, or what they would cost."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trustcompute import dp
from trustcompute.cli.ask import quote_fields
from trustcompute.cli.asking import AskingOne, takes
from trustcompute.cli.output import print_fields, print_json, print_table, working
from trustcompute.cli.writing import check_out
from trustcompute.errors import ParameterError
from trustcompute.node.releasing import MeteredReleaseQuote

FORMS = (
    "count, count:COLUMN, distinct, sum:COLUMN:LOW:HIGH, mean:…, variance:…, quantile:COLUMN:LOW:HIGH:0.5,0.9,"
    " histogram:COLUMN:0,10,20, top_k:COLUMN:K:A,B,C; in place of LOW:HIGH, private"
)


@takes(AskingOne)
def release(
    asking: AskingOne,
    ask: Annotated[list[str], typer.Option(help=f"An aggregate; repeat for more: {FORMS}.")],
    by: Annotated[
        list[str], typer.Option(help="Column to group by, or COLUMN=A,B,C to report exactly these values.")
    ] = [],
    rho: Annotated[str | None, typer.Option(help="Budget in zCDP: Gaussian noise.")] = None,
    epsilon: Annotated[
        str | None, typer.Option(help="Budget in ε: Laplace noise; with --delta above 0, Gaussian.")
    ] = None,
    delta: Annotated[
        str | None, typer.Option(help="δ; with --rho, for finding unknown groups (1e-9 if left out).")
    ] = None,
    as_rho: Annotated[bool, typer.Option(help="Charge --epsilon as rho = ε²/2.")] = False,
    least_units: Annotated[int, typer.Option(help="Never report groups of fewer units.")] = 1,
    only_quote: Annotated[
        bool,
        typer.Option("--quote", help="Say what it would cost and how accurate it would be; spend nothing."),
    ] = False,
) -> None:
    """Ask for aggregates from which nobody's presence in the data can be told."""
    check_out(asking.out)
    asked: dict[str, Any] = {
        "aggregates": [parse_aggregate(one) for one in ask],
        "by": [parse_by(one) for one in by],
        "budget": parse_budget(rho, epsilon, delta, as_rho=as_rho),
        "least_units": least_units,
    }
    with asking.session() as session:
        if only_quote:
            _show_quote(session.quote_release(asking.dataset, **asked), asking.as_json)
            return
        with working(f"asking {asking.dataset}"):
            found = session.release(
                asking.dataset,
                **asked,
                purpose=asking.purpose,
                scenario=asking.scenario,
                job=asking.job,
            )
    asking.close(
        found,
        {"proof": list(found.proof), "rules": list(found.rules)},
        [],
        cost=found.traffic,
        answer=found.to_arrow(),
    )


def parse_aggregate(text: str) -> dp.Aggregate:
    """``KIND[:COLUMN[:ARGUMENT...]]``. Raises ``ParameterError`` with the forms there are."""
    kind, *rest = text.split(":")
    try:
        if kind in ("sum", "mean", "variance"):
            column, *ends = rest
            return getattr(dp, kind)(column, *_bounds(*ends))  # type: ignore[no-any-return]
        if kind == "quantile":
            column, *ends, points = rest
            return dp.quantile(column, points.split(","), *_bounds(*ends))
        if kind == "histogram":
            column, edges = rest
            return dp.histogram(column, edges.split(","))
        if kind == "top_k":
            column, k, candidates = rest
            return dp.top_k(column, int(k), candidates.split(","))
        if kind == "count" and len(rest) <= 1:
            return dp.count(*rest)
        if kind == "distinct" and not rest:
            return dp.distinct()
    except ValueError:  # another number of parts, or k is no integer
        pass
    raise ParameterError(f"--ask {text!r} is none of: {FORMS}")


def _bounds(*ends: str) -> tuple[Any, ...]:
    if ends == ("private",):
        return (dp.private(),)
    low, high = ends
    if "private" in ends:
        raise ValueError("two bounds, or private")
    return low, high


def parse_by(text: str) -> dp.Group | str:
    """``COLUMN`` or ``COLUMN=A,B,C``."""
    column, given, values = text.partition("=")
    return dp.public(column, values.split(",")) if given else column


def parse_budget(rho: str | None, epsilon: str | None, delta: str | None, *, as_rho: bool) -> dp.Budget:
    if (rho is None) == (epsilon is None):
        raise ParameterError("give a budget: --rho, or --epsilon")
    if rho is not None:
        return dp.zcdp(rho) if delta is None else dp.zcdp(rho, delta)
    assert epsilon is not None
    return dp.pure(epsilon, as_zcdp=as_rho) if delta is None else dp.approx(epsilon, delta)


def _show_quote(found: MeteredReleaseQuote, as_json: bool) -> None:
    widths = {name: (one.half_width, one.group_rows) for name, one in found.accuracy.items()}
    if as_json:
        accuracy = {name: {"half_width": width, "group_rows": rows} for name, (width, rows) in widths.items()}
        document = found.price.model_dump(mode="json") | {
            "accuracy": accuracy,
            "equal_left": found.equal_left,
        }
        print_json(document | {"proof": list(found.proof)})
        return
    left = "not limited" if found.equal_left is None else f"{found.equal_left:,}"
    print_fields([*quote_fields(found.price), ("equal releases left", left)])
    rows = [[name, f"± {width:,.6g}", "" if size is None else size] for name, (width, size) in widths.items()]
    print_table(["aggregate", "95 %", "in a group of"], rows)
