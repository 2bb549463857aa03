"""``aggregate``: all parties and the aggregator in one process, for notebooks, tests and rehearsals.

The same parties over nodes: ``trustcompute.aggregate``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal

from trustcompute import tables
from trustcompute.aggregation import keyed, masked, threshold
from trustcompute.aggregation.cohorts import Cohorts
from trustcompute.aggregation.encoding import Vector, check_source, encode, vector_of
from trustcompute.aggregation.operation import NOTHING, operation_of, parameters
from trustcompute.aggregation.planner import SCHEMES, Scheme, cipher_of, plan
from trustcompute.aggregation.result import Aggregate
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import InputError, ParameterError
from trustcompute.kernels.arrays import I64
from trustcompute.primitives.member import in_process
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Leakage
from trustcompute.protocol.party import Party
from trustcompute.protocol.star import Coordinator, TooFew, run_star
from trustcompute.protocol.transcript import Binding

HOLDER: Final = "holder of the key"
AGGREGATOR: Final = "aggregator"


def aggregate(
    sources: Mapping[str, Any] | Sequence[Any], spec: Spec, *, scheme: Scheme | Literal["auto"] = "masked"
) -> Aggregate:
    """Add up what the tables hold, by the protocol that separate organisations would run.

    sources: by party's name, or in order (``party-1``, ...): anything ``tables`` reads; vectors where the spec has
    a length.
    scheme: ``masked`` or ``rlwe-threshold``, which nobody opens alone; ``rlwe``, ``rlwe-4096``, ``paillier``, ``phe``,
    ``bfv`` or ``ckks``, which a key holder opens; or ``auto``, as ``plan`` says. Raises ``Unusable`` naming the party
    and the rule where a table does not keep the specification, ``ParameterError``, ``TooFew``.
    """
    by_name = dict(sources) if isinstance(sources, Mapping) else {
        f"party-{at + 1:0{len(str(len(sources)))}d}": table for at, table in enumerate(sources)
    }  # fmt: skip
    chosen = plan(spec, len(by_name)).chosen if scheme == "auto" else scheme
    if chosen not in SCHEMES:
        raise ParameterError(f"scheme must be 'auto' or one of {', '.join(SCHEMES)}, not {scheme!r}")
    about = Round(spec, tuple(sorted(by_name)), os.urandom(16))
    params = parameters(about)
    opened = {name: _opened(table, spec, name) for name, table in by_name.items()}

    def values(name: str) -> Vector:
        if spec.length is not None:
            return vector_of(opened[name], spec, name)
        return encode(opened[name], spec, name)

    makers = {"masked": _masked, "rlwe-threshold": _threshold}
    star = makers[chosen](about, values) if chosen in makers else _keyed(about, chosen, values)
    binding = Binding("", star.id, params, "aggregator", "contributor")
    try:
        run = run_star(star.coordinator, star.parties, binding)
    except TooFew as error:
        _raise_unusable(error.errors)
        raise
    _raise_unusable(run.errors)
    sums, names = run.result
    costs = {name: cost for name, cost in run.costs.items() if name in by_name}
    return Aggregate(spec, sums, names, run.reasons, star.id, costs, star.leakage)


def _raise_unusable(errors: Mapping[str, BaseException]) -> None:
    """The others could go on; in one process nobody wants a sum without a table that was passed."""
    if unusable := {name: error for name, error in errors.items() if isinstance(error, InputError)}:
        raise unusable[min(unusable)]


@dataclass(frozen=True)
class _Star:
    """Everybody of one scheme."""

    id: str
    coordinator: Coordinator[tuple[I64, tuple[str, ...]]]
    parties: dict[str, Party[Any]]
    leakage: Leakage


def _masked(about: Round, values: Callable[[str], Vector]) -> _Star:
    known = in_process(about.parties)
    parties: dict[str, Party[Any]] = {
        name: masked.contributor(about, member, partial(values, name), Rng.from_os(), Cohorts())
        for name, member in known.items()
    }
    coordinator = masked.aggregator(about, known[about.parties[0]].recognise)
    return _Star(masked.ID, coordinator, parties, operation_of(masked.ID).leakage(parameters(about)))


def _threshold(about: Round, values: Callable[[str], Vector]) -> _Star:
    known = in_process(about.parties)
    parties: dict[str, Party[Any]] = {
        name: threshold.contributor(
            about,
            member,
            values=partial(values, name),
            rng=Rng.from_os(),
            cohorts=Cohorts(),
            given=threshold.Given(),
        )
        for name, member in known.items()
    }
    coordinator = threshold.aggregator(about, known[about.parties[0]].recognise)
    operation = operation_of(threshold.ID)
    params = operation.check(parameters(about), NOTHING)
    return _Star(threshold.ID, coordinator, parties, operation.leakage(params))


def _keyed(about: Round, scheme: Scheme, values: Callable[[str], Vector]) -> _Star:
    for name in (HOLDER, AGGREGATOR, keyed.LEG):
        if name in about.parties:
            raise ParameterError(f"no party may be called {name!r}: somebody else is")
    cipher = cipher_of(scheme, about.spec)
    known = in_process([*about.parties, HOLDER, AGGREGATOR])
    roles = keyed.Roles(AGGREGATOR, known[AGGREGATOR].key.public.x, HOLDER)
    parties: dict[str, Party[Any]] = {
        name: keyed.contributor(
            about, known[name], roles, cipher, values=partial(values, name), rng=Rng.from_os()
        )
        for name in about.parties
    }
    holder = known[HOLDER]
    parties[keyed.LEG] = keyed.key_holder(about, holder, roles, cipher, rng=Rng.from_os(), cohorts=Cohorts())
    coordinator = keyed.aggregator(about, roles, cipher, known[HOLDER].recognise)
    operation = operation_of(cipher.id)
    return _Star(cipher.id, coordinator, parties, operation.leakage(parameters(about, roles)))


def _opened(source: Any, spec: Spec, name: str) -> Any:
    """A table opened here, where its columns are checked; threads only read it."""
    if spec.length is not None:
        return source
    check_source(source := tables.open_table(source), spec, name)
    return source
