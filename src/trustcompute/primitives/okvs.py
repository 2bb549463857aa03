"""The sizes of a key-value store, and encoding and decoding one with all processors.

Called by ``psi.vole``. The store is that of Raghuraman and Rindal, "Blazing Fast PSI from Improved OKVS and Subfield
VOLE" (CCS 2022, ePrint 2022/320), with three sparse cells a key and the powers of one GF(2¹²⁸) element as dense part
(``kernels.reference.okvs``). Keys are spread over bins of about 2¹⁴, so that cell numbers fit 16 bits and a bin fits
a cache. Encoding one store of n keys fails with probability at most 2⁻⁴⁰: half of it that some bin overflows, half
that the equations of some bin cannot be solved; each bin gets its share.

Sizes are computed with correctly rounded arithmetic: both sides find the same, whatever their processors.
"""

from __future__ import annotations

from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

import gmpy2
import numpy as np

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.kernels import OkvsShape
from trustcompute.kernels.arrays import U8
from trustcompute.primitives.parallel import map_rows

FAILURE_BITS: Final = 40  # encoding a store fails with probability at most 2^-40
BIN: Final = 2**14  # keys of a bin, on average
FITTED: Final = 2**10  # the fewest keys the formula for the expansion was fitted to; fewer get the same cells
MAX_KEYS: Final = 2**31 - 1
DECODE_ROWS: Final = 2**15  # keys a task
TASKS: Final = 4  # of an encoding
_PRECISION: Final = 100


def shape(keys: int) -> OkvsShape:
    """The store for this many keys. Raises ``ParameterError`` for more than 2³¹ - 1."""
    if not 0 <= keys <= MAX_KEYS:
        raise ParameterError(f"a key-value store takes 0 to {MAX_KEYS} keys, not {keys}")
    bins = max(1, -(-keys // BIN))
    with gmpy2.context(gmpy2.get_context(), precision=_PRECISION):
        bits = FAILURE_BITS + 1 + gmpy2.log2(gmpy2.mpfr(bins))
        capacity = _capacity(keys, bins, bits)
        fitted = max(capacity, FITTED)
        cells = gmpy2.ceil(_expansion(fitted, bits) * fitted)
        # Beyond this many equations that depend on others, log2(cells) bits are lost for each further one.
        dense = gmpy2.floor(bits / gmpy2.log2(cells))
    return OkvsShape(bins=bins, sparse=int(cells), dense=int(dense), capacity=capacity)


def _expansion(keys: int, bits: Any) -> Any:
    """Cells a key so that solving fails with probability 2⁻ᵇⁱᵗˢ (ePrint 2022/320, §4.2, three cells a key)."""
    w = gmpy2.log2(gmpy2.mpfr(3))
    coefficients = [gmpy2.mpfr(text) for text in ("0.093", "-1.01", "2.925", "-0.133")]
    slope = gmpy2.mpfr("0.555") * gmpy2.log2(gmpy2.mpfr(keys))
    slope += sum(c * w**power for c, power in zip(coefficients, (3, 2, 1, 0), strict=True))
    return gmpy2.mpfr("1.223") + (bits + gmpy2.mpfr("9.2")) / gmpy2.exp2(slope)


def _capacity(keys: int, bins: int, bits: Any) -> int:
    """The least k for which a bin gets more than k of the keys with probability at most 2⁻ᵇⁱᵗˢ (Chernoff's bound)."""
    if bins == 1:
        return keys

    def enough(k: int) -> bool:
        share, fair = gmpy2.mpfr(k + 1) / keys, gmpy2.mpfr(1) / bins
        if share >= 1:
            return True
        divergence = share * gmpy2.log2(share / fair) + (1 - share) * gmpy2.log2((1 - share) / (1 - fair))
        return bool(keys * divergence >= bits)

    low, high = -(-keys // bins), keys  # below the mean the bound says nothing
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low


def encode(hashes: U8, values: U8, key: bytes, of: OkvsShape, *, executor: Executor | None = None) -> U8:
    """The store that decodes each hash to its value: uint8[n, 16], uint8[n, 16] -> uint8[cells, 16].

    key: 16 random bytes, drawn once the hashes' preimages are fixed. Raises ``OkvsFailure``.
    """
    if executor is None or of.bins < TASKS:
        return kernels.okvs_encode(hashes, values, key, of, range(of.bins))
    encoded = partial(kernels.okvs_encode, hashes, values, key, of)  # each task passes over all keys once
    step = -(-of.bins // TASKS)
    parts = [range(first, min(first + step, of.bins)) for first in range(0, of.bins, step)]
    return np.concatenate(list(executor.map(encoded, parts)))


def decode(hashes: U8, table: U8, key: bytes, of: OkvsShape, *, executor: Executor | None = None) -> U8:
    """The value of each hash: uint8[n, 16], uint8[cells, 16] -> uint8[n, 16]."""
    decoded = partial(kernels.okvs_decode, table=table, key=key, shape=of)
    return map_rows(decoded, hashes, executor=executor, chunk=DECODE_ROWS)
