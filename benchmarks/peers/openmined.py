"""OpenMined PSI: ECDH over P-256 with the server's set in a Golomb-compressed set, a Bloom filter or raw.

The library has no transport; here each protobuf crosses a loopback TCP connection behind its length. Client
and server work at the same time where the protocol lets them: the server encrypts its set while the client
encrypts its own.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed

from benchmarks.system import Call, Job, System, keys_of, write_keys

# The compressed sets have false positives by design. At one in 2^40 a query they are as unlikely as in ours.
FALSE_POSITIVE_RATE = 2.0**-40

_STRUCTURES = ("gcs", "raw", "bloom")
SYSTEM = System(
    name="openmined",
    module="benchmarks.peers.openmined",
    protocols={"intersect": _STRUCTURES, "cardinality": _STRUCTURES},
    requirements=("openmined.psi==2.0.6", "protobuf==6.30.2"),
    pythons=((3, 10), (3, 11), (3, 12), (3, 13)),
)


def version() -> str:
    return installed("openmined.psi")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    from private_set_intersection import python as psi

    structure = {
        "gcs": psi.DataStructure.GCS,
        "raw": psi.DataStructure.RAW,
        "bloom": psi.DataStructure.BLOOM_FILTER,
    }[job.protocol]
    reveal = job.task == "intersect"

    def provide() -> None:
        server = psi.server.CreateWithNewKey(reveal)
        keys = keys_of(job.input("provider.csv"))
        _send(connection, server.CreateSetupMessage(FALSE_POSITIVE_RATE, job.rows, keys, structure))
        _send(connection, server.ProcessRequest(_receive(connection, psi.Request())))

    def consume() -> int:
        client = psi.client.CreateWithNewKey(reveal)
        keys = keys_of(job.input("consumer.csv"))
        _send(connection, client.CreateRequest(keys))
        setup = _receive(connection, psi.ServerSetup())
        response = _receive(connection, psi.Response())
        if not reveal:
            return client.GetIntersectionSize(setup, response)
        found = client.GetIntersection(setup, response)
        write_keys(job.path("matched.csv"), [keys[row] for row in found])
        return len(found)

    if job.role == "provider":
        with socket.create_server(("127.0.0.1", job.ports[0])) as listener:
            connection, _ = listener.accept()
    else:
        connection = _connect(job.ports[0])
    with connection:
        yield provide if job.role == "provider" else consume


def _connect(port: int) -> socket.socket:
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError("the provider does not listen")


def _send(connection: socket.socket, message) -> None:
    data = message.SerializeToString()
    connection.sendall(struct.pack("<Q", len(data)) + data)


def _receive(connection: socket.socket, message):
    with connection.makefile("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        message.ParseFromString(stream.read(size))
    return message
