"""Canonical JSON: one sequence of bytes for one document, so that documents can be hashed and signed.

Used by everything that is signed, logged or bound into a transcript. The subset of RFC 8785 (JCS) in which
sorted, compact JSON *is* the canonical form: strings, integers, booleans, null, lists, and objects with
ASCII keys. There are no floats: money, quotas and privacy are integers, or strings of digits where an integer
leaves the range that every JSON reader keeps exactly (RFC 7493 §2.2), see ``integer``.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Final, NoReturn

import orjson

from trustcompute.errors import ParameterError, VerificationError

MAX_INTEGER: Final = 2**53 - 1  # the largest n such that n and n+1 are exact in IEEE 754 double precision
MAX_DEPTH: Final = 32

_OPTIONS: Final = (
    orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
)  # by UTF-8, for ASCII as by UTF-16; ±(2^53 - 1)
_SCALARS: Final = frozenset({str, int, bool, type(None)})
_ALLOWED: Final = "documents have strings, integers, booleans, null, lists and objects (decimals as strings)"
_DIGITS = re.compile(r"-?(0|[1-9][0-9]*)\Z")


class DocumentError(VerificationError):
    """A document is not in the agreed form. ``field`` is the path of what is wrong, "" for the whole."""

    code = "verification.document"
    fields = ("field",)

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def dumps(value: Any) -> bytes:
    """The canonical bytes of a document. Raises ``ParameterError`` for what has no canonical form."""
    written = _written(value)
    if written is None:
        try:
            return orjson.dumps(_exact(value, "", MAX_DEPTH), option=_OPTIONS)
        except DocumentError as error:
            raise ParameterError(str(error)) from error
    return written


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
    return _exact(value, "", MAX_DEPTH) if _written(value) is None else value


def loads_canonical(data: bytes | bytearray | memoryview, *, limit: int) -> Any:
    """As ``loads``, and the bytes must be the canonical ones: no second spelling of a document passes."""
    if len(data) <= limit:  # a document that is in order is read without looking for what is wrong with it
        try:
            value = orjson.loads(data)
            if _written(value) == data:
                return value
        except ValueError:  # what is wrong is found below
            pass
    value = loads(data, limit=limit)
    if orjson.dumps(value, option=_OPTIONS) != data:
        raise DocumentError("the document is not in canonical form (sorted keys, no spaces, RFC 8785)")
    return value


@functools.lru_cache(maxsize=8192)
def string(value: str) -> str:
    """The canonical JSON of one string, for who writes a large document of few strings piece by piece.

    Raises ``ParameterError`` for a surrogate without its other half.
    """
    return dumps([value]).decode()[1:-1]


def integer(value: int) -> int | str:
    """An integer as documents carry it: itself within ±(2^53 - 1), beyond that its digits (RFC 7493 §2.2)."""
    return value if -MAX_INTEGER <= value <= MAX_INTEGER else str(value)


def parse_integer(value: object, field: str = "") -> int:
    """The inverse of ``integer``; each integer has exactly one form. Raises ``DocumentError`` for others."""
    if isinstance(value, str) and len(value) <= 20 and _DIGITS.match(value) and integer(int(value)) == value:
        return int(value)
    if type(value) is int and integer(value) == value:
        return value
    raise DocumentError(
        f"{field or 'a value'} must be an integer, as a string of digits if beyond 2^53 - 1", field
    )


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
    return int(digits) if len(digits) <= 17 else MAX_INTEGER + 1  # which ``_check`` refuses by its path


def _parse_constant(name: str) -> NoReturn:
    raise DocumentError(f"{name} is not a value documents may have")


def _written(value: Any) -> bytes | None:
    """The canonical bytes of a document as most are; ``None`` for one that has none, or is to be looked at."""
    try:
        return orjson.dumps(value, option=_OPTIONS) if _is_plain(value, MAX_DEPTH) else None
    except TypeError:
        return None


def _is_plain(value: Any, depth: int) -> bool:
    """Whether what ``orjson`` writes of this list or object is canonical, or it refuses.

    It is where types are exact, keys in ASCII, and there are no floats. May raise ``TypeError`` for other keys.
    """
    if type(value) is dict:
        if not "".join(value).isascii():
            return False
        value = value.values()
    elif type(value) is not list:
        return False
    others = [item for item in value if type(item) not in _SCALARS]
    return not others or (depth > 1 and all(_is_plain(item, depth - 1) for item in others))


def _exact(value: Any, path: str, depth: int) -> Any:
    """The same document in exact types. Refuses what has no canonical form, naming its path."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            problem = f"{path or 'the string'} has a surrogate without its other half"
            raise DocumentError(problem, path) from error
        return str.__str__(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise DocumentError(
                f"{path or 'an integer'} is beyond ±(2^53 - 1): write a string of digits", path
            )
        return int.__int__(value)
    if depth == 0:
        raise DocumentError(f"the document has more than {MAX_DEPTH} levels", path)
    if isinstance(value, dict):
        return {
            _key(key, path): _exact(item, f"{path}.{key}" if path else key, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_exact(item, path, depth - 1) for item in value]
    raise DocumentError(f"{path or 'the document'} is a {type(value).__name__}: {_ALLOWED}", path)


def _key(key: object, path: str) -> str:
    if not isinstance(key, str) or not key.isascii():
        raise DocumentError(f"the key {_shown(key)} is not an ASCII string", path)
    return str.__str__(key)


def _shown(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 60 else shown[:57] + "..."
