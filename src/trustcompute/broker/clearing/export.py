"""Statements as tables: CSV for people and banks, Parquet for whoever recomputes them with tools of their own.

The facts (``uses``, ``grants``, ``tiers``, ``splits``) are enough to rebuild the lines without this library; the
tests do, in SQL. Exact amounts are two whole columns, ``…_num`` over ``…_den``; money that was rounded is an integer of
minor units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from trustcompute.broker import currency as currencies
from trustcompute.broker.clearing.netting import Netting
from trustcompute.broker.clearing.record import Clearing
from trustcompute.broker.clearing.statement import Period, Statement
from trustcompute.errors import InputError, ParameterError

WHOLE: Final = pa.decimal128(38, 0)
TIME: Final = pa.timestamp("s", tz="UTC")
_LINES: Final = ("payer", "payee", "currency")


def tables(record: Clearing, statement: Statement) -> dict[str, pa.Table]:
    """Every table of a period by name. Raises ``ParameterError`` for an exact amount of more than 38 digits."""
    period = statement.period
    grants = sorted({row.grant for row in statement.rows})
    return {
        "lines": _lines(statement),
        "rows": _rows(statement),
        "adjustments": _postings(statement, "adjustments"),
        "held": _postings(statement, "held"),
        "positions": _positions(statement),
        "uses": _uses(record, period),
        "grants": _grants(record, grants),
        "tiers": _tiers(record, grants),
        "splits": _splits(record, grants),
        "weights": _weights(record, period),
    }


def payments(made: Netting) -> pa.Table:
    """The payment instructions of a netting run, amounts as decimals of the currency."""
    schema = pa.schema(
        [(name, pa.string()) for name in ("id", "debtor", "creditor", "currency", "amount", "reference")]
    )
    return pa.Table.from_pylist(list(made.instructions()), schema)


def write_parquet(directory: Path, made: Mapping[str, pa.Table]) -> list[Path]:
    """One ``NAME.parquet`` for each table. Raises ``InputError`` where it cannot be written."""
    return [_write(directory / f"{name}.parquet", table, pq.write_table) for name, table in made.items()]


def write_csv(directory: Path, made: Mapping[str, pa.Table]) -> list[Path]:
    """One ``NAME.csv`` for each table, with a heading."""
    return [_write(directory / f"{name}.csv", table, pc.write_csv) for name, table in made.items()]


def _write(path: Path, table: pa.Table, write: Any) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(table, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _lines(statement: Statement) -> pa.Table:
    lines = statement.lines
    columns: dict[str, Any] = {name: [getattr(line.account, name) for line in lines] for name in _LINES}
    columns |= _exact("rated", [line.rated for line in lines])
    columns |= _exact("carried", [line.carried for line in lines])
    columns["amount"] = pa.array([line.amount for line in lines], pa.int64())
    columns["money"] = [currencies.decimal(line.amount, line.account.currency) for line in lines]
    columns |= _exact("residual", [line.residual for line in lines])
    return _table(columns, "payer", "payee", "currency", "money")


def _rows(statement: Statement) -> pa.Table:
    rows = statement.rows
    columns: dict[str, Any] = {
        name: [getattr(row, name) for row in rows] for name in ("payer", "grant", "operation", "currency")
    }
    for name in ("jobs", "calls", "rows"):
        columns[name] = pa.array(
            [getattr(row, name) for row in rows], WHOLE if name == "rows" else pa.int64()
        )
    return _table(
        columns | _exact("rated", [row.rated for row in rows]), "payer", "grant", "operation", "currency"
    )


def _postings(statement: Statement, kind: str) -> pa.Table:
    postings = getattr(statement, kind)
    columns: dict[str, Any] = {"entry": pa.array([each.index for each in postings], pa.int64())}
    columns |= {name: [getattr(each.account, name) for each in postings] for name in _LINES}
    return _table(columns | _exact("amount", [each.amount for each in postings]), *_LINES)


def _positions(statement: Statement) -> pa.Table:
    found = sorted(statement.positions().items())
    columns: dict[str, Any] = {
        "party": [party for (party, _), _ in found],
        "currency": [code for (_, code), _ in found],
        "net": pa.array([net for _, net in found], pa.int64()),
    }
    return _table(columns, "party", "currency")


def _uses(record: Clearing, period: Period) -> pa.Table:
    uses = record.within(period)
    columns: dict[str, Any] = {
        "entry": pa.array([use.index for use in uses], pa.int64()),
        "time": pa.array([use.time for use in uses], pa.int64()).cast(TIME),
    }
    columns |= {name: [getattr(use, name) for use in uses] for name in ("payer", "grant", "operation")}
    columns["calls"] = pa.array([use.usage.calls for use in uses], pa.int64())
    columns["rows"] = pa.array([use.usage.rows for use in uses], pa.int64())
    return _table(columns | _exact("rated", [use.amount for use in uses]), "payer", "grant", "operation")


def _grants(record: Clearing, grants: Sequence[str]) -> pa.Table:
    plans = [record.terms[grant].price for grant in grants]
    columns: dict[str, Any] = {
        "grant": list(grants),
        "root": [record.terms[grant].root for grant in grants],
        "kind": [plan.kind for plan in plans],
        "currency": [plan.currency for plan in plans],
        "unit": [plan.unit for plan in plans],
        "window": [plan.window for plan in plans],
        "free_calls": pa.array([plan.free_calls for plan in plans], pa.int64()),
        "free_rows": pa.array([plan.free_rows for plan in plans], pa.int64()),
    }
    for name in ("per_call", "per_row", "fee", "rate"):
        columns |= _exact(name, [Fraction(getattr(plan, name) or 0) for plan in plans])
    return _table(columns, "grant", "root", "kind", "currency", "unit", "window")


def _tiers(record: Clearing, grants: Sequence[str]) -> pa.Table:
    found = [
        (grant, number, tier.upto, Fraction(tier.rate))
        for grant in grants
        for number, tier in enumerate(record.terms[grant].price.tiers or ())
    ]
    columns: dict[str, Any] = {
        "grant": [each[0] for each in found],
        "tier": pa.array([each[1] for each in found], pa.int64()),
        "upto": pa.array([each[2] for each in found], pa.int64()),
    }
    return _table(columns | _exact("rate", [each[3] for each in found]), "grant")


def _splits(record: Clearing, grants: Sequence[str]) -> pa.Table:
    found = [
        (grant, share.party, amount, share.beyond(amount))
        for grant in grants
        for share in record.terms[grant].split
        for amount in (0, *(step.amount for step in share.above))
    ]
    columns: dict[str, Any] = {
        "grant": [each[0] for each in found],
        "party": [each[1] for each in found],
        "above": pa.array([each[2] for each in found], pa.int64()),
    }
    return _table(columns | _exact("share", [each[3] for each in found]), "grant", "party")


def _weights(record: Clearing, period: Period) -> pa.Table:
    found = [
        (pool, party, weight)
        for (pool, each), weights in sorted(record.weights.items())
        for party, weight in sorted(weights.items())
        if each == period
    ]
    columns: dict[str, Any] = {"pool": [each[0] for each in found], "party": [each[1] for each in found]}
    return _table(columns | _exact("weight", [each[2] for each in found]), "pool", "party")


def _exact(name: str, amounts: Iterable[Fraction]) -> dict[str, pa.Array]:
    found = list(amounts)
    try:
        return {
            f"{name}_num": pa.array([each.numerator for each in found], WHOLE),
            f"{name}_den": pa.array([each.denominator for each in found], WHOLE),
        }
    except (pa.ArrowInvalid, OverflowError) as error:
        raise ParameterError(
            f"an exact amount of {name} has more than 38 digits: it fits into no column"
        ) from error


def _table(columns: Mapping[str, Any], *text: str) -> pa.Table:
    """A table whose text columns are text also where they are empty."""
    return pa.table(
        {name: pa.array(each, pa.string()) if name in text else each for name, each in columns.items()}
    )
