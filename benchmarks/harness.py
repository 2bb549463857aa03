"""Runs systems side by side: started processes, one timed call, bytes and memory of each party.

Repetitions are interleaved (ours, peer, ours, peer ...), so that a slow minute of the machine falls on
everyone. Each repetition starts its processes anew: nothing is cached between them, and the peak of memory
belongs to that repetition.
"""

from __future__ import annotations

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
    bytes_sent: dict[str, int]
    peak_rss_mb: dict[str, float]


class Party:
    """One started process and the lines it exchanges with the harness."""

    def __init__(self, python: Path, system: System, job: Job, deadline: float) -> None:
        self.role, self._deadline = job.role, deadline
        self._errors = job.path(f"stderr-{job.role}").open("w+b")
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.party", system.module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        self._buffer = b""
        self._done = False
        self.tell(job.dump())

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RunFailed(f"{self.role} ended early: {self._last_words()}") from None

    def dismiss(self) -> None:
        """Every party has been counted: the process may close its connections and end."""
        self.tell("close")
        self._done = True

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        source = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([source], [], [], left)[0]:
                raise RunFailed(f"{self.role} did not answer in time: {self._last_words()}")
            data = os.read(source, 65536)
            if not data:
                raise RunFailed(f"{self.role} ended early: {self._last_words()}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Ends the process: gently where it was told that all is done, at once where something failed."""
        if not self._done:
            self._process.kill()
        try:
            self._process.communicate(timeout=CLOSING_SECONDS)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _last_words(self) -> str:
        time.sleep(0.1)
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").strip().splitlines()
        return "\n    ".join(lines[-6:]) or "it wrote nothing"


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
            parties.append(Party(python, contender.system, job, deadline))
            stack.callback(parties[-1].close)
        versions = [party.hear()["ready"] for party in parties]
        for party in parties:
            party.tell("go")
        answers = [party.hear() for party in reversed(parties)]
        for party in parties:
            party.tell("finish")
        counts = {party.role: party.hear() for party in parties}
        for party in parties:
            party.dismiss()
    timed = answers[0]
    if expected is not None and timed["output"] != expected:
        raise RunFailed(f"{contender.label} answered {timed['output']}, the right answer is {expected}")
    return Repetition(
        version=versions[-1],
        seconds=timed["seconds"],
        bytes_sent={role: count["bytes_sent"] for role, count in counts.items()},
        peak_rss_mb={role: count["peak_rss_mb"] for role, count in counts.items()},
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
            bytes_sent={
                role: max(repetition.bytes_sent[role] for repetition in repetitions) for role in layer.roles
            },
            peak_rss_mb={
                role: max(repetition.peak_rss_mb[role] for repetition in repetitions) for role in layer.roles
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
