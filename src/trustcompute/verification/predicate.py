"""Predicates: what may be asked about a record. A small grammar, parsed and never run as code.

Called by ``truth`` (which decides them over a table), by the node and by the asking side. A holder publishes a closed
list of predicates; a predicate's canonical text is its name in grants, requests and descriptors.

    present                                   there is a record with this key
    match(name, phone)                        these elements of the record are the ones I have
    revenue >= 5000000                        >=, >, <=, <, =, != against one value
    year between 1990 and 2000                both ends included
    maker in ('AIRBUS', 'BOEING')             one of a list

Columns are names, in double quotes where they are not plain; values are whole numbers, decimals, true, false, or text
in single quotes (also for dates and times, ISO 8601). Nulls satisfy nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from trustcompute.errors import ParameterError

T = TypeVar("T")

Operator = Literal["present", "match", ">=", ">", "<=", "<", "=", "!=", "between", "in"]

MAX_TEXT: Final = 128
"""Characters of a predicate: a label of a grant."""
MAX_ELEMENTS: Final = 8
COMPARISONS: Final = (">=", "<=", "!=", "==", ">", "<", "=")

_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_]*)|(?P<name>\"[^\"]+\")|(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>[+-]?[0-9]+(?:\.[0-9]+)?)|(?P<sign>>=|<=|!=|==|[><=(),]))"
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RESERVED: Final = ("present", "match", "between", "and", "in", "true", "false")


@dataclass(frozen=True, slots=True)
class Value:
    """A constant. kind: ``number`` (its exact decimal text), ``text`` or ``boolean``."""

    kind: Literal["number", "text", "boolean"]
    text: str

    def __str__(self) -> str:
        return "'" + self.text.replace("'", "''") + "'" if self.kind == "text" else self.text


@dataclass(frozen=True, slots=True)
class Predicate:
    """One thing that may be asked. columns: the elements of ``match``, else the column looked at (none:
    ``present``)."""

    operator: Operator
    columns: tuple[str, ...] = ()
    values: tuple[Value, ...] = ()

    @property
    def matches(self) -> bool:
        """Whether the asker brings elements of its own."""
        return self.operator == "match"

    def __str__(self) -> str:
        names = [_quoted(column) for column in self.columns]
        if self.operator == "present":
            return "present"
        if self.operator == "match":
            return f"match({', '.join(names)})"
        if self.operator == "between":
            return f"{names[0]} between {self.values[0]} and {self.values[1]}"
        if self.operator == "in":
            return f"{names[0]} in ({', '.join(map(str, self.values))})"
        return f"{names[0]} {self.operator} {self.values[0]}"


def parse(text: str) -> Predicate:
    """The predicate that ``text`` says. Raises ``ParameterError`` with the place where it is none."""
    if not isinstance(text, str) or not text.isprintable():
        raise ParameterError("a predicate is a line of printable text")
    if len(text) > MAX_TEXT:
        raise ParameterError(f"a predicate has at most {MAX_TEXT} characters, not {len(text)}")
    found = _Parser(text).predicate()
    if len(str(found)) > MAX_TEXT:
        raise ParameterError(f"written out, the predicate has more than {MAX_TEXT} characters")
    return found


def match_of(columns: list[str] | tuple[str, ...], subject: tuple[str, ...]) -> Predicate:
    """The match of these columns, those of the subject left out: the order in which one names them does not count."""
    elements = [column for column in columns if column not in subject]
    return _match(elements)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at = text, 0

    def predicate(self) -> Predicate:
        kind, token = self._next()
        if (kind, token) == ("word", "present"):
            return self._end(Predicate("present"))
        if (kind, token) == ("word", "match"):
            self._sign("(")
            return self._end(_match(self._listed(self._column)))
        return self._end(self._comparison(self._column_of(kind, token)))

    def _comparison(self, column: str) -> Predicate:
        kind, token = self._next()
        if kind == "sign" and token in COMPARISONS:
            operator: Operator = "=" if token == "==" else token  # type: ignore[assignment] # noqa: S105
            return Predicate(operator, (column,), (self._value(),))
        if (kind, token) == ("word", "between"):
            low = self._value()
            if self._next() != ("word", "and"):
                raise self._wrong("'and'")
            return Predicate("between", (column,), (low, self._value()))
        if (kind, token) == ("word", "in"):
            self._sign("(")
            values = self._listed(self._value)
            return Predicate("in", (column,), tuple(sorted(set(values), key=str)))
        raise self._wrong("one of >=, >, <=, <, =, !=, between, in")

    def _listed(self, one: Callable[[], T]) -> list[T]:
        found = [one()]
        while (token := self._next()) != ("sign", ")"):
            if token != ("sign", ","):
                raise self._wrong("',' or ')'")
            found.append(one())
        return found

    def _column(self) -> str:
        return self._column_of(*self._next())

    def _column_of(self, kind: str, token: str) -> str:
        if kind == "name":
            return token[1:-1]
        if kind != "word" or token in _RESERVED:
            raise self._wrong("present, match(...), or a column (in double quotes if it is no plain name)")
        return token

    def _value(self) -> Value:
        kind, token = self._next()
        if kind == "text":
            return Value("text", token[1:-1].replace("''", "'"))
        if kind == "number":
            return Value("number", _exact(token))
        if kind == "word" and token in ("true", "false"):
            return Value("boolean", token)
        raise self._wrong("a number, true, false, or text in single quotes")

    def _sign(self, sign: str) -> None:
        if self._next() != ("sign", sign):
            raise self._wrong(repr(sign))

    def _end(self, found: Predicate) -> Predicate:
        if self._text[self._at :].strip():
            self._next()
            raise self._wrong("the end")
        return found

    def _next(self) -> tuple[str, str]:
        self._before = self._at
        token = _TOKEN.match(self._text, self._at)
        if token is None:
            return "", ""
        self._at = token.end()
        assert token.lastgroup is not None
        return token.lastgroup, token.group(token.lastgroup)

    def _wrong(self, wanted: str) -> ParameterError:
        return ParameterError(
            f"the predicate {self._text!r} is not one, at character {self._before + 1}: there should be {wanted}"
        )


def _match(elements: list[str]) -> Predicate:
    if not 1 <= len(elements) <= MAX_ELEMENTS or len(set(elements)) < len(elements):
        raise ParameterError(f"match takes 1 to {MAX_ELEMENTS} different columns beside those of the key")
    return Predicate("match", tuple(sorted(elements)))


def _exact(number: str) -> str:
    """A decimal's only form: no plus, no zeros that say nothing."""
    sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number.lstrip("+"))
    whole, _, part = digits.partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    shown = f"{whole}.{part}" if part else whole
    return shown if shown == "0" else sign + shown


def _quoted(column: str) -> str:
    return column if _PLAIN.match(column) and column not in _RESERVED else f'"{column}"'
