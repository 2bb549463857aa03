"""What the broker knows of intersections: parameters, bounds and leakage, by operation id.

Parameters of a request: ``columns`` (the provider's key columns), ``keys`` (digest of the key specification both
sides use), ``output`` (``rows`` or ``count``), ``reveal`` (``consumer``, ``provider`` or ``both``).
"""

from __future__ import annotations

import re
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage
from trustcompute.psi import ecdh, matching

MAX_KEY_COLUMNS: Final = 16
OUTPUTS: Final = ("rows", "count")
REVEALS: Final = ("consumer", "provider", "both")

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming the parameter and what it may be."""
    unknown = set(params) - {"columns", "keys", "output", "reveal"}
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: an intersection takes columns, keys, output, reveal"
        )
    columns, keys = params.get("columns"), params.get("keys")
    if not isinstance(columns, list) or not 1 <= len(columns) <= MAX_KEY_COLUMNS:
        raise ParameterError(f"columns must list 1 to {MAX_KEY_COLUMNS} key columns of the dataset")
    if not all(isinstance(name, str) and 0 < len(name) <= 256 for name in columns) or len(set(columns)) < len(
        columns
    ):
        raise ParameterError("columns must be different column names")
    if not isinstance(keys, str) or not _DIGEST.match(keys):
        raise ParameterError("keys must be the digest of a key specification (64 hex digits)")
    output, reveal = params.get("output", "rows"), params.get("reveal", "consumer")
    if output not in OUTPUTS:
        raise ParameterError(f"output must be one of {', '.join(OUTPUTS)}")
    if reveal not in REVEALS:
        raise ParameterError(f"reveal must be one of {', '.join(REVEALS)}")
    matching.width(sizes.consumer, sizes.provider)
    return {"columns": columns, "keys": keys, "output": output, "reveal": reveal}


def check_dh(params: Params, sizes: Sizes) -> dict[str, Any]:
    """As ``check``; each key has a blind of its own, so there is no way to count without learning which."""
    canonical = check(params, sizes)
    if canonical["output"] != "rows":
        raise ParameterError("psi.dh.v1 gives output 'rows' only: for a count ask for psi.ecdh.v1")
    return canonical


def output_form(params: Params) -> OutputForm:
    return OutputForm.MATCHED_IDS if params["output"] == "rows" else OutputForm.COUNT


def bound(params: Params, sizes: Sizes) -> Usage:
    """Calls, the consumer's keys, and the bytes of all message bodies: a function of what is declared."""
    receiver_rows = sizes.provider if params["reveal"] == "provider" else sizes.consumer
    sender_rows = sizes.consumer if params["reveal"] == "provider" else sizes.provider
    table = sender_rows * matching.width(sizes.consumer, sizes.provider)
    answer = 0
    if params["reveal"] == "both":
        answer = 8 if params["output"] == "count" else -(-sizes.provider // 8)
    return Usage(calls=1, rows=sizes.consumer, bytes=2 * ecdh.POINT * receiver_rows + table + answer)


def bound_dh(params: Params, sizes: Sizes) -> Usage:
    """As ``bound``, and the sender's public element."""
    usage = bound(params, sizes)
    return Usage(calls=usage.calls, rows=usage.rows, bytes=usage.bytes + ecdh.POINT)


def leakage(params: Params) -> Leakage:
    """In words, what each side learns beyond its own table."""
    size = "the number of distinct keys of the other side"
    what = (
        "which of its own keys the other side holds"
        if params["output"] == "rows"
        else "how many keys both sides hold"
    )
    learns = f"{what}, and {size}"
    return Leakage(
        consumer=size if params["reveal"] == "provider" else learns,
        provider=size if params["reveal"] == "consumer" else learns,
    )


INTERSECTIONS: Final = (
    Operation(
        id="psi.ecdh.v1",
        check=check,
        output=output_form,
        bound=bound,
        leakage=leakage,
        consumer="consumer",
        provider="provider",
    ),
    Operation(
        id="psi.dh.v1",
        check=check_dh,
        output=output_form,
        bound=bound_dh,
        leakage=leakage,
        consumer="consumer",
        provider="provider",
    ),
)


def named(protocol: str) -> Operation:
    """The operation of that id; raises ``ParameterError`` naming those there are."""
    for operation in INTERSECTIONS:
        if operation.id == protocol:
            return operation
    known = ", ".join(operation.id for operation in INTERSECTIONS)
    raise ParameterError(f"protocol must be one of {known}, not {protocol!r}")
