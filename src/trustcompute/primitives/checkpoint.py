"""Checkpoints: a log's size and root, signed. C2SP tlog-checkpoint in a C2SP signed-note.

The broker signs one with every commit; receipts carry one; whoever knows the log's key verifies it offline.
The note's key name equals the origin, as the specification recommends. Signatures by other keys (witnesses)
are kept and ignored, as the specification demands; the log's own must be there and verify. Whoever wants
witnesses asks for them by key (``verify_cosignature``, https://c2sp.org/tlog-cosignature).

The note format is https://c2sp.org/signed-note, the text https://c2sp.org/tlog-checkpoint. Signed text begins
with the origin and holds line feeds, which no JWS signing input has: one key may sign both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives.merkle import HASH_BYTES, MAX_SIZE
from trustcompute.primitives.signing import SIGNATURE_BYTES, SigningKey, VerifyKey

MAX_NOTE: Final = 64 * 1024  # sixteen signatures, which a verifier must accept, of up to 4 KiB each
MAX_SIGNATURES: Final = 16
_ED25519: Final = b"\x01"  # signature types of the note format
_COSIGNATURE: Final = b"\x04"
_NAME = re.compile(r"[^\s+\x00-\x20\x7f]{1,255}\Z")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_SIZE = re.compile(r"(0|[1-9][0-9]{0,18})\Z")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """origin: the log's unique name; size: number of entries; root: 32 bytes, RFC 6962."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note's text (tlog-checkpoint, without extension lines)."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key and the name it signs notes under. ``str`` of it is the form other log tools exchange (vkey)."""

    name: str
    key: VerifyKey

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ParameterError("the name of a log's key is 1 to 255 characters without spaces or +")

    @property
    def id(self) -> bytes:
        """SHA-256(name ‖ line feed ‖ 0x01 ‖ public key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.key.raw).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.key.raw).decode()}"

    @classmethod
    def parse(cls, text: str) -> NoteKey:
        """From ``str`` of it. Raises ``VerificationError``."""
        parts = text.strip().split("+", 2)
        try:
            if len(parts) != 3 or len(text) > 512:
                raise ValueError("three parts")
            encoded = base64.b64decode(parts[2], validate=True)
            if encoded[:1] != _ED25519:
                raise ValueError("not Ed25519")
            key = cls(parts[0], VerifyKey(encoded[1:]))
            if key.id.hex() != parts[1]:
                raise ValueError("key id")
        except (ValueError, ParameterError, VerificationError) as error:
            raise VerificationError("a log's key reads name+id+base64 and must be an Ed25519 key") from error
        return key


@dataclass(frozen=True, slots=True)
class CosignerKey:
    """A witness's key and name. ``str`` of it is the form other log tools exchange (vkey, type 0x04)."""

    name: str
    key: VerifyKey

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise ParameterError("the name of a witness is 1 to 255 characters without spaces or +")

    @property
    def id(self) -> bytes:
        """SHA-256(name ‖ line feed ‖ 0x04 ‖ public key)[:4]."""
        return hashlib.sha256(self.name.encode() + b"\n" + _COSIGNATURE + self.key.raw).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_COSIGNATURE + self.key.raw).decode()}"

    @classmethod
    def parse(cls, text: str) -> CosignerKey:
        """From ``str`` of it. Raises ``VerificationError``."""
        parts = text.strip().split("+", 2)
        try:
            encoded = (
                base64.b64decode(parts[2], validate=True) if len(parts) == 3 and len(text) <= 512 else b""
            )
            key = cls(parts[0], VerifyKey(encoded[1:]))
            if encoded[:1] != _COSIGNATURE or key.id.hex() != parts[1]:
                raise ValueError("not a witness's key")
        except (ValueError, ParameterError, VerificationError) as error:
            raise VerificationError("a witness's key reads name+id+base64, of type 4 (Ed25519)") from error
        return key


def cosign(note: str, name: str, key: SigningKey, time: int) -> str:
    """A witness's line for a note (C2SP tlog-cosignature, v1). time: seconds since 1970.

    It states that the witness has seen no other log of this origin: only ``broker.witness`` may say so.
    """
    text, _ = _split(note)
    signature = key.sign(_cosigned(text, time))
    cosigner = CosignerKey(name, key.public)
    line = base64.b64encode(cosigner.id + time.to_bytes(8, "big") + signature).decode()
    return f"— {name} {line}\n"


def verify_cosignature(note: str, key: CosignerKey) -> int:
    """When this witness cosigned the note. Raises ``VerificationError`` unless it did."""
    text, signatures = _split(note)
    for line in signatures:
        name, signature = _signature(line)
        if name != key.name or signature[:4] != key.id:
            continue
        if len(signature) != 12 + SIGNATURE_BYTES:
            raise VerificationError(f"the cosignature of {key.name} has a wrong length")
        time = int.from_bytes(signature[4:12], "big")
        key.key.verify(signature[12:], _cosigned(text, time))
        return time
    raise VerificationError(f"the checkpoint is not cosigned by the witness {key.name}")


def add_signature(note: str, line: str) -> str:
    """The note with one more signature line. Raises ``VerificationError`` for what is not one."""
    _signature(line.removesuffix("\n"))
    _split(joined := note + line)
    return joined


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def sign(checkpoint: Checkpoint, key: SigningKey) -> str:
    """The signed note. Never sign two checkpoints of one origin that contradict each other."""
    if not 0 <= checkpoint.size <= MAX_SIZE or len(checkpoint.root) != HASH_BYTES:
        raise ParameterError("a checkpoint has a size of 0..2^63-1 and a root of 32 bytes")
    name = NoteKey(checkpoint.origin, key.public)
    text = checkpoint.text()
    signature = base64.b64encode(name.id + key.sign(text.encode())).decode()
    return f"{text}\n— {name.name} {signature}\n"


def verify(note: str, key: NoteKey) -> Checkpoint:
    """The checkpoint in a note that ``key`` signed and whose origin it is. Raises ``VerificationError``."""
    text, signatures = _split(note)
    verified = False
    for line in signatures:
        name, signature = _signature(line)
        if name != key.name or signature[:4] != key.id:
            continue  # unknown keys are ignored, also those that share the name or the id
        if len(signature) != 4 + SIGNATURE_BYTES:
            raise VerificationError("the log's signature on the checkpoint has a wrong length")
        key.key.verify(signature[4:], text.encode())
        verified = True
    if not verified:
        raise VerificationError(f"the checkpoint is not signed by the log {key.name}")
    checkpoint = _parse(text)
    if checkpoint.origin != key.name:
        raise VerificationError(f"the checkpoint is of another log than {key.name}")
    return checkpoint


def parse_unverified(note: str) -> Checkpoint:
    """What a note claims. Raises ``VerificationError`` for a malformed one; nobody's signature is checked."""
    return _parse(_split(note)[0])


def _split(note: str) -> tuple[str, list[str]]:
    if len(note) > MAX_NOTE:
        raise VerificationError(f"a signed note may have {MAX_NOTE} characters, not {len(note)}")
    if _CONTROL.search(note):
        raise VerificationError("a signed note has no control characters but line feeds")
    text, gap, tail = note.rpartition("\n\n")
    if not gap or not text or not tail.endswith("\n"):
        raise VerificationError("a signed note is a text, an empty line, and lines of signatures")
    signatures = tail.split("\n")[:-1]
    if not 1 <= len(signatures) <= MAX_SIGNATURES:
        raise VerificationError(f"a signed note has 1 to {MAX_SIGNATURES} signatures")
    return text + "\n", signatures


def _signature(line: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _NAME.match(parts[1]):
        raise VerificationError("a signature line reads: em dash, key name, base64")
    signature = _base64(parts[2])
    if len(signature) < 5:
        raise VerificationError("a signature of a note has a key id and at least one byte")
    return parts[1], signature


def _parse(text: str) -> Checkpoint:
    lines = text.split("\n")[:-1]
    if len(lines) < 3 or not all(lines):
        raise VerificationError("a checkpoint has at least three lines: origin, size, root")
    if not _SIZE.match(lines[1]) or int(lines[1]) > MAX_SIZE:
        raise VerificationError("the second line of a checkpoint is its size in decimal")
    root = _base64(lines[2])
    if len(root) != HASH_BYTES:
        raise VerificationError("the third line of a checkpoint is its root, 32 bytes in base64")
    return Checkpoint(lines[0], int(lines[1]), root)


def _base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise VerificationError("the note holds what is not base64") from error
    if base64.b64encode(data).decode() != text:
        raise VerificationError("the note holds base64 with spare bits set")
    return data
