"""Sums over chosen rows of a table that its holder encrypted: the holder sees which rows as little as the other side
sees the table.

Called by ``psi.summing``. The holder puts the slots of a row beside each other into coefficients, and rows one after
the other, and encrypts under a key of its own; the other side multiplies each polynomial by Σ x^(-i·slots) over the
chosen rows i, which brings their slots to the first coefficients, adds everything, a fresh encryption of zero and a
mask. V. Lyubashevsky, C. Peikert and O. Regev, *On Ideal Lattices and Learning with Errors over Rings* (EUROCRYPT
2010); its use here follows M. Ion et al., *On Deploying Secure Computing: Private Intersection-Sum-with-Cardinality*
(EuroS&P 2020), which masks what it returns in the same way.

    holder   b = a·s + e + 2^k·m for each polynomial m of the table, and b₀ = a₀·s + e₀, a public key
    chooser  c₀ = Σ bⱼ·pⱼ + b₀·u + r,   c₁ = Σ aⱼ·pⱼ + a₀·u + e₁        u ternary, e₁ noise, r the mask
    holder   c₀ - c₁·s = r + 2^k·(sum) + noise, rounded to 2^k: a sum and what the chooser knows of r

r is uniform modulo q, so the holder learns nothing of the sum or of the noise, in which the choice is; of slots that
it may see, r is uniform in ±2^(k-2), which drowns the noise. The holder rounds, which drowns it for the chooser.

Who sees what, with c rows chosen at most, S slots, and B = √(2·60·10.5·(c + 2N)), beyond which noise comes with
probability 2e^-60 a coefficient: k = 41 + ⌈log2(S·B)⌉, so that S·B/2^(k-1) ≤ 2^-40 bounds how far either view is from
one that the noise has no part in, and how likely a sum is rounded to a neighbour. A sum may be ±largest while
(2·largest + 4)·2^k ≤ q. Security of keys: ``core_svp``. c₁ hides the choice under ring-LWE with the secret u.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import isqrt, prod
from typing import Final

import numpy as np
import numpy.typing as npt

from trustcompute import kernels
from trustcompute.errors import ParameterError, RemoteProtocolError
from trustcompute.kernels.arrays import I64, NOISE_BITS, U8, U64
from trustcompute.primitives import ring, rlwe
from trustcompute.primitives.ring import BITS
from trustcompute.primitives.rlwe import STEP, TAIL_NATS
from trustcompute.primitives.rng import Rng

STATISTICAL_SECURITY: Final = 40
SEED: Final = rlwe.SEED
MAX_POLYNOMIALS: Final = 2**15
_LOW: Final = 31  # bits of the lower part of a value: both parts are below every modulus


@dataclass(frozen=True, slots=True)
class Suite:
    """name: in documents; size: N; moduli: of which q is the product."""

    name: str
    size: int
    moduli: tuple[int, ...]

    @property
    def modulus(self) -> int:
        return prod(self.moduli)

    @property
    def core_svp(self) -> float:
        """Bits of the primal attack, classical (``rlwe.core_svp``): 108 and 161."""
        return rlwe.core_svp(self.size, BITS * len(self.moduli))


SUITES: Final = (
    Suite("rlwe-4096-100", 4096, kernels.NTT_MODULI[:2]),
    Suite("rlwe-8192-150", 8192, kernels.NTT_MODULI[:3]),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """rows: of the table; slots: integers a row; chosen: rows that may be added; largest: no sum is beyond ±it.

    All of it is public, and agreed before.
    """

    suite: Suite
    rows: int
    slots: int
    chosen: int
    largest: int

    @property
    def rows_in_one(self) -> int:
        """Rows in a polynomial."""
        return self.suite.size // self.slots

    @property
    def polynomials(self) -> int:
        """Of the table; one more goes before them, the public key."""
        return -(-self.rows // self.rows_in_one)

    @property
    def noise(self) -> int:
        """B: how far noise reaches. A ternary factor counts as ±1: a bound for every key."""
        return isqrt(TAIL_NATS * NOISE_BITS * (self.chosen + 2 * self.suite.size)) + 1

    @property
    def shift(self) -> int:
        """k: the bit at which sums begin."""
        return STATISTICAL_SECURITY + 1 + (self.slots * self.noise - 1).bit_length()

    @property
    def fits(self) -> bool:
        return (2 * self.largest + 4) << self.shift <= self.suite.modulus

    @property
    def answer_width(self) -> int:
        """Bytes of a rounded slot."""
        return -(-((self.suite.modulus >> self.shift) + 1).bit_length() // 8)

    @property
    def table_shape(self) -> tuple[int, int, int]:
        """Of the encrypted table on the wire, uint8."""
        return self.polynomials + 1, len(self.suite.moduli), self.suite.size * BITS // 8

    @property
    def chosen_shape(self) -> tuple[int, int, int]:
        """Of what the chooser sends, uint8."""
        return 2, len(self.suite.moduli), self.suite.size * BITS // 8


def shape(rows: int, slots: int, chosen: int, largest: int) -> Shape:
    """The shape with the smallest suite that holds the sums. Raises ``ParameterError`` where none does."""
    for suite in SUITES:
        if 1 <= slots <= suite.size:
            found = Shape(suite, rows, slots, chosen, largest)
            if found.fits and found.polynomials <= MAX_POLYNOMIALS:
                return found
    held = MAX_POLYNOMIALS * (SUITES[-1].size // max(slots, 1))
    raise ParameterError(
        f"{rows:,} keys with {slots:,} sums each, up to ±{largest:,}, do not fit: {held:,} keys do, and sums up to"
        " about 2^80; narrow the bounds, lower a scale, or ask for fewer groups"
    )


@dataclass(frozen=True, eq=False)
class SecretKey:
    """The holder's key for one table: a ternary polynomial, transformed for each modulus, uint64[1, N]."""

    shape: Shape
    transformed: tuple[U64, ...] = field(repr=False)


def keygen(of: Shape, rng: Rng) -> SecretKey:
    """A fresh key."""
    return SecretKey(of, tuple(_small(of.suite, ring.ternary, rng)))


def encrypt(key: SecretKey, table: I64, rng: Rng) -> tuple[U8, U8]:
    """(seed uint8[32], uint8[``table_shape``]) of a table, int64[rows, slots], below 2^62 in size.

    IND-CPA under ring-LWE: as many bytes, whatever is in it.
    """
    of, suite = key.shape, key.shape.suite
    if table.dtype != np.int64 or table.shape != (of.rows, of.slots):
        raise ParameterError(f"the table must be int64[{of.rows}, {of.slots}]")
    seed = rng.array(SEED)
    body = np.empty(of.table_shape, dtype=np.uint8)
    for rows, masks in _uniform(seed, suite, len(body)):
        drawn, messages = ring.words(rng, suite.size, len(masks[0])), _arranged(of, table, rows)
        for at, modulus in enumerate(suite.moduli):
            lifted = ring.plus(_lifted(messages, of.shift, modulus), ring.noise(drawn, modulus), modulus)
            product = kernels.ntt_mul(masks[at], key.transformed[at], modulus)
            body[rows, at] = _packed(ring.plus(product, kernels.ntt(lifted, modulus), modulus))
    return seed, body


@dataclass(frozen=True, eq=False)
class Choice:
    """What the chooser keeps: the mask of every slot, an integer modulo q. Of no use to anybody else."""

    shape: Shape
    masks: tuple[int, ...] = field(repr=False)


def choose(
    of: Shape, encrypted: tuple[U8, U8], rows: I64, *, open_slots: npt.NDArray[np.bool_], rng: Rng
) -> tuple[U8, Choice]:
    """The masked sum over ``rows`` (int64, each at most once): uint8[``chosen_shape``], and what unmasks it.

    encrypted: a peer's (``encrypt``). open_slots: bool[slots], those that the holder is to see. Raises
    ``RemoteProtocolError`` for residues that are none. Takes the same time whatever is chosen.
    """
    suite, (seed, body) = of.suite, encrypted
    if len(rows) > of.chosen:
        raise ParameterError(f"at most {of.chosen} rows can be chosen here, not {len(rows)}")
    u, e = (_small(suite, kind, rng) for kind in (ring.ternary, ring.noise))
    masks, mask = _draw_mask(of, open_slots, rng)
    sums = [[mask[at], e[at]] for at in range(len(suite.moduli))]
    for part, uniform in _uniform(seed, suite, len(body)):
        wanted = _selection(of, rows, part)
        for at, modulus in enumerate(suite.moduli):
            by = kernels.ntt(ring.residues(wanted, modulus), modulus)
            if part.start == 0:
                by[0] = u[at][0]  # the public key's
            for place, factor in enumerate((_unpacked(body[part, at], suite, modulus), uniform[at])):
                added = kernels.ntt_mul(factor, by, modulus).sum(axis=0, dtype=np.uint64, keepdims=True)
                sums[at][place] = ring.plus(sums[at][place], added % np.uint64(modulus), modulus)
    out = np.empty(of.chosen_shape, dtype=np.uint8)
    for at in range(len(suite.moduli)):
        for place in range(2):
            out[place, at] = _packed(sums[at][place])[0]
    return out, Choice(of, tuple(masks))


def decrypt(key: SecretKey, chosen: U8) -> list[int]:
    """What the first slots hold, masked, modulo q. chosen: a peer's, uint8[``chosen_shape``].

    Not for the peer as it is: the noise is in it. Raises ``RemoteProtocolError``.
    """
    suite = key.shape.suite
    coefficients = []
    for at, modulus in enumerate(suite.moduli):
        first, second = (_unpacked(chosen[place, at][np.newaxis], suite, modulus) for place in range(2))
        product = kernels.ntt_mul(second, key.transformed[at], modulus)
        phase = kernels.ntt(ring.minus(first, product, modulus), modulus, inverse=True)
        coefficients.append(phase[0, : key.shape.slots].tolist())
    factors = [_crt_factor(suite, modulus) for modulus in suite.moduli]
    return [
        sum(int(one) * factor for one, factor in zip(parts, factors, strict=True)) % suite.modulus
        for parts in zip(*coefficients, strict=True)
    ]


def opened(of: Shape, slot: int) -> int:
    """A decrypted slot that was left open: the sum."""
    centred = slot - of.suite.modulus if slot > of.suite.modulus // 2 else slot
    return _rounded(centred, of.shift)


def rounded(of: Shape, slots: Sequence[int], added: Sequence[int]) -> U8:
    """What goes back to the chooser, uint8[n, ``answer_width``]: masked slots, and to each what the holder adds."""
    width = of.answer_width
    found = (
        _rounded((slot + (more << of.shift)) % of.suite.modulus, of.shift)
        for slot, more in zip(slots, added, strict=True)
    )
    packed = b"".join(one.to_bytes(width, "little") for one in found)
    return np.frombuffer(packed, dtype=np.uint8).reshape(len(slots), width)


def unmask(choice: Choice, slot: int, rounded_slot: U8) -> int:
    """The sum in a slot. Raises ``RemoteProtocolError`` for what is beyond ±largest, and so no sum."""
    of, received = choice.shape, int.from_bytes(rounded_slot.tobytes(), "little")
    for wrapped in (0, of.suite.modulus, -of.suite.modulus):  # how often the mask went round the modulus
        found = received - _rounded(choice.masks[slot] - wrapped, of.shift)
        if abs(found) <= of.largest:
            return found
    raise RemoteProtocolError("the peer returned a sum that its own bounds rule out")


def _rounded(value: int, shift: int) -> int:
    return (value + (1 << (shift - 1))) >> shift


def _arranged(of: Shape, table: I64, part: slice) -> I64:
    """The table's polynomials of a part of the wire's, whose first is the public key and holds nothing."""
    size, each = of.suite.size, of.rows_in_one
    out = np.zeros((part.stop - part.start, size), dtype=np.int64)
    first = 1 if part.start == 0 else 0
    rows = table[(part.start - 1 + first) * each : (part.stop - 1) * each]
    whole = np.zeros(((len(out) - first) * each, of.slots), dtype=np.int64)
    whole[: len(rows)] = rows
    out[first:, : each * of.slots] = whole.reshape(len(out) - first, each * of.slots)
    return out


def _selection(of: Shape, rows: I64, part: slice) -> I64:
    """Σ x^(-i·slots) over the chosen rows of each polynomial: x^-j = -x^(N-j)."""
    size, each = of.suite.size, of.rows_in_one
    out = np.zeros((part.stop - part.start, size), dtype=np.int64)
    polynomial, place = rows // each + 1, rows % each
    here = (polynomial >= part.start) & (polynomial < part.stop)
    where = (size - place[here] * of.slots) % size
    out[polynomial[here] - part.start, where] = np.where(place[here] == 0, 1, -1)
    return out


def _draw_mask(of: Shape, open_slots: npt.NDArray[np.bool_], rng: Rng) -> tuple[list[int], list[U64]]:
    """The mask of every slot, and the polynomial, transformed for each modulus."""
    suite = of.suite
    masks = [
        _below(1 << (of.shift - 1), rng) - (1 << (of.shift - 2)) if seen else _below(suite.modulus, rng)
        for seen in open_slots.tolist()
    ]
    polynomial = []
    for modulus in suite.moduli:
        drawn = ring.uniform(rng, suite.size, 1, modulus)
        drawn[0, : of.slots] = [mask % modulus for mask in masks]
        polynomial.append(kernels.ntt(drawn, modulus))
    return masks, polynomial


def _below(bound: int, rng: Rng) -> int:
    """Uniform below the bound, by rejection."""
    bits = (bound - 1).bit_length()
    while True:
        drawn = int.from_bytes(rng.bytes(-(-bits // 8)), "little") & ((1 << bits) - 1)
        if drawn < bound:
            return drawn


def _uniform(seed: U8, suite: Suite, polynomials: int) -> Iterator[tuple[slice, list[U64]]]:
    """The uniform polynomials, transformed as they are drawn, a part at a time and for each modulus."""
    streams = [
        Rng.derive(seed.tobytes(), info=b"chosen sums, uniform polynomials v1 %d" % modulus)
        for modulus in suite.moduli
    ]
    for start in range(0, polynomials, STEP):
        part = slice(start, min(start + STEP, polynomials))
        yield (
            part,
            [
                ring.uniform(stream, suite.size, part.stop - start, modulus)
                for stream, modulus in zip(streams, suite.moduli, strict=True)
            ],
        )


def _small(suite: Suite, kind: Callable[[U64, int], U64], rng: Rng) -> list[U64]:
    """A small polynomial, transformed for each modulus."""
    drawn = ring.words(rng, suite.size, 1)
    return [kernels.ntt(kind(drawn, modulus), modulus) for modulus in suite.moduli]


def _lifted(messages: I64, shift: int, modulus: int) -> U64:
    """2^k·m modulo a modulus, without a division: m in two parts, each times a constant."""
    parts = ((messages & (2**_LOW - 1), shift), (messages >> _LOW, shift + _LOW))
    low, high = (
        kernels.ntt_mul(
            ring.residues(part, modulus),
            np.full((1, messages.shape[1]), pow(2, power, modulus), dtype=np.uint64),
            modulus,
        )
        for part, power in parts
    )
    return ring.plus(low, high, modulus)


def _packed(rows: U64) -> U8:
    """uint64[n, N] -> uint8[n, N·50/8]: N is a multiple of 4, so that rows end with a byte."""
    return ring.pack(rows).reshape(len(rows), -1)


def _unpacked(packed: U8, suite: Suite, modulus: int) -> U64:
    return ring.unpack(np.ascontiguousarray(packed).reshape(-1), suite.size, len(packed), modulus)


def _crt_factor(suite: Suite, modulus: int) -> int:
    """What is 1 modulo this modulus and 0 modulo the others."""
    others = suite.modulus // modulus
    return others * pow(others, -1, modulus)
