from __future__ import annotations

import hashlib

import pytest

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import commitment

SALT = bytes(32)


@pytest.mark.vectors
def test_the_definition() -> None:
    expected = hashlib.sha256(b"trustcompute commitment v1\n" + b"\x06params" + SALT + b"value").digest()
    assert commitment.commit("params", b"value", SALT) == expected


def test_an_opening_fits_one_value_one_salt_and_one_domain() -> None:
    made = commitment.commit("params", b"value", SALT)
    commitment.verify(made, "params", b"value", SALT)
    for domain, value, salt in [
        ("peer", b"value", SALT),
        ("params", b"valuf", SALT),
        ("params", b"value", b"\x01" + SALT[1:]),
    ]:
        with pytest.raises(VerificationError):
            commitment.verify(made, domain, value, salt)
    # nothing moves between domain, salt and value
    assert commitment.commit("a", SALT + b"x", SALT) != commitment.commit("a" + "\0" * 32, b"x", SALT)


def test_salts_are_fresh_and_sizes_are_checked() -> None:
    assert len({commitment.new_salt() for _ in range(64)}) == 64
    for domain, salt in [("", SALT), ("x" * 256, SALT), ("params", b"short")]:
        with pytest.raises(ParameterError):
            commitment.commit(domain, b"", salt)
