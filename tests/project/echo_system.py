"""A system for the harness's own tests: the consumer sends a byte a row and hears half of them back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.system import Call, Job, System

PROTOCOLS = ("right", "wrong", "dies", "hangs")
SYSTEM = System(name="echo", module="tests.project.echo_system", protocols={"echo": PROTOCOLS})


def version() -> str:
    return "7"


@contextmanager
def party(job: Job) -> Iterator[Call]:
    if job.role == "provider":
        with socket.create_server(("127.0.0.1", job.ports[0])) as listener:
            connection, _ = listener.accept()
    else:
        connection = _connect(job.ports[0])

    def provide() -> None:
        if job.protocol == "dies":
            raise RuntimeError("the provider lost its key")
        if job.protocol == "hangs":
            time.sleep(60)
        got = connection.makefile("rb").read(job.rows)
        connection.sendall(got[: job.rows // 2])

    def consume() -> int:
        print("a library that prints")
        connection.sendall(b"x" * job.rows)
        answer = connection.makefile("rb").read(job.rows // 2)
        return len(answer) + (job.protocol == "wrong")

    with connection:
        yield provide if job.role == "provider" else consume


def _connect(port: int) -> socket.socket:
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError("the provider does not listen")
