"""Aggregation, one thread but for `star` and `long`; rows are values of one contributor.

masked: what one of ten contributors does to its vector: ten masks
add: what the aggregator does with one contributor's vector: adding it to the total
rlwe-secret, rlwe-public: encrypt under a secret or a public key, and pack the bytes
rlwe-decrypt: read packed bytes and decrypt
paillier: encrypt 42-bit slots at 3072 bits, the randomness drawn within the time, its table of powers before
paillier-decrypt: decrypt and take the slots apart
star: a whole round of 100 contributors in one process on all processors, one of three gone after sharing, which is as
    many as the threshold allows; checked against a plain sum
long: vectors that are made as they are read, so that what is held is the sum and pieces; in one process or by nodes
threshold: keys, encryption, one share each and the opening of all parties of rlwe-threshold, one after the other
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.layers.layer import Layer
from benchmarks.peers import addition, phe, tenseal
from benchmarks.systems import trustcompute_aggregation


def prepare(folder: Path, task: str, rows: int) -> int:
    """Each process draws its inputs before the clock starts, and answers with how many values it did."""
    return rows


LAYER = Layer(
    name="aggregation",
    tasks={
        "masked": (10**7,),
        "add": (10**7,),
        "rlwe-secret": (2**22,),
        "rlwe-public": (2**22,),
        "rlwe-decrypt": (2**22,),
        "paillier": (73 * 500,),
        "paillier-decrypt": (73 * 200,),
        "star": (10**6,),
        "long": (10**7,),
        "threshold": (2**18,),
    },
    roles=("process",),
    ours=trustcompute_aggregation.SYSTEM,
    peers=(phe.SYSTEM, tenseal.SYSTEM, addition.SYSTEM),
    prepare=prepare,
)
