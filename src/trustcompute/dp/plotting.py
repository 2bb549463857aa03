"""A picture of what a budget buys: half widths of answers against the budget, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from trustcompute.dp.aggregates import Aggregate
from trustcompute.dp.answer import GROUP_ROWS, quote
from trustcompute.dp.budget import Amount, Budget
from trustcompute.dp.groups import By
from trustcompute.dp.unit import PrivacyUnit
from trustcompute.errors import ParameterError
from trustcompute.primitives.privacy import amount

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AMOUNTS: Final = ("0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5", "10")
LABELS: Final = {"zcdp": "ρ (zCDP)", "pure": "ε", "pure_as_zcdp": "ε", "approx": "ε, at δ = {delta}"}


def plot_accuracy(
    schema: pa.Schema | Mapping[str, pa.DataType],
    aggregates: Sequence[Aggregate],
    *,
    by: By = (),
    unit: PrivacyUnit | None = None,
    budget: Budget,
    amounts: Sequence[Amount] = AMOUNTS,
    least_units: int = 1,
    group_rows: int = GROUP_ROWS,
    axes: Axes | None = None,
) -> Axes:
    """Half the 95 % interval of each aggregate over budgets of the kind of ``budget``, whose own amount is marked.

    amounts: of ρ or ε; those that are too small for what is asked are left out. axes: to draw on, new ones by default.
    From declared parameters alone: nothing is read or spent. Needs matplotlib (``trustcompute[plot]``).
    """
    listed = sorted({budget.main, *(amount("an amount", one) for one in amounts)})
    found: dict[str, list[tuple[float, float]]] = {one.name: [] for one in aggregates}
    for main in listed:
        try:
            asked = replace(budget, main=main)
            quoted = quote(
                schema,
                aggregates,
                by=by,
                unit=unit,
                budget=asked,
                least_units=least_units,
                group_rows=group_rows,
            )
        except ParameterError:
            if main == budget.main:
                raise
            continue
        for name, width in quoted.accuracy.items():
            found[name].append((float(main), width.half_width))
    axes = _new_axes() if axes is None else axes
    for name, points in found.items():
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.axvline(float(budget.main), color="0.6", linestyle=":", label="this budget")
    axes.set(xscale="log", yscale="log", ylabel="half the 95 % interval")
    axes.set_xlabel(LABELS[budget.kind].format(delta=f"{float(budget.delta):g}"))
    axes.legend()
    return axes


def _new_axes() -> Axes:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'trustcompute[plot]'") from error
    return Figure(figsize=(6, 4), layout="constrained").subplots()
