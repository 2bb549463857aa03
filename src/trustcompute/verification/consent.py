"""Consent of the subject: a blind token, good for one question about one predicate, until it expires.

Called by the node and by ``trustcompute verify consent``. A subject that consents gets tokens from the holder, who
looks at who it is, and hands them to whom it wants to be asked about by. The holder takes each once, and can tell
neither whose it is nor when it gave it. Tokens that their issuer verifies itself, as in Privacy Pass (RFC 9576, RFC
9578 §5), from the VOPRF of RFC 9497 (mode 0x01, ristretto255-SHA512); the wire form is this library's own.

    subject                                             holder (key of dataset, predicate, expiry)
        blinded     r·H(statement, nonce)      ───────►
                                               ◄───────  issued     K·r·H(…), a proof for all
        token = expiry, nonce, 32 bytes of F(statement, nonce)

The statement names dataset, predicate and expiry, and the key is derived from the same: a token is good for nothing
else. Adversary: malicious subject and asker (no token is made or spent twice without the holder); the holder learns
how many tokens a subject gets, and that the ones it takes are among those that it gave for this predicate and expiry.
It could tell subjects apart by giving them different keys: compare ``public`` with what others got.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from trustcompute.errors import ParameterError, Refused, StoreError, VerificationError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives import canonical, journal, oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.verification.predicate import parse

MAX_TOKENS: Final = 128
"""Of one request: together they stay well below the longest signed request."""
MAX_LIFE: Final = 366 * 86400
MAX_LINE: Final = 64 * 1024
NONCE: Final = 32
PROOF: Final = 32

_LABEL: Final = b"trustcompute consent 1\n"
_TEXT: Final = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{86})\Z")


@dataclass(frozen=True)
class About:
    """What a token is good for. expires: seconds since 1970 (UTC)."""

    dataset: str
    predicate: str
    expires: int

    def __post_init__(self) -> None:
        if str(parse(self.predicate)) != self.predicate:
            raise ParameterError(f"write the predicate as {str(parse(self.predicate))!r}")
        if type(self.expires) is not int or not 0 <= self.expires < 10**12:
            raise ParameterError("a consent expires at a time in seconds since 1970")

    @property
    def digest(self) -> bytes:
        names = {"dataset": self.dataset, "predicate": self.predicate, "expires": self.expires}
        return hashlib.sha256(_LABEL + canonical.dumps(names)).digest()

    def inputs(self, nonces: U8) -> U8:
        """What goes into the OPRF: uint8[n, 64]."""
        head = np.frombuffer(self.digest, dtype=np.uint8)
        return np.ascontiguousarray(
            np.concatenate([np.broadcast_to(head, (len(nonces), len(head))), nonces], axis=1)
        )


@dataclass(frozen=True)
class Token:
    """A consent. ``str`` is what is handed on."""

    expires: int
    nonce: bytes = field(repr=False)
    proof: bytes = field(repr=False)

    def __str__(self) -> str:
        body = base64.urlsafe_b64encode(self.nonce + self.proof).decode().rstrip("=")
        return f"{self.expires}.{body}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Raises ``ParameterError``, which repeats nothing of it."""
        found = _TEXT.match(text) if isinstance(text, str) else None
        if found is None:
            raise ParameterError(
                "a consent token is an expiry, a dot and 86 characters: pass it as it was given"
            )
        body = base64.urlsafe_b64decode(found[2] + "==")
        token = cls(int(found[1]), body[:NONCE], body[NONCE:])
        if str(token) != text:
            raise ParameterError("a consent token has one form: pass it as it was given")
        return token


@dataclass(frozen=True, eq=False)
class Wish:
    """A subject's tokens before they are issued. nonces, blinds: secret; blinded: uint8[n, 32], for the holder."""

    about: About
    nonces: U8 = field(repr=False)
    blinds: U8 = field(repr=False)
    blinded: U8 = field(repr=False)

    def finish(self, issued: Issued) -> list[Token]:
        """The tokens. Raises ``VerificationError`` for what the key of ``issued.public`` did not make."""
        if issued.evaluated.shape != self.blinded.shape:
            raise VerificationError("another number of tokens was issued than was asked for")
        oprf.verify(issued.public, self.blinded, issued.evaluated, issued.proof)
        values = oprf.finalize(self.about.inputs(self.nonces), self.blinds, issued.evaluated)
        return [
            Token(self.about.expires, nonce.tobytes(), value[:PROOF].tobytes())
            for nonce, value in zip(self.nonces, values, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Issued:
    """public: 32 bytes, the same for every subject; evaluated: uint8[n, 32]; proof: 64 bytes, for all."""

    public: bytes
    evaluated: U8 = field(repr=False)
    proof: bytes = field(repr=False)


def wish(about: About, count: int, rng: Rng) -> Wish:
    """Ask for tokens. Raises ``ParameterError``."""
    if not 1 <= count <= MAX_TOKENS:
        raise ParameterError(f"ask for 1 to {MAX_TOKENS} tokens at a time, not {count}")
    nonces = rng.array(NONCE * count).reshape(count, NONCE)
    blinds = oprf.random_scalars(rng, count)
    return Wish(about, nonces, blinds, oprf.blind(about.inputs(nonces), blinds, Mode.VOPRF))


class Consents:
    """The holder's side: issues tokens, and takes each once. Thread-safe.

    seed: 32 secret bytes of the dataset; path: where it is remembered what was spent; in memory, if left out.
    """

    def __init__(self, seed: bytes, dataset: str, path: Path | None = None) -> None:
        self._seed, self._dataset, self._path = seed, dataset, path
        self._lock = threading.Lock()
        self._spent: dict[str, str] = {}  # digest of a token -> job
        if path is not None:
            self._spent = dict(_read(path))

    def issue(self, about: About, blinded: U8, rng: Rng, *, now: int) -> Issued:
        """Sign blindly, for a subject whom the caller knows. Raises ``ParameterError``, ``RemoteProtocolError``."""
        if not now < about.expires <= now + MAX_LIFE:
            raise ParameterError("a consent lasts from now on for a year at most")
        if about.dataset != self._dataset or not 1 <= len(blinded) <= MAX_TOKENS:
            raise ParameterError(
                f"1 to {MAX_TOKENS} tokens are issued at a time, for dataset {self._dataset!r}"
            )
        key = self._key(about)
        evaluated = oprf.evaluate(key, blinded)
        return Issued(oprf.public_key(key), evaluated, oprf.prove(key, blinded, evaluated, rng))

    def redeem(self, texts: Sequence[str], predicate: str, questions: int, *, job: str, now: int) -> None:
        """Take a token for each question of a job, durably, all or none; the same job may ask again.

        Raises ``Refused`` for too few or too many, for one that is not genuine, expired, for another predicate, or
        spent.
        """
        if len(texts) != questions:
            raise self._refused(
                f"{questions} questions take {questions} consents, not {len(texts)}",
                "pass one token a question",
            )
        tokens = [Token.parse(text) for text in texts]
        for token in tokens:
            if not now < token.expires <= now + MAX_LIFE:
                raise self._refused("a consent has expired", "ask the subject for a new one")
            self._check(token, predicate)
        digests = [hashlib.sha256(_LABEL + token.nonce).hexdigest() for token in tokens]
        with self._lock:
            if len(set(digests)) < len(digests) or any(self._spent.get(one, job) != job for one in digests):
                raise self._refused("a consent was spent before", "ask the subject for a new one")
            new = [one for one in digests if one not in self._spent]
            if new:
                self._remember(new, job)

    def _key(self, about: About) -> oprf.SecretKey:
        return oprf.derive_key(self._seed, _LABEL + about.digest, Mode.VOPRF)

    def _check(self, token: Token, predicate: str) -> None:
        about = About(self._dataset, predicate, token.expires)
        nonce = np.frombuffer(token.nonce, dtype=np.uint8).reshape(1, -1)
        right = oprf.evaluate_inputs(self._key(about), about.inputs(nonce), Mode.VOPRF)[0, :PROOF]
        if not hmac.compare_digest(right.tobytes(), token.proof):
            raise self._refused(
                "a consent is not genuine, or for another predicate",
                "ask the subject for one for this predicate",
            )

    def _refused(self, why: str, fix: str) -> Refused:
        return Refused(
            why, rule="consent", field="params.consent", owner="the subject of the record", fix=fix
        )

    def _remember(self, digests: list[str], job: str) -> None:
        if self._path is not None:
            journal.append(self._path, canonical.dumps({"job": job, "spent": digests}))
        self._spent |= dict.fromkeys(digests, job)


def checked(value: object) -> list[str]:
    """The parameter ``consent`` of a request: texts of tokens. Raises ``ParameterError``."""
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_TOKENS:
        raise ParameterError(f"consent must list 1 to {MAX_TOKENS} tokens: ask in several requests")
    return [str(Token.parse(text)) for text in value]


def _read(path: Path) -> list[tuple[str, str]]:
    """What was spent."""
    found: list[tuple[str, str]] = []
    try:
        for line in journal.lines(path):
            document = canonical.loads_canonical(line, limit=MAX_LINE)
            found += [(str(one), str(document["job"])) for one in document["spent"]]
    except (VerificationError, KeyError, TypeError) as error:
        raise StoreError(f"cannot read which consents were spent: {path}") from error
    return found
