"""Text as values of a declared type, where what is no such value is missing: never an error that depends on a row.

Called by ``files`` for ``Table.scan_forgiving``, which differentially private release reads through: there an error
would be an answer.
"""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

NUMBER: Final = r"(?i)\A[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,4})?|inf|nan)\z"
WHOLE: Final = r"\A-?[0-9]{1,18}\z"


def forgiving_type(kind: pa.DataType) -> pa.DataType:
    """What a column of this type is read as: itself for whole numbers and booleans, float64, or text."""
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return kind
    return pa.float64() if pa.types.is_floating(kind) or pa.types.is_decimal(kind) else pa.string()


def forgiven(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """Bytes to values of ``forgiving_type(kind)``; null where they are none: other text, or a number out of range."""
    if pa.types.is_boolean(kind):
        low = pc.ascii_lower(_text(column, pc.match_substring_regex(column, r"(?i)\A(true|false|0|1)\z")))
        return pc.if_else(pc.is_null(low), None, pc.is_in(low, pa.array(["true", "1"])))
    if pa.types.is_integer(kind):
        values = pc.cast(_text(column, pc.match_substring_regex(column, WHOLE)), pa.int64())
        bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2 ** min(bits, 63) - 1)
        fits = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
        return pc.cast(pc.if_else(fits, values, None), kind)
    if forgiving_type(kind) == pa.float64():
        return pc.cast(_text(column, pc.match_substring_regex(column, NUMBER)), pa.float64())
    return pc.cast(column, pa.string(), safe=False)  # bytes that are no text stay what they are


def _text(column: pa.Array, wanted: Any) -> pa.Array:
    return pc.cast(pc.if_else(wanted, column, None), pa.string())
