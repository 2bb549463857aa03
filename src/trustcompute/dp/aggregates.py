"""What can be asked: count, distinct, sum, mean, variance, quantile, histogram, top_k. Constructors and documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, Final, Literal, get_args

from trustcompute.errors import ParameterError
from trustcompute.tables.fixed import exactly

Kind = Literal["count", "distinct", "sum", "mean", "variance", "quantile", "histogram", "top_k"]
Number = str | int | Fraction

MAX_BOUND: Final = 2**62
MAX_LIST: Final = 1024
WITH_BOUNDS: Final = ("sum", "mean", "variance", "quantile")


@dataclass(frozen=True)
class Aggregate:
    """One question. Made by the functions below; ``name`` is its column in the answer."""

    kind: Kind
    column: str | None = None
    low: Fraction | None = None
    high: Fraction | None = None
    points: tuple[Fraction, ...] = ()  # quantiles, or edges of a histogram
    candidates: tuple[str | int, ...] = ()
    k: int = 0
    private: bool = False  # low and high are how far bounds are looked for

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ParameterError(
                f"there is no aggregate {self.kind!r}; there are {', '.join(get_args(Kind))}"
            )
        if self.kind not in ("count", "distinct") and not (isinstance(self.column, str) and self.column):
            raise ParameterError(f"{self.kind} needs the name of a column")
        if self.kind in WITH_BOUNDS:
            self._check_bounds()
        if type(self.private) is not bool or (self.private and self.kind not in WITH_BOUNDS):
            raise ParameterError(f"private bounds are for {', '.join(WITH_BOUNDS)}")
        if self.kind == "quantile" and not all(0 < q < 1 for q in self.points):
            raise ParameterError('quantiles lie between 0 and 1, as in ["0.5", "0.9"]')
        if any(left >= right for left, right in pairwise(self.points)):
            raise ParameterError(f"the {'quantiles' if self.kind == 'quantile' else 'edges'} must ascend")
        if self.kind == "histogram" and not 2 <= len(self.points) <= MAX_LIST:
            raise ParameterError(f"a histogram needs 2 to {MAX_LIST} edges")
        if self.kind == "quantile" and not 1 <= len(self.points) <= 64:
            raise ParameterError("ask for 1 to 64 quantiles")
        if self.kind == "top_k" and not (
            1 <= self.k <= len(self.candidates) <= MAX_LIST
            and len(set(self.candidates)) == len(self.candidates)
        ):
            raise ParameterError(
                f"top_k needs k of at least 1, and from k to {MAX_LIST} different candidates"
            )

    def _check_bounds(self) -> None:
        for side, value in (("low", self.low), ("high", self.high)):
            if value is None:
                raise ParameterError(
                    f"{self.kind} of {self.column!r} needs bounds: {side} is missing; dp.private() has them found"
                )
            if abs(value) > MAX_BOUND:
                raise ParameterError(f"{side} of {self.column!r} must lie between -2^62 and 2^62")
        assert self.low is not None and self.high is not None
        if self.low >= self.high:
            raise ParameterError(
                f"the bounds of {self.column!r} are the wrong way round, or equal: low {self.low}, high {self.high}"
            )

    @property
    def name(self) -> str:
        return self.kind if self.column is None else f"{self.kind}_{self.column}"

    def to_document(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": self.kind}
        if self.column is not None:
            found["column"] = self.column
        if self.low is not None:
            found |= {"low": str(self.low), "high": str(self.high)}
        if self.private:
            found["private"] = True
        if self.points:
            found["points"] = [str(point) for point in self.points]
        if self.candidates:
            found |= {"candidates": list(self.candidates), "k": self.k}
        return found

    @classmethod
    def from_document(cls, document: Any) -> Aggregate:
        if not isinstance(document, Mapping) or set(document) - {
            "kind", "column", "low", "high", "points", "candidates", "k", "private",
        }:  # fmt: skip
            raise ParameterError(
                "an aggregate has kind, column, low, high, points, candidates, k and private only"
            )
        candidates, k = document.get("candidates", []), document.get("k", 0)
        points = document.get("points", [])
        if not isinstance(points, list) or not isinstance(candidates, list) or type(k) is not int:
            raise ParameterError("points and candidates are lists, k is an integer")
        if not all(type(one) in (str, int) for one in candidates):
            raise ParameterError("candidates are texts or integers")
        return cls(
            document.get("kind"),  # type: ignore[arg-type]
            document.get("column"),
            _bound("low", document.get("low")),
            _bound("high", document.get("high")),
            tuple(_number("a point", point) for point in points),
            tuple(candidates),
            k,
            document.get("private", False),
        )


def count(column: str | None = None) -> Aggregate:
    """Rows, or rows where ``column`` has a value."""
    return Aggregate("count", column)


def distinct() -> Aggregate:
    """Privacy units."""
    return Aggregate("distinct")


@dataclass(frozen=True)
class PrivateBounds:
    """Bounds to be found with part of the budget, within [low, high]. Made by ``private``."""

    low: Fraction
    high: Fraction


Low = Number | PrivateBounds | None


def private(low: Number = -(2**40), high: Number = 2**40) -> PrivateBounds:
    """In place of an aggregate's bounds: have them found, within [low, high], for one part of the budget.

    Found are 0, powers of two, low or high, such that about as many rows lie beyond as noise would hide anyway.
    """
    return PrivateBounds(_number("low", low), _number("high", high))


def sum(column: str, low: Low = None, high: Number | None = None) -> Aggregate:
    """The sum of values clamped to [low, high], or to ``private()`` bounds."""
    return _bounded("sum", column, low, high)


def mean(column: str, low: Low = None, high: Number | None = None) -> Aggregate:
    """The mean of values clamped to [low, high], or to ``private()`` bounds."""
    return _bounded("mean", column, low, high)


def variance(column: str, low: Low = None, high: Number | None = None) -> Aggregate:
    """The variance (about the mean, divided by the count) of values clamped to [low, high] or ``private()`` bounds."""
    return _bounded("variance", column, low, high)


def quantile(
    column: str, quantiles: Sequence[Number] | Number, low: Low = None, high: Number | None = None
) -> Aggregate:
    """Several quantiles at once, of values clamped to [low, high], or to ``private()`` bounds."""
    listed = [quantiles] if isinstance(quantiles, str | int | Fraction) else list(quantiles)
    return _bounded("quantile", column, low, high, tuple(_number("a quantile", q) for q in listed))


def _bounded(
    kind: Kind, column: str, low: Low, high: Number | None, points: tuple[Fraction, ...] = ()
) -> Aggregate:
    if isinstance(low, PrivateBounds):
        if high is not None:
            raise ParameterError("private() takes the place of both bounds")
        return Aggregate(kind, column, low.low, low.high, points, private=True)
    return Aggregate(kind, column, _bound("low", low), _bound("high", high), points)


def histogram(column: str, edges: Sequence[Number]) -> Aggregate:
    """Rows in each [edge, next edge); what lies outside counts in the first and last."""
    return Aggregate("histogram", column, points=tuple(_number("an edge", edge) for edge in edges))


def top_k(column: str, k: int, candidates: Sequence[str | int]) -> Aggregate:
    """The k most frequent of the candidates, most frequent first."""
    return Aggregate("top_k", column, candidates=tuple(candidates), k=k)


def _bound(side: str, value: object) -> Fraction | None:
    return None if value is None else _number(side, value)


def _number(what: str, value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, str | int | Fraction):
        raise ParameterError(
            f"{what} must be an integer, or a decimal string such as '0.5': floats are inexact"
        )
    if isinstance(value, str) and len(value) > 64:
        raise ParameterError(f"{what} has more than 64 characters")
    try:
        number = value if isinstance(value, Fraction) else exactly(value)
    except (ValueError, ZeroDivisionError):
        raise ParameterError(f"{what} is not a number: {value!r}") from None
    if number.denominator > 10**30 or abs(number) > 2**63:
        raise ParameterError(f"{what} is out of range")
    return number
