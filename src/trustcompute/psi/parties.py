"""Which party each side of a request runs, for every protocol of this layer. The node asks here."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor

from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import cardinality, ecdh
from trustcompute.psi.ecdh import Found
from trustcompute.psi.matching import U8

Role = Callable[[U8, ecdh.Params, Rng, Executor | None], Party[Found] | Party[Found | None]]


def consumer(
    params: Params, sizes: Sizes, keys: U8, rng: Rng, executor: Executor | None = None
) -> Party[Found] | Party[Found | None]:
    """The asking side's party. params: canonical; keys: uint8[sizes.consumer, 32] distinct key digests."""
    role = _sender(params) if params["reveal"] == "provider" else _receiver(params)
    return role(keys, _params(params, sizes), rng, executor)


def provider(
    params: Params, sizes: Sizes, keys: U8, rng: Rng, executor: Executor | None = None
) -> Party[Found] | Party[Found | None]:
    """The answering side's party. params: canonical; keys: uint8[sizes.provider, 32] distinct key digests."""
    role = _receiver(params) if params["reveal"] == "provider" else _sender(params)
    return role(keys, _params(params, sizes), rng, executor)


def _receiver(params: Params) -> Role:
    return cardinality.receiver if params["output"] == "count" else ecdh.receiver


def _sender(params: Params) -> Role:
    return cardinality.sender if params["output"] == "count" else ecdh.sender


def _params(params: Params, sizes: Sizes) -> ecdh.Params:
    if params["reveal"] == "provider":
        return ecdh.Params(sizes.provider, sizes.consumer, answer=False)
    return ecdh.Params(sizes.consumer, sizes.provider, answer=params["reveal"] == "both")
