"""What a layer tells the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.system import System


@dataclass(frozen=True)
class Layer:
    """Tasks of one layer, and who can do them.

    tasks:   task -> the sizes measured when none are asked for.
    roles:   the parties, in the order they are started; the last one's call is the one timed.
    ours:    this project.
    peers:   other implementations.
    prepare: (folder, task, rows) writes the inputs and returns the size of the right output, if there is one.
    """

    name: str
    tasks: Mapping[str, tuple[int, ...]]
    roles: tuple[str, ...]
    ours: System
    peers: tuple[System, ...]
    prepare: Callable[[Path, str, int], int | None]
