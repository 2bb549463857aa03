"""Both sides of a statistical query in this process. For notebooks and tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import Sizes
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.verification.statistical import operation, parties
from trustcompute.verification.statistical.answer import Statistics
from trustcompute.verification.statistical.parties import Promise
from trustcompute.verification.statistical.rules import Label, Rules
from trustcompute.verification.statistical.tabulator import Tabulator

LOCAL_GRANT = "0" * 64


def statistics(
    held: Any,
    sums: str | Sequence[str] = (),
    *,
    by: str | Sequence[str] | Mapping[str, Sequence[Label]] = (),
    rules: Rules | None = None,
) -> Statistics:
    """Counts, sums and means by group over ``held``, sensitive cells suppressed, both sides in this process.

    held: a table, or a ``Tabulator`` that remembers what it told before. sums: columns to add up (each with the
    number of its values, and so its mean). by: none to two columns; with their values, or those that are found.
    rules: the holder's; those of ``Rules`` where they are left out. Raises ``InputError``, and ``Refused`` for what
    earlier answers rule out.

    >>> people = {"town": ["a", "a", "a", "b", "b", "b", "b"], "pay": [10, 11, 12, 9, 10, 11, 12]}
    >>> statistics(people, "pay", by="town").cell(town="a").sums["pay"]
    33
    """
    names = [by] if isinstance(by, str) else list(by)
    added = [sums] if isinstance(sums, str) else list(sums)
    if not isinstance(held, Tabulator):
        held = Tabulator(held, rules or _rules(by, names, added), SigningKey.generate())
    params = operation.parameters(held.terms, held.id, names, added)
    params = operation.check(params, Sizes(0, 0))
    held.admit(names)
    binding = Binding(LOCAL_GRANT, operation.STATISTICS, params, "consumer", "provider")
    run = run_local(
        parties.consumer(Promise(held.id, held.terms, held.signer.public), params),
        parties.provider(params, lambda: held.tell(params["by"], params["sums"]), held.signer),
        binding,
    )
    return Statistics(
        held.terms,
        tuple(names),
        tuple(params["sums"]),
        run.consumer,
        run.cost,
        operation.leakage(params),
        operation.STATISTICS,
    )


def _rules(
    by: str | Sequence[str] | Mapping[str, Sequence[Label]], names: Sequence[str], added: Sequence[str]
) -> Rules:
    values = by if isinstance(by, Mapping) else dict.fromkeys(names, ())
    return Rules(by=values, columns=tuple(added))
