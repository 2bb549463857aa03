"""How wide compared values must be, and matching them. Every PSI protocol ends here.

Values compared are truncated outputs of a pseudorandom function. Two that differ collide with probability
2⁻ᵇ at b bits, so n · m pairs produce a false match with probability at most n · m · 2⁻ᵇ; with
b = λ + log2(n · m), for the sizes of the whole job, that is 2⁻ᵏ for k = λ.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import LocalProtocolError, ParameterError, RemoteProtocolError
from trustcompute.primitives.parallel import map_rows

U8 = npt.NDArray[np.uint8]

STATISTICAL_SECURITY: Final = 40  # λ: a wrong match in the whole job has probability at most 2^-40
MAX_ROWS: Final = 2**31 - 1  # distinct keys of one run; more are cut into bucket runs
MAX_JOB_ROWS: Final = 2**40  # of a whole job


def width(consumer_rows: int, provider_rows: int) -> int:
    """Bytes to compare: ⌈(λ + log2(n · m)) / 8⌉, for the numbers of distinct keys of the whole job."""
    for rows in (consumer_rows, provider_rows):
        if not 0 <= rows <= MAX_JOB_ROWS:
            raise ParameterError(f"a job takes 0 to {MAX_JOB_ROWS} distinct keys a side, not {rows}")
    pairs_bits = (max(consumer_rows, 1) * max(provider_rows, 1) - 1).bit_length()
    return -(-(STATISTICAL_SECURITY + pairs_bits) // 8)


def check_width(values: U8, consumer_rows: int, provider_rows: int) -> None:
    """Refuse to compare values narrower than the sizes demand: a protocol that forgets the bound stops here."""
    if values.shape[1] < width(consumer_rows, provider_rows):
        raise LocalProtocolError(
            f"comparing {values.shape[1]} bytes is less than {STATISTICAL_SECURITY} bits of statistical security "
            f"for {consumer_rows} × {provider_rows} keys"
        )


def compared(elements: U8, label: bytes, width: int, *, executor: Executor | None = None) -> U8:
    """What is compared of group elements: uint8[n, 32] -> uint8[n, width], SHA-256 under a label of the protocol's own.

    label: 64 bytes, one block of the hash.
    """
    hashed = partial(_hashed, label=label)
    return map_rows(hashed, elements, executor=executor, chunk=_HASHED)[:, :width]


_HASHED: Final = 2**14
"""Rows a task of hashing: about 2 ms."""


def _hashed(elements: U8, label: bytes) -> U8:
    return kernels.digest_columns(label, [kernels.FixedColumn(0, elements)])


def positions(values: U8, table: U8) -> npt.NDArray[np.int64]:
    """For each row of ``values`` (uint8[n, w]) its position in ``table`` (uint8[m, w], distinct rows), or -1."""
    return kernels.match_rows(values, table, os.urandom(16))


_MATCHED: Final = 2**16


def in_order(values: U8) -> tuple[npt.NDArray[np.int64], U8]:
    """Rows (uint8[m, w]) sorted by their bytes, an order that tells nothing of where they were, and where each was."""
    return kernels.sort_rows(values)


def found_in_order(values: U8, table: U8, *, executor: Executor | None = None) -> npt.NDArray[np.int64]:
    """``positions`` in a table that a peer sorted. Raises ``RemoteProtocolError`` if it did not."""
    try:
        match = partial(kernels.match_sorted, table=table)  # each task indexes the whole table
        return map_rows(match, values, executor=executor, chunk=max(_MATCHED, -(-len(values) // 2)))
    except kernels.NotSorted as error:
        raise RemoteProtocolError(f"row {error.index} of the table a peer sent is out of order") from error
