"""What the broker knows of intersections: parameters, bounds and leakage, by operation id.

Parameters of a request: ``columns`` (the provider's key columns), ``keys`` (digest of the key specification both
sides use), ``output`` (``rows`` or ``count``), ``reveal`` (``consumer``, ``provider`` or ``both``), ``runs`` where
the job is cut into more than one (``psi.buckets``), and ``labels`` (columns of the provider's) with ``label_bytes`` (of
all of them) where the consumer shall learn them of matched keys, and ``sketch`` where the grant limits similar runs
(``psi.sketch``).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import partial
from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage
from trustcompute.psi import buckets, ecdh, matching, sketch, vole, vole_malicious

SIZE: Final = "the number of distinct keys of the other side"
MAX_KEY_COLUMNS: Final = 16
MAX_LABELS: Final = 64
MAX_LABEL_BYTES: Final = 4096  # of all labels of a key
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
    unknown = set(params) - {"columns", "keys", "output", "reveal", "runs", "labels", "label_bytes", "sketch"}
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: an intersection takes columns, keys, output, reveal, runs,"
            " labels, label_bytes"
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
    checked = {"columns": columns, "keys": keys, "output": output, "reveal": reveal}
    shown = {"sketch": sketch.check(params["sketch"], sizes.consumer)} if "sketch" in params else {}
    return checked | buckets.check(params, sizes) | _labels(protocol, params, checked) | shown


def _labels(protocol: str, params: Params, checked: Params) -> dict[str, Any]:
    """The canonical form of ``labels`` and ``label_bytes``, left out where there are none."""
    names, width = params.get("labels", []), params.get("label_bytes", 0)
    if names == [] and width == 0:
        return {}
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_LABELS:
        raise ParameterError(f"labels must list 1 to {MAX_LABELS} columns of the dataset")
    if not all(isinstance(name, str) and 0 < len(name) <= 256 for name in names) or len(set(names)) < len(
        names
    ):
        raise ParameterError("labels must be different column names")
    if type(width) is not int or not 1 <= width <= MAX_LABEL_BYTES:
        raise ParameterError(f"label_bytes must be a number from 1 to {MAX_LABEL_BYTES}: see the catalogue")
    if (protocol, checked["output"]) != (VOLE, "rows") or checked["reveal"] == "provider":
        raise ParameterError(f"labels come with {VOLE}, output 'rows', to the consumer: ask for that")
    if buckets.runs_of(params) != 1:
        raise ParameterError("labels come in jobs of one run: runs must be 1")
    return {"labels": names, "label_bytes": width}


def output_form(params: Params) -> OutputForm:
    if "labels" in params:
        return OutputForm.MATCHED_LABELS
    return OutputForm.MATCHED_IDS if params["output"] == "rows" else OutputForm.COUNT


def roles(params: Params, sizes: Sizes) -> ecdh.Params:
    """Of one run. Who receives and who sends follows from who learns."""
    runs = buckets.runs_of(params)
    whole = (sizes.consumer, sizes.provider) if runs > 1 else None
    sizes = buckets.sizes_of_a_run(sizes, runs)
    if params["reveal"] == "provider":
        return ecdh.Params(sizes.provider, sizes.consumer, answer=False, whole=whole)
    return ecdh.Params(
        sizes.consumer,
        sizes.provider,
        answer=params["reveal"] == "both",
        whole=whole,
        label=params.get("label_bytes", 0),
    )


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


def check_keys(params: Params, sizes: Sizes, *, own: Collection[str]) -> dict[str, Any]:
    """``columns`` and ``keys`` in canonical form, of an operation that takes these and ``own``. Raises
    ``ParameterError``."""
    shared = {name: value for name, value in params.items() if name not in own}
    if set(shared) - {"columns", "keys"}:
        raise ParameterError(f"this operation takes columns, keys, {', '.join(own)}")
    checked = check(ECDH, shared, sizes)
    return {"columns": checked["columns"], "keys": checked["keys"]}


def leakage(params: Params) -> Leakage:
    """In words, what each side learns beyond its own table."""
    what = (
        "which of its own keys the other side holds"
        if params["output"] == "rows"
        else "how many keys both sides hold"
    )
    learns = f"{what}, and {SIZE}"
    labels = f"; of keys that match also {', '.join(params['labels'])}" if "labels" in params else ""
    return Leakage(
        consumer=SIZE if params["reveal"] == "provider" else learns + labels,
        provider=SIZE if params["reveal"] == "consumer" else learns,
    )


def scope(params: Params) -> Scope:
    """The provider's key columns, and those of its labels."""
    return Scope((*params["columns"], *params.get("labels", [])))


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
