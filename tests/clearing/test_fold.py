"""The house reads the log once: what it keeps is what a new reading gives, and nothing that was not committed."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.clearing.conftest import Ledger
from trustcompute.broker.clearing import Account, Clearing, Period
from trustcompute.broker.clearing.commands import Adjust, ClosePeriod
from trustcompute.broker.clearing.denominators import MAX_BITS, Denominators
from trustcompute.broker.clearing.fold import Fold
from trustcompute.broker.grant import PricePlan
from trustcompute.errors import AuditError, ParameterError

PRICE = PricePlan(kind="per_use", currency="EUR", per_call="1/3")


class Transaction(Ledger):
    """A ledger whose first entries are committed, and the rest are of this transaction."""

    done: int = 0

    @property
    def committed(self) -> int:
        return self.done

    def commit(self) -> None:
        self.done = len(self.bodies)


def adjust(number: int, fold: Fold) -> Adjust:
    return Adjust(Account("a", f"b{number}", "EUR"), Fraction(number, 7), "why", None, fold)


def test_a_fold_is_what_a_new_reading_gives() -> None:
    book, fold = Transaction(), Fold()
    book.grant("g", PRICE, {"x": "1/2", "y": "1/2"})
    book.commit()
    for number in range(1, 6):
        book.use("g")
        book.now += 1
        book.apply(adjust(number, fold))
        kept = fold.at(book)
        assert kept == Clearing.of(book.entries())
        book.commit()
    book.apply(ClosePeriod(Period(0, 5), fold))
    book.commit()
    assert fold.at(book) == Clearing.of(book.entries())
    assert fold.at(book).closings[0].statement.hash == Clearing.of(book.entries()).closings[0].statement.hash


def test_what_was_not_committed_is_forgotten() -> None:
    book, fold = Transaction(), Fold()
    book.grant("g", PRICE, {"x": "1"})
    book.commit()
    book.apply(adjust(1, fold))
    assert len(fold.at(book).adjustments) == 1
    book.bodies.pop()  # the transaction failed
    book.apply(adjust(2, fold))
    assert [each.amount for _, each in fold.at(book).adjustments] == [Fraction(2, 7)]


def test_each_entry_is_read_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims(limits={}))
    world.posted(broker, grant)
    read: list[int] = []
    feed = Clearing.feed
    monkeypatch.setattr(
        Clearing, "feed", lambda self, entry: (read.append(entry.index), feed(self, entry))[1]
    )
    for number in range(3):
        broker.clearing.adjust(payer="a", payee="b", currency="EUR", amount="1", reason=f"r{number}")
        broker.clearing.record()
    assert read == sorted(set(read)) and len(read) <= len(broker.entries())


def test_a_log_that_contradicts_itself_is_refused_each_time() -> None:
    book, fold = Transaction(), Fold()
    book.record("period.closed", {"start": 0, "end": 5, "statement": "00" * 32, "totals": {}})
    book.commit()
    for _ in range(2):
        with pytest.raises(AuditError, match="does not follow"):
            fold.at(book)


def test_amounts_that_would_get_too_fine_are_refused_where_they_are_declared(world: Any) -> None:
    broker = world.broker()
    primes = [999_999_999_989, 999_999_999_961, 999_999_999_959, 999_999_999_937, 999_999_999_899]
    fine = Denominators(weights=2 ** (MAX_BITS - 20))
    with pytest.raises(ParameterError, match="denominators that divide a power of ten"):
        fine.with_amount(Fraction(1, primes[0])).check()
    fine.check()
    known = Denominators()
    for prime in primes:
        known = known.with_weights([Fraction(1, prime)])
    assert known == known.with_weights([Fraction(2, prime) for prime in primes]) and known.bits > 190
    broker.clearing.fold._record.common = fine
    price = PricePlan(kind="per_use", currency="CNY", per_call=f"1/{primes[0]}")
    before = len(broker.entries())
    with pytest.raises(ParameterError, match="would be multiples"):
        broker.issue(world.claims(price=price))
    with pytest.raises(ParameterError, match="would be multiples"):
        broker.clearing.adjust(
            payer="a", payee="b", currency="EUR", amount=f"1/{primes[1]}", reason="too fine"
        )
    assert len(broker.entries()) == before
