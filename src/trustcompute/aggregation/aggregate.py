"""``aggregate``: all parties and the aggregator in one process, for notebooks, tests and rehearsals.

The same parties over nodes: ``trustcompute.aggregate``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from trustcompute import tables
from trustcompute.aggregation import masked
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import check_source, encode
from trustcompute.aggregation.members import Round, in_process
from trustcompute.aggregation.operation import OPERATIONS, parameters
from trustcompute.aggregation.result import Aggregate
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import InputError, ParameterError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.star import TooFew, run_star
from trustcompute.protocol.transcript import Binding

Scheme = Literal["masked"]


def aggregate(
    sources: Mapping[str, Any] | Sequence[Any], spec: Spec, *, scheme: Scheme = "masked"
) -> Aggregate:
    """Add up what the tables hold, by the protocol that separate organisations would run.

    sources: by party's name, or in order (``party-1``, ...): anything ``tables`` reads; vectors where the spec has
    a length.
    scheme: ``masked``. Raises ``Unusable`` naming the party and the rule where a table does not keep the specification,
    ``ParameterError``, ``TooFew``.
    """
    by_name = dict(sources) if isinstance(sources, Mapping) else {
        f"party-{at + 1:0{len(str(len(sources)))}d}": table for at, table in enumerate(sources)
    }  # fmt: skip
    if scheme != "masked":
        raise ParameterError(f"scheme must be 'masked', not {scheme!r}")
    opened = {name: _opened(table, spec, name) for name, table in by_name.items()}
    about = Round(spec, tuple(sorted(by_name)), os.urandom(16))
    params = parameters(about)
    operation = OPERATIONS[0]
    known = in_process(about.parties)
    failures: dict[str, InputError] = {}

    def values(name: str) -> Any:
        try:
            return encode(opened[name], spec, name)
        except InputError as error:
            failures[name] = error
            raise

    binding = Binding("", operation.id, params, operation.consumer, operation.provider)
    parties = {
        name: masked.contributor(about, member, partial(values, name), Rng.from_os(), Cohorts())
        for name, member in known.items()
    }
    recognise = next(iter(known.values())).recognise
    try:
        run = run_star(masked.aggregator(about, recognise), parties, binding)
    except TooFew:
        if failures:
            raise failures[min(failures)] from None
        raise
    if failures:  # the others could have gone on; in one process nobody wants a sum without a table it passed
        raise failures[min(failures)]
    sums, names = run.result
    return Aggregate(spec, sums, names, run.reasons, operation.id, run.costs, operation.leakage(params))


def _opened(source: Any, spec: Spec, name: str) -> Any:
    """A table opened here, where its columns are checked; threads only read it."""
    if spec.length is not None:
        return source
    check_source(source := tables.open_table(source), spec, name)
    return source
