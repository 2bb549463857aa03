"""Products modulo 2³² over a database of signed bytes (SimplePIR), and with a matrix that AES expands from keys.

Henzinger, Hong, Corrigan-Gibbs, Meiklejohn and Vaikuntanathan, "One Server for the Price of Two" (USENIX Security
2023).
"""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import I8, U8, U32
from trustcompute.kernels.reference.aes import aes128_ctr

_BYTES = 2**26
"""Of a piece of the database, once it is widened to words."""


def pir_answer(database: I8, queries: U32) -> U32:
    return pir_multiply(database, queries.T)


def pir_multiply(database: I8, matrix: U32) -> U32:
    step = max(1, _BYTES // (4 * max(1, database.shape[1])))
    pieces = [database[at : at + step].astype(np.uint32) @ matrix for at in range(0, len(database), step)]
    return np.concatenate(pieces) if pieces else np.zeros((0, matrix.shape[1]), dtype=np.uint32)


def word_product(matrix: U32, vector: U32) -> U32:
    return np.asarray(matrix @ vector, dtype=np.uint32)


def lwe_product(keys: U8, rows: int, secret: U32) -> U32:
    out = np.empty((len(keys), rows), dtype=np.uint32)
    for index, key in enumerate(keys):
        drawn = aes128_ctr(key[None], rows * len(secret) // 4)
        out[index] = drawn.view("<u4").reshape(rows, len(secret)) @ secret
    return out.reshape(-1)
