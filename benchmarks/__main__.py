"""The command ``python -m benchmarks LAYER``: measure a layer, print a table, write JSON."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Contender, run
from benchmarks.layers.layer import Layer
from benchmarks.results import Measurement, save, table
from benchmarks.system import System

LAYERS = ("kernels", "psi", "broker", "dp", "verification", "aggregation")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what was asked for; 1 if a contender failed, else 0."""
    options = _parser().parse_args(arguments)
    layer: Layer = importlib.import_module(f"benchmarks.layers.{options.layer}").LAYER
    failures: list[str] = []

    def failed(contender: Contender, error: Exception) -> None:
        failures.append(f"{contender.label}: {error}")
        print(failures[-1], file=sys.stderr)

    measurements: list[Measurement] = []
    for task in _tasks(layer, options.task):
        contenders = _ours(layer, task, options.protocol) + _peers(layer, task, options.peers)
        for rows in options.rows or layer.tasks[task]:
            measurements += run(
                layer,
                contenders,
                task,
                rows,
                repeat=options.repeat,
                timeout=options.timeout,
                progress=lambda text: print(text, file=sys.stderr),
                failed=failed,
            )
            if options.json:
                save(measurements, options.json)
    if measurements:
        machine = measurements[0].machine
        print(f"{machine.cpu}, {machine.cores} cores, {machine.memory_mb:,} MB, Linux {machine.kernel}")
        print(f"Python {machine.python}, " + ", ".join(f"{n} {v}" for n, v in machine.packages.items()))
        print(table(measurements))
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure one layer, in started processes, beside its peers.",
        epilog="Peers are installed on demand into benchmarks/.peers. Linux only.",
    )
    parser.add_argument("layer", choices=LAYERS)
    parser.add_argument("--task", help="one task of the layer; all of them if left out")
    parser.add_argument(
        "--rows", type=_sizes, metavar="N[,N]", help="sizes, as 16384 or 2^14; the task's own if left out"
    )
    parser.add_argument(
        "--protocol", metavar="P[,P]", help="our protocols, or the kernels' backends; the first if left out"
    )
    parser.add_argument(
        "--peers",
        default="",
        metavar="A[:P][,B]",
        help="other systems, each with a protocol of its own; or 'all'",
    )
    parser.add_argument(
        "--repeat", type=_positive, default=3, metavar="R", help="repetitions, interleaved; 3"
    )
    parser.add_argument(
        "--timeout", type=_positive, default=3600, metavar="S", help="seconds a repetition may take; 3600"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the measurements go")
    return parser


def _positive(text: str) -> int:
    base, _, exponent = text.partition("^")
    value = int(base) ** int(exponent or 1)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _sizes(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",")]


def _tasks(layer: Layer, wanted: str | None) -> list[str]:
    if wanted is None:
        return list(layer.tasks)
    if wanted not in layer.tasks:
        raise SystemExit(f"{layer.name} has no task {wanted!r}; it has: {', '.join(layer.tasks)}")
    return [wanted]


def _ours(layer: Layer, task: str, protocols: str | None) -> list[Contender]:
    names = protocols.split(",") if protocols else [layer.ours.protocols[task][0]]
    return [_contender(layer.ours, task, name) for name in names]


def _peers(layer: Layer, task: str, wanted: str) -> list[Contender]:
    """The peers asked for that can do the task."""
    known = {peer.name: peer for peer in layer.peers}
    if wanted == "all":
        return [Contender(peer, peer.protocols[task][0]) for peer in layer.peers if task in peer.protocols]
    found = []
    for entry in filter(None, wanted.split(",")):
        name, _, protocol = entry.partition(":")
        if name not in known:
            raise SystemExit(f"{layer.name} has no peer {name!r}; it has: {', '.join(known)}")
        peer = known[name]
        if task in peer.protocols:
            found.append(_contender(peer, task, protocol or peer.protocols[task][0]))
    return found


def _contender(system: System, task: str, protocol: str) -> Contender:
    can = system.protocols[task]
    if protocol not in can:
        raise SystemExit(f"{system.name} does {task!r} with {', '.join(can)}, not with {protocol!r}")
    return Contender(system, protocol)


if __name__ == "__main__":
    sys.exit(main())
