"""OpenDP: its vector mechanisms over integers, and a release made with them.

OpenDP takes what a user contributes as a promise. Here NumPy keeps the promise, within the time (the first five rows of
a user in a group, its first five groups), and adds up; OpenDP draws the noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from typing import Any

from benchmarks.system import Call, Job, System

GROUPS, MOST = 1000, 5
NOISE = {
    "laplace": ("laplace", 100.0),
    "laplace-large": ("laplace", 1e6),
    "gaussian": ("gaussian", 100.0),
    "gaussian-wide": ("gaussian", 2.0**14),
    "gaussian-large": ("gaussian", 2.0**20),
}
SYSTEM = System(
    name="opendp",
    module="benchmarks.peers.opendp",
    protocols=dict.fromkeys(NOISE, ("vector",)) | dict.fromkeys(("release", "release-small"), ("numpy",)),
    requirements=("opendp==0.16.0", "pyarrow==21.0.0", "numpy==2.2.6"),
    pythons=((3, 10), (3, 11), (3, 12), (3, 13)),
)


def version() -> str:
    return installed("opendp")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    if job.task.startswith("release"):
        yield lambda: _release(dp, job)
    else:
        yield lambda: len(_noisy(dp, *NOISE[job.task], [0] * job.rows))


def _noisy(dp: Any, noise: str, scale: float, values: list[int]) -> list[int]:
    domain = dp.vector_domain(dp.atom_domain(T="i64"), size=len(values))
    if noise == "laplace":
        return dp.m.make_laplace(domain, dp.l1_distance(T="i64"), scale)(values)
    return dp.m.make_gaussian(domain, dp.l2_distance(T=float), scale)(values)


def _release(dp: Any, job: Job) -> int:
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(job.input("table.parquet"))
    user, group, value = (table[name].to_numpy() for name in ("user", "group", "value"))
    pair = user * GROUPS + group
    order = np.argsort(pair, kind="stable")
    pair, value = pair[order], value[order]
    rows = _place(pair) < MOST
    firsts = np.flatnonzero(np.concatenate([[True], pair[1:] != pair[:-1]]))
    groups = _place(pair[firsts] // GROUPS) < MOST
    rows &= np.repeat(groups, np.diff(np.append(firsts, len(pair))))
    kept, clamped = pair[rows] % GROUPS, np.clip(value[rows], 0, 100)
    counts = np.bincount(kept, minlength=GROUPS)
    sums = np.zeros(GROUPS, dtype=np.int64)
    np.add.at(sums, kept, np.rint(clamped * 2**20).astype(np.int64))
    sigma = (
        3 * MOST * MOST**2 / (2 * 0.1)
    ) ** 0.5  # a third of ρ = 0.1 each: count, and the mean's count and sum
    for values, scale in ((counts, sigma), (counts, sigma), (sums, sigma * 100 * 2**20)):
        noisy = _noisy(dp, "gaussian", scale, values.tolist())
    return len(noisy)


def _place(ascending: Any) -> Any:
    """Of each entry its place in its run of equal values."""
    import numpy as np

    starts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))
    lengths = np.diff(np.append(starts, len(ascending)))
    return np.arange(len(ascending)) - np.repeat(starts, lengths)
