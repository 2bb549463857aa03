"""What the broker may know about a computation without importing it.

Each compute layer exports a tuple ``OPERATIONS``; the node joins them; the broker prices, bounds and records
operations through this page alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

Params = Mapping[str, Any]
"""Parameters of a request: canonical JSON (strings, integers, booleans, lists, objects; no floats)."""

MAX_AMOUNT = 2**63 - 1


class OutputForm(StrEnum):
    """What may leave a computation. Raw rows are not a form that exists; labels are columns of keys that matched."""

    YES_NO = "yes_no"
    COUNT = "count"
    AGGREGATE = "aggregate"
    MATCHED_IDS = "matched_ids"
    MATCHED_LABELS = "matched_labels"
    DP_RELEASE = "dp_release"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Declared numbers of distinct keys or rows: the consumer's, and the provider's."""

    consumer: int
    provider: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a computation uses, in int64 units. Privacy: ρ and ε in 10⁻¹², δ in 10⁻¹⁸, rounded up once a charge."""

    calls: int = 0
    rows: int = 0
    bytes: int = 0
    rho: int = 0
    epsilon: int = 0
    delta: int = 0

    def __post_init__(self) -> None:
        for unit in UNITS:
            if not 0 <= (amount := getattr(self, unit)) <= MAX_AMOUNT:
                raise ValueError(f"usage of {unit} must lie in 0..2^63-1, not {amount}")

    def items(self) -> list[tuple[str, int]]:
        """(unit, amount) for every unit, in a fixed order."""
        return [(unit, getattr(self, unit)) for unit in UNITS]


UNITS: tuple[str, ...] = tuple(unit.name for unit in fields(Usage))


@dataclass(frozen=True, slots=True)
class Leakage:
    """What each side learns beyond its own input, in words a person can put into a contract."""

    consumer: str
    provider: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What of the provider's data parameters reach for, as far as grants and policies bound it.

    columns:   the provider's columns that are named; ``None`` where the parameters do not say, which no bound on
               columns lets pass. None at all (an empty tuple) is within every bound.
    min_group: the least number of units that a reported group has; 0 where nothing is asked for.
    predicate: the statement that is checked, where one is.
    """

    columns: tuple[str, ...] | None = None
    min_group: int = 0
    predicate: str | None = None


def scope_by_name(params: Params) -> Scope:
    """The scope by the usual names of parameters: ``columns``, ``on``, ``by``; ``min_group``; ``predicate``."""
    named: list[object] = []
    for name in ("columns", "on", "by"):
        value = params.get(name, [])
        named += value if isinstance(value, list | tuple) else [value]
    columns = [column for column in named if isinstance(column, str)]
    group, predicate = params.get("min_group", 0), params.get("predicate")
    none = (
        params.get("columns") == [] and not named
    )  # says itself that it reads no column: a count of all rows
    return Scope(
        tuple(columns) if (columns or none) and len(columns) == len(named) else None,
        group if type(group) is int else 0,
        predicate if isinstance(predicate, str) else None,
    )


@dataclass(frozen=True)
class Operation:
    """One computation a node can be asked for.

    id:       versioned suite name, for example ``psi.ecdh.v1``.
    check:    validates request parameters and declared sizes; returns them in canonical form (defaults filled
              in) or raises ``ParameterError``. Parameters that differ in meaning differ in canonical form.
    output:   the form of what leaves, given canonical parameters.
    bound:    the most a run with these parameters and sizes may use: a function of what is declared only.
    leakage:  what each side learns, given canonical parameters.
    consumer, provider: names of the two roles in the protocol, bound into its transcript.
    scope:    what canonical parameters reach for; by the usual names, if left out.
    """

    id: str
    check: Callable[[Params, Sizes], dict[str, Any]]
    output: Callable[[Params], OutputForm]
    bound: Callable[[Params, Sizes], Usage]
    leakage: Callable[[Params], Leakage]
    consumer: str
    provider: str
    scope: Callable[[Params], Scope] = scope_by_name
