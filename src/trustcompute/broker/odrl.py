"""Grants as policies of a data space: ODRL 2.2, in the form that the Dataspace Protocol 2025-1 asks for, and back.

Called by ``trustcompute odrl`` and by connectors. A policy is what a grant says, not the grant: who reads one back gets
claims, to be signed by their issuer. Nothing is lost and nothing is guessed: every claim has its place, and an operand,
an operator, an action or a member that has none is refused (Dataspace Protocol: unknown constraints fail closed).

    Agreement       assigner (iss), assignee (cnf), target (asset id), timestamp (iat)
    permission      one for each operation: its bounds as constraints
    obligation      ``compensate``: price plan and split, where use is not free
    prohibition     ``distribute``: what is not granted is not passed on; always there, and checked

Right operands are strings, arrays or objects (a bare number is not valid): amounts are decimal text. Sources:
W3C ODRL Information Model 2.2; Dataspace Protocol 2025-1, contract-schema.json.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from trustcompute.broker.grant import Bounds, Grant, stated
from trustcompute.errors import ParameterError

CONTEXT: Final = "https://w3id.org/dspace/2025/1/context.jsonld"
NAMESPACE: Final = "urn:trustcompute:ns:1:"
URN: Final = "urn:tc:grant:"
MAX_POLICY: Final = 256 * 1024

_EQ, _ANY, _FROM, _TO = "eq", "isAnyOf", "gteq", "lteq"
_POLICY: Final = frozenset(
    {"@context", "@id", "@type", "profile", "assigner", "assignee", "target", "timestamp"}
    | {"permission", "obligation", "prohibition"}
)
Convert = Callable[[Any], Any]
_Form = tuple[str, str, str, Convert, Convert]  # claim, left operand, operator, to and from the right operand


def _same(value: Any) -> Any:
    return value


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _loads(value: Any) -> Any:
    try:
        return json.loads(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ParameterError("a right operand is not in the form that its left operand asks for") from error


def _number(value: Any) -> int:
    if not isinstance(value, str) or not value.isascii() or not value.isdigit() or len(value) > 19:
        raise ParameterError("a right operand that is a number is written as decimal text")
    return int(value)


def _time(seconds: int) -> str:
    """XSD dateTime in UTC; years after 9999 have none, and are refused by ``export_policy``."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(value: Any) -> int:
    try:
        found = datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    except (TypeError, ValueError) as error:
        raise ParameterError("a time is written as 2026-01-31T12:00:00Z") from error
    return int(found.timestamp())


def _own(name: str) -> str:
    return NAMESPACE + name


# Of the whole grant, written into every permission, where a policy engine looks for constraints.
_SHARED: Final[tuple[_Form, ...]] = (
    ("purposes", "purpose", _ANY, _same, _same),
    ("scenarios", _own("scenario"), _ANY, _same, _same),
    ("territory", "spatial", _ANY, _same, _same),
    ("outputs", _own("output"), _ANY, _same, _same),
    ("nbf", "dateTime", _FROM, _time, _seconds),
    ("exp", "dateTime", "lt", _time, _seconds),
    ("limits", _own("limits"), _TO, _json, _loads),
    ("asset", _own("asset"), _EQ, _json, _loads),
    ("right", _own("right"), _EQ, _same, _same),
    ("sub", _own("subject"), _EQ, _same, _same),
    ("aud", "systemDevice", _EQ, _same, _same),
    ("contingency", _own("contingency"), _EQ, _same, _same),
    ("review", _own("review"), _EQ, _time, _seconds),
    ("depth", _own("depth"), _TO, str, _number),
    ("parent", _own("parent"), _EQ, _same, _same),
    ("key", _own("key"), _EQ, _same, _same),
    ("payer", _own("payer"), _EQ, _same, _same),
    ("consent", _own("consent"), _EQ, _same, _same),
)
_BOUNDS: Final[tuple[_Form, ...]] = (
    ("columns", _own("column"), _ANY, _same, _same),
    ("predicates", _own("predicate"), _ANY, _same, _same),
    ("max_rows", _own("rows"), _TO, str, _number),
    ("min_rows", _own("rows"), _FROM, str, _number),
    ("min_group", _own("group"), _FROM, str, _number),
    ("counterparties", _own("counterparty"), _ANY, _same, _same),
    ("similar", _own("similar"), _TO, _json, _loads),
)
_DUTY: Final[tuple[_Form, ...]] = (
    ("price", _own("price"), _EQ, _json, _loads),
    ("split", _own("split"), _EQ, _json, _loads),
)
_PLACED: Final = frozenset(
    {"iss", "cnf", "jti", "iat", "operations", *(form[0] for form in (*_SHARED, *_DUTY))}
)


def export_policy(claims: Grant, kind: str = "Agreement") -> dict[str, Any]:
    """The policy that says what a grant says. kind: ``Agreement``, or ``Offer``, which names no target.

    Raises ``ParameterError`` for claims that a policy cannot say: times after the year 9999, claims of a later version.
    """
    if kind not in ("Agreement", "Offer"):
        raise ParameterError("a policy is an Agreement or an Offer")
    document = claims.to_document()
    unplaced = {name for name, value in document.items() if value is not None} - _PLACED
    if unplaced:
        raise ParameterError(f"ODRL export has no place for the claim {min(unplaced)}")
    try:
        shared = _written(document, _SHARED)
        stamp = _time(document["iat"])
    except (ValueError, OverflowError) as error:
        raise ParameterError("a policy has no times after the year 9999") from error
    policy: dict[str, Any] = {
        "@context": [CONTEXT],
        "@id": URN + claims.jti,
        "@type": kind,
        "profile": NAMESPACE + "profile",
        "assigner": claims.iss,
        "assignee": claims.cnf.jkt,
        "timestamp": stamp,
        "permission": [
            {"action": _own(name), "constraint": [*shared, *_written(bounds, _BOUNDS)]}
            for name, bounds in document["operations"].items()
        ],
        "prohibition": [{"action": "distribute"}],
        "obligation": [{"action": "compensate", "constraint": _written(document, _DUTY)}],
    }
    return policy | ({"target": claims.asset.id} if kind == "Agreement" else {})


def import_policy(policy: object) -> Grant:
    """The claims that a policy of this form says, to be signed by their issuer. Raises ``ParameterError``.

    Members, actions, operands and operators that ``export_policy`` does not write are refused, and so are permissions
    that differ in what holds for the whole grant: nothing is read that a grant could not enforce.
    """
    try:
        fits = isinstance(policy, Mapping) and len(_json(policy)) <= MAX_POLICY
    except (TypeError, ValueError, RecursionError):
        fits = False
    if not fits or not isinstance(policy, Mapping):
        raise ParameterError(f"a policy is a JSON object of at most {MAX_POLICY} bytes")
    unknown = set(policy) - _POLICY
    if unknown:
        raise ParameterError(f"the policy has a member {min(unknown)!r} that a grant cannot say")
    if policy.get("prohibition") != [{"action": "distribute"}]:
        raise ParameterError("the policy's prohibition is of distribute, and nothing else")
    if policy.get("@type") not in ("Agreement", "Offer") or policy.get("profile") != NAMESPACE + "profile":
        raise ParameterError(f"the policy is an Agreement or an Offer of the profile {NAMESPACE}profile")
    claims: dict[str, Any] = {
        "iss": policy.get("assigner"),
        "cnf": {"jkt": policy.get("assignee")},
        "jti": _after(policy.get("@id"), URN),
        "iat": _seconds(policy.get("timestamp")),
        "operations": {},
    }
    shared: dict[str, Any] | None = None
    for rule in _rules(policy.get("permission"), "permission"):
        found = _read(rule.get("constraint"), (*_SHARED, *_BOUNDS))
        bounds = {name: found.pop(name) for name in Bounds.model_fields if name in found}
        if shared is not None and found != shared:
            raise ParameterError("the permissions differ in what holds for the whole grant")
        shared = found
        operation = _after(rule["action"], NAMESPACE)
        if operation in claims["operations"]:
            raise ParameterError(f"two permissions are of {operation}")
        claims["operations"][operation] = bounds
    duties = _rules(policy.get("obligation"), "obligation")
    if len(duties) != 1 or duties[0]["action"] != "compensate":
        raise ParameterError("the policy has one obligation, to compensate")
    claims |= (shared or {}) | _read(duties[0].get("constraint"), _DUTY)
    made = _grant(claims)
    if policy.get("@type") == "Agreement" and policy.get("target") != made.asset.id:
        raise ParameterError("the policy's target is not the asset that its permissions name")
    return made


def _written(document: Mapping[str, Any], forms: tuple[_Form, ...]) -> list[dict[str, Any]]:
    return [
        {"leftOperand": left, "operator": operator, "rightOperand": write(document[name])}
        for name, left, operator, write, _ in forms
        if document.get(name) is not None
    ]


def _read(constraints: object, forms: tuple[_Form, ...]) -> dict[str, Any]:
    """Claims by name. Raises ``ParameterError`` for a constraint that none of the forms is, or that comes twice."""
    if not isinstance(constraints, list):
        raise ParameterError("a rule has a list of constraints")
    known = {(left, operator): (name, read) for name, left, operator, _, read in forms}
    found: dict[str, Any] = {}
    for each in constraints:
        if not isinstance(each, dict) or set(each) != {"leftOperand", "operator", "rightOperand"}:
            raise ParameterError(
                "a constraint has a left operand, an operator, a right operand, nothing else"
            )
        key = str(each["leftOperand"]), str(each["operator"])
        if key not in known:
            raise ParameterError(f"a grant cannot say {key[0][:100]} {key[1][:20]}: the policy is refused")
        name, read = known[key]
        if name in found:
            raise ParameterError(f"two constraints say {key[0]} {key[1]}")
        found[name] = read(each["rightOperand"])
    return found


def _rules(rules: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(rules, list) or not rules:
        raise ParameterError(f"the policy has a list of one {name} or more")
    for rule in rules:
        if not isinstance(rule, dict) or not set(rule) <= {"action", "constraint"} or "action" not in rule:
            raise ParameterError(f"a {name} has an action and constraints, nothing else")
    return rules


def _after(text: object, prefix: str) -> str:
    if not isinstance(text, str) or not text.startswith(prefix):
        raise ParameterError(f"an identifier of the policy does not begin with {prefix}")
    return text.removeprefix(prefix)


def _grant(claims: dict[str, Any]) -> Grant:
    with stated("policy"):
        return Grant.model_validate_json(_json(claims), by_alias=True, by_name=False)
