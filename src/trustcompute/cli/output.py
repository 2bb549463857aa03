"""What commands print: text for people, one JSON document for scripts; progress on stderr, on a terminal only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, value in fields:
        grid.add_row(name, Text(str(value)))
    out.print(grid)


def print_document(document: Mapping[str, object], *, as_json: bool) -> None:
    """Names and values, as one JSON document or one a line."""
    if as_json:
        print_json(document)
    else:
        print_fields(list(document.items()))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Rows under headings; numbers to the right."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        number = bool(rows) and isinstance(rows[0][index], int | float)
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(value)) for value in row))
    out.print(table)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)


def money(amount: Fraction, currency: str | None) -> str:
    """An exact amount of minor units, with decimals where they are finite."""
    if currency is None:
        return "free"
    text = str(amount)
    if 10**12 % amount.denominator == 0:
        text = f"{Decimal(amount.numerator) / amount.denominator:,f}"
    return f"{text} minor units of {currency}"


@contextmanager
def working(what: str) -> Iterator[None]:
    """A spinner while something takes time; nothing where stderr is not a terminal."""
    if err.is_terminal:
        with err.status(what):
            yield
    else:
        yield
