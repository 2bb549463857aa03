"""What the broker knows of verification: parameters, bounds and leakage, by operation id.

Parameters of a request: ``predicate`` (its canonical text, which a grant may bound), ``columns`` (the key's and those
the predicate looks at, which a grant may bound), ``table`` (the id of the descriptor it relies on), ``shape``
(columns and their capacity, as the descriptor says), and ``fetch``: for ``private`` whether the hint is sent too, for
``download`` whether the table is.
What is charged is declared: calls, questions, bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage
from trustcompute.verification import answer, consent, querylog
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.layout import MAX_BUCKET_BITS, Shape
from trustcompute.verification.lwe import DIMENSION
from trustcompute.verification.predicate import parse

BUCKET: Final = "verify.bucket.v1"
PRIVATE: Final = "verify.private.v1"
DOWNLOAD: Final = "verify.download.v1"
MAX_QUESTIONS: Final = {BUCKET: 2**14, PRIVATE: 2**10, DOWNLOAD: 2**16}
"""Of one request: at 10⁷ records 60 MB of buckets, or 270 MB of queries."""
MAX_TABLE: Final = 2**31
"""Bytes of a masked table that is sent: it is one message, which lies in memory."""
MAX_CAPACITY: Final = 2**16
MAX_COLUMNS: Final = 24

_ID = re.compile(r"[0-9a-f]{64}\Z")


def parameters(protocol: str, said: Descriptor, table: str, *, fetch: bool = False) -> dict[str, Any]:
    """The canonical parameters of a question about this table."""
    layout = said.buckets if protocol == BUCKET else said.columns
    found: dict[str, Any] = {
        "predicate": said.predicate,
        "columns": sorted({*said.subject, *parse(said.predicate).columns}),
        "table": table,
        "shape": [layout.columns, layout.capacity],
    }
    return found if protocol == BUCKET else found | {"fetch": fetch}


def check(protocol: str, params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming the parameter and what it may be."""
    names = {"predicate", "columns", "table", "shape"} | (set() if protocol == BUCKET else {"fetch"})
    unknown = set(params) - names
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: verification takes {', '.join(sorted(names))}"
        )
    predicate = parse(params.get("predicate", ""))
    columns, table, shape = params.get("columns"), params.get("table"), params.get("shape")
    if str(predicate) != params["predicate"]:
        raise ParameterError(f"the predicate is not in canonical form: write {str(predicate)!r}")
    if not isinstance(columns, list) or not all(
        isinstance(name, str) and 0 < len(name) <= 256 for name in columns
    ):
        raise ParameterError("columns must list the key's columns and those the predicate looks at")
    if not 1 <= len(columns) <= MAX_COLUMNS or sorted(set(columns)) != columns:
        raise ParameterError(f"columns must list 1 to {MAX_COLUMNS} different names in order")
    if not set(predicate.columns) < set(columns):
        raise ParameterError("columns must list the key's columns and those the predicate looks at")
    if not isinstance(table, str) or not _ID.match(table):
        raise ParameterError("table must be the id of a table (64 hex digits): see the catalogue")
    if not _shape_fits(shape):
        raise ParameterError("shape must be the columns of the layout and their capacity: see the descriptor")
    if not 1 <= sizes.consumer <= MAX_QUESTIONS[protocol]:
        raise ParameterError(
            f"{protocol} takes 1 to {MAX_QUESTIONS[protocol]} questions a request, not {sizes.consumer}:"
            " ask in several requests"
        )
    found = {"predicate": params["predicate"], "columns": columns, "table": table, "shape": shape}
    if protocol == BUCKET:
        return found
    if not isinstance(params.get("fetch", False), bool):
        raise ParameterError("fetch must be true or false")
    if protocol == DOWNLOAD and _table_bytes(Shape(*params["shape"])) > MAX_TABLE:
        raise ParameterError(f"a table of more than {MAX_TABLE} bytes is not sent: ask in private mode")
    return found | {"fetch": params.get("fetch", False)}


def _shape_fits(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) == 2
        and all(type(number) is int for number in shape)
        and 1 <= shape[0] <= 2**MAX_BUCKET_BITS
        and not shape[0] & (shape[0] - 1)
        and 1 <= shape[1] <= MAX_CAPACITY
    )


def _table_bytes(shape: Shape) -> int:
    return shape.columns * shape.length


def bound(protocol: str, params: Params, sizes: Sizes) -> Usage:
    """One call, a row a question, and the bytes of all message bodies."""
    shape, asked = Shape(*params["shape"]), sizes.consumer
    evaluations = asked * (2 if parse(params["predicate"]).matches else 1)
    total = 64 * evaluations + 64 * answer.groups(evaluations) + 64
    if protocol == BUCKET:
        total += asked * (4 + shape.length + 32 * shape.depth)
    elif protocol == DOWNLOAD:
        total += _table_bytes(shape) if params["fetch"] else 0
    else:
        total += 4 * asked * (shape.columns + shape.length)
        if params["fetch"]:
            total += 40 * shape.columns + 4 * DIMENSION * shape.length
    return Usage(calls=1, rows=asked, bytes=total)


def leakage(protocol: str, params: Params) -> Leakage:
    """In words, what each side learns beyond its own input."""
    what = "of each key asked about one code (match, mismatch, no record), and how many records there are"
    if protocol == DOWNLOAD:
        what += "; it holds all masked cells, so whoever gets hold of the holder's key too can try every key"
    hidden = {
        BUCKET: "how many keys are asked about, which predicate, and for each key a bucket of its own records"
        " that hides it",
        PRIVATE: "how many keys are asked about, and which predicate",
        DOWNLOAD: "how many keys are asked about, and which predicate",
    }
    return Leakage(consumer=what, provider=hidden[protocol])


CARRIED: Final = {"consent": consent.checked, "commitment": querylog.checked}
"""What a request may carry beside its question: tokens of subjects, the commitment to what is asked about."""


def _carrying(
    inner: Callable[[Params, Sizes], dict[str, Any]], params: Params, sizes: Sizes
) -> dict[str, Any]:
    found = inner({name: value for name, value in params.items() if name not in CARRIED}, sizes)
    return found | {name: read(params[name]) for name, read in CARRIED.items() if name in params}


OPERATIONS: Final = tuple(
    Operation(
        id=protocol,
        check=partial(_carrying, partial(check, protocol)),
        output=lambda params: OutputForm.YES_NO,
        bound=partial(bound, protocol),
        leakage=partial(leakage, protocol),
        consumer="consumer",
        provider="provider",
    )
    for protocol in (BUCKET, PRIVATE, DOWNLOAD)
)


def named(protocol: str) -> Operation:
    """The operation of that id. Raises ``ParameterError`` naming those that exist."""
    for found in OPERATIONS:
        if found.id == protocol:
            return found
    raise ParameterError(f"verification has {', '.join(found.id for found in OPERATIONS)}, not {protocol!r}")
