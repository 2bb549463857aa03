"""PipelineDP on its local backend: a whole release, as Python objects row by row.

It bounds, adds up and draws noise as ours does; its sums are of floats, and its noise is not exact. Rows are made into
Python tuples before the clock starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed
from operator import itemgetter
from typing import Any

from benchmarks.system import Call, Job, System

GROUPS, MOST = 1000, 5
SYSTEM = System(
    name="pipelinedp",
    module="benchmarks.peers.pipelinedp",
    protocols={"release-small": ("local",)},
    requirements=("pipeline-dp==0.3.1", "python-dp==1.1.5", "pyarrow==21.0.0", "numpy==2.2.6"),
    pythons=((3, 11), (3, 12)),
)


def version() -> str:
    return installed("pipeline-dp")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    import pyarrow.parquet as pq

    table = pq.read_table(job.input("table.parquet"))
    rows = list(zip(*(table[name].to_pylist() for name in ("user", "group", "value")), strict=True))
    yield lambda: _release(rows)


def _release(rows: list[Any]) -> int:
    import pipeline_dp

    budget = pipeline_dp.NaiveBudgetAccountant(total_epsilon=2, total_delta=1e-6)
    asked = pipeline_dp.AggregateParams(
        noise_kind=pipeline_dp.NoiseKind.GAUSSIAN,
        metrics=[pipeline_dp.Metrics.COUNT, pipeline_dp.Metrics.MEAN],
        max_partitions_contributed=MOST,
        max_contributions_per_partition=MOST,
        min_value=0,
        max_value=100,
    )
    extract = pipeline_dp.DataExtractors(
        privacy_id_extractor=itemgetter(0), partition_extractor=itemgetter(1), value_extractor=itemgetter(2)
    )
    engine = pipeline_dp.DPEngine(budget, pipeline_dp.LocalBackend())
    answers = engine.aggregate(rows, asked, extract, public_partitions=list(range(GROUPS)))
    budget.compute_budgets()
    return len(list(answers))
