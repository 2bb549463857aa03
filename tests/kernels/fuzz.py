"""Every function of the extension on arguments that fit, and on ones changed so that they may not.

A call returns or raises ``ValueError``, ``TypeError``, ``OverflowError`` or ``MemoryError``; anything else, above all
what the sanitizers end the process for, is a bug. ``fuzz.sh`` builds the extension with them and runs this; the tests
run a few thousand calls on whatever build there is.

    python tests/kernels/fuzz.py --seconds 60 [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from typing import Any

from trustcompute.kernels import _native

REFUSALS = (ValueError, TypeError, OverflowError, MemoryError)
MODULUS = 562949953443841  # a prime above 2^49, 1 modulo 131072
EDGES = (-1, 0, 1, 2, 3, 7, 64, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**62, 2**64 - 1)
BASE = bytes.fromhex(
    "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
)  # RFC 9496's generator


class Draw:
    """Sizes and contents of one call."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.use = rng.choice([0, _native.detect(), rng.getrandbits(32)])
        self.n = rng.choice([0, 1, 2, 3, 5, 16, 17, 67])
        self.m = rng.choice([0, 1, 2, 9, 70])
        self.width = rng.choice([1, 2, 8, 10, 16, 20, 33])

    def bytes(self, size: int) -> bytes:
        kind = self.rng.randrange(4)
        if kind == 0:
            return bytes([self.rng.choice([0, 255, 128, 1])]) * size
        return self.rng.randbytes(size)

    def points(self, count: int) -> bytes:
        """Mostly elements, now and then none."""
        rows = [BASE if self.rng.random() < 0.9 else self.bytes(32) for _ in range(count)]
        return b"".join(rows)

    def words(self, count: int, below: int) -> bytes:
        return b"".join(self.rng.randrange(below).to_bytes(8, "little") for _ in range(count))


def depth(leaves: int) -> int:
    return (leaves - 1).bit_length()


def _hash(d: Draw) -> list[Any]:
    return [d.use, d.bytes(d.width * d.n), d.width, d.bytes(1 + d.m), bytearray(32 * d.n)]


def _hash_mul(d: Draw) -> list[Any]:
    return [*_hash(d)[:-1], d.bytes(32 * d.n), bytearray(32 * d.n)]


def _columns(d: Draw) -> list[Any]:
    cells = sorted(d.rng.randrange(d.m + 1) for _ in range(d.n + 1))
    offsets = b"".join(cell.to_bytes(8, "little") for cell in cells)
    columns = ((1, d.width, b"", d.bytes(d.width * d.n)), (2, -1, offsets, d.bytes(d.m)))
    return [d.use, d.bytes(d.rng.choice([0, 64])), columns, bytearray(32 * d.n)]


def _okvs_shape(d: Draw) -> tuple[int, int, int]:
    return d.rng.choice([1, 2, 5]), d.rng.choice([3, 4, 90, 200]), d.rng.choice([0, 1, 3, 16])


def _encode(d: Draw) -> list[Any]:
    bins, sparse, dense = _okvs_shape(d)
    first = d.rng.randrange(bins)
    count = d.rng.randint(0, bins - first)
    rows = [d.bytes(16 * d.n), d.bytes(16 * d.n), d.bytes(16)]
    out = bytearray(16 * count * (sparse + dense))
    return [d.use, *rows, bins, sparse, dense, d.rng.choice([0, d.n, 70]), first, count, out]


def _decode(d: Draw) -> list[Any]:
    bins, sparse, dense = _okvs_shape(d)
    table = d.bytes(16 * bins * (sparse + dense))
    return [d.use, d.bytes(16 * d.n), table, d.bytes(16), bins, sparse, dense, bytearray(16 * d.n)]


def _expand(d: Draw) -> list[Any]:
    leaves = d.rng.choice([1, 2, 3, 64, 129])
    sums = bytearray(32 * d.n * depth(leaves))
    return [d.use, d.bytes(16 * d.n), leaves, d.bytes(32), bytearray(16 * d.n * leaves), sums]


def _puncture(d: Draw) -> list[Any]:
    leaves = d.rng.choice([1, 2, 3, 64, 129])
    points = d.rng.choice([d.words(d.n, leaves), d.bytes(8 * d.n)])
    sums = d.bytes(16 * d.n * depth(leaves))
    return [d.use, sums, points, leaves, d.bytes(32), bytearray(16 * d.n * leaves), bytearray(16 * d.n)]


def _match(d: Draw) -> list[Any]:
    rows = [d.bytes(d.width) for _ in range(d.m)]
    table = b"".join(sorted(rows) if d.rng.random() < 0.8 else rows)
    return [d.bytes(d.width * d.n), table, d.width]


def _code_expand(d: Draw) -> list[Any]:
    size = d.rng.choice([64, 65, 600])
    first = d.rng.randrange(size)
    count = d.rng.randint(0, size - first)
    return [
        d.use,
        d.bytes(16 * size),
        d.bytes(16 * count),
        d.bytes(16),
        first,
        bytearray(16 * count),
    ]


def _ntt(d: Draw) -> list[Any]:
    size = d.rng.choice([8, 16, 64])
    rows = bytearray(d.words(d.n * size, MODULUS))
    return [d.use, rows, size, MODULUS, d.words(size, MODULUS), d.rng.choice([0, d.rng.randrange(MODULUS)])]


def _ntt_mul(d: Draw) -> list[Any]:
    b = d.words(8, MODULUS)
    return [d.use, d.words(8 * d.n, MODULUS), b, MODULUS, bytearray(64 * d.n)]


def _ring_blend(d: Draw) -> list[Any]:
    values = d.rng.choice([b"", d.words(d.n, MODULUS)])
    return [d.use, d.words(d.n, MODULUS), d.words(d.n, 2**64), values, d.m % 50, MODULUS, bytearray(8 * d.n)]


def _pack(d: Draw) -> list[Any]:
    width = d.rng.randint(1, 63)
    return [d.words(d.n, 2**64), width, bytearray((d.n * width + 7) // 8)]


def _unpack(d: Draw) -> list[Any]:
    width = d.rng.randint(1, 63)
    return [d.bytes((d.n * width + 7) // 8), width, bytearray(8 * d.n)]


FITTING: dict[str, Callable[[Draw], list[Any]]] = {
    "detect": lambda d: [],
    "ristretto255_mul": lambda d: [d.use, d.points(d.n), d.bytes(32 * d.n), bytearray(32 * d.n)],
    "ristretto255_mul_base": lambda d: [d.use, d.bytes(32 * d.n), bytearray(32 * d.n)],
    "ristretto255_check": lambda d: [d.use, d.points(d.n)],
    "ristretto255_sub": lambda d: [d.points(d.n), d.points(d.n), bytearray(32 * d.n)],
    "ristretto255_multiscalar_vartime": lambda d: [d.points(d.n), d.bytes(32 * d.n), bytearray(32)],
    "ristretto255_from_uniform": lambda d: [d.use, d.bytes(64 * d.n), bytearray(32 * d.n)],
    "ristretto255_hash": _hash,
    "ristretto255_hash_mul": _hash_mul,
    "ristretto255_hash_blind": _hash_mul,
    "ristretto255_unblind": lambda d: [
        d.use,
        d.points(d.n),
        d.points(1),
        d.bytes(32 * d.n),
        bytearray(32 * d.n),
    ],
    "scalar255_reduce": lambda d: [d.bytes(64 * d.n), bytearray(32 * d.n)],
    "scalar255_mul": lambda d: [d.bytes(32 * d.n), d.bytes(32 * d.n), bytearray(32 * d.n)],
    "scalar255_sub": lambda d: [d.bytes(32 * d.n), d.bytes(32 * d.n), bytearray(32 * d.n)],
    "scalar255_invert": lambda d: [d.bytes(32 * d.n), bytearray(32 * d.n)],
    "expand_message_xmd": lambda d: [
        d.bytes(d.width * d.n),
        d.width,
        d.bytes(1 + d.m),
        64 + d.m,
        bytearray((64 + d.m) * d.n),
    ],
    "oprf_finalize": lambda d: [d.bytes(d.width * d.n), d.width, d.bytes(32 * d.n), bytearray(64 * d.n)],
    "digest_columns": _columns,
    "aes128_ctr": lambda d: [d.use, d.bytes(16 * d.n), d.m, bytearray(16 * d.n * d.m)],
    "aes128_hash": lambda d: [d.use, d.bytes(16), d.bytes(48 * d.n), 48, bytearray(16 * d.n)],
    "aes128_davies_meyer": lambda d: [d.use, d.bytes(16 * d.n), d.bytes(16 * d.n), bytearray(16 * d.n)],
    "gf128_dot": lambda d: [d.use, d.bytes(16 * d.n), d.bytes(16 * d.n), bytearray(16)],
    "gf128_mul": lambda d: [
        d.use,
        d.bytes(16 * d.n),
        d.bytes(16 * d.rng.choice([1, d.n])),
        bytearray(16 * d.n),
    ],
    "okvs_encode": _encode,
    "okvs_decode": _decode,
    "pprf_expand": _expand,
    "pprf_puncture": _puncture,
    "sort_rows": lambda d: [d.bytes(d.width * d.n), d.width, bytearray(8 * d.n), bytearray(d.width * d.n)],
    "match_sorted": lambda d: [*_match(d), bytearray(8 * d.n)],
    "match_rows": lambda d: [*_match(d), d.bytes(16), bytearray(8 * d.n)],
    "code_convolve": lambda d: [d.use, d.bytes(16), bytearray(d.bytes(16 * d.rng.choice([64, 65, 600])))],
    "code_expand": _code_expand,
    "ntt": _ntt,
    "ntt_mul": _ntt_mul,
    "ring_ternary": lambda d: [d.use, d.words(d.n, 2**64), MODULUS, bytearray(8 * d.n)],
    "ring_blend": _ring_blend,
    "ring_add": lambda d: [d.use, d.words(d.n, MODULUS), d.words(d.n, MODULUS), MODULUS, bytearray(8 * d.n)],
    "bits_pack": _pack,
    "bits_unpack": _unpack,
    "pir_answer": lambda d: [d.use, d.bytes(d.n * d.m), d.bytes(12 * d.m), 3, bytearray(12 * d.n)],
    "pir_multiply": lambda d: [d.use, d.bytes(d.n * d.m), d.bytes(12 * d.m), 3, bytearray(12 * d.n)],
    "word_product": lambda d: [d.use, d.bytes(4 * d.n * d.m), d.bytes(4 * d.m), bytearray(4 * d.n)],
    "lwe_product": lambda d: [d.use, d.bytes(16 * d.n), 2, d.bytes(4 * 24), bytearray(8 * d.n)],
}


def changed(value: Any, rng: random.Random) -> Any:
    """Another argument of the same type: a size on or over an edge, a buffer a little shorter or longer."""
    if isinstance(value, int):
        return rng.choice([*EDGES, value - 1, value + 1, 2 * value])
    if isinstance(value, bytes | bytearray):
        by = rng.choice([-32, -16, -8, -1, 1, 8, 16, 32])
        return value + type(value)(by) if by > 0 else value[:by]
    if isinstance(value, tuple):
        if not value:
            return ((0, 1, b"", b""),)
        place = rng.randrange(len(value))
        return (*value[:place], changed(value[place], rng), *value[place + 1 :])
    return value


def once(seed: int) -> tuple[str, bool]:
    """One call of one function: its name, and whether it was refused."""
    rng = random.Random(seed)
    name = rng.choice(sorted(FITTING))
    arguments = FITTING[name](Draw(rng))
    for _ in range(rng.choice([0, 0, 1, 1, 2]) if arguments else 0):
        place = rng.randrange(len(arguments))
        arguments[place] = changed(arguments[place], rng)
    try:
        getattr(_native, name)(*arguments)
    except REFUSALS:
        return name, True
    return name, False


def functions() -> set[str]:
    """What there is to call."""
    return {name for name in dir(_native) if callable(getattr(_native, name)) and not name.startswith("_")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big") << 32)
    options = parser.parse_args()
    if missing := functions() - set(FITTING):
        sys.exit(f"nothing calls {', '.join(sorted(missing))}")
    print(f"from seed {options.seed}", flush=True)
    end, calls, refused, seed = time.monotonic() + options.seconds, 0, 0, options.seed
    while time.monotonic() < end:
        refused += once(seed)[1]
        calls, seed = calls + 1, seed + 1
    print(f"{calls} calls of {len(FITTING)} functions, {refused} refused, and nothing else")


if __name__ == "__main__":
    main()
