"""Which party each side of a request runs, for every protocol of this layer. The node asks here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import cardinality, ecdh, operation, vole
from trustcompute.psi.ecdh import Found
from trustcompute.psi.matching import U8

Role = Callable[[U8, ecdh.Params, Rng, Executor | None], Party[Found] | Party[Found | None]]


def consumer(
    params: Params,
    sizes: Sizes,
    keys: U8,
    rng: Rng,
    executor: Executor | None = None,
    *,
    protocol: str = operation.ECDH,
) -> Party[Found] | Party[Found | None]:
    """The asking side's party. params: canonical; keys: uint8[sizes.consumer, 32] distinct key digests."""
    role = _sender(protocol, params) if params["reveal"] == "provider" else _receiver(protocol, params)
    return role(keys, operation.roles(params, sizes), rng, executor)


def provider(
    params: Params,
    sizes: Sizes,
    keys: U8,
    rng: Rng,
    executor: Executor | None = None,
    *,
    protocol: str = operation.ECDH,
) -> Party[Found] | Party[Found | None]:
    """The answering side's party. params: canonical; keys: uint8[sizes.provider, 32] distinct key digests."""
    role = _receiver(protocol, params) if params["reveal"] == "provider" else _sender(protocol, params)
    return role(keys, operation.roles(params, sizes), rng, executor)


def _receiver(protocol: str, params: Params) -> Role:
    if protocol == operation.VOLE:
        return vole.receiver
    return cardinality.receiver if params["output"] == "count" else ecdh.receiver


def _sender(protocol: str, params: Params) -> Role:
    if protocol == operation.VOLE:
        return vole.sender
    return cardinality.sender if params["output"] == "count" else ecdh.sender
