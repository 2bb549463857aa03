"""What a holder lets be counted and added up, and by which rules a cell is sensitive.

Called by ``cells``, ``suppress`` and the node. Rules of the field: minimum frequency, (n, k) dominance and the p %
rule, as in A. Hundepool and others, *Statistical Disclosure Control* (2012), §4.2; how much a sensitive cell has to
be uncertain by is L. Cox's upper protection level (1981).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from trustcompute.errors import ParameterError

Label = str | int | bool

MAX_COLUMNS: Final = 16
MAX_LABELS: Final = 512
MAX_LABEL: Final = 128
MAX_CELLS: Final = 512
"""Of one table, totals included: checking that suppression protects takes the square of what is suppressed."""


class Status(IntEnum):
    """Whether a cell is shown, or the first rule that it is not shown by.

    COMPLEMENTARY: it would give another one away. TABLE: no pattern protects this table, so that nothing is told of
    it but what was told before, and its total.
    """

    SHOWN = 0
    FREQUENCY = 1
    DOMINANCE = 2
    P_PERCENT = 3
    COMPLEMENTARY = 4
    TABLE = 5

    @property
    def text(self) -> str:
        return _WORDS[self]


_WORDS: Final = {
    Status.SHOWN: "",
    Status.FREQUENCY: "minimum frequency",
    Status.DOMINANCE: "dominance",
    Status.P_PERCENT: "p percent",
    Status.COMPLEMENTARY: "complementary",
    Status.TABLE: "whole table",
}


@dataclass(frozen=True)
class Rules:
    """A holder's rules for statistics over one table.

    by: columns to group by, with the values that name groups (rows with any other form one more group), or with none:
        the values found are published. columns: those that may be added up: integers or decimals. signed: those of
        them that may be negative; the others may not. contributor: whose contributions are protected; each row is one,
        if left out, and rows without one are one together.
    min_frequency: contributors of a cell that is shown, at least. dominance: (n, k): the largest n contribute at most
        k % of it. p_percent: the largest cannot be estimated closer than to p % by the second largest.
    """

    by: Mapping[str, Sequence[Label]]
    columns: Sequence[str] = ()
    signed: Sequence[str] = ()
    contributor: str | None = None
    min_frequency: int = 3
    dominance: tuple[int, int] | None = (1, 75)
    p_percent: int = 10

    def __post_init__(self) -> None:
        names = [*self.by, *self.columns]
        if len(names) > MAX_COLUMNS or not all(_name(name) for name in names):
            raise ParameterError(f"statistics name at most {MAX_COLUMNS} columns to group by and to add up")
        if len(set(names)) < len(names) or self.contributor in names:
            raise ParameterError(
                "a column is grouped by, or added up, or names the contributors, once: publish another one"
            )
        if not set(self.signed) <= set(self.columns):
            raise ParameterError("signed names columns that are not added up: list them in columns too")
        for name, values in self.by.items():
            _check_labels(name, values)
        _check_number("min_frequency", self.min_frequency, 3, 10_000)
        _check_number("p_percent", self.p_percent, 1, 100)
        if self.dominance is not None:
            if len(self.dominance) != 2:
                raise ParameterError("dominance is a pair (n, k)")
            _check_number("n of dominance", self.dominance[0], 1, 100)
            _check_number("k of dominance", self.dominance[1], 1, 99)


def _name(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 256


def _check_labels(name: str, values: Sequence[Label]) -> None:
    if len(values) > MAX_LABELS or len({(type(value), value) for value in values}) < len(values):
        raise ParameterError(f"the values of {name!r} must be at most {MAX_LABELS} different ones")
    kinds = {type(value) for value in values}
    if len(kinds) > 1 or not kinds <= {str, int, bool}:
        raise ParameterError(f"the values of {name!r} must be texts, integers or booleans, all of one kind")
    if kinds == {str} and any(len(str(value)) > MAX_LABEL for value in values):
        raise ParameterError(f"a value of {name!r} has at most {MAX_LABEL} characters")


def _check_number(name: str, value: object, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ParameterError(f"{name} must be an integer from {least} to {most}, not {value!r}")


@dataclass(frozen=True)
class Way:
    """A column to group by: its groups' values. rest: whether some rows have another value, or none; they are the last
    group, without a label."""

    column: str
    values: tuple[Label, ...]
    rest: bool

    @property
    def groups(self) -> int:
        return len(self.values) + self.rest

    @property
    def labels(self) -> list[Label | None]:
        return [*self.values, *([None] if self.rest else [])]


@dataclass(frozen=True)
class Shares:
    """What contributors bring to one cell, as sizes (absolute amounts). largest: the largest ones, in order, as many as
    rules look at; count: of contributors; whole: of all of them."""

    largest: tuple[int, ...] = field(repr=False)
    count: int
    whole: int

    def largest_but(self, own: int | None) -> int:
        """The largest contribution of anybody else than who brought ``own`` (one of them, or None)."""
        rest = self.largest[1:] if own is not None and self.largest[:1] == (own,) else self.largest
        return rest[0] if rest else 0


def looked_at(rules: Rules) -> int:
    """How many of the largest contributions the rules look at."""
    return max(2, 0 if rules.dominance is None else rules.dominance[0])


def primary(rules: Rules, shares: Shares) -> Status:
    """Whether a cell is sensitive by itself, and the first rule that says so. An empty one is not."""
    if 0 < shares.count < rules.min_frequency:
        return Status.FREQUENCY
    if shares.count and rules.dominance is not None:
        largest, percent = rules.dominance
        if 100 * sum(shares.largest[:largest]) > percent * shares.whole:
            return Status.DOMINANCE
    if shares.count > 1 and needed(rules, shares.largest[0], shares.whole, shares.largest[1]) > 0:
        return Status.P_PERCENT
    return Status.SHOWN


def needed(rules: Rules, largest: int, whole: int, own: int) -> int:
    """By how much a cell has to be uncertain for whoever contributes ``own`` of its ``whole``, so that the largest
    other contribution is not known to p %: not positive where nothing is needed.

    The most that the cell can be, less one's own, must be (1 + p/100) of that contribution at least.
    """
    return -(-(100 + rules.p_percent) * largest // 100) - (whole - own)


def needed_outside(rules: Rules, shares: Shares) -> int:
    """By how much a cell has to be uncertain for who contributes nothing to it: by the p % rule, by (100/k) of the
    largest n for dominance; where there are few contributors, p % and a unit at least."""
    if not shares.count:
        return 0
    found = needed(rules, shares.largest[0], shares.whole, 0)
    if shares.count < rules.min_frequency:
        found = max(found, 1, -(-rules.p_percent * shares.whole // 100))
    if rules.dominance is not None:
        largest, percent = rules.dominance
        found = max(found, -(-100 * sum(shares.largest[:largest]) // percent) - shares.whole)
    return max(found, 0)
