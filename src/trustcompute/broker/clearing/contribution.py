"""Contribution: what each party adds to what all of them together are worth, by a value function of the caller's.

Called by whoever shares a pool, before ``house.weigh``. Three methods:

    leave_one_out     v(N) - v(N without i): n + 1 evaluations; does not sum to v(N)
    shapley           the mean marginal contribution over all orders (Shapley 1953), exact: 2^n evaluations, n <= 12
    sampled_shapley   the same over sampled orders (Castro, Gómez, Tejada 2009), with an interval (Hoeffding 1963)

Values are exact (``int``, ``Fraction``, decimal text): what they turn into is money. Each coalition is evaluated once.
An evaluation is a computation on somebody's data: let the value function ask a ``Session``, which charges it, or wrap
it in ``valuation.Charged``, which runs it as a job of a broker.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.primitives import canonical
from trustcompute.primitives.rng import Rng

Coalition = frozenset[str]
Exact = int | str | Fraction
Value = Callable[[Coalition], Exact]

MAX_EXACT: Final = 12  # parties: 4,096 evaluations
MAX_PARTIES: Final = 256
MAX_SAMPLES: Final = 100_000
MAX_DIGITS: Final = 60  # of numerator and denominator of a value
WEIGHT: Final = 10**6  # denominator of weights, the same every period: amounts of a log then stay coarse


@dataclass(frozen=True, slots=True)
class Contribution:
    """What was found. amounts: exact, in the unit of the value function; total: v(N) - v(∅).

    intervals: low and high of each amount, all of them right together with probability ``confidence``; exact methods
    have none. evaluations: distinct coalitions that were evaluated; samples: orders.
    """

    method: str
    amounts: Mapping[str, Fraction]
    total: Fraction
    evaluations: int
    samples: int = 0
    seed: str = ""
    confidence: str = ""
    intervals: Mapping[str, tuple[Fraction, Fraction]] | None = None

    def weights(self) -> dict[str, Fraction]:
        """Weights for a pool: millionths in proportion to what is above nothing, summing to exactly 1.

        By the largest remainder, ties by hash; parties whose weight is nothing are left out. Raises ``ParameterError``
        where nobody contributed.
        """
        positive = {party: amount for party, amount in self.amounts.items() if amount > 0}
        whole = sum(positive.values(), Fraction())
        if not whole:
            raise ParameterError("nobody contributed anything: a pool cannot be shared by that")
        exact = {party: amount * WEIGHT / whole for party, amount in positive.items()}
        units = {party: math.floor(amount) for party, amount in exact.items()}
        order = sorted(exact, key=lambda party: (units[party] - exact[party], _lot(party)))
        for party in order[: WEIGHT - sum(units.values())]:
            units[party] += 1
        return {party: Fraction(count, WEIGHT) for party, count in sorted(units.items()) if count}

    def to_document(self) -> dict[str, Any]:
        ranges = {name: [str(low), str(high)] for name, (low, high) in (self.intervals or {}).items()}
        return {
            "method": self.method,
            "amounts": {party: str(amount) for party, amount in self.amounts.items()},
            "total": str(self.total),
            "evaluations": self.evaluations,
            "samples": self.samples,
            "seed": self.seed,
            "confidence": self.confidence,
            "intervals": ranges,
        }

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the canonical document: the ``evidence`` of ``house.weigh``."""
        return hashlib.sha256(canonical.dumps(self.to_document())).hexdigest()


def leave_one_out(parties: Sequence[str], value: Value) -> Contribution:
    """What is lost without each party. Raises ``ParameterError`` for values that are not exact."""
    game = _Game(parties, value)
    whole = frozenset(game.parties)
    amounts = {party: game(whole) - game(whole - {party}) for party in game.parties}
    return Contribution("leave-one-out", amounts, game.total, game.evaluations)


def shapley(parties: Sequence[str], value: Value) -> Contribution:
    """The Shapley value, exact. At most 12 parties."""
    game = _Game(parties, value)
    count = len(game.parties)
    if count > MAX_EXACT:
        raise ParameterError(f"exact for at most {MAX_EXACT} parties, not {count}: use sampled_shapley")
    amounts = dict.fromkeys(game.parties, Fraction())
    for size in range(count):
        weight = Fraction(1, count * math.comb(count - 1, size))
        for chosen in itertools.combinations(game.parties, size):
            without = frozenset(chosen)
            for party in game.parties:
                if party not in without:
                    amounts[party] += weight * (game(without | {party}) - game(without))
    return Contribution("shapley", amounts, game.total, game.evaluations)


def sampled_shapley(
    parties: Sequence[str], value: Value, *, samples: int, seed: bytes, span: Exact, confidence: str = "0.95"
) -> Contribution:
    """The Shapley value over ``samples`` orders that ``seed`` (32 bytes or more) determines; sums to v(N) - v(∅) too.

    span: how far apart any two marginal contributions of one party can be at most; intervals are as wide as that makes
    them, ± span · sqrt(ln(2n / (1 - confidence)) / samples). Raises ``ParameterError`` where a marginal contradicts it.
    """
    game, width, sure = _Game(parties, value), _exact(span), _exact(confidence)
    if not 1 <= samples <= MAX_SAMPLES or width < 0 or not 0 < sure < 1:
        raise ParameterError(f"1 to {MAX_SAMPLES} samples, a span of 0 or more, a confidence within 0 and 1")
    sums = dict.fromkeys(game.parties, Fraction())
    seen: dict[str, tuple[Fraction, Fraction]] = {}
    rng = Rng.derive(seed, info=b"trustcompute/contribution/1")
    for order in _orders(game.parties, samples, rng):
        before, coalition = game(frozenset()), frozenset[str]()
        for party in order:
            coalition |= {party}
            after = game(coalition)
            marginal, before = after - before, after
            sums[party] += marginal
            low, high = seen.get(party, (marginal, marginal))
            seen[party] = min(low, marginal), max(high, marginal)
    if any(high - low > width for low, high in seen.values()):
        raise ParameterError(
            "marginal contributions are further apart than the span: the intervals would be wrong"
        )
    amounts = {party: total / samples for party, total in sums.items()}
    half = width * _half(len(game.parties), samples, sure)
    return Contribution(
        "sampled-shapley",
        amounts,
        game.total,
        game.evaluations,
        samples,
        hashlib.sha256(seed).hexdigest(),
        str(sure),
        {party: (amount - half, amount + half) for party, amount in amounts.items()},
    )


class _Game:
    """Parties in order of their names, and a value function that is asked once for each coalition."""

    def __init__(self, parties: Sequence[str], value: Value) -> None:
        if not 1 <= len(parties) <= MAX_PARTIES or len(set(parties)) != len(parties):
            raise ParameterError(f"1 to {MAX_PARTIES} parties, each once")
        self.parties, self._value = sorted(parties), value
        self._known: dict[Coalition, Fraction] = {}

    def __call__(self, coalition: Coalition) -> Fraction:
        found = self._known.get(coalition)
        if found is None:
            found = self._known[coalition] = _exact(self._value(coalition))
        return found

    @property
    def total(self) -> Fraction:
        return self(frozenset(self.parties)) - self(frozenset())

    @property
    def evaluations(self) -> int:
        return len(self._known)


def _exact(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | str | Fraction):
        raise ParameterError(f"a value is exact: int, Fraction or decimal text, not {type(value).__name__}")
    try:
        found = Fraction(value)
    except (ValueError, ZeroDivisionError) as error:
        raise ParameterError('write a value as "12.5" or "1/3"') from error
    if max(abs(found.numerator), found.denominator) >= 10**MAX_DIGITS:
        raise ParameterError(f"a value has at most {MAX_DIGITS} digits above and below")
    return found


def _orders(parties: Sequence[str], samples: int, rng: Rng) -> Iterator[list[str]]:
    """Uniform orders (Fisher and Yates), each followed by its reverse, which evens out who comes late."""
    order: list[str] = []
    for number in range(samples):
        if number % 2:
            order.reverse()
        else:
            order = list(parties)
            for last in range(len(order) - 1, 0, -1):
                place = _below(last + 1, rng)
                order[last], order[place] = order[place], order[last]
        yield order


def _below(bound: int, rng: Rng) -> int:
    """Uniform in [0, bound), by rejection."""
    while True:
        drawn = int.from_bytes(rng.array(4).tobytes(), "little")
        if drawn < 2**32 // bound * bound:
            return drawn % bound


def _half(parties: int, samples: int, confidence: Fraction) -> Fraction:
    """Half an interval's width for a span of 1, rounded up. Two orders are one draw; their mean has the same span."""
    draws = max(1, samples // 2)
    wide = math.sqrt(math.log(2 * parties / float(1 - confidence)) / (2 * draws))
    return min(Fraction(1), Fraction(math.ceil(wide * 10**9) + 1, 10**9))


def _lot(party: str) -> bytes:
    return hashlib.sha256(party.encode()).digest()
