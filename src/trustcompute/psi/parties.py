"""Which party each side of a request runs, for every protocol of this layer. The node asks here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeAlias

from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import cardinality, ecdh
from trustcompute.psi.ecdh import Found
from trustcompute.psi.matching import U8

Role: TypeAlias = Callable[[U8, ecdh.Params, Rng, Executor | None], Party[Found] | Party[Found | None]]


def consumer(
    params: Params, sizes: Sizes, keys: U8, rng: Rng, executor: Executor | None = None
) -> Party[Found] | Party[Found | None]:
    """The asking side's party. params: canonical; keys: uint8[sizes.consumer, 32] distinct key digests."""
    receiver, sender = _roles(params)
    if params["reveal"] == "provider":
        return sender(keys, ecdh.Params(sizes.provider, sizes.consumer, answer=False), rng, executor)
    return receiver(keys, _consumer_receives(params, sizes), rng, executor)


def provider(
    params: Params, sizes: Sizes, keys: U8, rng: Rng, executor: Executor | None = None
) -> Party[Found] | Party[Found | None]:
    """The answering side's party. params: canonical; keys: uint8[sizes.provider, 32] distinct key digests."""
    receiver, sender = _roles(params)
    if params["reveal"] == "provider":
        return receiver(keys, ecdh.Params(sizes.provider, sizes.consumer, answer=False), rng, executor)
    return sender(keys, _consumer_receives(params, sizes), rng, executor)


def _roles(params: Params) -> tuple[Role, Role]:
    protocol = cardinality if params["output"] == "count" else ecdh
    return protocol.receiver, protocol.sender


def _consumer_receives(params: Params, sizes: Sizes) -> ecdh.Params:
    return ecdh.Params(sizes.consumer, sizes.provider, answer=params["reveal"] == "both")
