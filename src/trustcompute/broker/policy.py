"""The policy decision: may this request run under this grant on this dataset, and if not, why not.

Pure functions over documents; the writer calls ``decide`` inside the transaction that reserves, ``explain``
calls it without spending anything. Every rule looks at one field of the request and says who can change the
rule and the smallest change that would satisfy it. Reasons never repeat values of the request's parameters.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from trustcompute.broker import rules
from trustcompute.broker.grant import AssetClaim, Bounds, Grade, Grant, Limit, explain_validation
from trustcompute.broker.request import Request
from trustcompute.broker.rules import Facts, RuleBook, Use
from trustcompute.broker.standing import Standing
from trustcompute.errors import ParameterError, Refused
from trustcompute.protocol.operation import UNITS, Operation, OutputForm, Scope, Usage

_EPOCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
POLICY_VERSION: Final = "tc-policy/2"
RULES: Final = {
    "denylist": "no deny-list names anybody or anything of it",
    "revoked": "no link of the grant was revoked",
    "suspended": "no link of the grant is suspended",
    "exited": "no link of the grant was given up",
    "expired": "the grant is in force",
    "review": "the grant's review is not overdue",
    "right": "the right allows computing",
    "operation": "the operation is granted",
    "purpose": "the purpose is granted",
    "scenario": "the scenario is granted",
    "territory": "the territory is granted",
    "output": "the output form is granted",
    "min_group": "groups are as large as the grant asks for",
    "predicates": "the statement is one of those granted",
    "columns": "the columns are granted",
    "max_rows": "not more rows than granted",
    "min_rows": "not fewer rows than granted",
    "counterparties": "who asks, receives and pays may do so",
    "asset": "the dataset is the one that was granted, as it was granted",
    "grade": "the grade allows computing",
    "policy": "the node's policies allow it",
    "credit": "no credit event stands against a party",
    "quota": "quota is left on the grant, on all it was delegated from, and on the dataset",
}
"""Every rule in the order in which they are looked at, and what it says where it is satisfied. The parts of a rule have
its name in front: ``asset.version``, ``policy.output``."""


@dataclass(frozen=True)
class Asset:
    """What the policy knows of a dataset. rows: bound on its distinct keys; limits: across all grantees.

    classification and grade follow the holder's catalogue (classified and graded authorisation); personal:
    whether it holds data of persons. The budget of ``limits`` belongs to the id and outlives versions; with an
    ``epoch`` it belongs to that epoch of the data, and only a new one begins anew. per_recipient: limits of each
    who receives results, by thumbprint, over all its grants. tables: the ids of the verification tables that answer
    about it: hashes of their descriptors, which whoever has a descriptor finds in the log.
    """

    id: str
    version: str
    schema_hash: str
    classification: str
    grade: Grade
    personal: bool
    rows: int
    limits: Mapping[str, Limit] = field(default_factory=dict)
    epoch: str = ""
    per_recipient: Mapping[str, Limit] = field(default_factory=dict)
    tables: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.claim()
        if self.rows < 0:
            raise ParameterError(f"a dataset's bound of rows cannot be {self.rows}")
        if self.epoch and not _EPOCH.match(self.epoch):
            raise ParameterError(
                "a data epoch is named with 1 to 64 letters, digits, dots, dashes and underscores"
            )
        if {*self.limits, *self.per_recipient} - set(UNITS):
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

    @property
    def verdicts(self) -> list[Verdict]:
        """One for each rule, in order: kept, or why not."""
        return [
            Verdict(rule, kept, tuple(reason for reason in self.reasons if _part_of(reason.rule, rule)))
            for rule, kept in RULES.items()
        ]

    def to_document(self) -> dict[str, Any]:
        return {
            "allowed": self.allowed,
            "reasons": [reason.to_document() for reason in self.reasons],
            "versions": dict(self.versions),
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says. kept: in words, what it is about; reasons: why it refuses, none where it does not."""

    rule: str
    kept: str
    reasons: tuple[Reason, ...]

    @property
    def allowed(self) -> bool:
        return not self.reasons


def _part_of(name: str, rule: str) -> bool:
    return name == rule or name.startswith(f"{rule}.")


@dataclass(frozen=True)
class Case:
    """Everything a decision looks at. asset: as registered now, ``None`` if it is not; now: seconds.

    params: as the operation's ``check`` returned them; ``None`` without an asset, whose size the check needs;
    links: the grant, and all it was delegated from, the root last; usage: the most the job may use; rules: in force.
    """

    grant: Grant
    request: Request
    operation: Operation
    params: Mapping[str, Any] | None
    asset: Asset | None
    standing: Standing
    now: int
    links: tuple[Grant, ...]
    usage: Usage
    rules: RuleBook

    @functools.cached_property
    def scope(self) -> Scope | None:
        return None if self.params is None else self.operation.scope(self.params)

    @functools.cached_property
    def form(self) -> OutputForm | None:
        return None if self.params is None else OutputForm(self.operation.output(self.params))


def refusal(reasons: tuple[Reason, ...]) -> Refused:
    """The error that carries the first reason, and names the rules of the others."""
    first = reasons[0]
    message = f"refused by rule {first.rule!r} on {first.field}: {first.fix} (ask {first.owner})"
    others = sorted({reason.rule for reason in reasons} - {first.rule})
    if others:
        message += f"; also refused by: {', '.join(others)}"
    return Refused(message, rule=first.rule, field=first.field, owner=first.owner, fix=first.fix)


def versions(case: Case) -> dict[str, str]:
    """What a decision was made by, for its record."""
    asset = case.asset.version if case.asset else ""
    above = {f"{each.kind}/{each.issuer}": f"{each.version} {each.hash}" for each in case.rules.references}
    return {"policy": POLICY_VERSION, "operation": case.operation.id, "asset": asset} | above


def decide(case: Case) -> list[Reason]:
    """All rules but the quota's, which the meter adds. Empty: allowed."""
    issuer = case.grant.iss
    found = [Reason(*finding) for finding in rules.denials(case.rules, _facts(case))]
    found += [
        Reason(rule, name, issuer, fix)
        for rule_of in (_in_force, _scope, _output, _bounds)
        for rule, name, fix in rule_of(case)
    ]
    found += [Reason(*finding) for finding in (*_asset(case), *_policies(case))]
    return found


def _facts(case: Case) -> Facts:
    request = case.request
    keys, names = rules.facts_of(case.links)
    parties = (("asker", request.asker), ("recipient", request.recipient), ("payer", request.payer))
    return Facts(
        (*keys, *parties), (*names, ("san", request.san)), request.dataset, request.op, request.purpose
    )


def _policies(case: Case) -> Iterator[rules.Finding]:
    asset = case.asset
    if asset is None or case.request.dataset != case.grant.asset.id:
        return
    use = Use(
        dataset=asset.id,
        grade=asset.grade,
        classification=asset.classification,
        personal=asset.personal,
        operation=case.request.op,
        purpose=case.request.purpose,
        rows=case.request.sizes.consumer,
        usage=case.usage,
        scope=case.scope,
        form=case.form,
        links=case.links,
    )
    yield from rules.excesses(case.rules, use, case.grant.aud)


Finding = tuple[str, str, str]  # rule, field, fix


def _in_force(case: Case) -> Iterator[Finding]:
    yield from in_force(case.grant, case.standing, case.now)


def in_force(grant: Grant, standing: Standing, now: int) -> Iterator[Finding]:
    """What stands against a grant whatever is asked under it."""
    if standing.revoked:
        yield "revoked", "grant", "the grant was revoked for good: ask for a new one"
    if standing.suspended:
        yield "suspended", "grant", "the grant is suspended: ask for it to be resumed"
    if standing.exited:
        yield "exited", "grant", "the grant was given up: ask for a new one"
    if now < grant.nbf:
        yield "expired", "grant", f"the grant is not in force before {grant.nbf}: wait until then"
    if now >= grant.exp:
        yield "expired", "grant", f"the grant ended at {grant.exp}: ask for a new one"
    if standing.review is not None and now >= standing.review:
        yield "review", "grant", f"the grant was to be reviewed before {standing.review}: ask for its review"


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
    form = case.form
    if form is not None and form not in case.grant.outputs:
        allowed = _listed([str(output) for output in case.grant.outputs])
        yield (
            "output",
            "params",
            f"the result would be {form}; ask for one of {allowed}, or for this form to be granted",
        )


def _bounds(case: Case) -> Iterator[Finding]:
    bounds, request = case.grant.operations.get(case.request.op, Bounds()), case.request
    if case.scope is not None:
        yield from _reach(bounds, case.scope)
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
    if request.payer not in (case.grant.cnf.jkt, case.grant.payer):
        yield "counterparties", "payer", "the grant's subject pays: nobody else has agreed to"


def _reach(bounds: Bounds, scope: Scope) -> Iterator[Finding]:
    if bounds.min_group is not None and scope.min_group < bounds.min_group:
        yield "min_group", "params.min_group", f"set min_group to {bounds.min_group} at least"
    if bounds.predicates is not None and scope.predicate not in bounds.predicates:
        allowed = _listed(bounds.predicates)
        yield "predicates", "params.predicate", f"ask one of {allowed}, or ask for this one to be granted"
    if bounds.columns is None:
        return
    if scope.columns is None or not set(scope.columns) <= set(bounds.columns):
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
