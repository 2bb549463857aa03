"""What a table tells about itself: which columns it has, which can be keys, and a hash of both.

Called by the node for its catalogue and by grants, which name a dataset's schema hash. Source:
docs/reference/normalisation.md, "Schema hash".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from trustcompute.tables.normalisation import kind_of
from trustcompute.tables.source import opened
from trustcompute.tables.spec import Kind

VERSION = "tc-schema/1"


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """A column for a catalogue. type: its logical type; kind: as a key, None if it cannot be one.

    A float column has the kind integer: it can be a key if it holds whole numbers only.
    """

    name: str
    type: str
    kind: Kind | None


def describe(source: object) -> tuple[ColumnDescription, ...]:
    """The columns in order. No row of a file is read, but a stream is opened. Raises ``TableError``."""
    return tuple(
        ColumnDescription(field.name, _as_text(logical_type(field.type)), kind_of(field.type))
        for field in opened(source).scan().schema
    )


def schema_hash(source: object) -> str:
    """SHA-256 of names, logical types and order of the columns, 64 lower-case hexadecimal digits.

    The same table hashes alike from pandas, polars, DuckDB or a file. source: what ``open_table`` takes, or a
    ``pyarrow.Schema``.
    """
    schema = source if isinstance(source, pa.Schema) else opened(source).scan().schema
    columns = [[field.name, logical_type(field.type)] for field in schema]
    # RFC 8785 for what occurs here: ASCII member names, strings and lists.
    document = json.dumps(
        {"columns": columns, "version": VERSION}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(document.encode()).hexdigest()


def logical_type(type_: pa.DataType) -> Any:  # noqa: PLR0911 - one line a type
    """What a column means, whatever its width and storage: a string, or an object for a nested type."""
    types = pa.types
    if types.is_dictionary(type_) or types.is_run_end_encoded(type_):
        return logical_type(type_.value_type)
    if types.is_floating(type_):
        return "float"
    kind = kind_of(type_)
    if kind is not None:
        return kind.value
    if isinstance(type_, pa.BaseExtensionType):
        return {"extension": type_.extension_name}
    for belongs, name in SIMPLE:
        if belongs(type_):
            return name
    if types.is_map(type_):
        return {"map": [logical_type(type_.key_type), logical_type(type_.item_type)]}
    if types.is_struct(type_):
        return {"struct": [[field.name, logical_type(field.type)] for field in type_.fields]}
    if any(belongs(type_) for belongs in LISTS):
        return {"list": logical_type(type_.value_type)}
    return {"arrow": str(type_)}


SIMPLE: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_time, "time"),
    (pa.types.is_duration, "duration"),
)
LISTS: tuple[Callable[[pa.DataType], bool], ...] = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def _as_text(logical: Any) -> str:
    return (
        logical
        if isinstance(logical, str)
        else json.dumps(logical, separators=(",", ":"), ensure_ascii=False)
    )
