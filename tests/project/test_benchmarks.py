"""The harness measures what it says, and its output has the promised form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.__main__ import LAYERS
from benchmarks.harness import Contender, run
from benchmarks.layers.layer import Layer
from benchmarks.results import Measurement, load, save, table
from tests.project.echo_system import SYSTEM

ROOT = Path(__file__).resolve().parents[2]
FIELDS = {
    "layer", "task", "system", "protocol", "version", "rows", "repeat",
    "seconds", "rate", "cpu_seconds", "bytes_sent", "peak_rss_mb", "milliseconds", "machine",
}  # fmt: skip

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmarks read /proc")

ECHO = Layer(
    name="echo",
    tasks={"echo": (1000,)},
    roles=("provider", "consumer"),
    ours=SYSTEM,
    peers=(),
    prepare=lambda folder, task, rows: rows // 2,
)


def measure(
    *protocols: str, rows: int = 1000, repeat: int = 1, timeout: float = 30
) -> tuple[list[Measurement], list[str], list[str]]:
    """Measurements, failures and progress lines of the echo system with these protocols."""
    failures: list[str] = []
    progress: list[str] = []
    measurements = run(
        ECHO,
        [Contender(SYSTEM, protocol) for protocol in protocols],
        "echo",
        rows,
        repeat=repeat,
        timeout=timeout,
        progress=progress.append,
        failed=lambda contender, error: failures.append(f"{contender.label}: {error}"),
    )
    return measurements, failures, progress


def test_bytes_are_counted_per_party_to_the_byte() -> None:
    [measurement], failures, _ = measure("right", rows=123_456)
    assert failures == []
    assert measurement.bytes_sent == {"provider": 61_728, "consumer": 123_456}
    assert set(measurement.peak_rss_mb) == {"provider", "consumer"}
    assert all(5 < peak < 500 for peak in measurement.peak_rss_mb.values())
    assert measurement.version == "7"


def test_times_are_ordered_and_the_rate_is_of_the_median() -> None:
    [measurement], _, _ = measure("right", repeat=3)
    seconds = measurement.seconds
    assert 0 < seconds.min <= seconds.median <= seconds.max
    assert measurement.rate == pytest.approx(1000 / seconds.median)


def test_a_failing_contender_is_reported_and_the_others_are_measured() -> None:
    measurements, failures, progress = measure("wrong", "right", "dies", repeat=2)
    assert [m.protocol for m in measurements] == ["right"]
    assert len(failures) == 2
    assert "echo wrong answered 501, the right answer is 500" in failures[0]
    assert "the provider lost its key" in failures[1]
    assert [line.split(": ")[1] for line in progress] == [
        "echo wrong 1/2",
        "echo right 1/2",
        "echo dies 1/2",
        "echo right 2/2",
    ]


def test_a_contender_that_hangs_is_stopped() -> None:
    measurements, [failure], _ = measure("hangs", timeout=1)
    assert measurements == []
    assert "did not answer in time" in failure


def test_measurements_survive_json_and_nothing_else_does(tmp_path: Path) -> None:
    measurements, _, _ = measure("right")
    path = tmp_path / "echo.json"
    save(measurements, path)
    assert load(path) == measurements
    [row] = json.loads(path.read_text())
    assert set(row) == FIELDS
    path.write_text(json.dumps([row | {"seconds": {"min": 1.0}}]))
    with pytest.raises(ValidationError, match="median"):
        load(path)


def test_the_table_quotes_medians_and_ratios_to_ours() -> None:
    [row], _, _ = measure("right")
    slow = row.seconds.model_copy(update={"median": 3 * row.seconds.median})
    peer = row.model_copy(update={"system": "peer", "seconds": slow})
    ours = row.model_copy(update={"system": "trustcompute"})
    head, first, second = table([peer, ours]).splitlines()
    column = head.index("x ours")
    assert first[column:].startswith("3.00")
    assert second[column:].startswith("1.00")
    assert "provider=500 consumer=1,000" in first


def test_the_kernels_are_measured_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "kernels.json"
    options = f"--task digest --rows 2^6 --repeat 1 --protocol reference --peers hashlib --json {path}"
    command = [sys.executable, "-m", "benchmarks", "kernels", *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert {(m.system, m.protocol, m.rows) for m in load(path)} == {
        ("trustcompute", "reference", 64),
        ("hashlib", "sha256", 64),
    }
    assert "digest" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["psi", "--help"]])
def test_help(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert all(layer in done.stdout for layer in LAYERS)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["psi", "--task", "sort"], "has no task 'sort'; it has: intersect"),
        (["psi", "--peers", "nobody"], "has no peer 'nobody'; it has: openmined"),
        (["kernels", "--task", "digest", "--protocol", "fpga"], "not with 'fpga'"),
        (["kernels", "--rows", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_can(arguments: list[str], complaint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert complaint in done.stderr


def test_plots_are_drawn(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    assert matplotlib
    from benchmarks.plot import main

    small, _, _ = measure("right", rows=1000)
    large, _, _ = measure("right", rows=2000)
    for name, rows in {"bars": small, "lines": small + large}.items():
        save(rows, tmp_path / f"{name}.json")
        main([str(tmp_path / f"{name}.json")])
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
