"""The hash of a statement is of its canonical document, also with names that need escapes and long integers."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import pytest

from trustcompute.broker.clearing.statement import Account, Line, Period, Posting, Row, Statement
from trustcompute.primitives import canonical

NAMES = ("party", 'a "quoted" \\ name', "tab\tand\x1f", "Zürich ✓")


@pytest.mark.parametrize("form", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 3000])  # nothing, one piece, several pieces
def test_hash_is_of_the_canonical_document(form: int, count: int) -> None:
    accounts = [Account(NAMES[each % 4], NAMES[(each // 4) % 4], "EUR") for each in range(count)]
    lines = tuple(
        Line(
            account, Fraction(each, 7), Fraction(-(each % 3), 140), each * 2**45 - 1, Fraction(each % 7, 140)
        )
        for each, account in enumerate(accounts)
    )
    rows = tuple(
        Row(account.payer, "g" * 64, account.payee, "", each, 2**53 - 1 + each % 2, 2**60, Fraction(1, 3))
        for each, account in enumerate(accounts)
    )
    held = tuple(Posting(each, account, Fraction(1, 9)) for each, account in enumerate(accounts[:3]))
    made = Statement(Period(1, 2), rows, lines, False, held, held, form)
    assert made.hash == hashlib.sha256(canonical.dumps(made.to_document())).hexdigest()
