"""``python -m benchmarks.plot FILE.json...``: a PNG beside each file of measurements."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import Measurement, load

# The extra ``plot``: what reads measurements without drawing them does not need it.
try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise SystemExit("plots need matplotlib: pip install 'trustcompute[plot]'") from error


def draw(measurements: Sequence[Measurement]) -> Figure:
    """One panel of seconds a task; where it was measured at one size only, bars of rows a second."""
    tasks: dict[str, list[Measurement]] = defaultdict(list)
    for measurement in measurements:
        tasks[measurement.task].append(measurement)
    heights = [0.8 + 0.4 * len(rows) if _one_size(rows) else 3.2 for rows in tasks.values()]
    figure = Figure(figsize=(7, 0.4 + sum(heights)), layout="constrained")
    panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, (task, rows) in zip(panels, tasks.items(), strict=True):
        panel.set_title(task, loc="left")
        if _one_size(rows):
            _bars(panel, rows)
        else:
            _lines(panel, rows)
    machine = measurements[0].machine
    figure.suptitle(f"{measurements[0].layer}: {machine.cpu}, {machine.cores} cores", fontsize="medium")
    return figure


def _one_size(rows: list[Measurement]) -> bool:
    return len({m.rows for m in rows}) == 1


def _bars(panel: Any, rows: list[Measurement]) -> None:
    """Rates at the median; the line reaches from the slowest to the fastest repetition."""
    rows = rows[::-1]
    labels = [m.label for m in rows]
    low = [m.rate - m.rows / m.seconds.max for m in rows]
    high = [m.rows / m.seconds.min - m.rate for m in rows]
    panel.barh(labels, [m.rate for m in rows], xerr=[low, high], color="0.75", ecolor="0.3", capsize=3)
    panel.set_xlabel(f"rows a second, at {rows[0].rows:,} rows")


def _lines(panel: Any, rows: list[Measurement]) -> None:
    systems: dict[str, list[Measurement]] = defaultdict(list)
    for m in sorted(rows, key=lambda m: m.rows):
        systems[m.label].append(m)
    for label, series in systems.items():
        median = [m.seconds.median for m in series]
        low = [m.seconds.median - m.seconds.min for m in series]
        high = [m.seconds.max - m.seconds.median for m in series]
        panel.errorbar([m.rows for m in series], median, yerr=[low, high], marker="o", capsize=3, label=label)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xlabel("rows")
    panel.set_ylabel("seconds")
    panel.grid(visible=True, alpha=0.3)
    panel.legend()


def main(paths: Sequence[str]) -> None:
    if not paths:
        raise SystemExit("usage: python -m benchmarks.plot FILE.json...")
    for name in paths:
        path = Path(name)
        target = path.with_suffix(".png")
        draw(load(path)).savefig(target, dpi=150)
        print(target)


if __name__ == "__main__":
    main(sys.argv[1:])
