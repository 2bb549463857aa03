"""Logs that older versions wrote give the statements that older versions made, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trustcompute.broker import log
from trustcompute.broker.clearing import Clearing
from trustcompute.broker.log import Entry
from trustcompute.errors import AuditError
from trustcompute.primitives import canonical

GOLDEN = Path(__file__).parent / "golden"


def entries(form: str) -> list[Entry]:
    bodies = (GOLDEN / f"log-{form}.jsonl").read_bytes().splitlines()
    return [log.decode(index, body) for index, body in enumerate(bodies)]


@pytest.mark.vectors
@pytest.mark.parametrize(
    "form", sorted(path.stem.removeprefix("log-") for path in GOLDEN.glob("log-*.jsonl"))
)
def test_statements_are_the_same_bit_for_bit(form: str) -> None:
    record = Clearing.of(entries(form))
    kept = json.loads((GOLDEN / f"statements-{form}.json").read_text())
    made = [closing.statement for closing in record.closings]
    assert [each.to_document() | {"hash": each.hash} for each in made] == kept
    assert all(each.form == int(form) and each.closed for each in made)
    payments = GOLDEN / f"payments-{form}.json"
    if payments.exists():
        runs = record.nettings
        assert [each.to_document() | {"hash": each.hash} for each in runs] == json.loads(payments.read_text())


@pytest.mark.parametrize("form", ["1", "2"])
def test_a_carried_residual_that_was_altered_is_found(form: str) -> None:
    """The lines in the log are compared too, not only the hash of the statement."""
    found = entries(form)
    index, altered = next((n, each) for n, each in enumerate(found) if each.type == "period.lines")
    fields = json.loads(altered.body)
    fields["lines"][0][4] = "1/2"
    found[index] = log.decode(index, canonical.dumps(fields))
    with pytest.raises(AuditError, match="does not follow from the log"):
        Clearing.of(found)
