"""The privacy unit: whose presence is hidden, and how much of it a release may see. The holder's to declare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from trustcompute.errors import ParameterError

MAX_GROUPS_PER_UNIT: Final = 10_000
MAX_ROWS_PER_GROUP: Final = 2**20
MAX_KNOWN: Final = 10_000


@dataclass(frozen=True)
class PrivacyUnit:
    """Rows, or users: neighbouring tables differ in all rows of one unit.

    column: whose values name the units; ``None``: each row is one.
    groups: in how many groups a unit counts (ℓ0); rows_per_group: how many rows of it count in each (c). What is
        beyond is left out, chosen by a keyed hash and not by the order of rows.
    known: column -> values that are public knowledge: groups by it are all reported, found or not.
    """

    column: str | None = None
    groups: int = 1
    rows_per_group: int = 1
    known: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value, most in (
            ("groups", self.groups, MAX_GROUPS_PER_UNIT),
            ("rows_per_group", self.rows_per_group, MAX_ROWS_PER_GROUP),
        ):
            if type(value) is not int or not 1 <= value <= most:
                raise ParameterError(f"{name} of a privacy unit must be an integer from 1 to {most}")
        if self.column is None and (self.groups, self.rows_per_group) != (1, 1):
            raise ParameterError("where each row is a unit, it is in one group, once: leave groups out")
        for column, values in self.known.items():
            if not 1 <= len(values) <= MAX_KNOWN or len(set(values)) < len(values):
                raise ParameterError(
                    f"the known values of {column!r} must be 1 to {MAX_KNOWN} different values"
                )
