"""Salted hash commitments: the log can prove later what was used, and tells nothing of it until then.

Used for whatever in a log entry could identify somebody or repeat a value. commit = SHA-256(prefix ‖ length
of domain ‖ domain ‖ salt ‖ value): binding under collision resistance of SHA-256, hiding in the random oracle
model for a uniform 256-bit salt that is used once. Forgetting the salt redacts the entry for good.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from trustcompute.errors import ParameterError, VerificationError

SALT_BYTES: Final = 32
_PREFIX: Final = b"trustcompute commitment v1\n"


def new_salt() -> bytes:
    """32 bytes of the operating system's randomness; never use one twice."""
    return secrets.token_bytes(SALT_BYTES)


def commit(domain: str, value: bytes, salt: bytes) -> bytes:
    """32 bytes. domain: the kind of value (1 to 255 bytes), so that no opening serves for another kind."""
    name = domain.encode()
    if not 1 <= len(name) <= 255 or len(salt) != SALT_BYTES:
        raise ParameterError(
            f"a commitment takes a domain of 1 to 255 bytes and a salt of {SALT_BYTES} bytes"
        )
    return hashlib.sha256(_PREFIX + bytes([len(name)]) + name + salt + value).digest()


def verify(commitment: bytes, domain: str, value: bytes, salt: bytes) -> None:
    """Raises ``VerificationError`` unless ``value`` and ``salt`` open the commitment."""
    if not hmac.compare_digest(commitment, commit(domain, value, salt)):
        raise VerificationError(f"the value and salt do not open this commitment to a {domain}")
