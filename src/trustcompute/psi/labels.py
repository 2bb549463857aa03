"""Labels of matched keys: encrypted row by row, each under a key that only the holder of its match key can compute.

Called by ``psi.vole``. The key of a row is a second output of the pseudorandom function whose first output is compared:
128 bits, under a secret of one run, so it serves one label. The pad of a label is AES-128 in counter mode under it, in
the form of Davies and Meyer (AES(key, i) ⊕ i), which the kernel has; the counters are public, so this is the plain
counter mode with a constant added.

Who does not hold the key of a row sees pseudorandom bytes. A label does not prove itself: the digest of all messages of
the run (``vole.seal``) ends a run in which one was altered on the way, and sides are semi-honest.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.psi.matching import U8

KEY: Final = 16  # bytes
BLOCK: Final = 16


def sealed(keys: U8, labels: U8) -> U8:
    """Labels encrypted, or decrypted again. keys: uint8[n, 16], one for each row of labels, uint8[n, w]."""
    width = labels.shape[1]
    found = np.empty_like(labels)
    for number, start in enumerate(range(0, width, BLOCK)):
        counter = np.frombuffer((number + 1).to_bytes(BLOCK, "little"), np.uint8)
        counters = np.ascontiguousarray(np.broadcast_to(counter, (len(labels), BLOCK)))
        pad = kernels.aes128_davies_meyer(np.ascontiguousarray(keys), counters)
        found[:, start : start + BLOCK] = labels[:, start : start + BLOCK] ^ pad[:, : width - start]
    return found
