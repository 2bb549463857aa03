"""The two parties of ``dp.release.v1``: the consumer's turn is empty, since its request says everything; the provider
answers with integers on the plan's lattices, which both sides know how to read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pyarrow as pa

from trustcompute.dp.groups import MAX_GROUPS
from trustcompute.dp.measure import Measured, columns_of
from trustcompute.dp.plan import Plan, is_text
from trustcompute.errors import RemoteProtocolError, VerificationError
from trustcompute.primitives import canonical
from trustcompute.protocol.message import AtMost, Column
from trustcompute.protocol.party import Party, receive, send

MAX_LABELS: Final = (
    2**26
)  # bytes of all labels; the groups that do not fit are left out, the last in their order
MAX_LABEL: Final = 256  # characters shown of a label


def provider(run: Callable[[], Measured]) -> Party[None]:
    """run: reads the data and adds the noise; called once, after the job was armed."""
    measured = run()
    labels, count = _packed(measured)
    yield from send(
        "release", releases=True, labels=labels, bounds=measured.bounds, values=measured.values[:count]
    )


def consumer(plan: Plan) -> Party[Measured]:
    """The asking side: a ``Measured`` that ``Release`` shows."""
    width = max((places.stop for places in columns_of(plan).values()), default=0)
    got = yield from receive(
        "release",
        releases=True,
        labels=Column("u1", (AtMost(MAX_LABELS + 1024),)),
        bounds=Column("i8", (2 * len(plan.searches),)),
        values=Column("i8", (AtMost(MAX_GROUPS), width)),
    )
    values, bounds = (np.asarray(got[name], dtype=np.int64) for name in ("values", "bounds"))
    for at, search in enumerate(plan.searches):
        low, high = bounds[2 * at : 2 * at + 2].tolist()
        if not 0 <= low < high < len(search.ladder):
            raise RemoteProtocolError("the peer's bounds are not steps of the agreed ladder")
    return Measured(_unpacked(plan, got["labels"].tobytes(), len(values)), values, bounds)


def _packed(measured: Measured) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], int]:
    """Labels as canonical JSON: a list of texts for each grouped column; and how many groups fit."""
    groups = len(measured.values)
    shown = [[_text(value) for value in label] for label in measured.labels]
    sizes = np.zeros(groups, dtype=np.int64)
    for label in shown:
        sizes += np.array([len(canonical.dumps(text)) + 1 for text in label], dtype=np.int64)
    count = int(np.searchsorted(np.cumsum(sizes), MAX_LABELS, side="right"))
    document = canonical.dumps([label[:count] for label in shown])
    return np.frombuffer(document, dtype=np.uint8), min(count, groups)


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:MAX_LABEL]


def _unpacked(plan: Plan, document: bytes, groups: int) -> tuple[list[str | int | bool], ...]:
    wrong = RemoteProtocolError("the peer's labels are not in the agreed form")
    try:
        columns = canonical.loads(document, limit=MAX_LABELS + 1024)
        if not isinstance(columns, list) or len(columns) != len(plan.by):
            raise wrong
        if any(not isinstance(column, list) or len(column) != groups for column in columns):
            raise wrong
        if (not plan.by and groups != 1) or not all(
            isinstance(text, str) for column in columns for text in column
        ):
            raise wrong
        return tuple(
            [_value(text, plan.types[group.column]) for text in column]
            for group, column in zip(plan.by, columns, strict=True)
        )
    except (VerificationError, ValueError) as error:
        raise wrong from error


def _value(text: str, kind: pa.DataType) -> str | int | bool:
    if is_text(kind):
        return text
    if pa.types.is_boolean(kind):
        if text not in ("true", "false"):
            raise ValueError("a boolean label")
        return text == "true"
    number = int(text) if len(text) <= 20 else 2**64
    if not -(2**63) <= number < 2**63:
        raise ValueError("an integer label")
    return number
