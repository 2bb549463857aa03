"""psi.lookup.v1 and the evaluated tables it answers from: kept, bound to key and data, never mixed up."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from by_hand import digests

from trustcompute.errors import ParameterError, RemoteProtocolError, VerificationError
from trustcompute.primitives import oprf
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.run import run_local
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import lookup
from trustcompute.psi.table import WIDTH, evaluated, found, load_values, store_values, values_id

SPEC = "0" * 64
BINDING = Binding("", "psi.lookup.v1", {}, "consumer", "provider")


def made(numbers, directory=None, **options):
    return evaluated(digests(numbers), SPEC, Rng.from_os(), directory, **options)


def looked_up(wanted, table, held=None):
    sizes = Sizes(len(wanted), len(table))
    params = lookup.check({"columns": ["id"], "keys": SPEC, "table": table.id, "fetch": held is None}, sizes)
    run = run_local(
        lookup.consumer(params, sizes, digests(wanted), held, Rng.from_os()),
        lookup.provider(params, sizes, table),
        BINDING,
    )
    return run, lookup.OPERATION.bound(params, sizes)


@pytest.mark.parametrize("rows", [0, 1, 2, 40])
@pytest.mark.parametrize("wanted", [[], [3], [39, 100, 0]])
def test_a_lookup_finds_what_a_plain_join_finds_with_and_without_the_table(rows, wanted):
    table = made(range(rows))
    first, bound = looked_up(wanted, table)
    assert first.consumer.found.mask.tolist() == [number < rows for number in wanted]
    crossed = first.cost.bytes_sent + first.cost.bytes_received
    assert bound.bytes <= crossed <= bound.bytes + 1500
    again, bound = looked_up(wanted, table, first.consumer.table)
    assert again.consumer.found.mask.tolist() == first.consumer.found.mask.tolist()
    assert again.cost.bytes_received < 600 + 32 * len(wanted)
    assert (bound.calls, bound.rows, bound.bytes) == (1, len(wanted), 64 * len(wanted))
    assert again.provider is None


def test_values_are_the_oprf_of_rfc_9497_and_an_executor_changes_nothing(tmp_path):
    table = made(range(600), tmp_path)
    expected = oprf.evaluate_inputs(table.key, digests(range(600)), oprf.Mode.OPRF)[:, :WIDTH]
    assert sorted(map(bytes, expected)) == list(map(bytes, table.values))
    with ThreadPoolExecutor(2) as executor:
        again = made(range(600), executor=executor)
    assert len(again) == 600
    assert again.id != table.id  # a fresh key


def test_a_kept_table_is_read_again_and_other_data_get_another_key(tmp_path):
    table = made(range(50), tmp_path)
    again = made(range(50), tmp_path)
    assert (again.id, again.key.to_bytes()) == (table.id, table.key.to_bytes())
    assert np.array_equal(again.values, table.values)
    other = made(range(51), tmp_path)
    assert other.key.to_bytes() != table.key.to_bytes()
    assert not found(other.values, table.values).any()
    assert evaluated(digests(range(50)), "1" * 64, Rng.from_os(), tmp_path).id != table.id
    for path in tmp_path.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600)
    assert "***" in repr(table)


@pytest.mark.parametrize("name", ["key", "values", "table.json"])
def test_a_kept_table_that_was_altered_is_refused(tmp_path, name):
    made(range(20), tmp_path)
    (path,) = tmp_path.glob(f"*/{name}")
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError):
        made(range(20), tmp_path)


def test_a_received_table_is_kept_and_checked(tmp_path):
    table = made(range(30))
    store_values(tmp_path / "t", table.values)
    assert np.array_equal(load_values(tmp_path / "t", 30, table.id), table.values)
    for rows, table_id in ((29, table.id), (30, values_id(table.values[::-1]))):
        with pytest.raises(VerificationError, match="does not hold"):
            load_values(tmp_path / "t", rows, table_id)


def test_another_table_than_the_catalogue_names_is_refused():
    table, sizes = made(range(5)), Sizes(1, 5)
    params = {"columns": ["id"], "keys": SPEC, "table": "0" * 64, "fetch": True}
    party = lookup.consumer(params, sizes, digests([1]), None, Rng.from_os())
    blinded = next(party).message["point"]
    party.send(None)
    party.send(Message("table", {"value": table.values}))
    with pytest.raises(RemoteProtocolError, match="another table"):
        party.send(Message("evaluated", {"point": oprf.evaluate(table.key, blinded)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"table": "x"}, "table"),
        ({"table": None}, "table"),
        ({"fetch": 1}, "fetch"),
        ({"output": "rows"}, "takes"),
    ],
)
def test_parameters_are_checked_by_name(change, message):
    asked = {"columns": ["id"], "keys": SPEC, "table": "0" * 64}
    assert lookup.check(asked, Sizes(1, 1))["fetch"] is True
    with pytest.raises(ParameterError, match=message):
        lookup.check(asked | change, Sizes(1, 1))


def test_it_says_what_it_gives_and_tells():
    params = lookup.check({"columns": ["id"], "keys": SPEC, "table": "0" * 64}, Sizes(1, 1))
    assert lookup.OPERATION.output(params) == OutputForm.MATCHED_IDS
    assert "same keys as at an earlier lookup" in lookup.OPERATION.leakage(params).consumer
