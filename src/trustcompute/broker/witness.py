"""Witnesses: others who vouch that a log only ever grew, and showed everybody the same. C2SP tlog-witness.

A witness keeps the newest checkpoint it has seen of each log and cosigns a newer one only where a consistency proof
leads from the one to the other: of two logs that contradict each other an honest witness cosigns one at most.
``Witness`` is the witness, ``serve`` lets it answer over HTTP, ``HttpWitness`` asks one, ``Broker.cosign`` asks all.
A ``Quorum`` is how many of whom a receipt needs: two of provider, consumer and regulator, for example.

Whoever holds fewer than the quorum's number of keys cannot make a receipt of a forked log verify; a quorum of
witnesses that collude with the log's operator can. Witnesses learn origin, size and root, nothing of the entries.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import hashlib
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Protocol

from trustcompute.broker.outbox import keep
from trustcompute.errors import ParameterError, StoreError, TransportError, VerificationError
from trustcompute.primitives import checkpoint, merkle
from trustcompute.primitives.checkpoint import MAX_NOTE, Checkpoint, CosignerKey, NoteKey
from trustcompute.primitives.signing import SigningKey

MAX_PROOF_LINES: Final = 63  # the specification's bound
MAX_BODY: Final = MAX_NOTE + MAX_PROOF_LINES * 45 + 64
ADD_CHECKPOINT: Final = "/add-checkpoint"
TIMEOUT: Final = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Response:
    """status: of HTTP. 200: a cosignature; 409: the size that the witness has; else a message."""

    status: int
    body: bytes


class Witnessing(Protocol):
    """A witness that can be asked: ``Witness`` in this process, ``HttpWitness`` elsewhere."""

    @property
    def cosigner(self) -> CosignerKey: ...

    def add_checkpoint(self, body: bytes) -> Response: ...


@dataclass(frozen=True, slots=True)
class Quorum:
    """Which witnesses count, and how many of them it takes."""

    witnesses: tuple[CosignerKey, ...]
    needed: int

    def __post_init__(self) -> None:
        keys = {each.key for each in self.witnesses}
        if len(keys) != len(self.witnesses) or not 1 <= self.needed <= len(keys):
            raise ParameterError("a quorum is at least one and at most all of different witnesses")

    def verify(self, note: str, key: NoteKey) -> Checkpoint:
        """The checkpoint, if the log and enough witnesses signed it. Raises ``VerificationError``."""
        signed = checkpoint.verify(note, key)
        vouching = 0
        for witness in self.witnesses:
            with contextlib.suppress(VerificationError):
                checkpoint.verify_cosignature(note, witness)
                vouching += 1
        if vouching < self.needed:
            raise VerificationError(
                f"{vouching} of the witnesses cosigned the checkpoint, {self.needed} of {len(self.witnesses)} must"
            )
        return signed


class Witness:
    """One witness and its directory. Threads may share it; processes too, by the lock on the directory."""

    def __init__(
        self, directory: Path, name: str, key: SigningKey, logs: Iterable[NoteKey], now: Callable[[], int]
    ) -> None:
        """logs: those it watches; now: the time in seconds. Raises ``StoreError``."""
        self.cosigner = CosignerKey(name, key.public)
        self._directory, self._key, self._now = directory, key, now
        self._logs = {each.name: each for each in logs}
        self._mutex = threading.Lock()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot create {directory}: {error.strerror}") from error

    def add_checkpoint(self, body: bytes) -> Response:
        """Answer one request: check, remember, and only then cosign. Raises ``StoreError`` if it cannot remember."""
        try:
            old, proof, note = parse(body)
            claimed = checkpoint.parse_unverified(note)
        except VerificationError as error:
            return _message(400, str(error))
        key = self._logs.get(claimed.origin)
        if key is None:
            return _message(404, "this witness does not watch that log")
        try:
            signed = checkpoint.verify(note, key)
        except VerificationError:
            return _message(403, "the checkpoint is not signed by the log's key")
        if old > signed.size:
            return _message(400, "the old size is beyond the checkpoint's")
        with self._locked():
            refusal = self._check(key, old, proof, signed)
            if refusal is not None:
                return refusal
            self._remember(note, signed)
        return Response(200, checkpoint.cosign(note, self.cosigner.name, self._key, self._now()).encode())

    def seen(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint it has cosigned of a log."""
        try:
            return checkpoint.parse_unverified(self._path(origin).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, VerificationError) as error:
            raise StoreError("the witness's memory of the log cannot be read: it must not cosign") from error

    def _check(self, key: NoteKey, old: int, proof: list[bytes], signed: Checkpoint) -> Response | None:
        known = self.seen(key.name) or Checkpoint(key.name, 0, merkle.EMPTY_ROOT)
        if old != known.size:
            return Response(409, f"{known.size}\n".encode())
        if known.size == signed.size and known.root != signed.root:
            return Response(409, f"{known.size}\n".encode())  # two logs of one size: a fork
        try:
            merkle.verify_consistency(known.size, signed.size, proof, known.root, signed.root)
        except VerificationError as error:
            return _message(422, str(error))
        return None

    def _remember(self, note: str, signed: Checkpoint) -> None:
        keep(self._path(signed.origin), note.encode())

    def _path(self, origin: str) -> Path:
        return self._directory / f"{hashlib.sha256(origin.encode()).hexdigest()}.checkpoint"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            lock = (self._directory / "lock").open("w")
        except OSError as error:
            raise StoreError(f"cannot write to {self._directory}: {error.strerror}") from error
        with self._mutex, lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class HttpWitness:
    """A witness at a URL prefix (``https://witness.example/w``), by its key."""

    def __init__(self, url: str, key: CosignerKey, *, timeout: float = TIMEOUT) -> None:
        """timeout: seconds. Raises ``ParameterError`` for what is no URL."""
        if not url.startswith(("http://", "https://")):
            raise ParameterError("a witness is asked over http:// or https://")
        self.cosigner, self._url, self._timeout = key, url.rstrip("/") + ADD_CHECKPOINT, timeout

    def add_checkpoint(self, body: bytes) -> Response:
        """Raises ``TransportError`` where nobody answers."""
        asked = urllib.request.Request(self._url, data=body, method="POST")  # noqa: S310 - see __init__
        asked.add_header("Content-Type", "text/plain; charset=utf-8")
        try:
            with urllib.request.urlopen(asked, timeout=self._timeout) as answer:  # noqa: S310
                return Response(answer.status, answer.read(MAX_NOTE))
        except urllib.error.HTTPError as error:
            with error:
                return Response(error.code, error.read(MAX_NOTE))
        except OSError as error:
            raise TransportError(f"the witness {self.cosigner.name} does not answer") from error


class Contradicted(VerificationError):
    """A witness remembers a checkpoint of ``size`` entries that this one does not lead from."""

    code = "verification.contradicted"

    def __init__(self, message: str, size: int = 0) -> None:
        super().__init__(message)
        self.size = size


def ask(witness: Witnessing, note: str, proof: Callable[[int], list[bytes]], start: int = 0) -> str:
    """A witness's line for a checkpoint. proof: of consistency from an older size; start: that it last had.

    Raises ``Contradicted`` where it has seen another log, ``VerificationError`` where it refuses for another reason
    or its answer is not its cosignature, ``TransportError``.
    """
    size = checkpoint.parse_unverified(note).size
    answer = witness.add_checkpoint(request(min(start, size), proof(min(start, size)), note))
    if answer.status == 409 and (known := _size(answer.body)) is not None and known <= size:
        answer = witness.add_checkpoint(request(known, proof(known), note))  # it remembers another size
    if answer.status in (409, 422):
        known = _size(answer.body) if answer.status == 409 else None
        raise Contradicted(
            f"the witness {witness.cosigner.name} refuses to cosign: it has seen another log ({answer.status})",
            size if known is None else known,
        )
    if answer.status != 200:
        raise VerificationError(f"the witness {witness.cosigner.name} refuses to cosign ({answer.status})")
    lines = answer.body.decode(errors="replace").split("\n")
    for line in lines[:-1]:
        with contextlib.suppress(VerificationError):
            checkpoint.verify_cosignature(checkpoint.add_signature(note, line + "\n"), witness.cosigner)
            return line + "\n"
    raise VerificationError(
        f"the witness {witness.cosigner.name} answered with another signature than its own"
    )


def request(old: int, proof: Iterable[bytes], note: str) -> bytes:
    """The body of a request: the old size, a consistency proof from it, the checkpoint."""
    steps = "".join(base64.b64encode(step).decode() + "\n" for step in proof)
    return f"old {old}\n{steps}\n{note}".encode()


def parse(body: bytes) -> tuple[int, list[bytes], str]:
    """(old size, proof, checkpoint) of a request. Raises ``VerificationError``."""
    try:
        text = body.decode() if len(body) <= MAX_BODY else ""
        head, gap, note = text.partition("\n\n")
        first, *steps = head.split("\n")
        word, _, digits = first.partition(" ")
        known = _size(digits.encode() + b"\n")
        if word != "old" or known is None or not gap or len(steps) > MAX_PROOF_LINES:
            raise ValueError("form")
        proof = [base64.b64decode(step, validate=True) for step in steps]
    except (ValueError, binascii.Error) as error:
        raise VerificationError(
            "a request reads: old and the size, a proof in base64 line by line, an empty line, the checkpoint"
        ) from error
    return known, proof, note


def serve(witness: Witness, host: str, port: int) -> ThreadingHTTPServer:
    """A server that answers for a witness; call its ``serve_forever``. Put TLS in front of it."""

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if self.path != ADD_CHECKPOINT or not length.isascii() or not length.isdigit():
                self._answer(
                    _message(404 if length.isdigit() else 411, "POST a checkpoint to /add-checkpoint")
                )
            elif int(length) > MAX_BODY:
                self._answer(_message(413, "the request is too long"))
            else:
                self._answer(self._asked(self.rfile.read(int(length))))

        def _asked(self, body: bytes) -> Response:
            try:
                return witness.add_checkpoint(body)
            except StoreError:
                return _message(500, "the witness cannot remember and so does not cosign")

        def _answer(self, response: Response) -> None:
            self.send_response(response.status)
            kind = "text/x.tlog.size" if response.status == 409 else "text/plain; charset=utf-8"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: who asked whom is not this server's to keep."""

    return ThreadingHTTPServer((host, port), Handler)


def _size(line: bytes) -> int | None:
    digits = line.decode(errors="replace").removesuffix("\n")
    plain = digits.isascii() and digits.isdigit() and len(digits) <= 19 and str(int(digits)) == digits
    return int(digits) if plain else None


def _message(status: int, text: str) -> Response:
    return Response(status, f"{text}\n".encode())
