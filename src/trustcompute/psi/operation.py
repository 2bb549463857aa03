"""What the broker knows of intersections: parameters, bounds and leakage, by operation id.

Parameters of a request: ``columns`` (the provider's key columns), ``keys`` (digest of the key specification both
sides use), ``output`` (``rows`` or ``count``), ``reveal`` (``consumer``, ``provider`` or ``both``), ``runs`` where
the job is cut into more than one (``psi.buckets``), and ``sketch`` where the grant limits similar runs
(``psi.sketch``).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage
from trustcompute.psi import buckets, ecdh, matching, sketch, vole, vole_malicious

MAX_KEY_COLUMNS: Final = 16
OUTPUTS: Final = ("rows", "count")
REVEALS: Final = ("consumer", "provider", "both")
ECDH, DH, VOLE, VOLE_MALICIOUS = "psi.ecdh.v1", "psi.dh.v1", vole.ID, vole_malicious.ID
OUTPUTS_OF: Final = {  # what each protocol can find
    ECDH: OUTPUTS,
    DH: ("rows",),
    VOLE: ("rows",),
    VOLE_MALICIOUS: ("rows",),
}

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


def check(protocol: str, params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming the parameter and what it may be."""
    unknown = set(params) - {"columns", "keys", "output", "reveal", "runs", "sketch"}
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: an intersection takes columns, keys, output, reveal, runs"
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
    if output not in OUTPUTS_OF[protocol]:
        raise ParameterError(f"{protocol} gives output 'rows' only: for a count ask for {ECDH}")
    if reveal not in REVEALS:
        raise ParameterError(f"reveal must be one of {', '.join(REVEALS)}")
    if reveal == "both" and protocol == VOLE_MALICIOUS:
        raise ParameterError(
            f"{protocol} has one side that learns: the other would have to believe what it is told;"
            " reveal must be consumer or provider"
        )
    matching.width(sizes.consumer, sizes.provider)
    shown = {"sketch": sketch.check(params["sketch"], sizes.consumer)} if "sketch" in params else {}
    checked = {"columns": columns, "keys": keys, "output": output, "reveal": reveal}
    return checked | buckets.check(params, sizes) | shown


def output_form(params: Params) -> OutputForm:
    return OutputForm.MATCHED_IDS if params["output"] == "rows" else OutputForm.COUNT


def roles(params: Params, sizes: Sizes) -> ecdh.Params:
    """Of one run. Who receives and who sends follows from who learns."""
    runs = buckets.runs_of(params)
    whole = (sizes.consumer, sizes.provider) if runs > 1 else None
    sizes = buckets.sizes_of_a_run(sizes, runs)
    if params["reveal"] == "provider":
        return ecdh.Params(sizes.provider, sizes.consumer, answer=False, whole=whole)
    return ecdh.Params(sizes.consumer, sizes.provider, answer=params["reveal"] == "both", whole=whole)


def bound(protocol: str, params: Params, sizes: Sizes) -> Usage:
    """One call, the consumer's keys, and the bytes of all message bodies: a function of what is declared."""
    p = roles(params, sizes)
    points = 2 * ecdh.POINT * p.receiver_rows + p.sender_rows * p.width
    if protocol == VOLE_MALICIOUS:
        sent = vole_malicious.message_bytes(p)
    else:
        sent = {ECDH: points, DH: points + ecdh.POINT, VOLE: vole.message_bytes(p)}[protocol]
    answer = 0
    if params["reveal"] == "both":
        answer = 8 if params["output"] == "count" else -(-p.sender_rows // 8)
    return Usage(calls=1, rows=sizes.consumer, bytes=buckets.runs_of(params) * (sent + answer))


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


def scope(params: Params) -> Scope:
    """The provider's key columns."""
    return Scope(tuple(params["columns"]))


INTERSECTIONS: Final = tuple(
    Operation(
        id=protocol,
        check=partial(check, protocol),
        output=output_form,
        bound=partial(bound, protocol),
        leakage=leakage,
        consumer="consumer",
        provider="provider",
        scope=scope,
    )
    for protocol in OUTPUTS_OF
)


def named(protocol: str) -> Operation:
    """The operation of that id. Raises ``ParameterError`` naming those that exist."""
    for found in INTERSECTIONS:
        if found.id == protocol:
            return found
    known = ", ".join(found.id for found in INTERSECTIONS)
    raise ParameterError(f"protocol must be one of auto, {known}, not {protocol!r}")
