"""``trustcompute doctor``: what this installation uses, and why."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys

from trustcompute import __version__, kernels
from trustcompute.cli.options import AsJson
from trustcompute.cli.output import out, print_fields, print_json

PACKAGES = ("numpy", "pyarrow", "cryptography", "gmpy2", "pydantic", "orjson")


def doctor(as_json: AsJson = False) -> None:
    """Tell which kernels are in use and why, and the versions of what matters."""
    active = kernels.active()
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    document = {
        "trustcompute": __version__,
        "kernels": active.name,
        "reason": active.reason,
        "instruction_sets": list(active.features),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "packages": packages,
    }
    if as_json:
        print_json(document)
        return
    print_fields(
        [
            ("trustcompute", __version__),
            ("kernels", f"{active.name}: {active.reason}"),
            ("instruction sets", ", ".join(active.features) or "none beyond the baseline"),
            ("python", f"{document['python']} at {sys.executable}"),
            ("system", f"{document['system']}, {document['processors']} processors"),
            *packages.items(),
        ]
    )
    if active.name == "reference":
        out.print("\nEverything works, slower. A C++20 compiler at installation makes it fast.")
