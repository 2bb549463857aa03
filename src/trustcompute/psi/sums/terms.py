"""What an intersection-sum adds up: columns with their bounds, listed groups, the least group, noise.

Called by ``cells`` (a table becomes integers), ``parties`` (how large a sum can become), ``operation`` (the parameters
of a request) and the node. All of it is public: the holder declares it, both sides know it before anything moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import isqrt
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.primitives import chosen_sums, sampling
from trustcompute.primitives.chosen_sums import Shape
from trustcompute.primitives.privacy import MAX_LOSS, MIN_LOSS, PrivacyLoss, amount
from trustcompute.primitives.rng import Rng
from trustcompute.tables.fixed import Bounds, Label

MAX_VALUES: Final = 16
MAX_GROUPS: Final = 64
MIN_GROUP: Final = 10
"""The least group where nothing else is said."""
MAX_GROUP: Final = 2**31
TAIL_NATS: Final = 60  # noise beyond ``Noise.tail``: 2e^-60 a sum


@dataclass(frozen=True)
class Noise:
    """Exact noise on every sum: rho of zCDP (discrete Gaussian) or epsilon (discrete Laplace), a decimal string.

    One of the two, for all sums of a run together. It hides the values of any one key, given which keys match: counts
    are exact. A key's value in a column may be any within the bounds; with groups, a key is in one.
    """

    rho: str | None = None
    epsilon: str | None = None

    def __post_init__(self) -> None:
        if (self.rho is None) == (self.epsilon is None):
            raise ParameterError("noise has rho or epsilon, one of them")
        if not MIN_LOSS <= self.amount <= MAX_LOSS:
            raise ParameterError(
                f"{self.unit} of noise must lie between 0.000000001 and {MAX_LOSS}, not {self.amount}"
            )

    @property
    def unit(self) -> str:
        return "rho" if self.epsilon is None else "epsilon"

    @property
    def amount(self) -> Fraction:
        given = self.rho if self.epsilon is None else self.epsilon
        assert given is not None
        return amount(self.unit, given)

    @property
    def loss(self) -> PrivacyLoss:
        """What is charged."""
        return PrivacyLoss(**{self.unit: self.amount})

    def spread(self, bounds: Bounds, columns: int) -> Fraction:
        """σ² of the discrete Gaussian, or the scale of the discrete Laplace, for one of so many columns.

        Each gets an equal part of the budget; a key changes its sum by Δ = high - low: σ² = Δ²/2ρ, scale = Δ/ε.
        """
        change, part = max(bounds.most - bounds.least, 1), self.amount / columns
        return change * change / (2 * part) if self.epsilon is None else change / part

    def tail(self, bounds: Bounds, columns: int) -> int:
        """How far noise reaches: √(2·60)·σ, or 60 scales and one."""
        spread = self.spread(bounds, columns)
        if self.epsilon is None:
            return isqrt((2 * TAIL_NATS * spread).__ceil__()) + 1
        return (TAIL_NATS * spread).__ceil__() + 1

    def draw(self, bounds: Bounds, columns: int, rng: Rng) -> int:
        """The noise of one sum."""
        sampler = sampling.discrete_gaussian if self.epsilon is None else sampling.discrete_laplace
        return int(sampler(rng, self.spread(bounds, columns), 1)[0])

    def check(self, bounds: Bounds, columns: int) -> None:
        """Raise ``ParameterError`` for noise that the exact samplers do not draw."""
        spread = self.spread(bounds, columns)
        high = 2**86 if self.epsilon is None else sampling.MAX_SCALE
        low = Fraction(1, 2**20) if self.epsilon is None else sampling.MIN_SCALE
        if not low <= spread <= high:
            raise ParameterError(
                f"{self.unit} {self.amount} for bounds from {bounds.low} to {bounds.high} asks for more or less noise"
                " than can be drawn: narrow the bounds, lower the scale, or change the budget"
            )


@dataclass(frozen=True)
class Terms:
    """values: column -> bounds of what one key adds, over all its rows. by: a column, and the groups to report; rows of
    no listed group are in none. min_group: no count, sum or group of fewer keys is told. noise: on sums.
    """

    values: Mapping[str, Bounds]
    by: tuple[str, tuple[Label, ...]] | None = None
    min_group: int = MIN_GROUP
    noise: Noise | None = None
    named: tuple[str, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", dict(self.values))
        if len(self.values) > MAX_VALUES or not all(
            isinstance(name, str) and 0 < len(name) <= 256 and isinstance(one, Bounds)
            for name, one in self.values.items()
        ):
            raise ParameterError(f"values map at most {MAX_VALUES} column names to bounds")
        if not self.values and self.by is None:
            raise ParameterError(
                "an intersection-sum names values to add up, or groups to count: for a count alone ask for"
                " an intersection with output='count'"
            )
        if type(self.min_group) is not int or not 1 <= self.min_group <= MAX_GROUP:
            raise ParameterError(f"min_group must be an integer from 1 to 2^31, not {self.min_group!r}")
        if self.by is not None:
            object.__setattr__(self, "by", _domain(*self.by))
        if self.noise is not None:
            if not self.values:
                raise ParameterError("noise is added to sums: name values, or leave it out")
            for bounds in self.values.values():
                self.noise.check(bounds, len(self.values))
        named = [*self.values, *([] if self.by is None else [self.by[0]])]
        object.__setattr__(self, "named", tuple(dict.fromkeys(named)))

    @property
    def groups(self) -> tuple[Label | None, ...]:
        """The labels of what is reported; None for all matched keys together."""
        return (None,) if self.by is None else self.by[1]

    @property
    def counted(self) -> bool:
        """Whether each group has a slot of its own for its count. Without groups, matching tells it."""
        return self.by is not None

    @property
    def slots(self) -> int:
        """Integers a key: group after group, its count if there is one, then its columns."""
        return len(self.groups) * (len(self.values) + self.counted)

    def tail(self, column: str) -> int:
        """How far the noise of a column's sum reaches; 0 where there is none."""
        return 0 if self.noise is None else self.noise.tail(self.values[column], len(self.values))

    def largest(self, chosen: int) -> int:
        """No slot of ``chosen`` keys added up, noise included, is beyond ±this."""
        sums = [chosen * reach(one) + self.tail(name) for name, one in self.values.items()]
        return max([chosen, *sums])

    def shape(self, consumer: int, provider: int) -> Shape:
        """Of the encrypted table, for these numbers of keys. Raises ``ParameterError`` where sums would not fit."""
        chosen = min(consumer, provider)
        return chosen_sums.shape(provider, self.slots, chosen, self.largest(chosen))

    def to_document(self) -> dict[str, Any]:
        """Canonical, and the whole meaning."""
        return {
            "values": [
                [name, str(Fraction(one.least, one.scale)), str(Fraction(one.most, one.scale)), one.scale]
                for name, one in self.values.items()
            ],
            "by": None if self.by is None else [self.by[0], list(self.by[1])],
            "min_group": self.min_group,
            "noise": None if self.noise is None else {self.noise.unit: str(self.noise.amount)},
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Terms:
        """Raises ``ParameterError`` for what is none. ``by``, ``min_group`` and ``noise`` may be left out."""
        try:
            values = [(name, Bounds(low, high, scale)) for name, low, high, scale in document["values"]]
            by, noise = document.get("by"), document.get("noise")
            if by is not None:
                if not isinstance(by, list) or not isinstance(by[1], list):
                    raise TypeError("by")
                by = by[0], tuple(by[1])
            made = cls(
                dict(values),
                by,
                document.get("min_group", MIN_GROUP),
                None if noise is None else Noise(**noise),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            raise ParameterError(
                "values must list [column, low, high, scale]; by is [column, [labels]]; min_group is a number; noise"
                ' is {"rho": "…"} or {"epsilon": "…"}'
            ) from None
        if len(made.values) < len(values):
            raise ParameterError("values name a column twice")
        return made


def reach(bounds: Bounds) -> int:
    """The largest size of a value."""
    return max(abs(bounds.least), abs(bounds.most))


def _domain(column: object, labels: Sequence[Label]) -> tuple[str, tuple[Label, ...]]:
    kinds = {type(label) for label in labels}
    if not isinstance(column, str) or not 0 < len(column) <= 256 or isinstance(labels, str):
        raise ParameterError("by maps a column to the list of its groups")
    if not 1 <= len(labels) <= MAX_GROUPS or len(kinds) != 1 or not kinds <= {str, int, bool}:
        raise ParameterError(
            f"the groups of {column!r} are 1 to {MAX_GROUPS} labels: text, integers or booleans, of one kind"
        )
    if len(set(labels)) < len(labels):
        raise ParameterError(f"the groups of {column!r} name a label twice")
    if kinds == {int} and max(abs(int(label)) for label in labels) >= 2**63:
        raise ParameterError(f"a label of {column!r} is a whole number below 2^63")
    if kinds == {str} and max(len(str(label)) for label in labels) > 256:
        raise ParameterError(f"a label of {column!r} has at most 256 characters")
    return column, tuple(labels)
