"""Digital contracts: what, who, how, how often, how far and where, as fields that people sign; and grants from them.

The six fields of digital contracts for trusted data spaces (内容、主体、方式、次数、范围、环境), each a JSON value:

    content       the asset, and which columns and predicates of it
    user          provider (node and issuer) and consumer (name and key)
    method        operations, forms of output, purposes, scenarios, the right
    count         limits by unit and span, bounds on rows, from when to when
    scope         territory, who else may take part, how often it may be delegated
    environment   contingency plan, review, consent, the price and its split

``fields`` and ``claims`` are inverses: nothing of a grant is left out, and a field that is not known is refused.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from trustcompute.broker.grant import Grant, explain_validation
from trustcompute.errors import ParameterError
from trustcompute.primitives import canonical

_CLAIMS: Final = {
    "content": ("asset",),
    "user": ("iss", "aud", "sub", "cnf", "key", "payer", "parent", "jti"),
    "method": ("right", "outputs", "purposes", "scenarios"),
    "count": ("limits", "iat", "nbf", "exp"),
    "scope": ("territory", "depth"),
    "environment": ("contingency", "review", "consent", "price", "split"),
}
_BOUNDS: Final = {
    "content": ("columns", "predicates"),
    "count": ("max_rows", "min_rows", "min_group", "similar"),
    "scope": ("counterparties",),
}
_PLACED: Final = {name for names in _CLAIMS.values() for name in names} | {"operations"}


def fields(claims: Grant) -> dict[str, dict[str, Any]]:
    """The contract that says what a grant says. Raises ``ParameterError`` for a claim that no field has a place for."""
    document = claims.to_document()
    unplaced = {name for name, value in document.items() if value is not None} - _PLACED
    if unplaced:
        raise ParameterError(f"a digital contract has no place for the claim {min(unplaced)}")
    made: dict[str, dict[str, Any]] = {
        field: {name: document[name] for name in names if document.get(name) is not None}
        for field, names in _CLAIMS.items()
    }
    made["method"]["operations"] = list(document["operations"])
    for field, names in _BOUNDS.items():
        made[field]["bounds"] = {
            operation: {name: bounds[name] for name in names if bounds.get(name) is not None}
            for operation, bounds in document["operations"].items()
        }
    return made


def claims(contract: object) -> Grant:
    """The grant that a contract asks for, to be signed by its issuer. Raises ``ParameterError`` naming the field."""
    if not isinstance(contract, dict) or set(contract) != set(_CLAIMS):
        raise ParameterError(f"a digital contract has the fields {', '.join(_CLAIMS)}")
    document: dict[str, Any] = {}
    bounds: dict[str, dict[str, Any]] = {}
    for field, names in _CLAIMS.items():
        part = contract[field]
        allowed = {
            *names,
            *(["operations"] if field == "method" else []),
            *(["bounds"] if field in _BOUNDS else []),
        }
        if not isinstance(part, dict) or not set(part) <= allowed:
            raise ParameterError(f"the field {field} has {', '.join(sorted(allowed))}, nothing else")
        document |= {name: part[name] for name in names if name in part}
    operations = contract["method"].get("operations")
    if not isinstance(operations, list) or not all(isinstance(name, str) for name in operations):
        raise ParameterError("the field method lists operations")
    bounds = {name: {} for name in operations}
    for field, names in _BOUNDS.items():
        for operation, found in _bounds(contract[field].get("bounds", {}), field):
            if operation not in bounds or not set(found) <= set(names):
                raise ParameterError(f"the bounds of {field} are of granted operations: {', '.join(names)}")
            bounds[operation] |= found
    try:
        text = canonical.dumps(document | {"operations": bounds})
        return Grant.model_validate_json(text, by_alias=True, by_name=False)
    except ValidationError as error:
        message, name = explain_validation(error, "contract")
        raise ParameterError(f"{message} ({name})") from error


def _bounds(document: object, field: str) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(document, dict) or not all(isinstance(each, dict) for each in document.values()):
        raise ParameterError(f"the bounds of {field} are objects by operation")
    return list(document.items())
