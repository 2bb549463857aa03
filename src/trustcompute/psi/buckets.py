"""A large intersection cut into runs: each takes one bucket of both sides' keys, padded, and is a run like any other.

Called by ``psi.operation``, which declares ``runs`` of a request, and by the node, which runs them one by one.

Keys are spread by the first 64 bits of their digests (``tables.parts``), so that equal keys meet in the same bucket;
each bucket is filled up with random digests to a size that follows from the declared numbers of keys alone: how
the keys fall into buckets shows nowhere. Nothing is matched on these 64 bits. Compared values are as wide as the
whole job demands (``matching.width``), since wrong matches of all buckets add up.

A bucket that gets more keys than it can hold ends the job. With n keys spread by random digests over k buckets, some
bucket of either side exceeds its size with probability at most 2⁻⁴⁰ (Bernstein's inequality and a union bound over 2k
buckets). Who can put keys of his choice into a table can make them crowd: he can stop the job, and learns nothing.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.psi import matching
from trustcompute.psi.matching import U8

MAX_RUNS: Final = 256  # as many answers as a job may have
TARGET: Final = 2**20  # keys of a bucket, on the larger side: about 200 MB of memory a party, and 1 s of work
OVERLAPPING: Final = 4  # runs: while one side of one waits, another works
WORTH_A_RUN: Final = 2**17  # keys, beside which what a run costs at least (0.1 s) is little
FAILURE_BITS: Final = 40


def runs_of(params: Params) -> int:
    """How many runs a request is cut into."""
    return int(params.get("runs", 1))


def check(params: Params, sizes: Sizes) -> dict[str, int]:
    """The canonical form of ``runs``: left out where there is one. Raises ``ParameterError``."""
    runs = params.get("runs", 1)
    if type(runs) is not int or not 1 <= runs <= MAX_RUNS:
        raise ParameterError(f"runs must be a number from 1 to {MAX_RUNS}")
    if runs > 1 and (params.get("output", "rows"), params.get("reveal", "consumer")) != ("rows", "consumer"):
        raise ParameterError(
            "a job of several runs finds rows, for the consumer: runs must be 1 for anything else"
        )
    for rows in (sizes.consumer, sizes.provider):
        if capacity(rows, runs) > matching.MAX_ROWS:
            raise ParameterError(
                f"a run takes at most {matching.MAX_ROWS} distinct keys a side: ask for more runs"
            )
    return {} if runs == 1 else {"runs": runs}


def plan_runs(sizes: Sizes, target: int = TARGET) -> int:
    """How many runs keep buckets near ``target`` keys on the larger side, and both sides at work."""
    larger = max(sizes.consumer, sizes.provider)
    return min(MAX_RUNS, max(1, -(-larger // target), min(OVERLAPPING, larger // WORTH_A_RUN)))


def capacity(rows: int, runs: int) -> int:
    """The padded size of a bucket: keys it holds with the probability the module states. Exact in integers."""
    if runs == 1:
        return rows
    mean = -(-rows // runs)
    nats = -(-(FAILURE_BITS + 1 + (runs - 1).bit_length()) * 6932 // 10000)  # ln 2 < 0.6932
    # P[X >= mean + d] <= exp(-d² / (2·mean + 2d/3)): solved for d, rounded up.
    excess = (nats + isqrt(nats * nats + 18 * mean * nats) + 1) // 3 + 1
    return min(rows, mean + excess)


def sizes_of_a_run(sizes: Sizes, runs: int) -> Sizes:
    """The declared sizes of each run of a job."""
    return Sizes(capacity(sizes.consumer, runs), capacity(sizes.provider, runs))


def padded(digests: U8, size: int, rng: Rng) -> U8:
    """A bucket's digests, uint8[n, 32], filled up with random ones: uint8[size, 32]. Raises ``ParameterError``."""
    lacking = size - len(digests)
    if lacking < 0:
        raise ParameterError(
            f"{-lacking} keys more fall into one bucket than it may hold: the key digests are not spread evenly,"
            " which somebody may have brought about; ask for one run"
        )
    return np.concatenate([digests, rng.array(32 * lacking).reshape(lacking, 32)]) if lacking else digests
