"""Intersection-sums at a node: what a holder lets be added up, and its table as integers. ``summing`` asks.

Called by ``dataset`` and ``computation``.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from trustcompute import tables
from trustcompute.errors import ParameterError, Refused
from trustcompute.kernels.arrays import I64
from trustcompute.node.documents import SumsEntry
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Params
from trustcompute.psi.sums.cells import cells
from trustcompute.psi.sums.parties import Holder
from trustcompute.psi.sums.terms import MIN_GROUP, Noise, Terms
from trustcompute.tables.fixed import Bounds, Label

KEPT_CELLS: Final = 2  # tables of integers kept for the next request: each is as large as what was asked for


@dataclass(frozen=True)
class Summable:
    """What may be added up of a dataset, over keys that both sides hold (``psi.sum.v1``).

    values: column -> bounds of what one key adds over all its rows: looked at when the node starts. by: column -> the
    groups that may be asked for. min_group: the least group that must be asked for.
    """

    values: Mapping[str, Bounds]
    by: Mapping[str, Sequence[Label]] = field(default_factory=dict)
    min_group: int = MIN_GROUP

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", dict(self.values))
        object.__setattr__(self, "by", {column: tuple(labels) for column, labels in self.by.items()})
        for by in self.by.items() if self.by else (None,):
            Terms(self.values, None if by is None else (by[0], tuple(by[1])), self.min_group)

    def terms(
        self, values: Sequence[str], by: str | None, min_group: int | None, noise: Noise | None
    ) -> Terms:
        """What a request asks for. Raises ``ParameterError`` for what is not offered."""
        if isinstance(values, str) or len(set(values)) < len(values):
            raise ParameterError("values is a list of columns, each once")
        for asked, offered in (*((one, self.values) for one in values), *([(by, self.by)] if by else [])):
            if asked not in offered:
                known = ", ".join(repr(one) for one in offered) or "none"
                raise ParameterError(f"column {asked!r} is not offered for sums like this: {known} are")
        return Terms(
            {name: self.values[name] for name in values},
            None if by is None else (by, tuple(self.by[by])),
            self.min_group if min_group is None else min_group,
            noise,
        )

    def entry(self) -> dict[str, Any]:
        """For the catalogue."""
        document = Terms(self.values, None, self.min_group).to_document() if self.values else {"values": []}
        return {
            "values": [
                dict(zip(("column", "low", "high", "scale"), one, strict=True)) for one in document["values"]
            ],
            "by": [{"column": column, "labels": list(labels)} for column, labels in self.by.items()],
            "min_group": self.min_group,
        }

    @classmethod
    def of_entry(cls, entry: SumsEntry) -> Summable:
        """What a node's catalogue offers."""
        return cls(
            {one.column: Bounds(one.low, one.high, one.scale) for one in entry.values},
            {one.column: one.labels for one in entry.by},
            entry.min_group,
        )


class HeldSums:
    """What may be added up of a dataset in a running node. Thread-safe."""

    def __init__(self, offered: Summable, table: tables.Table, keys: Mapping[tuple[str, ...], Any]) -> None:
        self.offered, self._table, self._keys = offered, table, keys
        self._kept: OrderedDict[bytes, I64] = OrderedDict()
        self._lock = threading.Lock()
        self._in_several: set[tuple[tuple[str, ...], str]] = set()
        for choice, found in keys.items():
            if not isinstance(found, tables.Keys):
                raise ParameterError(
                    "a dataset whose keys are stored offers no sums: leave out stored=, or sums="
                )
            self._check(choice, found)

    def _check(self, choice: tuple[str, ...], keys: tables.Keys) -> None:
        """Every column within its bounds for every choice of keys, before anybody asks. Raises ``TableError``."""
        if self.offered.values:
            cells(self._table, keys, self.offered.terms([*self.offered.values], None, None, None))
        for column in self.offered.by:
            counted = cells(self._table, keys, self.offered.terms([], column, None, None))
            if int(counted.sum(axis=1).max(initial=0)) > 1:
                self._in_several.add((choice, column))

    def admit(self, params: Params) -> None:
        """Raise ``Refused`` or ``ParameterError`` for what is not offered, from documents alone."""
        terms, offered = Terms.from_document(params), self.offered
        by = None if terms.by is None else terms.by[0]
        if (
            terms.to_document()
            != offered.terms([*terms.values], by, terms.min_group, terms.noise).to_document()
        ):
            raise ParameterError(
                "bounds or groups are not those of the dataset: take them from the catalogue"
            )
        if terms.min_group < offered.min_group:
            raise Refused(
                f"sums are told of groups of at least {offered.min_group:,} keys",
                rule="min_group",
                field="params.min_group",
                owner="the node's operator",
                fix=f"set min_group to {offered.min_group} at least",
            )
        if terms.noise is not None and by is not None and (tuple(params["columns"]), by) in self._in_several:
            raise ParameterError(
                f"some keys are in several groups of {by}, and noise is for keys that are in one: ask without groups,"
                " or without noise"
            )

    def holder(self, params: Params) -> Holder:
        """The provider's input."""
        choice, terms = tuple(params["columns"]), Terms.from_document(params)
        name = canonical.dumps([list(choice), terms.to_document() | {"min_group": 0, "noise": None}])
        with self._lock:
            if name not in self._kept:
                self._kept[name] = cells(self._table, self._keys[choice], terms)
            self._kept.move_to_end(name)
            while len(self._kept) > KEPT_CELLS:
                self._kept.popitem(last=False)
            return Holder(self._keys[choice].digests, self._kept[name])
