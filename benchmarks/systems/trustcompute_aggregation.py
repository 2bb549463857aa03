"""Our aggregation: masks, both encryptions, and a whole star."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from benchmarks.system import Call, Job, System
from benchmarks.systems import long_vectors
from benchmarks.systems.version import version

__all__ = ["SYSTEM", "party", "version"]

RLWE = ("rlwe-2048", "rlwe-4096", "reference")
SYSTEM = System(
    name="trustcompute",
    module="benchmarks.systems.trustcompute_aggregation",
    protocols={
        "masked": ("10 parties", "100 parties"),
        "add": ("int64",),
        "rlwe-secret": RLWE,
        "rlwe-public": RLWE,
        "rlwe-decrypt": RLWE,
        "paillier": ("3072 bits", "2048 bits"),
        "paillier-decrypt": ("3072 bits", "2048 bits"),
        "star": ("100 contributors", "10 contributors"),
        "long": ("3 contributors", "3 nodes", "10 contributors"),
        "threshold": ("3 parties", "16 parties"),
    },
)
SLOT = 42
PIECE = 2**18


@contextmanager
def party(job: Job) -> Iterator[Call]:
    if job.protocol == "reference":
        os.environ["TRUSTCOMPUTE_KERNELS"] = "reference"
    makers: dict[str, Callable[[Job], Call]] = {
        "masked": _masked,
        "add": _add,
        "star": _star,
        "long": long_vectors.in_process,
        "threshold": _threshold,
    }
    with ExitStack() as stack:
        if job.protocol.endswith("nodes"):
            yield long_vectors.over_nodes(job, stack)
        else:
            yield makers.get(job.task, _paillier if job.task.startswith("paillier") else _rlwe)(job)


def _values(rows: int, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.random.default_rng(rows).integers(-most, most, rows)


def _masked(job: Job) -> Call:
    from trustcompute.primitives import masks

    count = int(job.protocol.split()[0])
    vector = _values(job.rows, 2**40)
    streams = [masks.Stream(os.urandom(32), b"benchmark") for _ in range(count)]

    def mask() -> int:
        masks.apply(vector, streams[: count // 2], streams[count // 2 :])
        return len(vector)

    return mask


def _add(job: Job) -> Call:
    vector, total = _values(job.rows, 2**40), np.ones(job.rows, dtype=np.int64)

    def add() -> int:
        np.add(total, vector, out=total)
        return len(total)

    return add


def _rlwe(job: Job) -> Call:
    from trustcompute.primitives import rlwe
    from trustcompute.primitives.rng import Rng

    rng = Rng.from_os()
    suite = rlwe.SUITES.get(job.protocol, rlwe.SUITES["rlwe-2048"])
    secret = rlwe.keygen(suite, rng)
    key = secret if job.task == "rlwe-secret" else rlwe.public_key(secret, rng)
    values = _values(job.rows, 2**20)
    pieces = [values[at : at + PIECE] for at in range(0, job.rows, PIECE)]
    packed = [rlwe.encrypt(key, piece, rng).pack() for piece in pieces[:1]] * len(pieces)

    def encrypt() -> int:
        for piece in pieces:
            rlwe.encrypt_packed(key, piece, rng)
        return job.rows

    def decrypt() -> int:
        for piece in packed:
            rlwe.decrypt(secret, rlwe.unpack(piece, suite, len(pieces[0])))
        return job.rows

    return decrypt if job.task == "rlwe-decrypt" else encrypt


def _threshold(job: Job) -> Call:
    """All parties' work: keys, ciphertexts, shares and the opening."""
    from trustcompute.primitives import rlwe_threshold as rlwe
    from trustcompute.primitives.rng import Rng

    rng, count = Rng.from_os(), int(job.protocol.split()[0])
    suite = rlwe.choose(count, job.rows, 2**40)
    rows = [_values(job.rows, 2**30) + at for at in range(count)]

    def run() -> int:
        a = rlwe.common(os.urandom(32), suite)
        made = [rlwe.key_share(suite, a, rng) for _ in rows]
        key = rlwe.public_key(suite, a, [shown for _, shown in made])
        sent = [rlwe.encrypt(key, row, rng).pack() for row in rows]
        total = rlwe.add([rlwe.unpack_ciphertext(one, suite) for one in sent])
        opened = rlwe.combine(total, [rlwe.decryption_share(secret, total, rng) for secret, _ in made])
        return int(np.sum(opened == sum(rows)))

    return run


def _paillier(job: Job) -> Call:
    from trustcompute.primitives import paillier
    from trustcompute.primitives.rng import Rng

    rng = Rng.from_os()
    secret = paillier.keygen(rng, int(job.protocol.split()[0]))
    public, slots = secret.public, secret.public.slots(SLOT)
    encryptor = paillier.Encryptor(public)
    values = _values(job.rows, 2**40)
    count = public.ciphertexts(job.rows, SLOT)

    def encrypt() -> bytes:
        return paillier.to_bytes(public, encryptor.encrypt(paillier.pack(values, SLOT, slots), rng))

    def encrypted() -> int:
        encrypt()
        return job.rows

    def decrypt() -> int:
        found = [paillier.decrypt(secret, one) for one in paillier.from_bytes(public, sent, count)]
        return len(paillier.unpack(found, SLOT, slots, job.rows))

    if job.task == "paillier":
        return encrypted
    sent = encrypt()
    return decrypt


def _star(job: Job) -> Call:
    from trustcompute.aggregation import Bounds, Spec, masked
    from trustcompute.aggregation.cohorts import Cohorts
    from trustcompute.aggregation.round import Round
    from trustcompute.errors import TransportError
    from trustcompute.primitives.member import in_process
    from trustcompute.primitives.rng import Rng
    from trustcompute.protocol.party import Send
    from trustcompute.protocol.star import run_star
    from trustcompute.protocol.transcript import Binding

    count = int(job.protocol.split()[0])
    spec = Spec(columns={"value": Bounds(-(2**30), 2**30)}, length=job.rows, max_parties=count)
    about = Round(spec, tuple(f"p{at:03d}" for at in range(count)), os.urandom(16))
    known = in_process(about.parties)
    gone = set(about.parties[: count - about.threshold])
    values = {name: _values(job.rows, 2**30) + at for at, name in enumerate(about.parties)}
    expected = sum((values[name] for name in about.parties if name not in gone), np.zeros(job.rows, np.int64))

    def contributor(name: str) -> Any:
        inner = masked.contributor(about, known[name], values[name].copy, Rng.from_os(), Cohorts())
        answer = None
        while True:
            try:
                step = inner.send(answer)
            except StopIteration as stop:
                return stop.value
            if name in gone and isinstance(step, Send) and step.message.kind == "masked":
                raise TransportError(f"{name} is gone")
            answer = yield step

    def run() -> int:
        parties = {name: contributor(name) for name in about.parties}
        binding = Binding("", masked.ID, {}, "aggregator", "contributor")
        middle = masked.aggregator(about, known[about.parties[0]].recognise)
        sums, _ = run_star(middle, parties, binding, patience=3600).result
        return int(np.sum(sums == expected))

    return run
