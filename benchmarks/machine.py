"""The machine a figure was measured on; a figure without it says nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# What the kernels could use; the other hundred flags tell a reader nothing.
_FLAGS = (
    "aes",
    "avx2",
    "avx512f",
    "avx512ifma",
    "avx512_vnni",
    "bmi2",
    "pclmulqdq",
    "sha_ni",
    "vaes",
    "vpclmulqdq",
)
_PACKAGES = ("numpy", "pyarrow", "cryptography", "gmpy2")


class Machine(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    flags: list[str]
    cores: int
    memory_mb: int
    kernel: str
    python: str
    packages: dict[str, str]


def _field(text: str, name: str) -> str:
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(name)), "")


def this_machine() -> Machine:
    """Reads /proc: the benchmarks run on Linux."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = set(_field(cpu, "flags").split()) | set(_field(cpu, "Features").split())
    memory = _field(Path("/proc/meminfo").read_text(encoding="utf-8"), "MemTotal")
    return Machine(
        cpu=_field(cpu, "model name") or platform.machine(),
        flags=[flag for flag in _FLAGS if flag in flags],
        cores=len(os.sched_getaffinity(0)),
        memory_mb=int(memory.split()[0]) * 1024 // 10**6,
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
    )
