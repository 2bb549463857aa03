"""CPython's ``hashlib``, one call a row, over the same bytes as ``digest_columns`` hashes."""

from __future__ import annotations

import hashlib
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.system import Call, Job, System

SYSTEM = System(name="hashlib", module="benchmarks.peers.hashlib", protocols={"digest": ("sha256",)})


def version() -> str:
    return f"python {platform.python_version()}"


@contextmanager
def party(job: Job) -> Iterator[Call]:
    cells = [b"%018d" % row for row in range(job.rows)]
    prefix = hashlib.sha256(bytes(64))
    head = struct.pack("<BI", 1, 18)

    def digest() -> None:
        for cell in cells:
            row = prefix.copy()
            row.update(head + cell)
            row.digest()

    yield digest
