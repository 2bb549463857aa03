"""TenSEAL's BFV under a public key, a plaintext modulus of 20 bits, a ciphertext a vector, with its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed

from benchmarks.system import Call, Job, System

SIZE = {"bfv-4096": 4096, "bfv-8192": 8192}
MODULUS = 1032193
SYSTEM = System(
    name="tenseal",
    module="benchmarks.peers.tenseal",
    protocols={"rlwe-public": tuple(SIZE), "rlwe-decrypt": tuple(SIZE)},
    requirements=("tenseal==0.3.18",),
    pythons=((3, 10), (3, 11), (3, 12), (3, 13)),
)


def version() -> str:
    return installed("tenseal")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    import tenseal as ts

    size = SIZE[job.protocol]
    context = ts.context(ts.SCHEME_TYPE.BFV, poly_modulus_degree=size, plain_modulus=MODULUS, n_threads=1)
    vectors = [[at % 100 for at in range(size)]] * -(-job.rows // size)
    sent = ts.bfv_vector(context, vectors[0]).serialize()

    def encrypt() -> int:
        for vector in vectors:
            ts.bfv_vector(context, vector).serialize()
        return job.rows

    def decrypt() -> int:
        for _ in vectors:
            ts.bfv_vector_from(context, sent).decrypt()
        return job.rows

    yield decrypt if job.task == "rlwe-decrypt" else encrypt
