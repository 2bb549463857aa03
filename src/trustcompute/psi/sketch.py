"""How much two sets differ, from sketches of them that show no key: the k least values of a secret function.

Called by the node: a consumer puts a sketch of its keys into a request whose grant limits similar runs, and the
provider compares it with those of earlier runs. k minimum values: Bar-Yossef, Jayram, Kumar, Sivakumar and Trevisan,
"Counting Distinct Elements in a Data Stream" (RANDOM 2002); the least values of a union of two sets are a uniform
sample of it, and both sketches show which of them are in both sets.

The function is AES-128 under a secret of the consumer's, one for each node and dataset. Who lacks it learns from a
sketch nothing but, of two of them, about how much the sets differ: that is what it is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import gmpy2
import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.primitives.signing import b64url, b64url_decode
from trustcompute.psi.matching import U8

SIZE: Final = 256  # values: 2 KiB of a request, and a resolution of about four parts in a hundred
WIDTH: Final = 8  # bytes of a value: among 2³¹ keys two of the least are equal with probability below 2⁻²⁶
MISS_BITS: Final = 20  # a similar set passes for another one with probability at most 2⁻²⁰
_PRECISION: Final = 100
_ROWS: Final = 2**16

U64 = npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Sketch:
    """values: uint64, ascending, at most 256; rows: distinct keys of the set; input: names the set (64 hex digits),
    secret: a commitment to the function (64 hex digits)."""

    values: U64 = field(repr=False)
    rows: int
    input: str
    secret: str

    @property
    def complete(self) -> bool:
        """It shows the values of the whole set."""
        return self.rows <= SIZE

    def to_params(self) -> dict[str, str]:
        """As a request's parameter ``sketch``."""
        return {
            "input": self.input,
            "secret": self.secret,
            "values": b64url(self.values.astype(">u8").tobytes()),
        }


def sketched(secret: bytes, keys: U8, digest: str) -> Sketch:
    """Of a set. secret: 32 bytes; keys: uint8[n, 32], distinct digests; digest: of all of them (64 hex digits)."""
    function = _derived(secret, b"function")[:16]
    least = np.empty(0, dtype=np.uint64)
    for start in range(0, len(keys), _ROWS):
        hashed = kernels.aes128_hash(function, np.ascontiguousarray(keys[start : start + _ROWS]))
        values = np.ascontiguousarray(hashed[:, :WIDTH]).view(">u8").ravel().astype(np.uint64)
        least = np.sort(np.concatenate([least, values]))[:SIZE]
    named = _derived(secret, b"input", bytes.fromhex(digest)).hex()
    return Sketch(least, len(keys), named, _derived(secret, b"commitment").hex())


def _derived(secret: bytes, purpose: bytes, *more: bytes) -> bytes:
    return hashlib.sha256(b"\n".join([b"trustcompute sketch v1", purpose, secret, *more])).digest()


def check(params: Any, rows: int) -> dict[str, str]:
    """A request's parameter in canonical form. Raises ``ParameterError``."""
    read(params, rows)
    return dict(params)


def read(params: Mapping[str, Any], rows: int) -> Sketch:
    """The sketch of a set of so many keys. Raises ``ParameterError`` for what is none."""
    if not isinstance(params, Mapping) or set(params) != {"input", "secret", "values"}:
        raise ParameterError("a sketch has input, secret, values")
    if (
        not all(isinstance(value, str) for value in params.values())
        or len(params["values"]) > 2 * SIZE * WIDTH
    ):
        raise ParameterError("input, secret and values of a sketch are texts")
    for name in ("input", "secret"):
        if len(params[name]) != 64 or not set(params[name]) <= set("0123456789abcdef"):
            raise ParameterError(f"{name} of a sketch must be 64 hex digits")
    try:
        raw = b64url_decode(params["values"])
    except ValueError as error:
        raise ParameterError("values of a sketch must be base64url") from error
    if len(raw) != WIDTH * min(rows, SIZE):
        raise ParameterError(f"a sketch of {rows} keys has {min(rows, SIZE)} values of {WIDTH} bytes")
    values = np.frombuffer(raw, dtype=">u8").astype(np.uint64)
    if (values[1:] <= values[:-1]).any():
        raise ParameterError("values of a sketch are different and ascending")
    return Sketch(values, rows, params["input"], params["secret"])


def sampled(a: Sketch, b: Sketch) -> tuple[int, int]:
    """(m, s): of a uniform sample of s members of the union, m are in one of the sets only."""
    ends = [one.values[-1] for one in (a, b) if not one.complete]
    union, shared = np.union1d(a.values, b.values), np.intersect1d(a.values, b.values)
    if ends:  # beyond the least of them one of the two does not show what it holds
        union, shared = union[union <= min(ends)], shared[shared <= min(ends)]
    return len(union) - len(shared), len(union)


def difference(a: Sketch, b: Sketch) -> float:
    """About how many keys are in one of the sets only; exact where both have at most 256.

    With m of s sampled members in one only, the share of the union is m/s with standard error at most
    √(m/s·(1 - m/s)/s), at most 0.032 for s = 256.
    """
    m, s = sampled(a, b)
    return m * (a.rows + b.rows) / (2 * s - m) if m else 0.0


def similar(a: Sketch, b: Sketch, keys: int) -> bool:
    """Whether the sets may differ by at most so many keys. False only where that is exact or as good as sure.

    Where they do differ by at most ``keys``, it says so but with probability 2⁻²⁰: a sample of the union with m of s
    members in one set only, where at most the share p are, has probability at most exp(-s·D(m/s ‖ p)) (Hoeffding 1963,
    theorems 1 and 4: also for samples without replacement).
    """
    m, s = sampled(a, b)
    if a.complete and b.complete:
        return m <= keys
    if abs(a.rows - b.rows) > keys:
        return False
    share, seen = gmpy2.mpq(2 * keys, a.rows + b.rows + keys), gmpy2.mpq(m, s)
    if seen <= share:
        return True
    if share == 0:
        return False
    with gmpy2.context(gmpy2.get_context(), precision=_PRECISION):
        bits = s * _divergence(gmpy2.mpfr(seen), gmpy2.mpfr(share))
        return bool(bits < MISS_BITS)


def _divergence(x: Any, p: Any) -> Any:
    """D(x ‖ p) in bits, x > p."""
    rest = (1 - x) * gmpy2.log2((1 - x) / (1 - p)) if x < 1 else 0
    return x * gmpy2.log2(x / p) + rest
