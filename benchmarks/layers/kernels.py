"""The kernels on one thread, over 32-byte values; ``digest`` hashes one text column of 18 characters."""

from __future__ import annotations

from pathlib import Path

from benchmarks.layers.layer import Layer
from benchmarks.peers import hashlib, openssl
from benchmarks.systems import trustcompute_kernels

_CURVE = (2**12,)


def prepare(folder: Path, task: str, rows: int) -> None:
    """Nothing: each process draws its inputs before the clock starts."""


LAYER = Layer(
    name="kernels",
    tasks={
        task: (2**18,) if task in ("digest", "oprf-finalize") else _CURVE
        for task in trustcompute_kernels.TASKS
    },
    roles=("process",),
    ours=trustcompute_kernels.SYSTEM,
    peers=(openssl.SYSTEM, hashlib.SYSTEM),
    prepare=prepare,
)
