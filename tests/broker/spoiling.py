"""Ways to spoil a document: each member, at any depth, of another type, huge, written twice, or joined by one that
nobody knows. For tests of whoever reads documents of others.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]
HUGE: dict[type, Any] = {
    str: "x" * 4000,
    int: 2**200,
    list: ["x"] * 20_000,
    dict: {str(n): n for n in range(5000)},
}
OTHER: tuple[Any, ...] = (True, -1, "\u0000", [], {"x": {}})


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every member of every object and every entry of every list."""
    if path:
        yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, inner in members:
        if path != ("params",):  # what is in there is the operation's to judge
            yield from places(inner, (*path, name))


def at(document: Any, path: Path) -> Any:
    for name in path:
        document = document[name]
    return document


def with_value(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(document)
    at(made, path[:-1])[path[-1]] = value
    return made


def without(document: dict[str, Any], path: Path) -> dict[str, Any]:
    made = copy.deepcopy(document)
    del at(made, path[:-1])[path[-1]]
    return made


def encode(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def doubled(document: dict[str, Any], path: Path) -> bytes:
    """The member written twice."""
    marker = "zzzzdoubled"
    made = copy.deepcopy(document)
    holder = at(made, path[:-1])
    holder[marker] = holder[path[-1]]
    return encode(made).replace(f'"{marker}":'.encode(), json.dumps(path[-1]).encode() + b":")


def spoilt(document: dict[str, Any]) -> Iterator[tuple[str, Path, bytes]]:
    """(what was done, where, payload)."""
    for path in places(document):
        value = at(document, path)
        for other in OTHER:
            if type(other) is not type(value) and value is not None:
                yield f"another type {other!r}", path, encode(with_value(document, path, other))
        if type(value) in HUGE:
            yield "huge", path, encode(with_value(document, path, HUGE[type(value)]))
        if isinstance(path[-1], str):
            yield "doubled", path, doubled(document, path)
        if isinstance(value, dict) and path != ("params",):
            yield "unknown", (*path, "surprise"), encode(with_value(document, (*path, "surprise"), 1))
    yield "unknown", ("surprise",), encode(document | {"surprise": 1})
