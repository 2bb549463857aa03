"""SecretFlow's PSI as published in the ``spu`` wheel: RR22, KKRT and three curves of ECDH, CSV to CSV.

``ecdh-25519`` takes SHA-256 bytes as X25519 coordinates, which tells the peer about one bit of each key;
``ecdh-elligator2`` hashes to the curve properly and is the like-for-like of an OPRF.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version as installed

from benchmarks.system import Call, Job, System

_ECDH_CURVES = {
    "ecdh-25519": "CURVE_25519",
    "ecdh-elligator2": "CURVE_25519_ELLIGATOR2",
    "ecdh-fourq": "CURVE_FOURQ",
}
SYSTEM = System(
    name="spu",
    module="benchmarks.peers.spu",
    protocols={
        "intersect": ("ecdh-elligator2", "ecdh-25519", "ecdh-fourq", "kkrt", "rr22"),
        "parquet": ("rr22", "kkrt"),  # it reads CSV only
        "files": ("rr22", "kkrt"),
    },
    requirements=("spu==0.9.5",),
    pythons=((3, 10), (3, 11)),
)


def version() -> str:
    return installed("spu")


@contextmanager
def party(job: Job) -> Iterator[Call]:
    from spu import libspu, psi

    roles = ("provider", "consumer")
    description = libspu.link.Desc()
    description.recv_timeout_ms = 3_600_000
    for role, port in zip(roles, job.ports, strict=False):
        description.add_party(role, f"127.0.0.1:{port}")
    options = libspu.logging.LogOptions()
    options.enable_console_logger = False
    options.system_log_path = os.devnull
    options.trace_log_path = os.devnull
    libspu.logging.setup_logging(options)
    link = libspu.link.create_brpc(description, roles.index(job.role))

    def intersect() -> int:
        report = psi.psi_execute(
            psi.PsiExecuteConfig(
                protocol_conf=_protocol(psi, job.protocol, receiver=roles.index("consumer")),
                input_params=psi.InputParams(
                    path=str(job.input(f"{job.role}.csv")), selected_keys=["id"], keys_unique=True
                ),
                output_params=psi.OutputParams(path=str(job.path(f"matched-{job.role}.csv"))),
            ),
            link,
        )
        return report.intersection_count

    try:
        yield intersect
    finally:
        link.stop_link()


def _protocol(psi, name: str, receiver: int):
    if name in _ECDH_CURVES:
        curve = getattr(psi.EllipticCurveType, _ECDH_CURVES[name])
        return psi.PsiProtocolConfig(
            protocol=psi.PsiProtocol.PROTOCOL_ECDH,
            receiver_rank=receiver,
            ecdh_params=psi.EcdhParams(curve=curve),
        )
    kind = {"kkrt": psi.PsiProtocol.PROTOCOL_KKRT, "rr22": psi.PsiProtocol.PROTOCOL_RR22}[name]
    return psi.PsiProtocolConfig(protocol=kind, receiver_rank=receiver)
