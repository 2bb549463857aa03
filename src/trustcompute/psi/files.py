"""``intersect_files``: both sides' files in one process, or in many workers, in bounded memory.

    digest, spread and sort both files' keys on disk → bucket runs, each a task → chosen rows → the result's file

Called by whoever computes on files of their own, and by benchmarks of workers. A task is a pure function of two
directories and a bucket's number, so that threads, processes and machines that see the same files can run it.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Operation, Params, Sizes
from trustcompute.protocol.run import Cost, run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import buckets, operation, padding, planner
from trustcompute.psi.ecdh import Found
from trustcompute.psi.intersection import On, split_on
from trustcompute.tables.keys import Mask
from trustcompute.tables.progress import Callback, Phase
from trustcompute.tables.stored import StoredKeys, load_unchecked, store
from trustcompute.tables.writing import check_writable, write_rows


@dataclass(frozen=True, kw_only=True)
class FileIntersection:
    """What an intersection of files found.

    count: distinct keys both sides hold; rows: rows of the left file whose key the right one holds, duplicates
    included; out: where they are; runs: how many the job was cut into. The rest is as in ``Intersection``.
    """

    count: int
    rows: int
    out: Path = field(repr=False)
    protocol: str
    runs: int
    cost: Cost
    leakage: Leakage


def intersect_files(
    left: Path | str,
    right: Path | str,
    *,
    on: On,
    out: Path | str,
    columns: Sequence[str] | None = None,
    protocol: planner.Protocol = "auto",
    casefold: bool = False,
    runs: int | None = None,
    pad_to: padding.PadTo = None,
    directory: Path | str | None = None,
    executor: Executor | None = None,
    progress: Callback | None = None,
    stop: threading.Event | None = None,
) -> FileIntersection:
    """Write the left file's rows whose key the right file holds, running both parties here, in bounded memory.

    left, right: Parquet, CSV or Arrow files; out: ends in .parquet, .csv or .arrow; columns: of the left file, all by
    default. on, protocol, casefold: as for ``intersect``.
    runs: into how many buckets to cut the job; by default, what keeps them near a million keys.
    pad_to: as for ``intersect``.
    directory: where keys lie meanwhile, 40 bytes a row; by default below ``TMPDIR``.
    executor: runs whole buckets, both parties of each: threads, processes started with ``forkserver``, or
        ``Client.get_executor()`` of a Dask cluster whose workers see ``directory``. Each takes about 400 MB meanwhile.
        Without one, buckets run one after another.
    progress: told of the phases ``digest``, ``sort``, ``match`` and ``write``; stop: when set, ``JobInterrupted``.

    Raises ``TableError``, ``ParameterError``, ``StoreError`` (a full disk, for one: nothing is left behind).
    """
    left, right, out = Path(left), Path(right), Path(out)
    ours, theirs = split_on(on)
    check_writable(left, out)
    with _working(directory) as folder:
        keys = store(left, ours, folder / "left", casefold=casefold, progress=progress, stop=stop)
        held = store(right, theirs, folder / "right", casefold=casefold, progress=progress, stop=stop)
        if len(keys) and len(held):
            keys.spec.check_matches(held.spec, ours, theirs)
        sizes = Sizes(*(padding.padded_rows(len(side), pad_to) for side in (keys, held)))
        op, params = _chosen(
            protocol, sizes, theirs, keys, buckets.plan_runs(sizes) if runs is None else runs
        )
        task = Bucket(str(keys.directory), str(held.directory), op.id, params, sizes)
        count = buckets.runs_of(params)
        mask, cost = np.zeros(len(keys), np.bool_), Cost(0, 0, 0)
        phase = Phase("match", count, progress, stop=stop)
        for number, (packed, taken) in enumerate(_each(task, count, executor)):
            first, digests = keys.part(number, count)
            mask[first : first + len(digests)] = unpacked(packed, len(digests))
            cost = Cost(
                cost.turns + taken.turns,
                cost.bytes_sent + taken.bytes_sent,
                cost.bytes_received + taken.bytes_received,
            )
            phase.advance(1)
        chosen = keys.chosen(mask)
        rows = write_rows(
            left, chosen, out, columns=columns, phase=Phase("write", keys.rows, progress, stop=stop)
        )
    return FileIntersection(
        count=int(mask.sum()),
        rows=rows,
        out=out,
        protocol=op.id,
        runs=count,
        cost=cost,
        leakage=padding.leakage(op.leakage(params), consumer=pad_to is not None, provider=pad_to is not None),
    )


@dataclass(frozen=True, slots=True)
class Bucket:
    """Everything a worker needs to run any bucket of a job; call it with the bucket's number.

    left, right: directories of stored keys. Returns which keys of the left bucket were found (bool[n], packed), and
    what messages would have cost.
    """

    left: str
    right: str
    protocol: str
    params: Params
    sizes: Sizes

    def __call__(self, number: int) -> tuple[bytes, Cost]:
        of = buckets.runs_of(self.params)
        _, ours = load_unchecked(Path(self.left)).part(number, of)
        _, theirs = load_unchecked(Path(self.right)).part(number, of)
        op = operation.named(self.protocol)
        run = run_local(
            padding.consumer(op.id, self.params, self.sizes, ours, Rng.from_os()),
            padding.provider(op.id, self.params, self.sizes, theirs, Rng.from_os()),
            Binding("", op.id, self.params, op.consumer, op.provider),
        )
        assert isinstance(run.consumer, Found) and run.consumer.mask is not None, "files are matched by rows"
        return packed(run.consumer.mask), run.cost


def packed(mask: Mask) -> bytes:
    """Eight a byte."""
    return np.packbits(mask).tobytes()


def unpacked(data: bytes, count: int) -> Mask:
    """The inverse of ``packed``: bool[count]."""
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count).astype(np.bool_)


def _chosen(
    protocol: str, sizes: Sizes, columns: list[str], keys: StoredKeys, runs: int
) -> tuple[Operation, Params]:
    if protocol == "auto":
        protocol = planner.plan(sizes.consumer, sizes.provider).protocol
    op = operation.named(protocol)
    if type(runs) is not int:
        raise ParameterError("runs must be a number")
    asked = {
        "columns": columns,
        "keys": keys.spec.digest,
        "output": "rows",
        "reveal": "consumer",
        "runs": runs,
    }
    return op, op.check(asked, sizes)


def _each(
    task: Callable[[int], tuple[bytes, Cost]], count: int, executor: Executor | None
) -> Iterator[tuple[bytes, Cost]]:
    """All buckets in order."""
    if executor is None:
        yield from map(task, range(count))
        return
    futures = [executor.submit(task, number) for number in range(count)]
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in futures:
            future.cancel()


@contextlib.contextmanager
def _working(directory: Path | str | None) -> Iterator[Path]:
    """A directory of our own, removed at the end: digests can be tested against guesses."""
    if directory is not None:
        Path(directory).mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="trustcompute-keys-", dir=directory) as folder:
        yield Path(folder)
