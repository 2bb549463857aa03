"""What the harness and a started party agree on. Called by both, so standard library only.

A *system* is one implementation that can be measured: ours, or a peer in a virtual environment of its own.
Its module holds ``SYSTEM``, ``version()`` and ``party(job)``, and imports what it measures inside them: the
harness imports the module for ``SYSTEM`` alone, and a peer's environment holds the peer and nothing of ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

Call = Callable[[], int | None]
"""The timed part of one party. Returns the size of the output, where the layer can check it. One that times each row
by itself has an attribute ``milliseconds`` afterwards: what half of them took at most, and all but a hundredth."""


@dataclass(frozen=True)
class Job:
    """One party of one repetition.

    inputs:  folder that the layer's ``prepare`` filled, the same for every system and repetition.
    scratch: a new folder, shared by the parties of this repetition.
    ports:   loopback ports, free a moment ago; each system uses them as it likes.
    """

    layer: str
    task: str
    protocol: str
    role: str
    rows: int
    inputs: str
    scratch: str
    ports: tuple[int, ...]

    def input(self, name: str) -> Path:
        return Path(self.inputs, name)

    def path(self, name: str) -> Path:
        return Path(self.scratch, name)

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Job:
        document = json.loads(text)
        return cls(**document | {"ports": tuple(document["ports"])})


@dataclass(frozen=True, eq=False)
class System:
    """One implementation; there is one object of each, so it is equal to itself only.

    protocols:    task -> the protocols it can do the task with, its default first.
    requirements: exact pins for the virtual environment of a peer; empty for what runs in ours.
    pythons:      interpreters the peer's wheels exist for; empty for any.
    """

    name: str
    module: str
    protocols: Mapping[str, tuple[str, ...]]
    requirements: tuple[str, ...] = ()
    pythons: tuple[tuple[int, int], ...] = ()


class SystemModule(Protocol):
    """The form of a system's module."""

    SYSTEM: System

    def version(self) -> str: ...

    def party(self, job: Job) -> AbstractContextManager[Call]:
        """Everything before and after the clock: load libraries, listen, connect; then close."""
        ...


def keys_of(path: Path) -> list[str]:
    """The one column of a CSV of keys, for systems that take a list of strings."""
    return path.read_text(encoding="ascii").split()[1:]


def write_keys(path: Path, keys: Iterator[str] | list[str]) -> None:
    """A CSV of one column ``id``."""
    with path.open("w", encoding="ascii") as out:
        out.write("id\n")
        out.writelines(f"{key}\n" for key in keys)
