"""Differentially private release.

laplace, laplace-large, gaussian, gaussian-wide, gaussian-large: as many exact samples as rows, with scale 100 and 10^6,
    σ = 100, 2^14 and 2^20
release, release-small: a whole release in one process, from a Parquet file: rows of rows/10 users in 1,000 groups;
    count and mean by group; a user counts in at most 5 groups, with at most 5 rows in each
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.layers.layer import Layer
from benchmarks.peers import opendp, pipelinedp
from benchmarks.systems import trustcompute_dp

GROUPS = 1000


def prepare(folder: Path, task: str, rows: int) -> int:
    if not task.startswith("release"):
        return rows
    drawn = np.random.default_rng(rows)
    table = pa.table(
        {
            "user": drawn.integers(0, max(rows // 10, 1), rows),
            "group": drawn.integers(0, GROUPS, rows).astype(np.int32),
            "value": drawn.random(rows) * 100,
        }
    )
    pq.write_table(table, folder / "table.parquet")
    return GROUPS


LAYER = Layer(
    name="dp",
    tasks=dict.fromkeys(trustcompute_dp.NOISE, (10**6,)) | {"release": (10**7,), "release-small": (10**5,)},
    roles=("process",),
    ours=trustcompute_dp.SYSTEM,
    peers=(opendp.SYSTEM, pipelinedp.SYSTEM),
    prepare=prepare,
)
