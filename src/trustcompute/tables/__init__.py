"""Anything tabular in, distinct canonical key digests out.

Called by the compute layers and the node. ``source`` opens tables, ``keys`` turns key columns into digests,
``spec`` and ``normalisation`` hold the rule ``tc-key/1`` (docs/reference/normalisation.md), ``catalogue``
describes a table to others. No data-frame library is imported: theirs is used if the caller already did.
"""

from __future__ import annotations

from trustcompute.tables.catalogue import ColumnDescription, describe, schema_hash
from trustcompute.tables.keys import Keys, KeySet, PreparedTable, key_spec, keys, prepared
from trustcompute.tables.source import open_table, row_count, take
from trustcompute.tables.spec import KeyColumn, KeySpec, Kind
from trustcompute.tables.table import Table

__all__ = [
    "ColumnDescription",
    "KeyColumn",
    "KeySet",
    "KeySpec",
    "Keys",
    "Kind",
    "PreparedTable",
    "Table",
    "describe",
    "key_spec",
    "keys",
    "open_table",
    "prepared",
    "row_count",
    "schema_hash",
    "take",
]
