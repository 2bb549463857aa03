"""What the broker knows of intersection-sums: parameters, bounds and leakage.

Parameters of a request: ``columns`` and ``keys`` as for every intersection, and ``values``, ``by``, ``min_group``,
``noise`` as ``Terms.to_document`` has them.
"""

from __future__ import annotations

from typing import Any, Final

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Scope, Sizes, Usage
from trustcompute.psi import operation
from trustcompute.psi.sums.parties import message_bytes
from trustcompute.psi.sums.terms import Terms

ID: Final = "psi.sum.v1"
OWN: Final = ("values", "by", "min_group", "noise")


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming what is wrong, and where sums would not fit."""
    unknown = set(params) - {"columns", "keys", *OWN}
    if unknown:
        raise ParameterError(
            f"unknown parameter {sorted(unknown)[0]!r}: an intersection-sum takes columns, keys, {', '.join(OWN)}"
        )
    keyed = operation.check(
        operation.ECDH, {name: params[name] for name in ("columns", "keys") if name in params}, sizes
    )
    terms = Terms.from_document(params)
    terms.shape(sizes.consumer, sizes.provider)
    return {"columns": keyed["columns"], "keys": keyed["keys"]} | terms.to_document()


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the consumer's keys, the bytes of all message bodies, and what the noise spends."""
    terms = Terms.from_document(params)
    spent = {} if terms.noise is None else terms.noise.loss.ledger()
    return Usage(calls=1, rows=sizes.consumer, bytes=message_bytes(terms, sizes), **spent)


def leakage(params: Params) -> Leakage:
    """In words, what each side learns beyond its own table."""
    terms = Terms.from_document(params)
    size, least = "the number of distinct keys of the other side", f"at least {terms.min_group:,}"
    noisy = "" if terms.noise is None else " with noise"
    sums = f"the sums{noisy} over these of {', '.join(terms.values)}" if terms.values else ""
    if terms.by is None:
        learns = f"how many keys both sides hold and {sums}, where they are {least}"
        counts = "how many keys both sides hold"
    else:
        each = f"for each group of {terms.by[0]} with {least} of them how many"
        learns = f"how many keys both sides hold and {each}{f' and {sums}' if sums else ''}"
        counts = f"how many keys both sides hold, in all and in each group of {terms.by[0]}"
    return Leakage(consumer=f"{learns}; {size}", provider=f"{counts}; {size}")


def scope(params: Params) -> Scope:
    """The provider's key columns, those that are added up and that of the groups, and the least group."""
    terms = Terms.from_document(params)
    return Scope(tuple(dict.fromkeys([*params["columns"], *terms.named])), terms.min_group)


OPERATION: Final = Operation(
    id=ID,
    check=check,
    output=lambda params: OutputForm.AGGREGATE,
    bound=bound,
    leakage=leakage,
    consumer="consumer",
    provider="provider",
    scope=scope,
)
