"""The linear code of silent VOLE: expand-convolute, 21 cells a row, 24 random taps.

Raghuraman, Rindal and Tanguy, "Expand-Convolute Codes for Pseudorandom Correlation Generators from LPN" (CRYPTO 2023,
ePrint 2023/882). A vector (s, u) of 2k elements is compressed to s + E·(A·u):

- A, the convolution, goes over u in order: to each entry it adds those of the 24 results before it where a bit of a
  public random word says so, and always the result before these. It goes over u twice, and the second round begins
  with the results the first one ended with: so a sum whose support lies near the end still reaches everything.
- E, the expander, gives each output 21 entries of the result, one from each of 21 segments of equal length.

Everything random comes from AES-128 in counter mode under a public key.
"""

from __future__ import annotations

import numpy as np

from trustcompute.kernels.arrays import CODE_TAPS, CODE_WEIGHT, U8
from trustcompute.kernels.reference.aes import counters, encrypt

SECOND = (
    1 << 61
)  # counters: the convolution's rounds start at 0 and 2^61, the expander's segments at 2^62, 2^40 apart
EXPANDER, SEGMENT = 1 << 62, 1 << 40


def code_convolve(vector: U8, key: bytes) -> U8:
    x = [int.from_bytes(row.tobytes(), "little") for row in vector]
    window = [0] * (CODE_TAPS + 1)  # the results before, the oldest first
    for start in (0, SECOND):
        taps = encrypt(key, counters(start, -(-len(x) // 4))).view("<u4").reshape(-1).tolist()
        for index, value in enumerate(x):
            total = value ^ window[0]
            for bit in range(CODE_TAPS):
                if taps[index] >> bit & 1:
                    total ^= window[bit + 1]
            x[index] = total
            window = [*window[1:], total]
    return np.frombuffer(b"".join(value.to_bytes(16, "little") for value in x), dtype=np.uint8).reshape(
        -1, 16
    )


def code_compress(vector: U8, outputs: int, key: bytes) -> U8:
    half = len(vector) // 2
    vector[half:] = code_convolve(vector[half:], key)
    vector[:outputs] = code_expand(vector[half:], vector[:outputs], key, 0)
    return vector[:outputs]


def code_expand(vector: U8, systematic: U8, key: bytes, first: int) -> U8:
    size, count = len(vector), len(systematic)
    block, skipped = divmod(first, 4)
    out = systematic.copy()
    for segment in range(CODE_WEIGHT):
        start, end = segment * size // CODE_WEIGHT, (segment + 1) * size // CODE_WEIGHT
        drawn = encrypt(key, counters(EXPANDER + segment * SEGMENT + block, -(-(skipped + count) // 4)))
        words = drawn.view("<u4").reshape(-1)[skipped : skipped + count].astype(np.uint64)
        out ^= vector[start + (words * np.uint64(end - start) >> np.uint64(32)).astype(np.int64)]
    return out
