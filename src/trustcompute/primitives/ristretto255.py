"""The group of the OPRF and of Diffie-Hellman matching: ristretto255 (RFC 9496), over whole batches.

Called by ``oprf`` and by protocols that blind with it. Elements are rows of uint8[n, 32], canonical
encodings; scalars are rows of uint8[n, 32], little-endian, below the order. Every bulk function cuts its
rows into chunks for ``executor``. About 126 bits of security for discrete logarithms. Constant time with the
compiled kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

import numpy as np

from trustcompute import kernels
from trustcompute.errors import RemoteProtocolError
from trustcompute.kernels.arrays import U8
from trustcompute.primitives.parallel import ahead, map_rows, rows_ahead
from trustcompute.primitives.rng import Rng

ORDER = 2**252 + 27742317777372353535851937790883648493
"""ℓ, the prime order of the group (RFC 9496 §4.4)."""
GENERATOR = bytes.fromhex("e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76")
WIDTH = 32
"""Bytes of an element, and of a scalar."""


def random_scalars(rng: Rng, count: int) -> U8:
    """Uniform scalars in 1..ℓ-1, uint8[count, 32] (64 random bytes each, reduced: a bias below 2⁻²⁵⁰)."""
    scalars = kernels.scalar255_reduce(rng.array(64 * count).reshape(count, 64))
    while (zero := ~scalars.any(axis=1)).any():
        scalars[zero] = kernels.scalar255_reduce(rng.array(64 * int(zero.sum())).reshape(-1, 64))
    return scalars


def hash_to_group(messages: U8, dst: bytes, *, executor: Executor | None = None) -> U8:
    """Hash each row of uint8[n, w] to an element under a domain separation tag (RFC 9380 Appendix B)."""
    return map_rows(partial(kernels.ristretto255_hash, dst=dst), messages, executor=executor)


def hash_and_multiply(messages: U8, dst: bytes, scalars: U8, *, executor: Executor | None = None) -> U8:
    """``hash_to_group`` of each row, multiplied by its scalar or by the only one: uint8[n, 32]."""
    if len(scalars) == 1:
        return map_rows(partial(_hash_mul, dst=dst, scalars=scalars), messages, executor=executor)
    return map_rows(partial(_hash_mul, dst=dst), messages, scalars, executor=executor)


def hash_and_blind(messages: U8, dst: bytes, blinds: U8, *, executor: Executor | None = None) -> U8:
    """2·(H(message) + blind·G) for each row of uint8[n, w], blinds uint8[n, 32]: uint8[n, 32].

    Uniform, whatever the messages, if every blind is fresh from ``random_scalars``.
    """
    return map_rows(partial(_hash_blind, dst=dst), messages, blinds, executor=executor)


def unblind(elements: U8, base: U8, blinds: U8, *, name: str, executor: Executor | None = None) -> U8:
    """2·(element - blind·base) for elements and a base *that came from a peer*: uint8[n, 32].

    base: uint8[1, 32]. It is 2k·G where elements are k times what ``hash_and_blind`` made; 4k·H(message) is left.
    Raises ``RemoteProtocolError`` as ``multiply`` does, for the base too.
    """
    _refuse_identity(base, "base")
    _refuse_identity(elements, name)
    try:
        kernels.ristretto255_check(base)
    except kernels.InvalidPoint as error:
        raise RemoteProtocolError(
            "the base is not the canonical encoding of a ristretto255 element"
        ) from error
    try:
        return map_rows(partial(_unblind, base=base), elements, blinds, executor=executor, chunk=_UNBLINDED)
    except kernels.InvalidPoint as error:
        raise _malformed(error, name) from error


def multiply(elements: U8, scalars: U8, *, name: str, executor: Executor | None = None) -> U8:
    """Multiply elements *that came from a peer* by their scalars, or by the only one: uint8[n, 32].

    name: what the elements are, for the error. Raises ``RemoteProtocolError`` naming the first row that is
    the identity or not a canonical encoding: a product with either would tell nothing, or tell about the
    scalar.
    """
    return multiply_ahead(elements, scalars, name=name, executor=executor)()


def multiply_ahead(
    elements: U8, scalars: U8, *, name: str, executor: Executor | None = None
) -> Callable[[], U8]:
    """Begin ``multiply`` now and return what waits for its result, which raises as it does: to be called once."""
    _refuse_identity(elements, name)
    if len(scalars) == 1:
        product = partial(kernels.ristretto255_mul, scalars=scalars)
        begun = rows_ahead(product, elements, executor=executor)
    else:
        begun = rows_ahead(kernels.ristretto255_mul, elements, scalars, executor=executor)

    def result() -> U8:
        try:
            return begun()
        except kernels.InvalidPoint as error:
            raise _malformed(error, name) from error

    return result


def check(elements: U8, *, name: str, executor: Executor | None = None) -> None:
    """Raises ``RemoteProtocolError`` for elements *that came from a peer* as ``multiply`` does."""
    _refuse_identity(elements, name)
    try:
        kernels.ristretto255_check(elements)
    except kernels.InvalidPoint as error:
        raise _malformed(error, name) from error


def weighted_sum(elements: U8, weights: U8, *, executor: Executor | None = None) -> U8:
    """The sum of all elements, each multiplied by its *public* weight: uint8[1, 32]. Not constant time."""
    starts = range(0, max(len(elements), 1), _SUMMANDS)
    pieces = [(elements[at : at + _SUMMANDS], weights[at : at + _SUMMANDS]) for at in starts]
    tasks = [
        ahead(executor if len(pieces) > 1 else None, kernels.ristretto255_multiscalar_vartime, *piece)
        for piece in pieces
    ]
    parts = np.concatenate([_part(task, at) for task, at in zip(tasks, starts, strict=True)])
    if len(parts) == 1:
        return parts
    ones = np.zeros_like(parts)
    ones[:, 0] = 1
    return kernels.ristretto255_multiscalar_vartime(parts, ones)


def _part(task: Callable[[], U8], start: int) -> U8:
    """A task's result, or its error with the row counted in all tasks' elements."""
    try:
        return task()
    except (kernels.InvalidPoint, kernels.InvalidScalar) as error:
        raise type(error).at(start + error.index) from error


_UNBLINDED = 4096
"""Rows a task of ``unblind``: each makes the base's table anew, which takes as long as some 30 rows."""
_SUMMANDS = 4096
"""Summands a task of ``weighted_sum``: its cost an element falls with their number."""


def _hash_mul(messages: U8, scalars: U8, dst: bytes) -> U8:
    return kernels.ristretto255_hash_mul(messages, dst, scalars)


def _hash_blind(messages: U8, blinds: U8, dst: bytes) -> U8:
    return kernels.ristretto255_hash_blind(messages, dst, blinds)


def _unblind(elements: U8, blinds: U8, base: U8) -> U8:
    return kernels.ristretto255_unblind(elements, base, blinds)


def _refuse_identity(elements: U8, name: str) -> None:
    identity = ~elements.any(axis=1)
    if identity.any():
        raise RemoteProtocolError(f"row {int(identity.argmax())} of the {name} is the identity element")


def _malformed(error: kernels.InvalidPoint, name: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"row {error.index} of the {name} is not the canonical encoding of a ristretto255 element"
    )
