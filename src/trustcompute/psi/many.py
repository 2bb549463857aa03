"""``intersect_many``: keys that one table shares with all of several others, with every party in this process.

Over nodes: ``trustcompute.intersect_many``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from trustcompute import tables
from trustcompute.errors import ParameterError
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.run import Cost
from trustcompute.protocol.star import run_star
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import star
from trustcompute.psi.intersection import Intersection, rows_found
from trustcompute.psi.star_operation import OPERATION, holders

OnMany = str | Sequence[str] | Sequence[Sequence[str]]
"""Key columns that all tables have: one, or several that form one key; or such a list for every table, in order."""


def intersect_many(
    sources: Sequence[Any], *, on: OnMany, casefold: bool = False, executor: Executor | None = None
) -> Intersection:
    """Which rows of the first table have a key that all others hold too; of any two of them nothing is learnt.

    sources: the table of the hub, who learns, then those of two or more leaves: whatever ``intersect`` takes.
    on: a column all of them have, several that form one key, or a list of columns for each table.
    casefold: compare text without regard to case.

    The result's ``left`` is the hub. Raises ``TableError`` for tables and columns that cannot be used,
    ``ParameterError``.

    >>> tables = {"id": ["a", "b", "c"]}, {"id": ["b", "c", "d"]}, {"id": ["c", "b", "e"]}
    >>> intersect_many(tables, on="id").left_rows.tolist()
    [1, 2]
    """
    sources = [tables.open_table(source) for source in sources]
    if len(sources) < 2:
        raise ParameterError("intersect_many takes the table of who learns, then those of two or more others")
    columns = columns_of_each(on, len(sources))
    keys = [
        tables.keys(source, names, casefold=casefold, executor=executor)
        for source, names in zip(sources, columns, strict=True)
    ]
    filled = next((at for at, one in enumerate(keys) if len(one)), 0)
    for at, one in enumerate(keys):  # an empty table may not know the type of its columns
        if len(one):
            keys[filled].spec.check_matches(one.spec, columns[filled], columns[at])

    ours, others = keys[0], keys[1:]
    names = [f"leaf-{at + 1:0{len(str(len(others)))}d}" for at in range(len(others))]
    params = OPERATION.check(
        {"columns": columns[1], "keys": ours.spec.digest, "parties": names, "session": os.urandom(16).hex()},
        Sizes(len(ours), max(map(len, others))),
    )
    about = holders(params, Sizes(len(ours), 0))
    members = in_process(names)
    leaves = {
        name: star.leaf(about, members[name], one.digests, Rng.from_os(), executor=executor)
        for name, one in zip(names, others, strict=True)
    }
    hub = star.hub(
        about,
        members[names[0]].recognise,
        ours.digests,
        {name: len(one) for name, one in zip(names, others, strict=True)},
        {name: Rng.from_os() for name in names},
        executor=executor,
    )
    run = run_star(hub, leaves, Binding("", OPERATION.id, params, OPERATION.consumer, OPERATION.provider))
    return Intersection(
        count=run.result.count,
        left_rows=rows_found(run.result, ours),
        protocol=OPERATION.id,
        cost=total(list(run.costs.values())),
        leakage=OPERATION.leakage(params),
        left=sources[0],
        left_keys=ours,
    )


def columns_of_each(on: OnMany, count: int) -> list[list[str]]:
    """The key columns of every table. Raises ``ParameterError`` for what does not name them."""
    if isinstance(on, str):
        return [[on]] * count
    listed = list(on)
    if listed and all(isinstance(name, str) for name in listed):
        return [[str(name) for name in listed]] * count
    each = [[one] if isinstance(one, str) else list(one) for one in listed]
    if len(each) != count or not all(each) or not all(isinstance(n, str) for names in each for n in names):
        raise ParameterError(
            f"on must be a column name, a list of them, or a list of columns for each of {count} tables"
        )
    if len({len(names) for names in each}) > 1:
        raise ParameterError("on must name as many columns of every table")
    return each


def total(costs: Sequence[Cost]) -> Cost:
    """Of all legs: the most exchanges, and all bytes."""
    return Cost(
        max(one.turns for one in costs),
        sum(one.bytes_sent for one in costs),
        sum(one.bytes_received for one in costs),
    )
