"""ristretto255 (RFC 9496 §4) on the twisted Edwards curve -x² + y² = 1 + d·x²·y² over 2²⁵⁵ - 19.

A point is (X, Y, Z, T) in extended coordinates: x = X/Z, y = Y/Z, T = X·Y/Z (Hisil, Wong, Carter, Dawson,
"Twisted Edwards Curves Revisited", 2008). Names follow RFC 9496. *Not constant time.*
"""

from __future__ import annotations

from gmpy2 import mpz, powmod

from trustcompute.kernels.arrays import U8
from trustcompute.kernels.errors import InvalidPoint
from trustcompute.kernels.reference.digest import expand_message_xmd
from trustcompute.kernels.reference.scalar import ORDER, integers, packed

Point = tuple[mpz, mpz, mpz, mpz]

P = mpz(2**255 - 19)
D = -121665 * powmod(121666, -1, P) % P
D2 = 2 * D % P
SQRT_M1 = powmod(2, (P - 1) // 4, P)
ONE_MINUS_D_SQ = (1 - D**2) % P
D_MINUS_ONE_SQ = (D - 1) ** 2 % P
IDENTITY: Point = (mpz(0), mpz(1), mpz(1), mpz(0))
GENERATOR = bytes.fromhex(
    "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
)  # §4.1, the base point


def absolute(value: mpz) -> mpz:
    """CT_ABS: the one of ±value (mod p) that is even."""
    value %= P
    return P - value if value.is_odd() else value


def sqrt_ratio_m1(u: mpz, v: mpz) -> tuple[bool, mpz]:
    """SQRT_RATIO_M1 (§4.2): (True, √(u/v)) or (False, √(√-1·u/v)), the even root."""
    r = u * v**3 * powmod(u * v**7, (P - 5) // 8, P) % P
    check = v * r * r % P
    u %= P
    if check in (P - u, -u * SQRT_M1 % P):
        r = r * SQRT_M1
    return check in (u, (P - u) % P), absolute(r)


SQRT_AD_MINUS_ONE = P - sqrt_ratio_m1(-D - 1, mpz(1))[1]  # §4.1 lists the odd root
INVSQRT_A_MINUS_D = sqrt_ratio_m1(mpz(1), -1 - D)[1]


def decode(encoding: bytes) -> Point | None:
    """The element's point (§4.3.1), or None if the encoding is not canonical or not of an element."""
    s = mpz(int.from_bytes(encoding, "little"))
    if s >= P or s.is_odd():
        return None
    ss = s * s % P
    u1, u2 = 1 - ss, 1 + ss
    u2_sq = u2 * u2 % P
    v = (-D * u1 * u1 - u2_sq) % P
    was_square, invsqrt = sqrt_ratio_m1(mpz(1), v * u2_sq % P)
    den_x = invsqrt * u2 % P
    x = absolute(2 * s * den_x)
    y = u1 * (invsqrt * den_x * v % P) % P
    t = x * y % P
    if not was_square or t.is_odd() or y == 0:
        return None
    return x, y, mpz(1), t


def encode(point: Point) -> bytes:
    """The element's only encoding (§4.3.2), whichever of its four points this is."""
    x, y, z, t = point
    u1, u2 = (z + y) * (z - y) % P, x * y % P
    _, invsqrt = sqrt_ratio_m1(mpz(1), u1 * u2 * u2 % P)
    den1, den2 = invsqrt * u1 % P, invsqrt * u2 % P
    z_inv = den1 * den2 * t % P
    if (t * z_inv % P).is_odd():
        x, y, den = y * SQRT_M1, x * SQRT_M1, den1 * INVSQRT_A_MINUS_D
    else:
        den = den2
    if (x * z_inv % P).is_odd():
        y = -y
    return int(absolute(den * (z - y))).to_bytes(32, "little")


def elligator(t: mpz) -> Point:
    """MAP (§4.3.4): a field element to a point."""
    r = SQRT_M1 * t * t % P
    u = (r + 1) * ONE_MINUS_D_SQ % P
    v = (-1 - r * D) * (r + D) % P
    was_square, s = sqrt_ratio_m1(u, v)
    c = mpz(-1)
    if not was_square:
        s, c = P - absolute(s * t), r
    n = (c * (r - 1) * D_MINUS_ONE_SQ - v) % P
    ss = s * s % P
    w0, w1, w2, w3 = 2 * s * v % P, n * SQRT_AD_MINUS_ONE % P, 1 - ss, 1 + ss
    return w0 * w3 % P, w2 * w1 % P, w1 * w3 % P, w0 * w2 % P


def from_uniform(uniform: bytes) -> Point:
    """The one-way map of §4.3.4: the sum of two maps, so that every element is hit almost equally often."""
    low, high = (mpz(int.from_bytes(half, "little") % 2**255) for half in (uniform[:32], uniform[32:]))
    return add(elligator(low), elligator(high))


def add(p: Point, q: Point) -> Point:
    """Complete addition, 9 multiplications."""
    x1, y1, z1, t1 = p
    x2, y2, z2, t2 = q
    a, b = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
    c, d = t1 * t2 % P * D2, 2 * z1 * z2
    e, f, g, h = (b - a) % P, (d - c) % P, (d + c) % P, (b + a) % P
    return e * f % P, g * h % P, f * g % P, e * h % P


def double(p: Point) -> Point:
    """Doubling: 4 squarings and 4 multiplications."""
    x, y, z, _ = p
    xx, yy = x * x, y * y
    h, g = xx + yy, xx - yy
    e, f, g, h = (h - (x + y) ** 2) % P, (2 * z * z + g) % P, g % P, h % P
    return e * f % P, g * h % P, f * g % P, e * h % P


def negate(p: Point) -> Point:
    x, y, z, t = p
    return -x, y, z, -t


def signed_digits(scalar: mpz) -> list[int]:
    """Radix-16 digits in -8..7, least significant first; 64 of them hold every scalar below 2²⁵³."""
    digits, carry = [], 0
    for nibble in (int(scalar) >> shift & 15 for shift in range(0, 256, 4)):
        carry += nibble
        digits.append((carry + 8) % 16 - 8)
        carry = (carry + 8) >> 4
    return digits


def multiply(point: Point, scalar: mpz) -> Point:
    """scalar·point, four doublings and one addition for each radix-16 digit."""
    multiples = [IDENTITY, point]
    for _ in range(7):
        multiples.append(add(multiples[-1], point))
    multiples += [negate(multiple) for multiple in multiples[:0:-1]]  # a negative digit indexes from the end
    total = IDENTITY
    for digit in reversed(signed_digits(scalar % ORDER)):
        total = double(double(double(double(total))))
        if digit:
            total = add(total, multiples[digit])
    return total


def _decoded(points: U8) -> list[Point]:
    decoded = []
    for index, row in enumerate(points):
        point = decode(row.tobytes())
        if point is None:
            raise InvalidPoint.at(index)
        decoded.append(point)
    return decoded


def _multiplied(points: list[Point], scalars: U8) -> U8:
    factors = integers(scalars) * (len(points) if len(scalars) == 1 else 1)
    return packed((encode(multiply(p, s)) for p, s in zip(points, factors, strict=True)), 32)


def _mapped(uniform: U8) -> list[Point]:
    return [from_uniform(row.tobytes()) for row in uniform]


def ristretto255_mul(points: U8, scalars: U8) -> U8:
    return _multiplied(_decoded(points), scalars)


def ristretto255_mul_base(scalars: U8) -> U8:
    generator = decode(GENERATOR)
    assert generator is not None
    return _multiplied([generator] * len(scalars), scalars)


def ristretto255_check(points: U8) -> None:
    _decoded(points)


def ristretto255_multiscalar_vartime(points: U8, scalars: U8) -> U8:
    total = IDENTITY
    for point, scalar in zip(_decoded(points), integers(scalars), strict=True):
        total = add(total, multiply(point, scalar))
    return packed([encode(total)], 32)


def ristretto255_from_uniform(uniform: U8) -> U8:
    return packed(map(encode, _mapped(uniform)), 32)


def ristretto255_hash(messages: U8, dst: bytes) -> U8:
    return ristretto255_from_uniform(expand_message_xmd(messages, dst, 64))


def ristretto255_hash_mul(messages: U8, dst: bytes, scalars: U8) -> U8:
    return _multiplied(_mapped(expand_message_xmd(messages, dst, 64)), scalars)


def ristretto255_hash_blind(messages: U8, dst: bytes, scalars: U8) -> U8:
    (generator,) = _decoded(packed([GENERATOR], 32))
    hashed = _mapped(expand_message_xmd(messages, dst, 64))
    blinds = (multiply(generator, scalar) for scalar in integers(scalars))
    return packed([encode(double(add(h, blind))) for h, blind in zip(hashed, blinds, strict=True)], 32)


def ristretto255_unblind(points: U8, base: U8, scalars: U8) -> U8:
    negative = negate(_decoded(base)[0])
    blinds = (multiply(negative, scalar) for scalar in integers(scalars))
    return packed(
        [encode(double(add(p, blind))) for p, blind in zip(_decoded(points), blinds, strict=True)], 32
    )


def ristretto255_sub(a: U8, b: U8) -> U8:
    differences = []
    for index in range(len(a)):
        points = decode(a[index].tobytes()), decode(b[index].tobytes())
        if points[0] is None or points[1] is None:
            raise InvalidPoint.at(index)
        differences.append(encode(add(points[0], negate(points[1]))))
    return packed(differences, 32)
