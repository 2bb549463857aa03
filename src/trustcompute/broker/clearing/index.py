"""Price indices: what a unit of use came to, by operation and currency, period after period.

Called by ``trustcompute agreement index``. From the log alone, exact: the unit value of a period is what was rated over
the rows that were used (calls where an operation uses none), its index that over the first period's, times 100
(a unit value index, ILO/IMF *Producer Price Index Manual* ch. 2). It mixes grants of unequal terms, which an index of
fixed weights would not; a log of a few grantees has too few of them for weights to mean much.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from typing import Final, NamedTuple

import pyarrow as pa

from trustcompute.broker.clearing.record import Clearing
from trustcompute.broker.clearing.statement import Period

MIN_PAYERS: Final = 1
_COLUMNS: Final = (
    *("start", "end", "operation", "currency", "jobs", "payers", "units"),
    *("rated", "unit_value", "index", "index_decimal"),
)


class Point(NamedTuple):
    """One period of one series. unit_value, level: exact; level 100 in the first period with use."""

    period: Period
    operation: str
    currency: str
    jobs: int
    payers: int
    units: int
    rated: Fraction
    unit_value: Fraction
    level: Fraction


def price_index(record: Clearing, periods: Iterable[Period], *, min_payers: int = MIN_PAYERS) -> list[Point]:
    """Points by operation and currency, in order of time.

    min_payers: points of fewer payers are left out, for they would show what one of them pays.
    """
    base: dict[tuple[str, str], Fraction] = {}
    points = []
    for period in sorted(periods):
        sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        rated: dict[tuple[str, str], Fraction] = defaultdict(Fraction)
        payers: dict[tuple[str, str], set[str]] = defaultdict(set)
        for use in record.within(period):
            currency = record.terms[use.grant].price.currency
            if currency is None or use.index < 0 or not use.usage.calls + use.usage.rows:
                continue
            key = use.operation, currency
            sums[key][0] += 1
            sums[key][1] += use.usage.calls
            sums[key][2] += use.usage.rows
            rated[key] += use.amount
            payers[key].add(use.payer)
        for key, (jobs, calls, rows) in sorted(sums.items()):
            if len(payers[key]) < min_payers:
                continue
            units = rows or calls
            value = rated[key] / units
            first = base.setdefault(key, value)
            index = 100 * value / first if first else Fraction(100)
            points.append(Point(period, *key, jobs, len(payers[key]), units, rated[key], value, index))
    return points


def table(points: Iterable[Point]) -> pa.Table:
    """The points as a table; exact columns are written as fractions, ``index`` also with four decimals."""
    columns = [
        {
            "start": point.period.start,
            "end": point.period.end,
            "operation": point.operation,
            "currency": point.currency,
            "jobs": point.jobs,
            "payers": point.payers,
            "units": point.units,
            "rated": str(point.rated),
            "unit_value": str(point.unit_value),
            "index": str(point.level),
            "index_decimal": decimal(point.level),
        }
        for point in points
    ]
    whole, text = pa.int64(), pa.string()
    kinds = [whole, whole, text, text, whole, whole, whole, text, text, text, text]
    return pa.Table.from_pylist(columns, pa.schema(list(zip(_COLUMNS, kinds, strict=True))))


def decimal(amount: Fraction, digits: int = 4) -> str:
    """Rounded half up to so many decimals."""
    scaled = (2 * amount.numerator * 10**digits + amount.denominator) // (2 * amount.denominator)
    return f"{scaled // 10**digits}.{scaled % 10**digits:0{digits}}"
