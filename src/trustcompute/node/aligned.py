"""Which rows of a dataset matched in a finished job, in the order that the asker has too: kept for later joint jobs.

Written by the node when a job with ``reveal="both"`` ends. Read by whatever computes over matched rows only:

    rows = aligned.rows_of(held, job)      # in the ``rows`` and the ``provide`` of a ``Computation``

where ``held`` is the dataset as the node hands it to a computation (it knows who asks) and ``job`` came in the
parameters of the request. A later job gets them only of the same asker, for the same dataset and version, while its
keys are those that matched, and for as long as an answer is kept (``outbox.RETENTION``).

Adversary: which rows they are is the asker's word (``psi.*``, semi-honest): one that deviates can name rows at random,
though none whose key it knows. Whoever reveals something about these rows bounds their number from below.

A file is a line of canonical JSON, then the matched keys as indexes into the dataset's distinct keys (int64,
little-endian). Its name is the job and the second at which it is forgotten.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from trustcompute.broker.broker import Broker
from trustcompute.broker.job import JobRecord, JobState
from trustcompute.broker.outbox import keep_pieces
from trustcompute.errors import ParameterError, Refused, StoreError, TableError
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Params
from trustcompute.psi import alignment
from trustcompute.psi.alignment import Duplicates
from trustcompute.tables.keys import I64

if TYPE_CHECKING:
    from trustcompute.node.dataset import HeldDataset

MAX_HEAD: Final = 64 * 1024
_NAME = re.compile(r"[0-9a-f]{32}-(\d+)\Z")


class Matches:
    """What finished jobs found, below the broker's directory. Thread-safe."""

    def __init__(self, broker: Broker) -> None:
        """Raises ``StoreError`` where there is no place for it."""
        self._broker = broker
        self._directory = broker.outbox.directory.parent / "matched"
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create {self._directory}: {error.strerror}") from error

    def keep(self, job: str, held: HeldDataset, params: Params, order: I64) -> None:
        """Keep what a posted job found. order: its matched keys, int64[k]. Raises ``StoreError``."""
        record = self._broker.job(job)
        assert record is not None and record.state is JobState.POSTED, "a job is charged before it releases"
        head = canonical.dumps(
            {
                "version": held.dataset.version,
                "columns": list(params["columns"]),
                "keys": held.keys(params["columns"]).digest,
            }
        )
        keep_pieces(self._path(record), [head, b"\n", np.ascontiguousarray(order, "<i8").tobytes()])

    def of(self, job: str, asker: str, dataset: str) -> tuple[dict[str, object], I64] | None:
        """What is kept of a job of this asker about this dataset, or None; which of the reasons is not told."""
        record = self._broker.job(job)
        if record is None or (record.peer, record.dataset) != (asker, dataset):
            return None
        if record.state is not JobState.POSTED or record.lease <= self._broker.now():
            return None
        try:
            head, _, order = self._path(record).read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"what job {job} found cannot be read: {error.strerror}") from error
        return canonical.loads(head, limit=MAX_HEAD), np.frombuffer(order, "<i8")

    def sweep(self) -> None:
        """Forget what is over its time."""
        for path in self._directory.iterdir():
            name = _NAME.match(path.name)
            if name is not None and int(name[1]) <= self._broker.now():
                path.unlink(missing_ok=True)

    def _path(self, record: JobRecord) -> Path:
        return self._directory / f"{record.id}-{record.lease}"


def rows_of(held: HeldDataset, job: str, *, duplicates: Duplicates = "first") -> I64:
    """Positions of the dataset's rows that matched in ``job``, in the order its asker has too: int64[k].

    held: as a node hands it to a computation. duplicates: as for ``Intersection.aligned``; ``refuse`` tells the asker
    whether a matched key occurs twice.

    Raises ``Refused`` (rule ``matched``) where there is no such job of this asker, or the dataset is not as it was.
    """
    kept = None if held.matches is None else held.matches.of(job, held.asker, held.dataset.id)
    if kept is None:
        raise _refused(held, "no finished job of yours matched rows of this dataset under that id")
    head, order = kept
    columns = head["columns"]
    assert isinstance(columns, list)
    if (head["version"], head["keys"]) != (held.dataset.version, _digest(held, columns)):
        raise _refused(held, "the dataset is not as it was when that job matched its rows")
    try:
        return alignment.rows_in_order(held.keys(columns), order, duplicates)
    except TableError as error:
        raise _refused(held, "a key that matched has several rows") from error


def _digest(held: HeldDataset, columns: list[str]) -> str | None:
    try:
        return held.keys(columns).digest
    except ParameterError:  # it is no longer matched on these columns
        return None


def _refused(held: HeldDataset, what: str) -> Refused:
    return Refused(
        what,
        rule="matched",
        field="params.matched",
        owner="the node's operator",
        fix=f"intersect with {held.dataset.id!r}, output='rows', reveal='both', and name that job within seven days",
    )
