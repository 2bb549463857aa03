"""Our samplers and our release, one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction

from benchmarks.system import Call, Job, System
from benchmarks.systems.version import version

__all__ = ["SYSTEM", "party", "version"]

TASKS = ("laplace", "gaussian", "gaussian-large", "release")
SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_dp",
    protocols=dict.fromkeys(TASKS[:3], ("exact",)) | {"release": ("zcdp",)},
)


@contextmanager
def party(job: Job) -> Iterator[Call]:
    from trustcompute import dp
    from trustcompute.primitives import sampling
    from trustcompute.primitives.rng import Rng

    rng = Rng.from_os()
    calls: dict[str, Callable[[int], int]] = {
        "laplace": lambda count: len(sampling.discrete_laplace(rng, Fraction(100), count)),
        "gaussian": lambda count: len(sampling.discrete_gaussian(rng, Fraction(100**2), count)),
        "gaussian-large": lambda count: len(sampling.discrete_gaussian(rng, Fraction(2**40), count)),
    }

    def release() -> int:
        found = dp.release(
            str(job.input("table.parquet")),
            [dp.count(), dp.mean("value", 0, 100)],
            by=dp.public("group", range(1000)),
            unit=dp.PrivacyUnit("user", groups=5, rows_per_group=5),
            budget=dp.zcdp("0.1"),
        )
        return found.to_arrow().num_rows

    if job.task == "release":
        yield release
    else:
        calls[job.task](10_000)  # makes the tables
        yield lambda: calls[job.task](job.rows)
