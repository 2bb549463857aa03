"""What verification takes for tables of any size, worked out from two speeds measured now.

``python -m benchmarks.systems.verification_model 1000000 100000000`` prints, for each number of records: bytes of the
masked table in both layouts; the time of one private product, its bytes over the speed at which this machine reads
memory; of the hint, its multiplications over the speed of the kernel; what an asker sends and receives; memory and disk
that building takes. Nothing of that size is made: ``python -m benchmarks verification --task kernel --rows 10^8``
measures the product itself, ``--task private`` a whole question about a table on disk.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from trustcompute import kernels
from trustcompute.tables.spread import BUFFER, SPREAD
from trustcompute.verification import layout
from trustcompute.verification.evaluated import ROW
from trustcompute.verification.layout import BLOCK
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.pir import COLUMNS_AT_ONCE, ROWS_AT_ONCE
from trustcompute.verification.proof import ROWS

READ = 2**29
"""Bytes a thread reads to measure memory: far more than any cache holds."""
KEY, SAID = 32, 33
DISK = SAID + 3 * ROW + (KEY + ROW) + (4 + ROW)
"""Bytes a record beside the table: what is decided, rows in three orders, those kept, those being put in order."""


def fastest(call: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of some calls."""
    found = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def read_speed(threads: int) -> float:
    """Bytes a second that so many threads read together."""
    words = [np.ones(READ // 8, dtype=np.int64) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        return threads * READ / fastest(lambda: list(pool.map(np.bitwise_xor.reduce, words)))


def multiply_speed(threads: int) -> float:
    """Products of a byte and a word a second, of so many threads together."""
    database = np.ones((768, 2**12), dtype=np.int8)
    matrix = np.ones((2**12, DIMENSION), dtype=np.uint32)
    with ThreadPoolExecutor(threads) as pool:
        seconds = fastest(
            lambda: list(pool.map(lambda _: kernels.pir_multiply(database, matrix), range(threads)))
        )
    return threads * database.size * DIMENSION / seconds


def lines(records: int, read: float, multiply: float) -> list[tuple[str, str]]:
    """What a table of so many records takes: names and figures with their units."""
    columns = layout.columns_for(records)
    capacity = -(-records // columns)
    length = layout.Shape(columns, capacity + -(-capacity // 20)).length
    database, hint = length * columns, 4 * DIMENSION * length
    spreading = BUFFER + 4 * (4 + ROW) * records // SPREAD
    multiplying = 4 * DIMENSION * COLUMNS_AT_ONCE + 3 * hint + 2 * ROWS_AT_ONCE * COLUMNS_AT_ONCE
    return [
        ("columns x bytes of each", f"{columns:,} x {length:,}"),
        ("masked table, columns", f"{database / 1e6:,.0f} MB, {database / max(1, records):.1f} bytes a record"),
        ("private product", f"{1e3 * database / read:,.1f} ms for one question"),
        ("batch of 1,000", f"{records and 1000 * database / multiply:,.1f} s"),
        ("hint", f"{database * DIMENSION / multiply:,.0f} s to make, {hint / 1e6:,.1f} MB to receive once"),
        ("asker sends, receives", f"{4 * columns / 1e3:,.0f} kB, {4 * length / 1e3:,.1f} kB a question"),
        ("asker keeps", f"{(hint + 40 * columns) / 1e6:,.0f} MB, and an auditor's check of"
         f" {(4 * columns + length // 8) * ROWS / 1e6:,.0f} MB"),
        ("memory to build", f"{max(spreading, 14 * BLOCK, multiplying) / 1e6:,.0f} MB beside what the process has"),
        ("disk to build", f"{DISK * records / 1e9:,.1f} GB beside the table"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=int, nargs="*", default=[10**6, 10**7, 10**8])
    options = parser.parse_args()
    threads = os.cpu_count() or 1
    read, multiply = read_speed(threads), multiply_speed(threads)
    print(
        f"measured on {threads} threads: memory is read at {read / 1e9:.1f} GB/s; the kernel multiplies"
        f" {multiply / 1e9:.1f} thousand million bytes a second"
    )
    for records in options.records:
        print(f"\n{records:,} records")
        for name, figure in lines(records, read, multiply):
            print(f"  {name:<24} {figure}")


if __name__ == "__main__":
    main()
