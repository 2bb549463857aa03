"""The hot loops, each over a whole batch: ristretto255, hashing, and what set intersection from VOLE takes.

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

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.kernels import arrays
from trustcompute.kernels.arrays import (
    I8,
    I64,
    NOISE_BITS,
    NTT_MODULI,
    U8,
    U32,
    U64,
    Column,
    FixedColumn,
    OkvsShape,
    VariableColumn,
)
from trustcompute.kernels.dispatch import Backend, chosen
from trustcompute.kernels.errors import InvalidPoint, InvalidScalar, NotSorted, OkvsFailure

__all__ = [
    "NOISE_BITS",
    "NTT_MODULI",
    "Backend",
    "Column",
    "FixedColumn",
    "InvalidPoint",
    "InvalidScalar",
    "NotSorted",
    "OkvsFailure",
    "OkvsShape",
    "VariableColumn",
    "active",
    "aes128_ctr",
    "aes128_davies_meyer",
    "aes128_hash",
    "bits_pack",
    "bits_unpack",
    "code_compress",
    "code_convolve",
    "code_expand",
    "digest_columns",
    "expand_message_xmd",
    "gf128_dot",
    "gf128_mul",
    "lwe_product",
    "match_rows",
    "match_sorted",
    "ntt",
    "ntt_mul",
    "okvs_decode",
    "okvs_encode",
    "oprf_finalize",
    "pir_answer",
    "pir_multiply",
    "pprf_expand",
    "pprf_puncture",
    "ring_add",
    "ring_blend",
    "ring_ternary",
    "ristretto255_check",
    "ristretto255_from_uniform",
    "ristretto255_hash",
    "ristretto255_hash_blind",
    "ristretto255_hash_mul",
    "ristretto255_mul",
    "ristretto255_mul_base",
    "ristretto255_multiscalar_vartime",
    "ristretto255_sub",
    "ristretto255_unblind",
    "scalar255_invert",
    "scalar255_mul",
    "scalar255_reduce",
    "scalar255_sub",
    "word_product",
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


def ristretto255_sub(a: U8, b: U8) -> U8:
    """a - b, row by row: uint8[n, 32], uint8[n, 32] -> uint8[n, 32]. Raises ``InvalidPoint`` for the first bad row."""
    a = arrays.rows("a", a, 32)
    return chosen()[1].ristretto255_sub(a, arrays.paired("b", b, len(a)))


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


def aes128_ctr(keys: U8, blocks: int) -> U8:
    """AES-128 in counter mode from zero, a row for each key: uint8[n, 16] -> uint8[n, 16·blocks].

    Counters are 128-bit little-endian integers; blocks: 0 to 2³².
    """
    if not 0 <= blocks <= 2**32:
        raise ParameterError(f"counter mode gives 0 to 2^32 blocks, not {blocks}")
    return chosen()[1].aes128_ctr(arrays.blocks("keys", keys), blocks)


def aes128_hash(key: bytes, rows: U8) -> U8:
    """A hash of whole blocks with one public key: uint8[n, 16·w] -> uint8[n, 16].

    Matyas-Meyer-Oseas chaining from zero: h' = AES(h ⊕ x) ⊕ h ⊕ x. All rows have one length; who hashes several
    lengths takes a key for each. About 64 bits against collisions of inputs chosen with the key in hand, n²·2⁻¹²⁸ for
    inputs fixed before the key is drawn.
    """
    rows = arrays.rows("rows", rows)
    if rows.shape[1] % 16 or not rows.shape[1]:
        raise ParameterError(f"rows must be one or more blocks of 16 bytes wide, not {rows.shape[1]}")
    return chosen()[1].aes128_hash(arrays.cipher_key("key", key), rows)


def aes128_davies_meyer(keys: U8, rows: U8) -> U8:
    """Each block hashed under a key of its own: uint8[n, 16], uint8[n, 16] -> uint8[n, 16].

    AES(key, row) ⊕ row, the construction of Davies and Meyer: with AES as an ideal cipher a random function of both.
    """
    rows = arrays.blocks("rows", rows)
    return chosen()[1].aes128_davies_meyer(arrays.blocks("keys", keys, len(rows)), rows)


def gf128_dot(a: U8, b: U8) -> U8:
    """The sum of a[i]·b[i] in GF(2¹²⁸): uint8[n, 16], uint8[n, 16] -> uint8[1, 16]."""
    a = arrays.blocks("a", a)
    return chosen()[1].gf128_dot(a, arrays.blocks("b", b, len(a)))


def gf128_mul(a: U8, b: U8) -> U8:
    """a·b in GF(2¹²⁸), row by row or by the only row of b: uint8[n, 16], uint8[n, 16] -> uint8[n, 16].

    The field is that of x¹²⁸ + x⁷ + x² + x + 1; bit i of a little-endian row is the coefficient of xⁱ.
    """
    a, b = arrays.blocks("a", a), arrays.blocks("b", b)
    return chosen()[1].gf128_mul(a, arrays.blocks("b", b, None if len(b) == 1 else len(a)))


def okvs_encode(hashes: U8, values: U8, key: bytes, shape: OkvsShape, bins: range) -> U8:
    """The named bins, one after the other, of a store that decodes every hash to its value: uint8[len(bins)·size, 16].

    hashes uint8[n, 16], different and pseudorandom (who chose them did not know ``key``); values uint8[n, 16]. Keys
    of other bins are passed over. Raises ``OkvsFailure`` naming the first bin that cannot be encoded. Memory accesses
    depend on the hashes.
    """
    hashes, shape = arrays.blocks("hashes", hashes), arrays.okvs_shape(shape)
    if bins.step != 1 or bins.start < 0 or not bins.start <= bins.stop <= shape.bins:
        raise ParameterError(f"bins must be a range within 0..{shape.bins - 1} in steps of one")
    values = arrays.blocks("values", values, len(hashes))
    return chosen()[1].okvs_encode(hashes, values, arrays.cipher_key("key", key), shape, bins)


def okvs_decode(hashes: U8, table: U8, key: bytes, shape: OkvsShape) -> U8:
    """The value of each hash in a store: uint8[n, 16], uint8[bins·size, 16] -> uint8[n, 16].

    Linear in the table. Memory accesses depend on the hashes.
    """
    hashes, shape = arrays.blocks("hashes", hashes), arrays.okvs_shape(shape)
    table = arrays.blocks("table", table, shape.cells)
    return chosen()[1].okvs_decode(hashes, table, arrays.cipher_key("key", key), shape)


def pprf_expand(roots: U8, leaves: int, keys: bytes) -> tuple[U8, U8]:
    """Trees from their roots: uint8[t, 16] -> leaves uint8[t·leaves, 16], sums uint8[t·⌈log2 leaves⌉·2, 16].

    sums: for each tree and level, all left children added up, then all right ones. keys: two AES keys (32 bytes),
    the one of left and the one of right children.
    """
    roots = arrays.blocks("roots", roots)
    arrays.tree_depth(leaves)
    return chosen()[1].pprf_expand(roots, leaves, arrays.cipher_key("keys", keys, 32))


def pprf_puncture(sums: U8, points: I64, leaves: int, keys: bytes) -> tuple[U8, U8]:
    """All leaves but one of each tree, that one zero, and what they add up to.

    sums uint8[t·⌈log2 leaves⌉, 16], points int64[t] -> leaves uint8[t·leaves, 16], totals uint8[t, 16].

    points: the leaf each tree lacks, in 0..leaves-1; sums: of each level the sum of the side that the way to this
    leaf does *not* take. Memory accesses depend on the points: not to be run where somebody measures them.
    """
    depth = arrays.tree_depth(leaves)
    if not isinstance(points, np.ndarray) or points.dtype != np.int64 or points.ndim != 1:
        raise ParameterError("points must be an int64 array")
    if len(points) and (points.min() < 0 or points.max() >= leaves):
        raise ParameterError(f"points must lie in 0..{leaves - 1}")
    sums = arrays.blocks("sums", sums, len(points) * depth)
    points = np.ascontiguousarray(points)
    return chosen()[1].pprf_puncture(sums, points, leaves, arrays.cipher_key("keys", keys, 32))


def ntt(rows: U64, modulus: int, *, inverse: bool = False) -> U64:
    """The negacyclic transform of each row, uint64[n, N] -> uint64[n, N], N of 1024 to 8192; values below the
    modulus.

    Forward: coefficients of Z_q[x]/(x^N + 1) to values, in bit-reversed order of the roots; inverse: back. The
    product of two polynomials is ``ntt_mul`` of their transforms. modulus: one of ``NTT_MODULI``. Constant time,
    compiled.
    """
    return chosen()[1].ntt(arrays.residues("rows", rows, modulus), modulus, inverse)


def ntt_mul(a: U64, b: U64, modulus: int) -> U64:
    """a·b modulo the modulus, place by place, or by the only row of b: uint64[n, N], uint64[n, N] -> uint64[n, N]."""
    a = arrays.residues("a", a, modulus)
    b = arrays.residues("b", b, modulus, a.shape[1])
    if len(b) not in (1, len(a)):
        raise ParameterError(f"b must have {len(a)} rows or a single one, not {len(b)}")
    return chosen()[1].ntt_mul(a, b, modulus)


def ring_ternary(words: U64, modulus: int) -> U64:
    """A uniform -1, 0 or 1 of each random word, to 2⁻⁶³, as a residue: uint64[n, N] -> uint64[n, N]. Constant time,
    compiled."""
    return chosen()[1].ring_ternary(arrays.ring_words("words", words, modulus), modulus)


def ring_blend(rows: U64, words: U64, values: I64, shift: int, modulus: int) -> U64:
    """rows + noise + values·2^shift modulo the modulus: uint64[n, N], uint64[n, N], int64[n, N] -> uint64[n, N].

    noise: centred binomial of each random word, ``NOISE_BITS`` less ``NOISE_BITS``, σ² = 10.5. values: at most 2^(49 -
    shift) in size; or empty, for zeros. Constant time, compiled.
    """
    rows = arrays.residues("rows", rows, modulus)
    words = arrays.ring_words("words", words, modulus)
    if words.shape != rows.shape or (values.size and values.shape != rows.shape):
        raise ParameterError("rows, words and values must have one shape")
    if values.dtype != np.int64 or not 0 <= shift < 50:
        raise ParameterError("values must be int64, and shift 0 to 49")
    if values.size and max(int(values.max()), -int(values.min())) >> (49 - shift):
        raise ParameterError(f"values must be below 2^{49 - shift} in size")
    return chosen()[1].ring_blend(rows, words, np.ascontiguousarray(values), shift, modulus)


def ring_add(a: U64, b: U64, modulus: int) -> U64:
    """a + b modulo the modulus, place by place: uint64[n, N] -> uint64[n, N]. Constant time, compiled."""
    a = arrays.residues("a", a, modulus)
    b = arrays.residues("b", b, modulus, a.shape[1])
    if len(a) != len(b):
        raise ParameterError("a and b must have equally many rows")
    return chosen()[1].ring_add(a, b, modulus)


def bits_pack(values: U64, width: int) -> U8:
    """The low ``width`` bits of each value, one after the other, least significant first: uint64[n] ->
    uint8[⌈n·width/8⌉].

    width: 1 to 63. Values must have no higher bits.
    """
    width = arrays.packed_width(width)
    if not isinstance(values, np.ndarray) or values.dtype != np.uint64 or values.ndim != 1:
        raise ParameterError("values must be a flat uint64 array")
    if len(values) and int(values.max()) >> width:
        raise ParameterError(f"values must have at most {width} bits")
    return chosen()[1].bits_pack(np.ascontiguousarray(values), width)


def bits_unpack(packed: U8, count: int, width: int) -> U64:
    """The inverse of ``bits_pack``: uint8[⌈count·width/8⌉] -> uint64[count]."""
    width = arrays.packed_width(width)
    if not isinstance(packed, np.ndarray) or packed.dtype != np.uint8 or packed.ndim != 1 or count < 0:
        raise ParameterError("packed must be a flat uint8 array")
    if len(packed) != -(-count * width // 8):
        raise ParameterError(
            f"{count} integers of {width} bits take {-(-count * width // 8)} bytes, not {len(packed)}"
        )
    return chosen()[1].bits_unpack(np.ascontiguousarray(packed), count, width)


def code_compress(vector: U8, outputs: int, key: bytes) -> U8:
    """The first outputs of the code, in place: uint8[2k, 16] -> uint8[outputs, 16], a view of the vector's beginning.

    The vector is two halves, the systematic one and the one to be convolved and expanded; both are overwritten.
    """
    if not isinstance(vector, np.ndarray) or not (vector.flags.c_contiguous and vector.flags.writeable):
        raise ParameterError(
            "the vector is overwritten: it must be a contiguous array that can be written to"
        )
    vector = arrays.blocks("vector", vector)
    if len(vector) % 2 or not 0 <= outputs <= len(vector) // 2:
        raise ParameterError(
            f"a vector of {len(vector)} rows does not have two halves of {outputs} outputs or more"
        )
    _code_vector(vector[len(vector) // 2 :])
    return chosen()[1].code_compress(vector, outputs, arrays.cipher_key("key", key))


def code_convolve(vector: U8, key: bytes) -> U8:
    """The convolution of the expand-convolute code: uint8[k, 16] -> uint8[k, 16], k at least 64.

    Linear; a permutation of all vectors. key: the public key of everything random in the code.
    """
    return chosen()[1].code_convolve(_code_vector(vector), arrays.cipher_key("key", key))


def code_expand(vector: U8, systematic: U8, key: bytes, first: int) -> U8:
    """Outputs first, first + 1, ... of the code: uint8[k, 16], uint8[n, 16] -> uint8[n, 16].

    vector: the convolved half, all of it; systematic: rows first ... first + n - 1 of the other half. Each output is
    its systematic row and 21 rows of the vector added up. What is read where is public.
    """
    vector, systematic = _code_vector(vector), arrays.blocks("systematic", systematic)
    if first < 0 or first + len(systematic) > len(vector):
        raise ParameterError(f"the code has {len(vector)} outputs")
    return chosen()[1].code_expand(vector, systematic, arrays.cipher_key("key", key), first)


def _code_vector(vector: U8) -> U8:
    vector = arrays.blocks("vector", vector)
    if not arrays.MIN_CODE <= len(vector) < 2**32:
        raise ParameterError(f"the code takes {arrays.MIN_CODE} to 2^32 - 1 rows, not {len(vector)}")
    return vector


def sort_rows(rows: U8) -> tuple[I64, U8]:
    """The order of rows by their bytes, equal ones by position, and the rows in it.

    uint8[n, w] -> int64[n], uint8[n, w]; n below 2³¹, w: 1 or more. Memory accesses and time depend on the rows.
    """
    rows = arrays.rows("rows", rows)
    if not rows.shape[1] or len(rows) >= 2**31:
        raise ParameterError("rows must be one byte wide or more, and fewer than 2^31")
    return chosen()[1].sort_rows(rows)


def match_sorted(values: U8, table: U8) -> I64:
    """``match_rows`` for a table whose rows ascend by their bytes, as those of ``sort_rows`` do: in less time.

    Raises ``NotSorted`` naming the first row of the table that is less than the one before it.
    """
    values, table = _comparable(values, table)
    return chosen()[1].match_sorted(values, table)


def match_rows(values: U8, table: U8, salt: bytes) -> I64:
    """For each row its position in a table of different rows, or -1: uint8[n, w], uint8[m, w] -> int64[n].

    w: 1 or more; m below 2³¹; where rows of the table are equal, the first counts. salt: 16 random bytes of this side
    alone, so that nobody can make up a table whose rows collide in the index. Memory accesses depend on the rows.
    """
    values, table = _comparable(values, table)
    return chosen()[1].match_rows(values, table, arrays.cipher_key("salt", salt))


def _comparable(values: U8, table: U8) -> tuple[U8, U8]:
    values, table = arrays.rows("values", values), arrays.rows("table", table)
    if values.shape[1] != table.shape[1] or not values.shape[1]:
        raise ParameterError("values and table must be equally wide, one byte or more")
    if len(table) >= 2**31:
        raise ParameterError("a table has fewer than 2^31 rows")
    return values, table


def pir_answer(database: I8, queries: U32) -> U32:
    """A database times one or more vectors, modulo 2³²: int8[r, m], uint32[k, m] -> uint32[r, k]."""
    database = arrays.database(database)
    queries = arrays.words("queries", queries, None, database.shape[1])
    if not len(queries):
        raise ParameterError("there must be at least one query")
    return chosen()[1].pir_answer(database, queries)


def pir_multiply(database: I8, matrix: U32) -> U32:
    """A database times a matrix, modulo 2³²: int8[r, m], uint32[m, b] -> uint32[r, b], b at least 1."""
    database = arrays.database(database)
    matrix = arrays.words("matrix", matrix, database.shape[1], None)
    if not matrix.shape[1]:
        raise ParameterError("the matrix must have at least one column")
    return chosen()[1].pir_multiply(database, matrix)


def word_product(matrix: U32, vector: U32) -> U32:
    """A matrix times a vector, modulo 2³²: uint32[r, c], uint32[c] -> uint32[r]."""
    matrix = arrays.words("matrix", matrix, None, None)
    return chosen()[1].word_product(matrix, arrays.words("vector", vector, matrix.shape[1]))


def lwe_product(keys: U8, rows: int, secret: U32) -> U32:
    """A public matrix, expanded from keys, times a secret, modulo 2³²: uint8[c, 16], uint32[n] -> uint32[c·rows].

    Each key gives ``rows`` rows of n words: AES-128 in counter mode from zero, little-endian (``aes128_ctr``). n: a
    multiple of 4, at least 4. The matrix is never held in memory.
    """
    keys, secret = arrays.blocks("keys", keys), arrays.words("secret", secret, None)
    if rows < 1 or not len(secret) or len(secret) % 4:
        raise ParameterError("a matrix takes one or more rows a key, and a secret of a multiple of 4 words")
    return chosen()[1].lwe_product(keys, rows, secret)
