"""A budget for runs on sets that differ little: what two such runs give apart is about the keys in which they differ.

A grant says of an operation (``Bounds.similar``) how close two of the asker's sets may come, and how often. An asker
puts a sketch of its keys into the request (``psi.sketch``); the node keeps them, by asker and dataset, and compares.
The same set again is no similar run, nor is a retry of a job. Called by the session (``of_ours``) and by the server
(``Sketches.admit``, once the job is reserved: a refusal voids the reservation and costs nothing).

What is kept lies beside the book and survives restarts; it is written before the job can run, and stays where the job
is cancelled. Who sends wrong sketches is not found out here, but by an arbiter who is shown the secret and the keys.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trustcompute.broker.request import VerifiedRequest
from trustcompute.errors import ParameterError, Refused, StoreError, TrustcomputeError
from trustcompute.primitives import canonical, journal
from trustcompute.protocol.operation import Params
from trustcompute.psi import sketch
from trustcompute.psi.sketch import Sketch
from trustcompute.tables import KeySet

if TYPE_CHECKING:
    from trustcompute.node.session import Session

MAX_RUNS: Final = 4096  # remembered of one asker and dataset, each compared with the new one: 0.2 s
MAX_LINE: Final = 8192
_DOMAIN: Final = b"trustcompute sketch secret v1\n"


def of_ours(session: Session, operation: str, dataset: str, keys: KeySet, rows: int) -> dict[str, Any]:
    """The parameter that the grant asks for, where it does; the same for the same keys, in every process.

    rows: as many as are declared. Raises ``ParameterError`` where that is more than there are keys.
    """
    bounds = session.grant.operations.get(operation)
    if bounds is None or bounds.similar is None:
        return {}
    if rows != len(keys):
        raise ParameterError(
            "the grant limits runs on similar sets, and a sketch shows how many keys there are: leave pad_to out"
        )
    statement = _DOMAIN + canonical.dumps([session.grant.aud, dataset])
    secret = hashlib.sha256(session.identity.key.sign(statement)).digest()  # Ed25519 signs the same alike
    return {"sketch": sketch.sketched(secret, keys.digests, keys.digest).to_params()}


@dataclass(frozen=True)
class _Run:
    """One that was admitted. similar: whether it counts."""

    job: str
    seen: Sketch
    similar: bool


class Sketches:
    """Sketches that came, by asker and dataset. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._runs: dict[Path, list[_Run]] = {}

    def admit(self, request: VerifiedRequest, params: Params) -> None:
        """Count a run on a set like an earlier one, and remember its sketch. Raises ``Refused`` by the rule
        ``differencing``, ``StoreError``."""
        claims = request.claims
        similar = request.grant.claims.operations[claims.op].similar
        if similar is None:
            return
        if "sketch" not in params:
            raise _refused(request, "the grant limits runs on similar sets, and this operation came without a sketch",
                           "ask with a session of this version, which adds one, or for another operation")  # fmt: skip
        seen = sketch.read(params["sketch"], claims.sizes.consumer)
        name = canonical.dumps([claims.key, claims.dataset])
        with self._lock:
            path = self._directory / f"sketches-{hashlib.sha256(name).hexdigest()[:32]}"
            runs = self._known(path)
            if any(run.job == claims.jti for run in runs):
                return
            if runs and runs[0].seen.secret != seen.secret:
                raise _refused(request, "the sketch was made with another secret than earlier ones",
                               "ask with the key and the session that made the first one")  # fmt: skip
            if len(runs) >= MAX_RUNS:
                raise _refused(request, f"{MAX_RUNS} runs are remembered, as many as can be",
                               "ask the node's operator to begin anew with a new dataset")  # fmt: skip
            same = any(run.seen.input == seen.input for run in runs)
            near = not same and any(sketch.similar(run.seen, seen, similar.keys) for run in runs)
            if near and sum(run.similar for run in runs) >= similar.runs:
                raise _refused(
                    request,
                    f"this set differs from an earlier one by {similar.keys} keys or fewer, or may,"
                    f" and {similar.runs} such runs have been made",
                    f"bring a set that differs from all earlier ones by more than {similar.keys} keys, one that was"
                    " brought before, or ask for more similar runs to be granted",
                )
            run = _Run(claims.jti, seen, near)
            self._write(path, run)
            runs.append(run)

    def _known(self, path: Path) -> list[_Run]:
        if path not in self._runs:
            try:
                self._runs[path] = [_parsed(line) for line in journal.lines(path)]
            except (TrustcomputeError, KeyError, TypeError) as error:
                raise StoreError(f"cannot read which sets were brought before: {path}") from error
        return self._runs[path]

    @staticmethod
    def _write(path: Path, run: _Run) -> None:
        document = {"job": run.job, "rows": run.seen.rows, "similar": run.similar} | run.seen.to_params()
        journal.append(path, canonical.dumps(document))


def _parsed(line: bytes) -> _Run:
    document = canonical.loads_canonical(line, limit=MAX_LINE)
    job, rows, similar = document.pop("job"), document.pop("rows"), document.pop("similar")
    return _Run(job, sketch.read(document, rows), similar)


def _refused(request: VerifiedRequest, why: str, fix: str) -> Refused:
    return Refused(why, rule="differencing", field="params.sketch", owner=request.grant.claims.iss, fix=fix)
