"""A measurement, its JSON form, and the table a person reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from benchmarks.machine import Machine


class Seconds(BaseModel):
    """Wall-clock seconds of the timed call, over the repetitions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float = Field(gt=0)
    median: float = Field(gt=0)
    max: float = Field(gt=0)


class Measurement(BaseModel):
    """One system at one task and one size.

    rate:        rows a second, at the median.
    cpu_seconds: party -> processor time of all its threads in the call (least): what a busy machine leaves of a figure.
    bytes_sent:  party -> TCP payload bytes it sent during the call (largest of the repetitions).
    peak_rss_mb: party -> most resident memory of its process, interpreter and libraries included (largest).
    milliseconds: what half of the rows took at most (p50), and all but a hundredth (p99), where each is timed by itself
                 (median of the repetitions).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    layer: str
    task: str
    system: str
    protocol: str
    version: str
    rows: int = Field(gt=0)
    repeat: int = Field(gt=0)
    seconds: Seconds
    rate: float = Field(gt=0)
    cpu_seconds: dict[str, float] = Field(default_factory=dict)
    bytes_sent: dict[str, int]
    peak_rss_mb: dict[str, float]
    milliseconds: dict[str, float] = Field(default_factory=dict)
    machine: Machine

    @property
    def label(self) -> str:
        return f"{self.system} {self.protocol}".rstrip()


_LIST = TypeAdapter(list[Measurement])


def save(measurements: Sequence[Measurement], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_LIST.dump_json(list(measurements), indent=1) + b"\n")


def load(path: Path) -> list[Measurement]:
    """Raises ``pydantic.ValidationError`` on a file that is not a list of measurements."""
    return _LIST.validate_json(path.read_bytes())


def table(measurements: Sequence[Measurement]) -> str:
    """Plain text: one line a measurement, with the ratio of its median to ours at the same task and size."""
    ours = {(m.task, m.rows): m.seconds.median for m in reversed(measurements) if m.system == "trustcompute"}
    head = (
        "task",
        "rows",
        "system",
        "version",
        "median s",
        "min-max s",
        "rows/s",
        "x ours",
        "cpu s",
        "sent",
        "peak MB",
        "ms a row",
    )
    lines = [head]
    for m in measurements:
        base = ours.get((m.task, m.rows))
        lines.append(
            (
                m.task,
                f"{m.rows:,}",
                m.label,
                m.version,
                f"{m.seconds.median:.4g}",
                f"{m.seconds.min:.4g}-{m.seconds.max:.4g}",
                f"{m.rate:,.0f}",
                f"{m.seconds.median / base:.2f}" if base else "",
                _parties({party: round(seconds, 3) for party, seconds in m.cpu_seconds.items()}),
                _parties(m.bytes_sent),
                _parties(m.peak_rss_mb),
                _parties({name: round(taken, 2) for name, taken in m.milliseconds.items()}),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _parties(amounts: dict[str, int] | dict[str, float]) -> str:
    return " ".join(f"{party}={amount:,}" for party, amount in amounts.items() if amount)
