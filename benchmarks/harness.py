"""Runs systems side by side: started processes, one timed call, bytes and memory of each party.

Repetitions are interleaved (ours, peer, ours, peer ...), so that a slow minute of the machine falls on
everyone. Each repetition starts its processes anew: nothing is cached between them, and the peak of memory
belongs to that repetition.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.layers.layer import Layer
from benchmarks.machine import this_machine
from benchmarks.peers.environment import interpreter
from benchmarks.results import Measurement, Seconds
from benchmarks.system import Job, System

ROOT = Path(__file__).resolve().parents[1]
TEMPORARY = "trustcompute-bench-"
CLOSING_SECONDS = 10
GRACE_SECONDS = 0.5
PORTS = 2  # as many as the neediest system asks for


class RunFailed(RuntimeError):
    """A party died, hung or answered wrongly; the message holds the end of what it wrote."""


@dataclass(frozen=True)
class Contender:
    """A system and the protocol it does the task with."""

    system: System
    protocol: str

    @property
    def label(self) -> str:
        return f"{self.system.name} {self.protocol}".rstrip()


@dataclass(frozen=True)
class Repetition:
    version: str
    seconds: float
    cpu_seconds: dict[str, float]
    bytes_sent: dict[str, int]
    peak_rss_mb: dict[str, float]
    milliseconds: dict[str, float]


class Party:
    """One started process and the lines it exchanges with the harness."""

    def __init__(self, python: Path, system: System, job: Job) -> None:
        self.role = job.role
        self._errors = job.path(f"stderr-{job.role}")
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.party", system.module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
            )
        self._buffer = b""
        self._done = False
        self.tell(job.dump())

    def fileno(self) -> int:
        """So that ``select`` can wait for what it says."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # what it said last is heard next
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def dismiss(self) -> None:
        """Every party has been counted: the process may close its connections and end."""
        self.tell("close")
        self._done = True

    def hear(self) -> dict[str, Any] | None:
        """What it says, or None while it has not finished its line. Raises ``RunFailed`` where it has ended."""
        data = os.read(self.fileno(), 65536)
        if not data:
            raise RunFailed(f"{self.role} ended early")
        line, end, rest = (self._buffer + data).partition(b"\n")
        self._buffer = rest if end else line
        message: dict[str, Any] | None = json.loads(line) if end else None
        return message

    def last_words(self) -> str:
        lines = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "".join(f"\n    {self.role}: {line}" for line in lines[-6:])

    def close(self) -> None:
        """Ends the process: gently where it was told that all is done, at once where something failed."""
        if not self._done:
            self._process.kill()
        try:
            self._process.communicate(timeout=CLOSING_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()


def hear_all(parties: Sequence[Party], deadline: float) -> dict[str, dict[str, Any]]:
    """One message of each party, by role. Raises ``RunFailed`` with what all of them wrote last."""
    heard: dict[str, dict[str, Any]] = {}
    try:
        while silent := [party for party in parties if party.role not in heard]:
            ready, _, _ = select.select(silent, [], [], max(0, deadline - time.monotonic()))
            if not ready:
                raise RunFailed(f"{' and '.join(party.role for party in silent)} did not answer in time")
            heard |= {party.role: message for party in ready if (message := party.hear())}
    except RunFailed as error:
        time.sleep(GRACE_SECONDS)  # one that lost its peer fails a moment later, and the other way round
        raise RunFailed(str(error) + "".join(party.last_words() for party in parties)) from None
    return heard


def repeat_once(
    layer: Layer,
    contender: Contender,
    task: str,
    rows: int,
    *,
    inputs: Path,
    expected: int | None,
    timeout: float,
) -> Repetition:
    """One repetition in fresh processes. Raises ``RunFailed`` and ``PeerUnavailable``."""
    python = interpreter(contender.system)
    ports = free_ports()
    deadline = time.monotonic() + timeout
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=TEMPORARY))
        parties = []
        for role in layer.roles:
            job = Job(layer.name, task, contender.protocol, role, rows, str(inputs), scratch, ports)
            parties.append(Party(python, contender.system, job))
            stack.callback(parties[-1].close)
        versions = hear_all(parties, deadline)
        for party in parties:
            party.tell("go")
        answers = hear_all(parties, deadline)
        for party in parties:
            party.tell("finish")
        counts = hear_all(parties, deadline)
        for party in parties:
            party.dismiss()
    timed = answers[layer.roles[-1]]
    if expected is not None and timed["output"] != expected:
        raise RunFailed(f"{contender.label} answered {timed['output']}, the right answer is {expected}")
    return Repetition(
        version=versions[layer.roles[-1]]["ready"],
        seconds=timed["seconds"],
        cpu_seconds={role: answers[role]["cpu"] for role in layer.roles},
        bytes_sent={role: counts[role]["bytes_sent"] for role in layer.roles},
        peak_rss_mb={role: counts[role]["peak_rss_mb"] for role in layer.roles},
        milliseconds=timed["milliseconds"],
    )


def run(
    layer: Layer,
    contenders: Sequence[Contender],
    task: str,
    rows: int,
    *,
    repeat: int,
    timeout: float,
    progress: Callable[[str], None],
    failed: Callable[[Contender, Exception], None],
) -> list[Measurement]:
    """Measure every contender ``repeat`` times, interleaved. One that fails is reported and left out."""
    done: dict[Contender, list[Repetition]] = {contender: [] for contender in contenders}
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as name:
        inputs = Path(name)
        expected = layer.prepare(inputs, task, rows)
        for turn in range(repeat):
            for contender in list(done):
                progress(f"{layer.name} {task} {rows:,} rows: {contender.label} {turn + 1}/{repeat}")
                try:
                    repetition = repeat_once(
                        layer, contender, task, rows, inputs=inputs, expected=expected, timeout=timeout
                    )
                except RuntimeError as error:
                    failed(contender, error)
                    del done[contender]
                    continue
                done[contender].append(repetition)
    machine = this_machine()
    return [
        Measurement(
            layer=layer.name,
            task=task,
            system=contender.system.name,
            protocol=contender.protocol,
            version=repetitions[0].version,
            rows=rows,
            repeat=repeat,
            seconds=_seconds([repetition.seconds for repetition in repetitions]),
            rate=rows / statistics.median(repetition.seconds for repetition in repetitions),
            cpu_seconds={
                role: min(repetition.cpu_seconds[role] for repetition in repetitions) for role in layer.roles
            },
            bytes_sent={
                role: max(repetition.bytes_sent[role] for repetition in repetitions) for role in layer.roles
            },
            peak_rss_mb={
                role: max(repetition.peak_rss_mb[role] for repetition in repetitions) for role in layer.roles
            },
            milliseconds={
                name: statistics.median(repetition.milliseconds[name] for repetition in repetitions)
                for name in repetitions[0].milliseconds
            },
            machine=machine,
        )
        for contender, repetitions in done.items()
    ]


def _seconds(times: list[float]) -> Seconds:
    return Seconds(min=min(times), median=statistics.median(times), max=max(times))


def free_ports() -> tuple[int, ...]:
    """Loopback ports nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(PORTS)]
        return tuple(bound.getsockname()[1] for bound in sockets)
