"""Our samplers and our release, one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

from benchmarks.system import Call, Job, System
from benchmarks.systems.version import version

__all__ = ["SYSTEM", "party", "version"]

NOISE = {
    "laplace": ("discrete_laplace", Fraction(100)),
    "laplace-large": ("discrete_laplace", Fraction(10**6)),
    "gaussian": ("discrete_gaussian", Fraction(100**2)),
    "gaussian-wide": ("discrete_gaussian", Fraction(2**28)),
    "gaussian-large": ("discrete_gaussian", Fraction(2**40)),
}
"""Sampler and its scale, or its variance."""
SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_dp",
    protocols=dict.fromkeys(NOISE, ("exact",)) | dict.fromkeys(("release", "release-small"), ("zcdp",)),
)


@contextmanager
def party(job: Job) -> Iterator[Call]:
    from trustcompute import dp
    from trustcompute.primitives import sampling
    from trustcompute.primitives.rng import Rng

    rng = Rng.from_os()

    def release() -> int:
        found = dp.release(
            str(job.input("table.parquet")),
            [dp.count(), dp.mean("value", 0, 100)],
            by=dp.public("group", range(1000)),
            unit=dp.PrivacyUnit("user", groups=5, rows_per_group=5),
            budget=dp.zcdp("0.1"),
        )
        return found.to_arrow().num_rows

    if job.task.startswith("release"):
        yield release
    else:
        name, parameter = NOISE[job.task]
        sample = getattr(sampling, name)
        sample(rng, parameter, 2**18)  # makes the tables
        yield lambda: len(sample(rng, parameter, job.rows))
