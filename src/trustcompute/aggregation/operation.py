"""What the broker knows of aggregates: parameters, bounds and leakage, by operation id.

Parameters of a request, the same at every contributor: ``spec`` (the specification's document), ``parties`` (names
of all contributors, sorted), ``session`` (32 hex digits that name the aggregate), ``columns`` (all that are read:
grants bound them), ``min_group`` (the fewest parties). So each party's receipt, whose request it is under, names
all the others.
"""

from __future__ import annotations

import re
from typing import Any, Final

from trustcompute.aggregation import masked
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage

NAMES: Final = frozenset({"spec", "parties", "session", "columns", "min_group"})
LEAST_PARTIES: Final = 3

_SESSION = re.compile(r"[0-9a-f]{32}\Z")


def parameters(about: Round) -> dict[str, Any]:
    """The canonical parameters of a request. Raises ``ParameterError``."""
    return check(
        {
            "spec": about.spec.to_document(),
            "parties": list(about.parties),
            "session": about.session.hex(),
            "columns": list(about.spec.named),
            "min_group": about.spec.min_parties,
        },
        Sizes(0, 0),
    )


def check(params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming what is wrong and what it may be."""
    if sizes.consumer != 0:
        raise ParameterError("an aggregate brings no rows of the aggregator's: declare 0")
    if set(params) != NAMES:
        raise ParameterError(f"an aggregate takes {', '.join(sorted(NAMES))}")
    about = round_of(params)
    spec, parties = about.spec, about.parties
    if params["columns"] != list(spec.named) or params["min_group"] != spec.min_parties:
        raise ParameterError("columns and min_group must be those of the specification")
    if not LEAST_PARTIES <= len(parties) <= spec.max_parties:
        raise ParameterError(
            f"{len(parties)} parties take part: there must be at least {LEAST_PARTIES}, and the specification allows"
            f" {spec.max_parties}"
        )
    if about.threshold > len(parties):
        raise ParameterError(f"min_parties is {spec.min_parties}, and only {len(parties)} take part")
    if spec.noise is not None:
        width = len(spec.layout)
        for slot in spec.layout:
            spec.noise.share(slot.reach, width, about.threshold)
    return dict(params)


def round_of(params: Params) -> Round:
    """The round that parameters are about."""
    parties, session = params["parties"], params["session"]
    if not isinstance(parties, list) or not all(
        isinstance(one, str) and 0 < len(one) <= 253 for one in parties
    ):
        raise ParameterError("parties must list the names of the contributors")
    repeated = sorted({one for one in parties if parties.count(one) > 1})
    if repeated:
        raise ParameterError(f"{repeated[0]} would contribute twice: every contributor takes part once")
    if parties != sorted(parties):
        raise ParameterError("parties must be sorted by name")
    if not isinstance(session, str) or not _SESSION.match(session):
        raise ParameterError("session must be 32 hex digits, drawn anew for every aggregate")
    return Round(Spec.from_document(params["spec"]), tuple(parties), bytes.fromhex(session))


def output_form(params: Params) -> OutputForm:
    return OutputForm.AGGREGATE if params["spec"]["noise"] is None else OutputForm.DP_RELEASE


def bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the bytes of all message bodies at most, and the loss of the noise: of what is declared only."""
    about = round_of(params)
    rho = 0 if about.spec.noise is None else about.spec.noise.ledger
    return Usage(calls=1, bytes=masked.message_bytes(about.spec, len(about.parties)), rho=rho)


def leakage(params: Params) -> Leakage:
    """In words, what the aggregator and a contributor learn."""
    about = round_of(params)
    noisy = "" if about.spec.noise is None else f", with noise (ρ-zCDP with ρ = {about.spec.noise.rho})"
    summed = (
        f"the sums over all who took part{noisy}, at least {about.threshold} of {len(about.parties)} parties"
    )
    who = "and who took part"
    return Leakage(
        consumer=f"{summed}, {who}",
        provider=f"{summed}, {who}"
        if about.spec.reveal == "everyone"
        else "what was asked, and who took part",
    )


OPERATIONS: Final = (
    Operation(
        id=masked.ID,
        check=check,
        output=output_form,
        bound=bound,
        leakage=leakage,
        consumer="aggregator",
        provider="contributor",
    ),
)
