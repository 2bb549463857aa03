"""The policy decision: may this request run under this grant on this dataset, and if not, why not.

Pure functions over documents; the writer calls ``decide`` inside the transaction that reserves, ``explain``
calls it without spending anything. Every rule looks at one field of the request and says who can change the
rule and the smallest change that would satisfy it. Reasons never repeat values of the request's parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from trustcompute.broker.grant import AssetClaim, Bounds, Grade, Grant, Limit, explain_validation
from trustcompute.broker.request import Request
from trustcompute.errors import ParameterError, Refused
from trustcompute.protocol.operation import UNITS, Operation, OutputForm

POLICY_VERSION: Final = "tc-policy/1"
COLUMN_PARAMS: Final = ("columns", "on", "by")  # parameters by which operations name the provider's columns


@dataclass(frozen=True)
class Asset:
    """What the policy knows of a dataset. rows: bound on its distinct keys; limits: across all grantees.

    classification and grade follow the holder's catalogue (classified and graded authorisation); personal:
    whether it holds data of persons. The budget of ``limits`` belongs to the id and outlives versions.
    """

    id: str
    version: str
    schema_hash: str
    classification: str
    grade: Grade
    personal: bool
    rows: int
    limits: Mapping[str, Limit] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.claim()
        if self.rows < 0:
            raise ParameterError(f"a dataset's bound of rows cannot be {self.rows}")
        if set(self.limits) - set(UNITS):
            raise ParameterError(f"a dataset's limits are of units {', '.join(UNITS)}")

    def claim(self) -> AssetClaim:
        """What a grant for the asset as it is now says of it. Raises ``ParameterError`` if malformed."""
        try:
            return AssetClaim(
                id=self.id,
                version=self.version,
                schema_hash=self.schema_hash,
                classification=self.classification,
                grade=self.grade,
                personal=self.personal,
            )
        except ValidationError as error:
            raise ParameterError(explain_validation(error, "asset")[0]) from error


@dataclass(frozen=True, slots=True)
class Reason:
    """Why not. field: of the request; owner: who can change the rule; fix: what would satisfy it."""

    rule: str
    field: str
    owner: str
    fix: str

    def to_document(self) -> dict[str, str]:
        return {"rule": self.rule, "field": self.field, "owner": self.owner, "fix": self.fix}


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed, or every reason why not, in the order of the rules; and the versions it was made by."""

    reasons: tuple[Reason, ...]
    versions: Mapping[str, str]

    @property
    def allowed(self) -> bool:
        return not self.reasons

    def to_document(self) -> dict[str, Any]:
        return {
            "allowed": self.allowed,
            "reasons": [reason.to_document() for reason in self.reasons],
            "versions": dict(self.versions),
        }


@dataclass(frozen=True, slots=True)
class Case:
    """Everything a decision looks at. asset: as registered now, ``None`` if it is not; now: seconds.

    params: as the operation's ``check`` returned them; ``None`` without an asset, whose size the check needs.
    """

    grant: Grant
    request: Request
    operation: Operation
    params: Mapping[str, Any] | None
    asset: Asset | None
    revoked: bool
    now: int


def refusal(reasons: tuple[Reason, ...]) -> Refused:
    """The error that carries the first reason, and names the rules of the others."""
    first = reasons[0]
    message = f"refused by rule {first.rule!r} on {first.field}: {first.fix} (ask {first.owner})"
    if len(reasons) > 1:
        message += f"; also refused by: {', '.join(sorted({reason.rule for reason in reasons[1:]}))}"
    return Refused(message, rule=first.rule, field=first.field, owner=first.owner, fix=first.fix)


def versions(case: Case) -> dict[str, str]:
    """What a decision was made by, for its record."""
    asset = case.asset.version if case.asset else ""
    return {"policy": POLICY_VERSION, "operation": case.operation.id, "asset": asset}


def decide(case: Case) -> list[Reason]:
    """All rules but the quota's, which the meter adds. Empty: allowed."""
    issuer = case.grant.iss
    found = [
        Reason(rule, name, issuer, fix)
        for rules in (_in_force, _scope, _output, _bounds)
        for rule, name, fix in rules(case)
    ]
    found += [Reason(rule, name, owner, fix) for rule, name, owner, fix in _asset(case)]
    return found


Finding = tuple[str, str, str]  # rule, field, fix


def _in_force(case: Case) -> Iterator[Finding]:
    yield from in_force(case.grant, case.revoked, case.now)


def in_force(grant: Grant, revoked: bool, now: int) -> Iterator[Finding]:
    """What stands against a grant whatever is asked under it."""
    if revoked:
        yield "revoked", "grant", "the grant was revoked for good: ask for a new one"
    if now < grant.nbf:
        yield "expired", "grant", f"the grant is not in force before {grant.nbf}: wait until then"
    if now >= grant.exp:
        yield "expired", "grant", f"the grant ended at {grant.exp}: ask for a new one"


def _scope(case: Case) -> Iterator[Finding]:
    grant, request = case.grant, case.request
    if grant.right == "hold":
        yield (
            "right",
            "grant",
            f"the right to {grant.right} does not allow computing: ask for the right to process",
        )
    if request.op != case.operation.id or request.op not in grant.operations:
        yield "operation", "op", f"use one of {_listed(grant.operations)}, or ask for this one to be granted"
    if request.purpose not in grant.purposes:
        yield "purpose", "purpose", f"use one of {_listed(grant.purposes)}, or ask for this one to be granted"
    if grant.scenarios is not None and request.scenario not in grant.scenarios:
        yield (
            "scenario",
            "scenario",
            f"use one of {_listed(grant.scenarios)}, or ask for this one to be granted",
        )
    if grant.territory is not None and request.territory not in grant.territory:
        yield (
            "territory",
            "territory",
            f"use one of {_listed(grant.territory)}, or ask for this one to be granted",
        )


def _output(case: Case) -> Iterator[Finding]:
    if case.params is None:
        return
    form = OutputForm(case.operation.output(case.params))
    if form not in case.grant.outputs:
        allowed = _listed([str(output) for output in case.grant.outputs])
        yield (
            "output",
            "params",
            f"the result would be {form}; ask for one of {allowed}, or for this form to be granted",
        )


def _bounds(case: Case) -> Iterator[Finding]:
    bounds, request = case.grant.operations.get(case.request.op, Bounds()), case.request
    if case.params is not None:
        yield from _params(bounds, case.params)
    rows = request.sizes.consumer
    if bounds.max_rows is not None and rows > bounds.max_rows:
        yield (
            "max_rows",
            "sizes.consumer",
            f"bring at most {bounds.max_rows} rows, or ask for more to be granted",
        )
    if bounds.min_rows is not None and rows < bounds.min_rows:
        yield "min_rows", "sizes.consumer", f"bring at least {bounds.min_rows} rows"
    known = {case.grant.cnf.jkt, *(bounds.counterparties or ())}
    for name in ("asker", "recipient"):
        if getattr(request, name) not in known:
            yield "counterparties", name, f"ask for this {name} to be added to the operation's counterparties"
    if request.payer != case.grant.cnf.jkt:
        yield "counterparties", "payer", "the grant's subject pays: nobody else has agreed to"


def _params(bounds: Bounds, params: Mapping[str, Any]) -> Iterator[Finding]:
    group = params.get("min_group", 0)
    if bounds.min_group is not None and (type(group) is not int or group < bounds.min_group):
        yield "min_group", "params.min_group", f"set min_group to {bounds.min_group} at least"
    if bounds.predicates is not None and params.get("predicate") not in bounds.predicates:
        allowed = _listed(bounds.predicates)
        yield "predicates", "params.predicate", f"ask one of {allowed}, or ask for this one to be granted"
    if bounds.columns is None:
        return
    named: list[object] = []
    if params.get("columns") == [] and not any(params.get(param) for param in COLUMN_PARAMS):
        return  # says itself that it reads none: a count of all rows
    for param in COLUMN_PARAMS:
        value = params.get(param, [])
        named += value if isinstance(value, list | tuple) else [value]
    if not named or any(column not in bounds.columns for column in named):
        allowed = _listed(bounds.columns)
        yield "columns", "params", f"name columns among {allowed} only, or ask for more to be granted"


def _asset(case: Case) -> Iterator[tuple[str, str, str, str]]:
    claim, asset, issuer, holder = case.grant.asset, case.asset, case.grant.iss, case.grant.aud
    if case.request.dataset != claim.id:
        yield "asset", "dataset", issuer, f"ask for dataset {claim.id}, which the grant is for"
    elif asset is None:
        yield (
            "asset",
            "dataset",
            holder,
            "the node does not offer this dataset: ask its operator to register it",
        )
    else:
        yield from ((rule, "dataset", issuer, fix) for rule, fix in _described(case.grant, asset))
        if asset.grade == "core":
            yield "grade", "dataset", holder, "core data are not computed on: use data of a lower grade"


def _described(grant: Grant, asset: Asset) -> Iterator[tuple[str, str]]:
    """Where the registered asset is no longer the one the grant was made out for."""
    claim = grant.asset
    new = "ask for a grant for the asset as it is now"
    if claim.version is not None and claim.version != asset.version:
        yield "asset.version", f"the grant is for version {claim.version}: {new}"
    if claim.schema_hash is not None and claim.schema_hash != asset.schema_hash:
        yield "asset.schema", f"the asset's schema has changed: {new}"
    if claim.classification != asset.classification:
        yield "asset.class", f"the asset's class has changed: {new}"
    if claim.grade != asset.grade:
        yield "asset.grade", f"the asset's grade has changed: {new}"
    if claim.personal != asset.personal:
        yield "asset.personal", f"whether the asset holds personal data has changed: {new}"


def _listed(values: Any) -> str:
    names = list(values)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
