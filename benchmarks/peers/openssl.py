"""OpenSSL through the ``cryptography`` package, one call an element: X25519 instead of ristretto255."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed

from benchmarks.system import Call, Job, System

SYSTEM = System(
    name="openssl",
    module="benchmarks.peers.openssl",
    protocols={"scalar-mult": ("x25519",), "scalar-mult-base": ("x25519",)},
)


def version() -> str:
    return f"cryptography {installed('cryptography')}"


@contextmanager
def party(job: Job) -> Iterator[Call]:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    secret = X25519PrivateKey.generate()
    peers = [X25519PrivateKey.generate().public_key() for _ in range(job.rows)]

    def exchange() -> None:
        for peer in peers:
            secret.exchange(peer)

    def public_keys() -> None:
        for _ in range(job.rows):
            X25519PrivateKey.generate().public_key().public_bytes_raw()

    yield exchange if job.task == "scalar-mult" else public_keys
