"""python-paillier at 3072 bits, one value a ciphertext, as it encrypts integers: about 30 a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed

from benchmarks.system import Call, Job, System

BITS = 3072
SYSTEM = System(
    name="phe",
    module="benchmarks.peers.phe",
    protocols={"paillier": ("3072 bits",), "paillier-decrypt": ("3072 bits",)},
    requirements=("phe==1.5.0", "gmpy2==2.3.2"),
)


def version() -> str:
    return installed("phe")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    from phe import paillier

    public, secret = paillier.generate_paillier_keypair(n_length=BITS)
    values = [(at * 7919) % 2**40 - 2**39 for at in range(job.rows)]
    sent = [public.encrypt(one) for one in values] if job.task == "paillier-decrypt" else []

    def encrypt() -> int:
        return len([public.encrypt(one) for one in values])

    def decrypt() -> int:
        return len([secret.decrypt(one) for one in sent])

    yield decrypt if job.task == "paillier-decrypt" else encrypt
