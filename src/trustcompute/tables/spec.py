"""What two sides must agree on before they match keys: the kind of every key column, and whether case counts.

Called by ``tables.keys``, and by every protocol that matches rows: it compares ``KeySpec.digest`` first.
Source: docs/reference/normalisation.md, "Spec". The canonical JSON is RFC 8785, which for these members is
Python's own compact, sorted output.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from trustcompute.errors import TableError

VERSION = "tc-key/1"
MAX_COLUMNS = 16
MAX_JSON_BYTES = 2048
"""Sixteen columns of the longest kind take 16 · 42 + 35 bytes; from a peer nothing longer is parsed."""


class Kind(StrEnum):
    """What a key value is. Values of different kinds never match. ``NULL``: a column without a type."""

    TEXT = "text"
    INTEGER = "integer"
    BINARY = "binary"
    DATE = "date"
    TIMESTAMP = "timestamp"
    TIMESTAMP_UTC = "timestamp_utc"
    BOOLEAN = "boolean"
    DECIMAL = "decimal"
    NULL = "null"


TAGS: dict[Kind, int] = {
    Kind.TEXT: 1,
    Kind.INTEGER: 2,
    Kind.BINARY: 3,
    Kind.DATE: 4,
    Kind.TIMESTAMP: 5,
    Kind.TIMESTAMP_UTC: 6,
    Kind.BOOLEAN: 7,
    Kind.DECIMAL: 8,
}

CASTS: dict[Kind, str] = {
    Kind.TEXT: '.astype("str") in pandas, .cast(pl.String) in polars, CAST(... AS VARCHAR) in SQL',
    Kind.INTEGER: '.astype("Int64") in pandas, .cast(pl.Int64) in polars, CAST(... AS BIGINT) in SQL',
    Kind.BINARY: ".cast(pa.binary()) in pyarrow, .cast(pl.Binary) in polars, CAST(... AS BLOB) in SQL",
    Kind.DATE: ".dt.date in pandas, .cast(pl.Date) in polars, CAST(... AS DATE) in SQL",
    Kind.TIMESTAMP: '.astype("datetime64[us]") in pandas, .cast(pl.Datetime) in polars, CAST(... AS'
    " TIMESTAMP) in SQL",
    Kind.TIMESTAMP_UTC: ".dt.tz_localize(zone) in pandas, .dt.replace_time_zone(zone) in polars,"
    " ... AT TIME ZONE zone in SQL",
    Kind.BOOLEAN: '.astype("boolean") in pandas, .cast(pl.Boolean) in polars, CAST(... AS BOOLEAN) in SQL',
    Kind.DECIMAL: ".cast(pa.decimal128(38, scale)) in pyarrow, .cast(pl.Decimal) in polars,"
    " CAST(... AS DECIMAL(38, scale)) in SQL",
}

DECODE = '.str.decode("utf-8") in pandas, .cast(pl.String) in polars, decode(...) in SQL'
"""From binary to text; pandas' ``astype`` would write out the Python literal."""

TARGETS = (
    Kind.TEXT,
    Kind.DATE,
    Kind.TIMESTAMP_UTC,
    Kind.TIMESTAMP,
    Kind.INTEGER,
    Kind.DECIMAL,
    Kind.BINARY,
    Kind.BOOLEAN,
)
"""Which of two kinds to cast to: the earlier one. Text loses nothing, a date is what a timestamp shares."""


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of a key. casefold: upper and lower case are the same; only where ``kind`` is text."""

    kind: Kind
    casefold: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Kind) or not isinstance(self.casefold, bool):
            raise TableError("a key column has a kind and a casefold flag")
        if self.casefold and self.kind is not Kind.TEXT:
            raise TableError(f"only text has a case to fold, not a column of kind {self.kind}")


@dataclass(frozen=True, slots=True)
class KeySpec:
    """The form of a key, without column names: the two sides may name their columns differently.

    Raises ``TableError`` unless version is ``tc-key/1`` and there are 1 to 16 columns.
    """

    version: str
    columns: tuple[KeyColumn, ...]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise TableError(
                f"only the key normalisation {VERSION} is known here: both sides must use the same release"
            )
        if not 1 <= len(self.columns) <= MAX_COLUMNS:
            raise TableError(f"a key has 1 to {MAX_COLUMNS} columns, not {len(self.columns)}")

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 lower-case hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON: one spec has one text."""
        columns = [{"casefold": column.casefold, "kind": column.kind.value} for column in self.columns]
        return json.dumps(
            {"columns": columns, "version": self.version}, sort_keys=True, separators=(",", ":")
        )

    @staticmethod
    def from_json(document: str | bytes) -> KeySpec:
        """The spec of a canonical document, from anybody. Raises ``TableError`` for every other text."""
        fault = "a key spec is canonical JSON: 1 to 16 columns, each with casefold and kind, and version"
        if len(document) > MAX_JSON_BYTES:
            raise TableError(f"a key spec has at most {MAX_JSON_BYTES} bytes, not {len(document)}")
        try:
            text = document.decode() if isinstance(document, bytes) else document
            found = json.loads(text)
            columns = tuple(KeyColumn(Kind(c["kind"]), c["casefold"]) for c in found["columns"])
            spec = KeySpec(found["version"], columns)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TableError(fault) from error
        if spec.to_json() != text:
            raise TableError(fault)
        return spec

    def check_matches(self, other: KeySpec, left_names: Sequence[str], right_names: Sequence[str]) -> None:
        """Raise ``TableError`` unless keys of this spec (left) and of ``other`` (right) can match.

        The error names the two columns, their kinds, and the cast to make.
        """
        for names, spec in ((left_names, self), (right_names, other)):
            if len(names) != len(spec.columns):
                raise TableError(
                    f"{len(names)} column names were given for a key of {len(spec.columns)} columns"
                )
        if len(self.columns) != len(other.columns):
            raise TableError(
                f"the left key has {len(self.columns)} columns ({_listed(left_names)}), the right one"
                f" {len(other.columns)} ({_listed(right_names)}): name as many on both sides, in the same"
                " order"
            )
        for left, right, mine, theirs in zip(
            left_names, right_names, self.columns, other.columns, strict=True
        ):
            _check_column(left, right, mine, theirs)


def _check_column(left: str, right: str, mine: KeyColumn, theirs: KeyColumn) -> None:
    pair = f"left column {left!r} ({mine.kind}) and right column {right!r} ({theirs.kind})"
    if Kind.NULL in (mine.kind, theirs.kind):
        empty = " and ".join(
            f"{side} column {name!r}"
            for side, name, column in (("left", left, mine), ("right", right, theirs))
            if column.kind is Kind.NULL
        )
        raise TableError(
            f"{pair} cannot match: {empty} holds no value and has no type; cast it to the kind it should be"
        )
    if mine.kind is not theirs.kind:
        target = min(mine.kind, theirs.kind, key=TARGETS.index)
        side, name = ("right", right) if mine.kind is target else ("left", left)
        how = DECODE if {mine.kind, theirs.kind} == {Kind.TEXT, Kind.BINARY} else CASTS[target]
        raise TableError(f"{pair} would never match: cast {side} column {name!r} to {target}: {how}")
    if mine.casefold != theirs.casefold:
        side, name = ("right", right) if mine.casefold else ("left", left)
        raise TableError(
            f"{pair} would match only by chance: one folds case, the other keeps it; declare casefold for"
            f" {side} column {name!r} too, or for neither"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
