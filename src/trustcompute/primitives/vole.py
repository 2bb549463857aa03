"""Silent VOLE over GF(2¹²⁸): a long random C = A·Δ + B from a short one, of which only a logarithm is sent.

Called by ``psi.vole`` and ``psi.vole_malicious``. One side (here the *holder*) gets A and C, the other (the *keeper*)
Δ and B.

1. The holder draws noise: one random position and value in each of t blocks of a vector e of 2k elements.
2. A short VOLE c = a·Δ + b of the t values, by Gilboa's product (CRYPTO 1999) bit by bit of Δ.
3. Trees: the keeper's leaves w; the holder learns all of them but the one at its position (Boyle, Couteau, Gilboa and
   Ishai, CCS 2018), and there w + a·Δ. Together v = w + e·Δ.
4. Both compress with one linear code: A, C and B from e, v and w.

A is pseudorandom if regular dual LPN is hard for the code: Boyle et al., "Efficient Two-Round OT Extension and Silent
Non-Interactive Secure Computation" (CCS 2019). Adversary: semi-honest, either one; 128 bits against linear tests
(``noise_weight``), an estimate that rests on the code's minimum distance (docs/adr/0008).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np

from trustcompute import kernels
from trustcompute.errors import LocalProtocolError, ParameterError
from trustcompute.kernels.arrays import I64, U8, tree_depth
from trustcompute.primitives.ot import Bits
from trustcompute.primitives.parallel import map_rows
from trustcompute.primitives.rng import Rng

CODE: Final = "exconv-21x24-systematic-twice"
DISTANCE: Final = (
    1,
    5,
)  # the code's minimum distance over its length, a conservative estimate for ExConv 21x24
SECURITY_BITS: Final = 128
MIN_OUTPUTS: Final = 2**12  # shorter ones are cut from one of this length
MAX_OUTPUTS: Final = 2**31
ROWS: Final = 2**16  # rows a task
_CODE_KEY: Final = hashlib.sha256(b"trustcompute vole code v1: " + CODE.encode()).digest()[:16]
_TREE_KEYS: Final = hashlib.sha256(b"trustcompute vole trees v1").digest()


def noise_weight(numerator: int, denominator: int, bits: int) -> int:
    """Blocks of noise: the least multiple of 8 with (1 - 2δ)ᵗ ≤ 2⁻ᵇⁱᵗˢ, for a minimum distance δ of the code's length.

    A linear test that adds up d or more positions sees every block of regular noise with bias at most 1 - 2δ.
    """
    weight = 8
    while (denominator - 2 * numerator) ** weight << bits > denominator**weight:
        weight += 8
    return weight


WEIGHT: Final = noise_weight(*DISTANCE, SECURITY_BITS)


@dataclass(frozen=True, slots=True)
class Shape:
    """outputs: length of A, B and C; leaves: of each tree; half: k, half the length of the noise vector."""

    outputs: int
    leaves: int

    @classmethod
    def of(cls, outputs: int) -> Shape:
        if not 0 <= outputs <= MAX_OUTPUTS:
            raise ParameterError(f"a VOLE has 0 to {MAX_OUTPUTS} outputs, not {outputs}")
        return cls(outputs, -(-2 * max(outputs, MIN_OUTPUTS) // WEIGHT))

    @property
    def half(self) -> int:
        return WEIGHT * self.leaves // 2

    @property
    def depth(self) -> int:
        return tree_depth(self.leaves)

    @property
    def transfers(self) -> int:
        """Oblivious transfers the trees take."""
        return WEIGHT * self.depth


@dataclass(frozen=True, slots=True)
class Noise:
    """The holder's secret: a position in each block (int64[t]) and its value (uint8[t, 16])."""

    points: I64 = field(repr=False)
    values: U8 = field(repr=False)

    @classmethod
    def draw(cls, shape: Shape, rng: Rng) -> Noise:
        wide = [int.from_bytes(rng.bytes(16), "little") % shape.leaves for _ in range(WEIGHT)]
        return cls(np.array(wide, dtype=np.int64), rng.array(16 * WEIGHT).reshape(WEIGHT, 16))

    def choices(self, shape: Shape) -> Bits:
        """Of each tree and level the side that the way to the point does not take: bool[t · depth]."""
        levels = np.arange(shape.depth - 1, -1, -1)
        other: Bits = (self.points[:, None] >> levels & 1) == 0
        return other.reshape(-1)

    def vector(self, shape: Shape) -> U8:
        """e, uint8[2k, 16]."""
        e = np.zeros((2 * shape.half, 16), dtype=np.uint8)
        e[self.positions(shape)] = self.values
        return e

    def positions(self, shape: Shape) -> I64:
        return np.arange(WEIGHT, dtype=np.int64) * shape.leaves + self.points


def short_holder(keys: U8, values: U8) -> tuple[U8, U8]:
    """Gilboa's product, the holder: keys uint8[128, 2, 16], a uint8[t, 16] -> what it sends uint8[128, 16t], c."""
    streams = kernels.aes128_ctr(keys.reshape(-1, 16), len(values)).reshape(len(keys), 2, -1)
    return streams[:, 0] ^ streams[:, 1] ^ values.reshape(1, -1), _sum_of_powers(streams[:, 0])


def short_keeper(keys: U8, delta: Bits, masked: U8) -> U8:
    """Gilboa's product, the keeper: keys uint8[128, 16] chosen by Δ's bits, what came uint8[128, 16t] -> b."""
    streams = kernels.aes128_ctr(keys, masked.shape[1] // 16)
    return _sum_of_powers(streams ^ masked * delta[:, None])


def _sum_of_powers(rows: U8) -> U8:
    """Σ xᵏ·rowₖ, each row t elements side by side: uint8[128, 16t] -> uint8[t, 16]. Horner's rule."""
    total = np.zeros((rows.shape[1] // 16, 2), dtype="<u8")
    for row in rows[::-1]:
        low, high = total[:, 0], total[:, 1]
        carry = high >> np.uint64(63)
        doubled = np.stack(
            [low << np.uint64(1) ^ carry * np.uint64(0x87), high << np.uint64(1) | low >> np.uint64(63)], 1
        )
        total = doubled ^ np.ascontiguousarray(row).view("<u8").reshape(-1, 2)
    return total.astype("<u8").view(np.uint8).reshape(-1, 16)


def roots(rng: Rng) -> U8:
    """The keeper's secret that its trees grow from, uint8[t, 16]."""
    return rng.array(16 * WEIGHT).reshape(WEIGHT, 16)


def grow(shape: Shape, roots: U8) -> tuple[U8, U8]:
    """The keeper's trees: leaves w (uint8[2k, 16]) and the sums of each level's sides (uint8[t · depth, 2, 16])."""
    leaves, sums = kernels.pprf_expand(roots, shape.leaves, _TREE_KEYS)
    return leaves, sums.reshape(-1, 2, 16)


def corrections(shape: Shape, sums: U8, b: U8) -> U8:
    """What the keeper sends for the missing leaves: each tree's leaves added up, and b. uint8[t, 16]."""
    last = sums.reshape(WEIGHT, shape.depth, 2, 16)[:, -1]
    return last[:, 0] ^ last[:, 1] ^ b


def regrow(shape: Shape, noise: Noise, sums: U8, corrected: U8, c: U8) -> U8:
    """The holder's trees: v = w + e·Δ from the sums of its choice (uint8[t · depth, 16]). uint8[2k, 16]."""
    leaves, totals = kernels.pprf_puncture(sums, noise.points, shape.leaves, _TREE_KEYS)
    leaves[noise.positions(shape)] = totals ^ corrected ^ c
    return leaves


def compress(shape: Shape, vector: U8) -> U8:
    """The linear code, in the vector's own memory: uint8[2k, 16] -> uint8[outputs, 16]."""
    return kernels.code_compress(vector, shape.outputs, _CODE_KEY)


def _shifted(b: U8, difference: U8, delta: U8) -> U8:
    b ^= kernels.gf128_mul(difference, delta)
    return b


def fold(rows: U8, challenge: bytes) -> U8:
    """A random linear combination of all rows but the last, plus the last: uint8[n + 1, 16] -> uint8[1, 16].

    challenge: 32 bytes. Folding A, B and C under one challenge that came after them shows whether C = A·Δ + B in every
    row, but with probability 2⁻¹²⁷; the last rows hide the others. (The consistency check of Yang, Weng, Lan, Zhang and
    Wang, "Ferret", CCS 2020, §4, over one field.) A row has the product of two weights, so that few are drawn.
    """
    count = len(rows) - 1
    keys = np.frombuffer(challenge, dtype=np.uint8).reshape(2, 1, 16)
    inner = kernels.aes128_ctr(keys[0], _FOLDED).reshape(-1, 16)
    starts = range(0, count, _FOLDED)
    sums = [
        kernels.gf128_dot(rows[s : min(s + _FOLDED, count)], inner[: min(_FOLDED, count - s)]) for s in starts
    ]
    outer = kernels.aes128_ctr(keys[1], len(sums)).reshape(-1, 16)
    total: U8 = kernels.gf128_dot(np.concatenate([*sums, rows[:0]]), outer) ^ rows[count:]
    return total


_FOLDED: Final = 2**12


class Correlation:
    """The keeper's Δ and B, good for one difference: a second one under the same Δ would tell about Δ."""

    __slots__ = ("_b", "_delta")

    def __init__(self, delta: Bits, b: U8) -> None:
        self._delta: U8 | None = np.packbits(delta, bitorder="little").reshape(1, 16)
        self._b: U8 | None = b

    def shift(self, difference: U8, *, executor: Executor | None = None) -> tuple[U8, U8]:
        """(Δ, B + A'·Δ) for what the holder sent. Raises ``LocalProtocolError`` the second time."""
        if self._delta is None or self._b is None:
            raise LocalProtocolError("this VOLE has served a difference: another one needs another Δ")
        delta, b = self._delta, self._b
        self._delta = self._b = None
        return delta, map_rows(partial(_shifted, delta=delta), b, difference, executor=executor, chunk=ROWS)

    def __repr__(self) -> str:
        return f"Correlation({'used' if self._delta is None else 'fresh'})"
