"""What the broker knows of statistics: parameters, bounds and leakage.

Parameters of a request: ``by`` (none to two columns to group by), ``sums`` (columns to add up), ``columns`` (all of
these in order, which a grant may bound), ``cells`` (of the table, totals included), ``min_group`` (contributors a
shown cell has at least, which a grant may bound from below), ``terms`` (the id of what the holder publishes).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage
from trustcompute.verification.statistical.rules import MAX_CELLS, MAX_COLUMNS
from trustcompute.verification.statistical.terms import Terms

STATISTICS: Final = "verify.statistics.v1"
MAX_WAYS: Final = 2

_NAMES: Final = frozenset({"by", "sums", "columns", "cells", "min_group", "terms"})
_ID: Final = re.compile(r"[0-9a-f]{64}\Z")


def parameters(terms: Terms, identity: str, by: Sequence[str], sums: Sequence[str]) -> dict[str, Any]:
    """The canonical parameters of a question under these terms. Raises ``ParameterError`` for columns they do not
    name."""
    for name in by:
        if name not in terms.by:
            raise ParameterError(f"statistics are not by {name!r}: group by {_listed(terms.by)}")
    for name in sums:
        if name not in terms.scales:
            raise ParameterError(f"column {name!r} is not added up: use {_listed(terms.scales)}")
    if len(set(by)) < len(by) or len(by) > MAX_WAYS:
        raise ParameterError(f"group by none to {MAX_WAYS} different columns")
    cells = terms.shape(tuple(by)).cells
    if cells > MAX_CELLS:
        raise ParameterError(
            f"a table has at most {MAX_CELLS:,} cells, not {cells:,}: group by fewer columns"
        )
    return {
        "by": list(by),
        "sums": sorted(set(sums)),
        "columns": sorted({*by, *sums}),
        "cells": cells,
        "min_group": terms.min_frequency,
        "terms": identity,
    }


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming the parameter and what it may be."""
    unknown = set(params) - _NAMES
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: statistics take {_listed(sorted(_NAMES))}"
        )
    if sizes.consumer != 0:
        raise ParameterError("statistics bring no rows of the consumer's: declare 0")
    by, sums, columns = (_columns(params, name) for name in ("by", "sums", "columns"))
    if len(by) > MAX_WAYS:
        raise ParameterError(f"by must list at most {MAX_WAYS} columns")
    if sums != sorted(sums) or columns != sorted({*by, *sums}):
        raise ParameterError("columns must list those of by and sums, in order")
    cells, least, identity = params.get("cells"), params.get("min_group"), params.get("terms")
    if type(cells) is not int or not 1 <= cells <= MAX_CELLS:
        raise ParameterError(f"cells must be an integer from 1 to {MAX_CELLS}")
    if type(least) is not int or not 1 <= least <= 2**31:
        raise ParameterError("min_group must be the minimum frequency of the terms")
    if not isinstance(identity, str) or not _ID.match(identity):
        raise ParameterError("terms must be the id of the holder's terms (64 hex digits): see the catalogue")
    return {"by": by, "sums": sums, "columns": columns, "cells": cells, "min_group": least, "terms": identity}


def _columns(params: Params, name: str) -> list[str]:
    found = params.get(name)
    if (
        not isinstance(found, list)
        or len(found) > MAX_COLUMNS
        or not all(isinstance(column, str) and 0 < len(column) <= 256 for column in found)
        or len(set(found)) < len(found)
    ):
        raise ParameterError(f"{name} must list at most {MAX_COLUMNS} different columns")
    return found


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, and the bytes of the answer: what the data hold changes nothing."""
    return Usage(calls=1, bytes=params["cells"] * (9 + 16 * len(params["sums"])) + 64)


def leakage(params: Params) -> Leakage:
    """In words, what each side learns."""
    return Leakage(
        consumer="counts, sums and means by group of cells that the holder's rules show; which cells are"
        " suppressed and by which first rule; and which groups are empty",
        provider="which table was asked for",
    )


OPERATION: Final = Operation(
    id=STATISTICS,
    check=check,
    output=lambda params: OutputForm.AGGREGATE,
    bound=bound,
    leakage=leakage,
    consumer="consumer",
    provider="provider",
    scope=lambda params: Scope(tuple(params["columns"]), params["min_group"]),
)


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"
