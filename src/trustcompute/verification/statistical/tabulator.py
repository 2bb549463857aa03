"""A holder's table behind its rules and its history: tells tables, each protected, the same table always alike.

Called by ``statistics`` and the node, which keeps one for each dataset that publishes statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives.signing import SigningKey, token_hash
from trustcompute.verification.statistical import terms as published
from trustcompute.verification.statistical.answer import Figures
from trustcompute.verification.statistical.cells import Source
from trustcompute.verification.statistical.history import History
from trustcompute.verification.statistical.network import Shape
from trustcompute.verification.statistical.rules import Rules, Status
from trustcompute.verification.statistical.suppress import pattern


class Tabulator:
    """Statistics over one table. Thread-safe.

    path: where the tables told are remembered; in memory, if left out. Raises ``TableError`` and ``ParameterError`` for
    what cannot be published.
    """

    def __init__(
        self,
        source: Any,
        rules: Rules,
        signer: SigningKey,
        *,
        dataset: str = "local",
        version: str = "1",
        path: Path | None = None,
    ) -> None:
        self._source, self.signer = Source(source, rules), signer
        self.terms = published.of_rules(
            rules, self._source.ways, self._source.scales, dataset=dataset, version=version
        )
        self.token = self.terms.sign(signer)
        self._history = History(path, about=self.id)
        for one in self._history.told:
            if len(one.status) != self._shape(one.by).cells:
                raise ParameterError("tables told before have another shape: give the dataset a new version")

    @property
    def id(self) -> str:
        """What requests and answers call the terms: their hash."""
        return token_hash(self.token)

    def admit(self, by: Sequence[str]) -> None:
        """Raise ``Refused`` for a table that earlier answers rule out. Looks at no data."""
        with self._history.lock:
            if self._history.holding(by) is None:
                self._shared(by)

    def tell(self, by: Sequence[str], columns: Sequence[str]) -> Figures:
        """The table, remembered before this returns. Raises ``Refused``."""
        cells = self._source.cells(by)
        shape = cells.shape
        with self._history.lock:
            told = self._history.holding(by)
            if told is None:
                shown = {cell for name in self._shared(by) for cell in shape.margin(list(by).index(name))}
                told = self._history.tell(by, pattern(self._source.rules, cells, shown))
        status = told.within(list(by), shape, self._shape(told.by))
        hidden = status != Status.SHOWN
        chosen = [cells.columns[name] for name in columns]
        return Figures(
            status,
            _masked([cells.rows.count], hidden, shape)[0],
            _masked([one.count for one in chosen], hidden, shape),
            _masked([one.sums for one in chosen], hidden, shape),
        )

    def _shared(self, by: Sequence[str]) -> set[str]:
        return self._history.shared(by, {one.by: self._shape(one.by) for one in self._history.told})

    def _shape(self, by: tuple[str, ...]) -> Shape:
        return self.terms.shape(by)


def _masked(values: list[I64], hidden: Any, shape: Shape) -> I64:
    """int64[len(values), cells], zero where a cell is hidden."""
    found = np.array(values, dtype=np.int64).reshape(len(values), shape.cells)
    found[:, hidden] = 0
    return found
