"""The hot loops, each over a whole batch: ristretto255, its scalars, and hashing.

Called by ``trustcompute.primitives`` and ``trustcompute.tables``. Every function takes and returns
C-contiguous NumPy arrays, keeps no state and runs on one thread; the compiled ones release the GIL, so
threads over batches scale (``primitives.parallel``). A row is one element, a column one byte. Wrong types
and shapes raise ``ParameterError``.

Elements are the 32-byte encodings of RFC 9496; scalars are 32-byte little-endian integers of *any* value,
taken modulo the group order ℓ = 2²⁵² + 27742317777372353535851937790883648493, and returned below it.

Timing: the extension is constant time in scalars, messages and point values unless a function says
otherwise. The reference computes with big integers, whose timing depends on the values: it is the
specification, and for places where nobody can measure it.
"""

from __future__ import annotations

from collections.abc import Sequence

from trustcompute.errors import ParameterError
from trustcompute.kernels import arrays
from trustcompute.kernels.arrays import U8, Column, FixedColumn, VariableColumn
from trustcompute.kernels.dispatch import Backend, chosen
from trustcompute.kernels.errors import InvalidPoint, InvalidScalar

__all__ = [
    "Backend",
    "Column",
    "FixedColumn",
    "InvalidPoint",
    "InvalidScalar",
    "VariableColumn",
    "active",
    "digest_columns",
    "expand_message_xmd",
    "oprf_finalize",
    "ristretto255_check",
    "ristretto255_from_uniform",
    "ristretto255_hash",
    "ristretto255_hash_blind",
    "ristretto255_hash_mul",
    "ristretto255_mul",
    "ristretto255_mul_base",
    "ristretto255_multiscalar_vartime",
    "ristretto255_unblind",
    "scalar255_invert",
    "scalar255_mul",
    "scalar255_reduce",
    "scalar255_sub",
]


def active() -> Backend:
    """The implementation in use.

    Raises ``KernelError`` if ``TRUSTCOMPUTE_KERNELS`` asks for one that is not there.
    """
    return chosen()[0]


def ristretto255_mul(points: U8, scalars: U8) -> U8:
    """Multiply each element by its scalar, or by the only one.

    points uint8[n, 32], scalars uint8[n, 32] or uint8[1, 32] -> uint8[n, 32].
    The identity (32 zero bytes) is an element like any other; who gets elements from a peer rejects it
    first. Raises ``InvalidPoint`` naming the first row that is not a canonical encoding.
    """
    points = arrays.rows("points", points, 32)
    scalars = arrays.paired("scalars", scalars, len(points), or_one=True)
    return chosen()[1].ristretto255_mul(points, scalars)


def ristretto255_mul_base(scalars: U8) -> U8:
    """Multiply the generator by each scalar: uint8[n, 32] -> uint8[n, 32]."""
    return chosen()[1].ristretto255_mul_base(arrays.rows("scalars", scalars, 32))


def ristretto255_check(points: U8) -> None:
    """Raise ``InvalidPoint`` for the first row of uint8[n, 32] that encodes no element (RFC 9496 §4.3.1)."""
    chosen()[1].ristretto255_check(arrays.rows("points", points, 32))


def ristretto255_multiscalar_vartime(points: U8, scalars: U8) -> U8:
    """The sum of all elements, each multiplied by its scalar: uint8[n, 32], uint8[n, 32] -> uint8[1, 32].

    Not constant time, neither in points nor in scalars: for public values only, such as the weights of a
    batch proof. Raises ``InvalidPoint`` naming the first row that is not a canonical encoding. The empty sum
    is the identity.
    """
    points = arrays.rows("points", points, 32)
    scalars = arrays.paired("scalars", scalars, len(points))
    return chosen()[1].ristretto255_multiscalar_vartime(points, scalars)


def ristretto255_from_uniform(uniform: U8) -> U8:
    """Map uniform bytes to elements, uint8[n, 64] -> uint8[n, 32] (the one-way map of RFC 9496 §4.3.4)."""
    return chosen()[1].ristretto255_from_uniform(arrays.rows("uniform", uniform, 64))


def ristretto255_hash(messages: U8, dst: bytes) -> U8:
    """Hash messages to the group under a domain separation tag: uint8[n, w] -> uint8[n, 32].

    ``expand_message_xmd`` with SHA-512 to 64 bytes, then ``ristretto255_from_uniform`` (RFC 9380 Appendix
    B). dst: 1 to 255 bytes. Nobody knows the discrete logarithm of a result.
    """
    return chosen()[1].ristretto255_hash(arrays.rows("messages", messages), arrays.tag(dst))


def ristretto255_hash_mul(messages: U8, dst: bytes, scalars: U8) -> U8:
    """``ristretto255_mul(ristretto255_hash(messages, dst), scalars)`` without the encodings in between."""
    messages = arrays.rows("messages", messages)
    scalars = arrays.paired("scalars", scalars, len(messages), or_one=True)
    return chosen()[1].ristretto255_hash_mul(messages, arrays.tag(dst), scalars)


def ristretto255_hash_blind(messages: U8, dst: bytes, scalars: U8) -> U8:
    """2·(H(message) + scalar·G), row by row: uint8[n, w], uint8[n, 32] -> uint8[n, 32].

    H is ``ristretto255_hash`` under ``dst``, G the generator. Uniform scalars hide the messages perfectly. Twice,
    because doubles are encoded without a square root; a fixed base costs a quarter of any other.
    """
    messages = arrays.rows("messages", messages)
    scalars = arrays.paired("scalars", scalars, len(messages))
    return chosen()[1].ristretto255_hash_blind(messages, arrays.tag(dst), scalars)


def ristretto255_unblind(points: U8, base: U8, scalars: U8) -> U8:
    """2·(point - scalar·base), row by row: uint8[n, 32], uint8[1, 32], uint8[n, 32] -> uint8[n, 32].

    With base = 2k·G it takes what ``ristretto255_hash_blind`` added off k times its result: 4k·H(message) is left.
    Raises ``InvalidPoint`` naming the first row of ``points`` that is not a canonical encoding, and ``ParameterError``
    if the base is not one. Makes a table of the base's multiples first: worth it from a few hundred rows.
    """
    points = arrays.rows("points", points, 32)
    base = arrays.paired("base", arrays.rows("base", base, 32), 1)
    scalars = arrays.paired("scalars", scalars, len(points))
    try:
        chosen()[1].ristretto255_check(base)
    except InvalidPoint as error:
        raise ParameterError("the base is not the canonical encoding of a ristretto255 element") from error
    return chosen()[1].ristretto255_unblind(points, base, scalars)


def scalar255_reduce(wide: U8) -> U8:
    """Little-endian integers modulo ℓ: uint8[n, 64] -> uint8[n, 32].

    Uniform input gives a bias below 2⁻²⁵⁰.
    """
    return chosen()[1].scalar255_reduce(arrays.rows("wide", wide, 64))


def scalar255_mul(a: U8, b: U8) -> U8:
    """a·b mod ℓ, row by row: uint8[n, 32], uint8[n, 32] -> uint8[n, 32]."""
    a = arrays.rows("a", a, 32)
    return chosen()[1].scalar255_mul(a, arrays.paired("b", b, len(a)))


def scalar255_sub(a: U8, b: U8) -> U8:
    """a - b mod ℓ, row by row: uint8[n, 32], uint8[n, 32] -> uint8[n, 32]."""
    a = arrays.rows("a", a, 32)
    return chosen()[1].scalar255_sub(a, arrays.paired("b", b, len(a)))


def scalar255_invert(scalars: U8) -> U8:
    """1/a mod ℓ, row by row: uint8[n, 32] -> uint8[n, 32].

    Raises ``InvalidScalar`` naming the first row that is zero modulo ℓ; only whether there is one shows in
    the timing.
    """
    return chosen()[1].scalar255_invert(arrays.rows("scalars", scalars, 32))


def expand_message_xmd(messages: U8, dst: bytes, length: int) -> U8:
    """expand_message_xmd of RFC 9380 §5.3.1 with SHA-512: uint8[n, w] -> uint8[n, length].

    dst: 1 to 255 bytes; length: 1 to 16,320.
    """
    messages = arrays.rows("messages", messages)
    if not 1 <= length <= arrays.MAX_EXPANDED:
        raise ParameterError(f"length must lie in 1..{arrays.MAX_EXPANDED}, not {length}")
    return chosen()[1].expand_message_xmd(messages, arrays.tag(dst), length)


def oprf_finalize(inputs: U8, elements: U8) -> U8:
    """The last hash of RFC 9497 §3.3.1 Finalize: uint8[n, w], uint8[n, 32] -> uint8[n, 64].

    SHA-512 over u16be(w) ‖ input ‖ u16be(32) ‖ element ‖ "Finalize"; w is at most 65,535. ``elements`` are
    the unblinded elements and are hashed as they are.
    """
    inputs = arrays.rows("inputs", inputs)
    if inputs.shape[1] > 0xFFFF:
        raise ParameterError(f"an OPRF input has at most 65535 bytes, not {inputs.shape[1]}")
    return chosen()[1].oprf_finalize(inputs, arrays.paired("elements", elements, len(inputs)))


def digest_columns(prefix: bytes, columns: Sequence[Column]) -> U8:
    """One SHA-256 digest a row of a table: uint8[n, 32].

    Hashes prefix ‖ for each column: tag (1 byte) ‖ u32le(length of the cell) ‖ the cell's bytes. Injective
    for a given prefix length and list of tags. A prefix of a multiple of 64 bytes costs nothing a row: its
    state is reused. Cell lengths show in the timing; their bytes do not.
    """
    if not isinstance(prefix, bytes):
        raise ParameterError(f"prefix must be bytes, not {type(prefix).__name__}")
    count, checked = arrays.table(columns)
    return chosen()[1].digest_columns(prefix, count, checked)
