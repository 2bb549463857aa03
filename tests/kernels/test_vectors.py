"""Every implementation against the vectors of RFC 9496 Appendix A and RFC 9380 Appendix K.3."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trustcompute.kernels import FixedColumn, InvalidPoint, VariableColumn
from trustcompute.kernels.dispatch import Implementation

pytestmark = pytest.mark.vectors

HERE = Path(__file__).parent
RFC9496: dict[str, Any] = json.loads((HERE / "rfc9496.json").read_text())
RFC9380: dict[str, Any] = json.loads((HERE / "rfc9380.json").read_text())
ALL_OF_RFC9380 = HERE.parents[1] / "../shared/vectors/rfc9380-expand_message_xmd_SHA512_38.json"
MULTIPLES: list[str] = RFC9496["A.1 multiples of the generator"]
INVALID: list[dict[str, str]] = RFC9496["A.2 invalid encodings"]
UNIFORM: list[dict[str, str]] = RFC9496["A.3 group elements from uniform byte strings"]
ORDER = 2**252 + 27742317777372353535851937790883648493


def rows(encodings: Iterable[str]) -> NDArray[np.uint8]:
    return np.array([list(bytes.fromhex(encoding)) for encoding in encodings], dtype=np.uint8)


def scalars(values: Iterable[int]) -> NDArray[np.uint8]:
    return rows(value.to_bytes(32, "little").hex() for value in values)


def test_multiples_of_the_generator(implementation: Implementation) -> None:
    expected, factors = rows(MULTIPLES), scalars(range(16))
    assert np.array_equal(implementation.ristretto255_mul_base(factors), expected)
    generators = np.repeat(expected[1:2], 16, axis=0)
    assert np.array_equal(implementation.ristretto255_mul(generators, factors), expected)
    assert np.array_equal(implementation.ristretto255_mul(expected, scalars([1])), expected)
    around = implementation.ristretto255_mul(generators, scalars(ORDER + k for k in range(16)))
    assert np.array_equal(around, expected)
    total = implementation.ristretto255_multiscalar_vartime(expected[:6], scalars([1] * 6))
    assert np.array_equal(total, expected[15:])
    implementation.ristretto255_check(expected)


@pytest.mark.parametrize("vector", INVALID, ids=lambda vector: vector["encoding"][:8])
def test_invalid_encodings(implementation: Implementation, vector: dict[str, str]) -> None:
    points = rows([*MULTIPLES[:3], vector["encoding"], MULTIPLES[4]])
    ones = scalars([1] * 5)
    for call in (
        lambda: implementation.ristretto255_check(points),
        lambda: implementation.ristretto255_mul(points, ones),
        lambda: implementation.ristretto255_mul(points, ones[:1]),
        lambda: implementation.ristretto255_multiscalar_vartime(points, ones),
    ):
        with pytest.raises(InvalidPoint, match="row 3 ") as caught:
            call()
        assert caught.value.index == 3


def test_elements_from_uniform_bytes(implementation: Implementation) -> None:
    expected = rows(vector["encoding"] for vector in UNIFORM)
    uniform = rows(vector["uniform"] for vector in UNIFORM)
    assert np.array_equal(implementation.ristretto255_from_uniform(uniform), expected)


def expand(implementation: Implementation, tests: list[dict[str, str]], dst: str) -> None:
    for test in tests:
        expected = bytes.fromhex(test["uniform_bytes"])
        message = np.frombuffer(test["msg"].encode(), dtype=np.uint8).reshape(1, -1)
        assert implementation.expand_message_xmd(message, dst.encode(), len(expected)).tobytes() == expected


def test_expand_message(implementation: Implementation) -> None:
    expand(implementation, RFC9380["tests"], RFC9380["dst"])


def test_expand_message_with_all_vectors(implementation: Implementation) -> None:
    if not ALL_OF_RFC9380.exists():
        pytest.skip("the full vector file of RFC 9380 is not beside this repository")
    document = json.loads(ALL_OF_RFC9380.read_text())
    assert len(document["tests"]) == 10
    expand(implementation, document["tests"], document["DST"])


def test_digests_are_sha256_of_what_the_docstring_says(implementation: Implementation) -> None:
    text = VariableColumn(7, np.array([0, 2, 2, 5], np.int64), np.frombuffer(b"abcde", np.uint8))
    numbers = FixedColumn(255, np.array([[1, 2], [3, 4], [5, 6]], np.uint8))
    digests = implementation.digest_columns(b"prefix", 3, [text, numbers])
    second = b"prefix" + b"\x07\0\0\0\0" + b"" + b"\xff\x02\0\0\0" + b"\x03\x04"
    third = b"prefix" + b"\x07\x03\0\0\0" + b"cde" + b"\xff\x02\0\0\0" + b"\x05\x06"
    assert digests[1].tobytes() == hashlib.sha256(second).digest()
    assert digests[2].tobytes() == hashlib.sha256(third).digest()


def test_finalize_is_sha512_of_what_the_docstring_says(implementation: Implementation) -> None:
    inputs, elements = np.array([[1, 2, 3]], np.uint8), np.arange(32, dtype=np.uint8).reshape(1, 32)
    hashed = b"\0\x03\x01\x02\x03\0\x20" + bytes(range(32)) + b"Finalize"
    assert implementation.oprf_finalize(inputs, elements).tobytes() == hashlib.sha512(hashed).digest()
