"""Which party each side of a request runs, for every protocol of this layer. The node asks here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import cardinality, dh, ecdh, operation, vole, vole_malicious
from trustcompute.psi.ecdh import Found
from trustcompute.psi.matching import U8

Role = Callable[[U8, ecdh.Params, Rng, Executor | None], Party[Found] | Party[Found | None]]


def consumer(
    protocol: str, params: Params, sizes: Sizes, keys: U8, rng: Rng, *, executor: Executor | None = None
) -> Party[Found] | Party[Found | None]:
    """The asking side's party. protocol: an operation's id; params: canonical; keys: uint8[sizes.consumer, 32]
    distinct key digests."""
    role = _roles(protocol, params)[1 if params["reveal"] == "provider" else 0]
    return role(keys, operation.roles(params, sizes), rng, executor)


def provider(
    protocol: str,
    params: Params,
    sizes: Sizes,
    keys: U8,
    rng: Rng,
    *,
    executor: Executor | None = None,
    labelled: Callable[[], U8] | None = None,
) -> Party[Found] | Party[Found | None]:
    """The answering side's party. protocol: an operation's id; params: canonical; keys: uint8[sizes.provider, 32]
    distinct key digests; labelled: gives their labels, uint8[sizes.provider, label_bytes], where they are asked for."""
    if "labels" in params:
        return vole.sender(keys, operation.roles(params, sizes), rng, executor, labelled)
    role = _roles(protocol, params)[0 if params["reveal"] == "provider" else 1]
    return role(keys, operation.roles(params, sizes), rng, executor)


_ROLES: dict[tuple[str, str], tuple[Role, Role]] = {
    (operation.ECDH, "rows"): (ecdh.receiver, ecdh.sender),
    (operation.ECDH, "count"): (cardinality.receiver, cardinality.sender),
    (operation.DH, "rows"): (dh.receiver, dh.sender),
    (operation.VOLE, "rows"): (vole.receiver, vole.sender),
    (operation.VOLE_MALICIOUS, "rows"): (vole_malicious.receiver, vole_malicious.sender),
}


def _roles(protocol: str, params: Params) -> tuple[Role, Role]:
    """(receiver, sender) of an operation that ``INTERSECTIONS`` lists, for an output it has checked."""
    return _ROLES[protocol, params["output"]]
