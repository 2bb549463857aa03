"""Canonical JSON by the standard library alone: what ``primitives.canonical`` was before, and is held against.

Kept as it was, its quick paths included: documents, errors and the fields that they name must be the same.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from trustcompute.errors import ParameterError
from trustcompute.primitives.canonical import DocumentError

MAX_INTEGER: Final = 2**53 - 1  # the largest n such that n and n+1 are exact in IEEE 754 double precision
MAX_DEPTH: Final = 32

_ENCODER: Final = json.JSONEncoder(
    sort_keys=True,
    separators=(",", ":"),
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,  # the depth is bounded by what is checked before
)
_ALLOWED: Final = "documents have strings, integers, booleans, null, lists and objects (decimals as strings)"


def _no_float(_: str) -> NoReturn:
    raise ValueError("documents have no floats")


def _short(digits: str) -> int:
    if len(digits) > 15:
        raise ValueError("may be beyond ±(2^53 - 1)")
    return int(digits)


# Takes no document that is not in order; of those that are in order it leaves some to ``loads``.
_DECODER: Final = json.JSONDecoder(parse_float=_no_float, parse_int=_short, parse_constant=_no_float)


def dumps(value: Any) -> bytes:
    """The canonical bytes of a document. Raises ``ParameterError`` for what has no canonical form."""
    if not _is_plain(value, MAX_DEPTH):
        try:
            _check(value, "", MAX_DEPTH)
        except DocumentError as error:
            raise ParameterError(str(error)) from error
    return _ENCODER.encode(value).encode()


def loads(data: bytes | bytearray | memoryview, *, limit: int) -> Any:
    """Parse a document of at most ``limit`` bytes, which need not be in canonical form.

    Raises ``DocumentError`` for more bytes, text that is not JSON in UTF-8, a key that occurs twice or is not
    ASCII, a float, an integer beyond ±(2^53 - 1), or more than ``MAX_DEPTH`` levels.
    """
    if len(data) > limit:
        raise DocumentError(f"a document may have {limit} bytes, not {len(data)}")
    try:
        value = json.loads(
            str(data, "utf-8"),
            object_pairs_hook=_object,
            parse_int=_parse_integer,
            parse_constant=_parse_constant,
        )
    except DocumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise DocumentError("the document is not JSON in UTF-8") from error
    _check(value, "", MAX_DEPTH)
    return value


def loads_canonical(data: bytes | bytearray | memoryview, *, limit: int) -> Any:
    """As ``loads``, and the bytes must be the canonical ones: no second spelling of a document passes."""
    if len(data) <= limit:  # a document that is in order is read without looking for what is wrong with it
        try:
            text = str(data, "utf-8")
            value, _ = _DECODER.raw_decode(text)  # what is left over does not come back below
            if (_is_simple(text) or _is_plain(value, MAX_DEPTH)) and _ENCODER.encode(value) == text:
                return value
        except (ValueError, RecursionError):
            pass
    value = loads(data, limit=limit)
    if _ENCODER.encode(value).encode() != data:
        raise DocumentError("the document is not in canonical form (sorted keys, no spaces, RFC 8785)")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DocumentError(f"the key {_shown(key)} occurs twice", key)
        found[key] = value
    return found


def _parse_integer(digits: str) -> int:
    if digits == "-0":
        raise DocumentError("the integer -0 has no canonical form")
    return int(digits) if len(digits) <= 17 else MAX_INTEGER + 1


def _parse_constant(name: str) -> NoReturn:
    raise DocumentError(f"{name} is not a value documents may have")


def _is_simple(text: str) -> bool:
    """Whether ``_check`` surely has nothing to say of what ``_DECODER`` made of canonical text: in ASCII all keys are,
    and there are no more levels than brackets."""
    return text.isascii() and text.startswith("{") and text.count("{") + text.count("[") <= MAX_DEPTH


def _is_plain(value: Any, depth: int) -> bool:
    """Whether ``_check`` surely has nothing to say. Most documents are; it is quicker by half."""
    if type(value) is dict:
        for key in value:
            if type(key) is not str or not key.isascii():
                return False
        value = value.values()
    elif type(value) is not list:
        return False
    for item in value:
        kind = type(item)
        if kind is str:
            if not item.isascii():
                return False
        elif kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                return False
        elif item is not None and kind is not bool and not (depth > 1 and _is_plain(item, depth - 1)):
            return False
    return True


def _check(value: Any, path: str, depth: int) -> None:
    """Refuse what has no canonical form, naming its path."""
    if isinstance(value, str):
        if not value.isascii():
            _check_text(value, path)
    elif value is None or isinstance(value, bool):
        pass
    elif isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise DocumentError(
                f"{path or 'an integer'} is beyond ±(2^53 - 1): write a string of digits", path
            )
    elif depth == 0:
        raise DocumentError(f"the document has more than {MAX_DEPTH} levels", path)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise DocumentError(f"the key {_shown(key)} is not an ASCII string", path)
            plain = (
                item.isascii()
                if type(item) is str
                else type(item) is int and -MAX_INTEGER <= item <= MAX_INTEGER
            )
            if not plain:  # most values are, and need no path
                _check(item, f"{path}.{key}" if path else key, depth - 1)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, path, depth - 1)
    else:
        raise DocumentError(f"{path or 'the document'} is a {type(value).__name__}: {_ALLOWED}", path)


def _check_text(value: str, path: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DocumentError(f"{path or 'the string'} has a surrogate without its other half", path) from error


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
