"""Sets filled up with random keys, so that the size the other side learns is one that many sets have.

Called by ``intersect``, ``intersect_files`` and the node, around the parties of ``psi.parties``; every run of a job
goes through here, since buckets are filled up to a size of their own as well (``buckets``).

A filling key is 32 random bytes in place of a digest: that it is the digest of anything, or that two sides draw the
same, has probability below n · m · 2⁻²⁵⁶. It matches nothing, costs what a key costs, and what a peer says of it is
dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Final, Literal

import numpy as np

from trustcompute.errors import ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage, Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import buckets, matching, operation, parties
from trustcompute.psi.ecdh import Found
from trustcompute.psi.matching import U8

PadTo = int | Literal["power-of-two"] | None
POWER_OF_TWO: Final = "power-of-two"


def padded_rows(rows: int, pad_to: PadTo) -> int:
    """The number of keys to declare for a set of ``rows``.

    pad_to: ``power-of-two``: the next one, at least 1; a number: that one, which no larger set fits into; None: as it
    is. Raises ``ParameterError``.
    """
    if pad_to is None:
        return rows
    if pad_to == POWER_OF_TWO:
        return 1 << max(rows - 1, 0).bit_length()
    if type(pad_to) is not int or not 0 <= pad_to <= matching.MAX_JOB_ROWS:
        raise ParameterError(f"pad_to must be {POWER_OF_TWO!r} or a number of keys, not {pad_to!r}")
    if pad_to < rows:
        raise ParameterError(f"the set has {rows} distinct keys, more than pad_to={pad_to}: raise it")
    return pad_to


def consumer(
    protocol: str, params: Params, sizes: Sizes, digests: U8, rng: Rng, *, executor: Executor | None = None
) -> Party[Found | None]:
    """The asking side's party of a run, from its own keys of that run, uint8[n, 32]."""
    size = buckets.sizes_of_a_run(sizes, buckets.runs_of(params)).consumer
    filled = buckets.padded(digests, size, rng)
    found = yield from parties.consumer(protocol, params, sizes, filled, rng, executor=executor)
    return _own(found, len(digests))


def provider(
    protocol: str,
    params: Params,
    sizes: Sizes,
    digests: U8,
    rng: Rng,
    *,
    executor: Executor | None = None,
    labelled: Callable[[], U8] | None = None,
) -> Party[Found | None]:
    """The answering side's party of a run, from its own keys of that run. labelled: gives the labels of these."""
    size = buckets.sizes_of_a_run(sizes, buckets.runs_of(params)).provider
    filled = buckets.padded(digests, size, rng)

    def with_filling() -> U8:
        assert labelled is not None
        labels = labelled()
        return np.concatenate([labels, np.zeros((size - len(labels), labels.shape[1]), np.uint8)])

    found = yield from parties.provider(
        protocol,
        params,
        sizes,
        filled,
        rng,
        executor=executor,
        labelled=None if labelled is None else with_filling,
    )
    return _own(found, len(digests))


def leakage(of: Leakage, *, consumer: bool, provider: bool) -> Leakage:
    """What each side learns, where the set of one or both is filled up."""
    told, padded = operation.SIZE, operation.SIZE.replace("the number", "the padded number", 1)
    return replace(
        of,
        consumer=of.consumer.replace(told, padded) if provider else of.consumer,
        provider=of.provider.replace(told, padded) if consumer else of.provider,
    )


def _own(found: Found | None, keys: int) -> Found | None:
    """Of what was found, that which concerns the side's own keys, which come first."""
    if found is None or found.mask is None:
        return found
    mask = found.mask[:keys]
    count = int(mask.sum())
    order = None if found.order is None else found.order[found.order < keys]
    return Found(count, mask, order, None if found.labels is None else found.labels[:count])
