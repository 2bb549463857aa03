"""``intersect_sum``: both sides in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi.intersection import On, split_on
from trustcompute.psi.sums import parties
from trustcompute.psi.sums.cells import cells
from trustcompute.psi.sums.operation import OPERATION
from trustcompute.psi.sums.result import IntersectionSum, told
from trustcompute.psi.sums.terms import MIN_GROUP, Noise, Terms
from trustcompute.tables.fixed import Bounds, Label

WHOLE: Final = Bounds(-(10**12), 10**12)
"""Of columns that are named without bounds: whole numbers."""


def intersect_sum(
    left: Any,
    right: Any,
    *,
    on: On,
    values: Sequence[str] | Mapping[str, Bounds] = (),
    by: Mapping[str, Sequence[Label]] | None = None,
    min_group: int = MIN_GROUP,
    noise: Noise | None = None,
    casefold: bool = False,
    executor: Executor | None = None,
) -> IntersectionSum:
    """How many keys two tables share, and sums of the right one's columns over these keys' rows, but not which.

    left, right, on, casefold: as for ``intersect``.
    values: columns of the right table, each with bounds of what one key adds over all its rows; columns that are only
        named hold whole numbers up to ±10¹². A value outside its bounds is an error of the right side.
    by: a column of the right table and the groups to report, at most 64. A key counts in each group it has rows of.
    min_group: where fewer keys match nothing is told, not even how many; of groups likewise.
    noise: exact noise on each sum, which hides the values of any one key.

    Runs ``psi.sum.v1``: both sides learn the count, the left side the sums, the right side how many match in each
    group. Raises ``Refused`` where too few keys match, ``TableError``, ``ParameterError``.

    >>> left, right = {"id": range(10, 40)}, {"id": range(30), "paid": [2] * 30}
    >>> found = intersect_sum(left, right, on="id", values=["paid"])
    >>> found.count, found.sum("paid")
    (20, 40)
    """
    left_on, right_on = split_on(on)
    terms = Terms(_bounded(values), _grouped(by), min_group, noise)
    right = tables.open_table(right)
    left_keys = tables.keys(tables.open_table(left), left_on, casefold=casefold, executor=executor)
    right_keys = tables.keys(right, right_on, casefold=casefold, executor=executor)
    if len(left_keys) and len(right_keys):  # an empty table may not know the type of its columns
        left_keys.spec.check_matches(right_keys.spec, left_on, right_on)
    table = cells(right, right_keys, terms)

    sizes = Sizes(len(left_keys), len(right_keys))
    asked = {"columns": right_on, "keys": left_keys.spec.digest} | terms.to_document()
    params = OPERATION.check(asked, sizes)
    run = run_local(
        parties.consumer(left_keys.digests, terms, sizes, Rng.from_os(), executor),
        parties.provider(
            lambda: parties.Holder(right_keys.digests, table), terms, sizes, Rng.from_os(), executor
        ),
        Binding("", OPERATION.id, params, OPERATION.consumer, OPERATION.provider),
    )
    return IntersectionSum(
        count=told(run.consumer, terms),
        terms=terms,
        groups=run.consumer.groups,
        cost=run.cost,
        leakage=OPERATION.leakage(params),
    )


def _bounded(values: Sequence[str] | Mapping[str, Bounds]) -> dict[str, Bounds]:
    if isinstance(values, str) or not isinstance(values, Sequence | Mapping):
        raise ParameterError("values is a list of columns, or a mapping of columns to bounds")
    if isinstance(values, Mapping):
        return dict(values)
    if len(set(values)) < len(values):
        raise ParameterError("values name a column twice")
    return dict.fromkeys(values, WHOLE)


def _grouped(by: Mapping[str, Sequence[Label]] | None) -> tuple[str, tuple[Label, ...]] | None:
    if by is None:
        return None
    if not isinstance(by, Mapping) or len(by) != 1:
        raise ParameterError("by maps one column to the list of its groups")
    column, labels = next(iter(by.items()))
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        raise ParameterError("by maps one column to the list of its groups")
    return column, tuple(labels)
