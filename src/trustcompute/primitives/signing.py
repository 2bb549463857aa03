"""Ed25519 keys (RFC 8032), their thumbprints (RFC 7638, 8037), compact JWS (RFC 7515) over canonical JSON.

Used for grants, requests, countersignatures and, through ``checkpoint``, the log. One token has one form: the
protected header is a constant per type, its algorithm name the fully specified one of RFC 9864, the payload
canonical JSON and the base64url without padding or spare bits. Whatever differs in a single bit is refused.

Security: about 126 bits against forgery (EUF-CMA) under the discrete logarithm on Curve25519; signing is
deterministic, so it needs no randomness; OpenSSL does the arithmetic in constant time.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import canonical

MAX_TOKEN: Final = 32 * 1024  # a grant with the largest lists it may hold takes about half of it
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_P = 2**255 - 19
# y-coordinates of the eight points whose order divides the cofactor: under such a key anybody can forge.
_LOW_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
_TYPE = re.compile(r"[a-z0-9+.-]{1,64}\Z")


class TokenError(VerificationError):
    """A token does not verify. ``field``: ``token``, ``header``, ``signature``, or the malformed claim."""

    code = "verification.token"
    fields = ("field",)

    def __init__(self, message: str, field: str = "token") -> None:
        super().__init__(message)
        self.field = field


class VerifyKey:
    """An Ed25519 public key. ``thumbprint``, its RFC 7638 name, is what documents and errors call it by."""

    __slots__ = ("_key", "raw", "thumbprint")

    def __init__(self, raw: bytes) -> None:
        """raw: 32 bytes (RFC 8032 §5.1.2). Raises ``VerificationError`` for an encoding no honest key has."""
        if len(raw) != KEY_BYTES:
            raise VerificationError(f"an Ed25519 public key has {KEY_BYTES} bytes, not {len(raw)}")
        y = int.from_bytes(raw, "little") & (2**255 - 1)
        if y >= _P or y in _LOW_ORDER_Y:
            raise VerificationError("the Ed25519 public key is of low order or not canonically encoded")
        self.raw: Final = bytes(raw)
        self.thumbprint: Final = _thumbprint(self.raw)
        self._key = Ed25519PublicKey.from_public_bytes(self.raw)

    @classmethod
    def from_x(cls, x: str) -> VerifyKey:
        """From the ``x`` of a JWK (base64url, RFC 8037 §2)."""
        try:
            return cls(b64url_decode(x))
        except ValueError as error:
            raise VerificationError("the x of an Ed25519 key must be 32 bytes in base64url") from error

    @classmethod
    def from_pem(cls, pem: bytes) -> VerifyKey:
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise VerificationError("the file holds no public key in PEM") from error
        if not isinstance(key, Ed25519PublicKey):
            raise VerificationError("the public key is not an Ed25519 key")
        return cls(key.public_bytes_raw())

    @property
    def x(self) -> str:
        return b64url(self.raw)

    def to_pem(self) -> bytes:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_bytes(serialization.Encoding.PEM, form)

    def verify(self, signature: bytes, message: bytes) -> None:
        """Raises ``VerificationError`` unless ``signature`` (64 bytes) is this key's over ``message``."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature as error:
            raise VerificationError(f"the signature is not that of key {self.thumbprint}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerifyKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"VerifyKey({self.thumbprint})"


class SigningKey:
    """An Ed25519 private key. Its representation shows the thumbprint only."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: Final = VerifyKey(key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """From the 32-byte private key of RFC 8032 §5.1.5."""
        if len(seed) != KEY_BYTES:
            raise ParameterError(f"an Ed25519 private key has {KEY_BYTES} bytes, not {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, pem: bytes) -> SigningKey:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ParameterError("the file holds no unencrypted private key in PEM (PKCS #8)") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise ParameterError("the private key is not an Ed25519 key")
        return cls(key)

    @property
    def thumbprint(self) -> str:
        return self.public.thumbprint

    @property
    def private(self) -> Ed25519PrivateKey:
        """The key object of ``cryptography``, for signing certificates."""
        return self._key

    def to_pem(self) -> bytes:
        """PKCS #8, not encrypted: write it to a file that only its owner can read."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """64 bytes, RFC 8032 §5.1.6."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey({self.thumbprint}, private part not shown)"


@dataclass(frozen=True, slots=True)
class Unverified:
    """A well-formed token whose signature nobody has checked: read the key's name, then ``verify``."""

    claims: dict[str, Any]
    payload: bytes
    signed: bytes
    signature: bytes

    def verify(self, key: VerifyKey) -> dict[str, Any]:
        try:
            key.verify(self.signature, self.signed)
        except VerificationError as error:
            raise TokenError(str(error), "signature") from error
        return self.claims


def sign(header_type: str, claims: dict[str, Any], key: SigningKey, *, limit: int = MAX_TOKEN) -> str:
    """A compact JWS of type ``header_type`` over the canonical bytes of ``claims``, of ``limit`` characters at most."""
    signed = header(header_type) + b"." + b64url(canonical.dumps(claims)).encode()
    token = f"{signed.decode()}.{b64url(key.sign(signed))}"
    if len(token) > limit:
        raise ParameterError(f"a token may have {limit} characters, these claims need {len(token)}")
    return token


def parse(token: str, header_type: str, *, limit: int = MAX_TOKEN) -> Unverified:
    """Check everything of a token but its signature. Raises ``TokenError`` with the offending field."""
    if len(token) > limit:
        raise TokenError(f"a token may have {limit} characters, not {len(token)}")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise TokenError("a token is three base64url parts joined by dots (compact JWS)")
    expected = header(header_type).decode()
    if parts[0] != expected:
        raise TokenError(f"the protected header must be exactly {_header_text(header_type)}", "header")
    payload, signature = _decode(parts[1], "payload"), _decode(parts[2], "signature")
    if len(signature) != SIGNATURE_BYTES:
        raise TokenError(
            f"an Ed25519 signature has {SIGNATURE_BYTES} bytes, not {len(signature)}", "signature"
        )
    try:
        claims = canonical.loads_canonical(payload, limit=limit)
    except canonical.DocumentError as error:
        raise TokenError(str(error), error.field or "payload") from error
    if not isinstance(claims, dict):
        raise TokenError("the payload of a token must be an object", "payload")
    return Unverified(claims, payload, f"{parts[0]}.{parts[1]}".encode(), signature)


def verify(token: str, header_type: str, key: VerifyKey) -> dict[str, Any]:
    """The claims of a token of this type signed by this key. Raises ``TokenError``."""
    return parse(token, header_type).verify(key)


def token_hash(token: str) -> str:
    """What a token is called in requests, in the log and in the book: SHA-256 (hex) of its ASCII form."""
    return hashlib.sha256(token.encode()).hexdigest()


@functools.cache
def header(header_type: str) -> bytes:
    """The protected header of a token type, encoded: a constant."""
    if not _TYPE.match(header_type):
        raise ParameterError(f"a token type is 1 to 64 of a-z 0-9 + . -, not {header_type!r}")
    return b64url(_header_text(header_type).encode()).encode()


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64url_decode(text: str) -> bytes:
    """Strict: no padding, no other alphabet, no spare bits set. Raises ``ValueError``."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
    if b64url(data) != text:
        raise ValueError("not the canonical base64url of any bytes")
    return data


def _header_text(header_type: str) -> str:
    return f'{{"alg":"Ed25519","typ":"{header_type}"}}'


def _decode(part: str, field: str) -> bytes:
    try:
        return b64url_decode(part)
    except ValueError as error:
        raise TokenError(f"the {field} of the token is not canonical base64url", field) from error


def _thumbprint(raw: bytes) -> str:
    members = f'{{"crv":"Ed25519","kty":"OKP","x":"{b64url(raw)}"}}'
    return b64url(hashlib.sha256(members.encode()).digest())
