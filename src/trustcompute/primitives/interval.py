"""Probabilities as binary digits, certified: however many are asked for, each one is right.

Called by ``sampling`` and ``privacy``. An *interval* of a real number x at ``bits`` is a pair of integers
(low, high) with low ≤ 2^bits·x ≤ high. MPFR rounds each operation correctly in the direction asked for (L. Fousse
et al., *MPFR: A Multiple-Precision Binary Floating-Point Library with Correct Rounding*, ACM TOMS 33(2), 2007), so
the two ends need no error analysis.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import gmpy2

GUARD: Final = 64  # bits computed beyond those asked for: 2^-64 is how often that does not suffice
REFINE: Final = 64  # bits drawn at a time for a comparison that is not decided yet

Interval = tuple[int, int]


class Directed:
    """MPFR contexts that round down and up, at one precision."""

    def __init__(self, precision: int) -> None:
        self.down: Any = gmpy2.context(precision=precision, round=gmpy2.RoundDown)
        self.up: Any = gmpy2.context(precision=precision, round=gmpy2.RoundUp)

    def ratio(self, x: Fraction) -> tuple[Any, Any]:
        """Bounds of a rational."""
        top, bottom = gmpy2.mpz(x.numerator), gmpy2.mpz(x.denominator)
        return self.down.div(top, bottom), self.up.div(top, bottom)


def exact(value: Any) -> Fraction:
    """The rational that an ``mpfr`` is."""
    return Fraction(*(int(part) for part in value.as_integer_ratio()))


def exp_minus(x: Fraction, bits: int) -> Interval:
    """Interval of e^-x at ``bits``, for rational x ≥ 0."""
    if x < 0:
        raise ValueError("exp_minus takes x >= 0")
    if x == 0:
        return 1 << bits, 1 << bits
    if x > bits:  # e^-x < 2^-bits
        return 0, 1
    directed = Directed(bits + 32)
    low, high = directed.ratio(x)
    least = exact(directed.down.exp(-high)) * (1 << bits)
    most = exact(directed.up.exp(-low)) * (1 << bits)
    return least.__floor__(), most.__ceil__()


class Threshold:
    """A probability p that is irrational, 0, or 1, known to any number of binary digits.

    bounds: the interval of p at a number of bits; narrower with more. For an irrational p the digits are
    decided after finitely many.
    """

    def __init__(self, bounds: Callable[[int], Interval]) -> None:
        self._bounds = bounds
        self._known: dict[int, int] = {}

    def digits(self, bits: int) -> int:
        """⌊2^bits·p⌋."""
        if bits not in self._known:
            self._known[bits] = certain_floor(self._bounds, bits)
        return self._known[bits]

    def exceeds(self, word: int, bits: int, draw: Callable[[], int]) -> bool:
        """Whether U < p for the uniform U in [0, 1) whose first ``bits`` digits are ``word``.

        draw: the next 64 digits of U, asked for as long as the digits so far are those of p.
        """
        while word == (digits := self.digits(bits)):
            word, bits = word << REFINE | draw(), bits + REFINE
        return word < digits


def certain_floor(bounds: Callable[[int], Interval], bits: int) -> int:
    """⌊2^bits·x⌋ of the number x that ``bounds`` encloses, with as many more bits as it takes."""
    guard = GUARD
    while True:
        low, high = bounds(bits + guard)
        if low >> guard == high >> guard:
            return low >> guard
        guard *= 2
