"""What the broker knows of aggregates: parameters, bounds and leakage, by operation id.

Parameters of a request, the same at every contributor: ``spec`` (the specification's document), ``parties`` (names
of all contributors, sorted), ``session`` (32 hex digits that name the aggregate), ``columns`` (all that are read:
grants bound them), ``min_group`` (the fewest parties). So each party's receipt, whose request it is under, names
all the others. ``matched``, where it is there, has for each contributor the asker's finished job that matched rows of
its dataset: only these are added up. Under a key also the ``Roles``: ``aggregator``, ``aggregator_key`` and ``holder``;
and to the key holder (``aggregation.holder.v1``) ``under``, the operation of the contributors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from trustcompute.aggregation import keyed, masked, threshold
from trustcompute.aggregation.keyed import Cipher, Roles
from trustcompute.aggregation.planner import IDS, TOGETHER, cipher_of
from trustcompute.aggregation.round import Round
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives.signing import VerifyKey
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage

HOLDER: Final = "aggregation.holder.v1"
KEYED: Final = {IDS[scheme]: scheme for scheme in IDS if scheme not in (*TOGETHER, "phe")}
"""Schemes under a key, by operation."""
MATCHED: Final = "matched"
NAMES: Final = frozenset({"spec", "parties", "session", "columns", "min_group"})
ROLES: Final = frozenset({"aggregator", "aggregator_key", "holder"})
LEAST_PARTIES: Final = 3
MAX_MESSAGES: Final = 2**30
NOTHING: Final = Sizes(0, 0)
"""What an aggregator brings."""

_ONE_READER: Final = "only the scheme 'masked' reveals the sum to everyone, who then can verify it"
_HEX = re.compile(r"[0-9a-f]{32}\Z")


def parameters(
    about: Round,
    roles: Roles | None = None,
    *,
    under: str | None = None,
    matched: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The canonical parameters of a request. roles: of schemes under a key; under: in the key holder's own request;
    matched: by contributor, the job that matched the rows to add up.

    Raises ``ParameterError``.
    """
    params: dict[str, Any] = {
        "spec": about.spec.to_document(),
        "parties": list(about.parties),
        "session": about.session.hex(),
        "columns": list(about.spec.named),
        "min_group": about.spec.min_parties,
    }
    if roles is not None:
        params |= {name: getattr(roles, name) for name in ROLES}
    if under is not None:
        params["under"] = under
    if matched is not None:
        params[MATCHED] = dict(matched)
    return operation_of(HOLDER if under else IDS["masked"] if roles is None else IDS["rlwe"]).check(
        params, NOTHING
    )


def _check(names: frozenset[str], params: Params, sizes: Sizes) -> dict[str, Any]:
    """Canonical parameters; raises ``ParameterError`` naming what is wrong and what it may be."""
    if sizes.consumer != 0:
        raise ParameterError("an aggregate brings no rows of the aggregator's: declare 0")
    if set(params) - {MATCHED} != names:
        raise ParameterError(f"this aggregate takes {', '.join(sorted(names))}, and may take {MATCHED}")
    _check_round(params)
    if MATCHED in params:
        _check_matched(params[MATCHED], params)
    if "holder" in names:
        roles = roles_of(params)
        if params["spec"]["reveal"] != "aggregator":
            raise ParameterError(_ONE_READER)
        if roles.holder == roles.aggregator:
            raise ParameterError(f"{roles.holder} would add up and open: name another key holder")
        _check_memory(20 * round_of(params).spec.slots)
    if "under" in names and params["under"] not in [*KEYED]:
        raise ParameterError(f"under must be one of {', '.join(KEYED)}")
    return dict(params)


def _check_round(params: Params) -> None:
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


def _check_matched(matched: object, params: Params) -> None:
    if not isinstance(matched, dict) or set(matched) != set(params["parties"]):
        raise ParameterError("matched must have a job for each of the parties, and for nobody else")
    if not all(isinstance(job, str) and _HEX.match(job) for job in matched.values()):
        raise ParameterError("matched must name jobs: 32 hex digits each, as an intersection's result has")
    if params["spec"]["length"] is not None:
        raise ParameterError("matched rows are in another order at every contributor: they make no vector")


def round_of(params: Params) -> Round:
    """The round that parameters are about."""
    parties, session = params["parties"], params["session"]
    if not isinstance(parties, list) or not all(_named(one) for one in parties):
        raise ParameterError("parties must list the names of the contributors")
    repeated = sorted({one for one in parties if parties.count(one) > 1})
    if repeated:
        raise ParameterError(f"{repeated[0]} would contribute twice: every contributor takes part once")
    if parties != sorted(parties):
        raise ParameterError("parties must be sorted by name")
    if not isinstance(session, str) or not _HEX.match(session):
        raise ParameterError("session must be 32 hex digits, drawn anew for every aggregate")
    return Round(Spec.from_document(params["spec"]), tuple(parties), bytes.fromhex(session))


def roles_of(params: Params) -> Roles:
    """Who adds and who opens, as parameters of a scheme under a key say."""
    aggregator, key, holder = (params[name] for name in ("aggregator", "aggregator_key", "holder"))
    if not _named(aggregator) or not _named(holder):
        raise ParameterError("aggregator and holder must be names of parties")
    try:
        VerifyKey.from_x(key)
    except (VerificationError, TypeError, AttributeError):
        raise ParameterError("aggregator_key must be an Ed25519 public key in base64url") from None
    return Roles(aggregator, key, holder)


def _named(name: object) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 253


def check_asker(params: Params, name: str, key: VerifyKey) -> None:
    """Whoever asks under a key is the aggregator that everyone was told of. Raises ``ParameterError``."""
    roles = roles_of(params)
    if (roles.aggregator, roles.aggregator_key) != (name, key.x):
        raise ParameterError(
            f"the aggregator must be {name}, with the key that signs the request: others are told of it"
        )


def cipher_for(operation: str, params: Params) -> Cipher:
    """What vectors are encrypted with. operation: of the contributors. Raises ``ParameterError``."""
    return cipher_of(KEYED[operation], Spec.from_document(params["spec"]))


def output_form(params: Params) -> OutputForm:
    return OutputForm.AGGREGATE if params["spec"]["noise"] is None else OutputForm.DP_RELEASE


def _bound(params: Params, sizes: Sizes) -> Usage:
    """One call, the bytes of all message bodies at most, and the loss of the noise: of what is declared only."""
    about = round_of(params)
    return Usage(calls=1, bytes=masked.message_bytes(about.spec, len(about.parties)), rho=_rho(about))


def _check_memory(size: int) -> None:
    """Under keys a vector is one message, and everybody's lie in memory together where all receive them."""
    if size > MAX_MESSAGES:
        raise ParameterError(
            f"this scheme would send {size:,} bytes, more than {MAX_MESSAGES:,}: use 'masked', which sends pieces"
        )


def _check_threshold(params: Params, sizes: Sizes) -> dict[str, Any]:
    canonical = _check(NAMES, params, sizes)
    about = round_of(params)
    if about.spec.reveal != "aggregator":
        raise ParameterError(_ONE_READER)
    _check_memory(threshold.message_bytes(about.spec, len(about.parties)))
    return canonical


def _bound_threshold(params: Params, sizes: Sizes) -> Usage:
    about = round_of(params)
    sent = threshold.message_bytes(about.spec, len(about.parties))
    return Usage(calls=1, bytes=sent, rho=_rho(about))


def _bound_keyed(operation: str, params: Params, sizes: Sizes) -> Usage:
    about = round_of(params)
    sent = keyed.message_bytes(cipher_for(operation, params))
    return Usage(calls=1, bytes=sent, rho=_rho(about))


def _bound_holder(params: Params, sizes: Sizes) -> Usage:
    """No loss: the key holder brings no data."""
    about = round_of(params)
    cipher = cipher_for(params["under"], params)
    return Usage(calls=1, bytes=keyed.opening_bytes(about.spec, len(about.parties), cipher))


def _rho(about: Round) -> int:
    return 0 if about.spec.noise is None else about.spec.noise.ledger


def _leakage(params: Params) -> Leakage:
    """In words, what the aggregator and a contributor learn."""
    found = _summed(params)
    told = found if params["spec"]["reveal"] == "everyone" else "what was asked, and who took part"
    return Leakage(consumer=found, provider=told)


def _leakage_threshold(params: Params) -> Leakage:
    about = round_of(params)
    rows = ", of the rows that matched" if MATCHED in params else ""
    everyone = f"the sums over all {len(about.parties)} parties{rows}{_noisy(about)}"
    return Leakage(consumer=everyone, provider="what was asked, and who took part")


def _leakage_keyed(params: Params) -> Leakage:
    return Leakage(
        consumer=f"{_summed(params)}; so does the key holder, {params['holder']}, who could open what one party"
        " sent, were it to get at it",
        provider="what was asked, and who holds the key",
    )


def _leakage_holder(params: Params) -> Leakage:
    return Leakage(consumer=_summed(params), provider=_summed(params))


def _summed(params: Params) -> str:
    about = round_of(params)
    rows = ", of the rows that matched" if MATCHED in params else ""
    least = f"at least {about.threshold} of {len(about.parties)} parties"
    return f"the sums over all who took part{rows}{_noisy(about)}, {least}, and who took part"


def _noisy(about: Round) -> str:
    return "" if about.spec.noise is None else f", with noise (ρ-zCDP with ρ = {about.spec.noise.rho})"


OPERATIONS: Final = (
    Operation(
        id=masked.ID,
        check=partial(_check, NAMES),
        output=output_form,
        bound=_bound,
        leakage=_leakage,
        consumer="aggregator",
        provider="contributor",
    ),
    Operation(
        id=threshold.ID,
        check=_check_threshold,
        output=output_form,
        bound=_bound_threshold,
        leakage=_leakage_threshold,
        consumer="aggregator",
        provider="contributor",
    ),
    *(
        Operation(
            id=operation,
            check=partial(_check, NAMES | ROLES),
            output=output_form,
            bound=partial(_bound_keyed, operation),
            leakage=_leakage_keyed,
            consumer="aggregator",
            provider="contributor",
        )
        for operation in KEYED
    ),
    Operation(
        id=HOLDER,
        check=partial(_check, NAMES | ROLES | {"under"}),
        output=output_form,
        bound=_bound_holder,
        leakage=_leakage_holder,
        consumer="aggregator",
        provider="key_holder",
    ),
)


def operation_of(operation: str) -> Operation:
    """The operation of that id."""
    return next(one for one in OPERATIONS if one.id == operation)
