"""``trustcompute statement`` and ``dispute``, from the command line."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from tests.broker.conftest import World
from trustcompute.broker.grant import PricePlan
from trustcompute.cli.app import main

pytest.importorskip("typer")
pytest.importorskip("matplotlib")

DAY = 86_400


@pytest.fixture
def node(tmp_path: Path) -> Any:
    """A node's file, with one acknowledged job of yesterday in its book."""
    world = World(tmp_path / "book")
    world.bureau.save(tmp_path / "identity")
    world.bank.save(tmp_path / "bank")
    with world.broker() as broker:
        grant = broker.issue(world.claims(limits={}))
        record = world.posted(broker, grant)
        broker.receipt(record.id).save(tmp_path / "job.receipt.json")
    (tmp_path / "node.toml").write_text('identity = "identity"\nbook = "book"\n')
    return tmp_path, record, world.clock.time // DAY * DAY


def run(capsys: Any, *arguments: object) -> Any:
    code = main([*map(str, arguments), "--json"])
    assert code == 0
    return json.loads(capsys.readouterr().out)


def plain(*arguments: object) -> int:
    return main([*map(str, arguments)])


def test_statements_are_written_closed_and_paid(node: Any, capsys: Any) -> None:
    folder, _, _ = node
    files = ("--html", folder / "s.html", "--csv", folder / "csv", "--parquet", folder / "parquet")
    opened = run(capsys, "statement", folder / "node.toml", *files)
    assert not opened["closed"] and "<svg" in (folder / "s.html").read_text()
    assert (folder / "csv" / "lines.csv").exists() and (folder / "parquet" / "uses.parquet").exists()
    closed = run(capsys, "statement", folder / "node.toml", "--close")
    assert closed["closed"] and sum(line["amount"] for line in closed["lines"]) == 133
    days = [
        datetime.datetime.fromtimestamp(closed[name], datetime.UTC).isoformat() for name in ("start", "end")
    ]
    paid = run(capsys, "statement", folder / "node.toml", "--start", days[0], "--end", days[1], "--net")
    assert [payment["amount"] for payment in paid["payments"]] == ["0.89", "0.44"] and paid["netting"]
    assert plain("statement", folder / "node.toml", "--start", days[0], "--end", days[1], "--net") == 2
    assert "paid, or frozen" in capsys.readouterr().err


def test_a_dispute_from_the_receipt_to_its_end(node: Any, capsys: Any) -> None:
    folder, record, _ = node
    token, bundle = folder / "dispute.jws", folder / "bundle.json"
    entry = ("--entry", record.entry, "--node", "bureau.example", "--reason", "not ours")
    assert plain("dispute", "sign", *entry, "--identity", folder / "bank", "--out", token) == 0
    capsys.readouterr()
    name = run(capsys, "dispute", "enter", folder / "node.toml", token)["dispute"]
    assert run(capsys, "statement", folder / "node.toml")["held"]
    assert plain("dispute", "evidence", folder / "node.toml", record.entry, "--out", bundle) == 0
    capsys.readouterr()
    key = ("--key", folder / "identity" / "certificate.pem")
    found = run(capsys, "dispute", "check", bundle, *key, "--receipt", folder / "job.receipt.json")
    assert found == {
        "entry": record.entry,
        "amount": "400/3",
        "acknowledged": False,
        "contradicted": False,
        "supports": "neither",
    }
    assert plain("dispute", "check", bundle, *key) == 0 and "nobody signed" in capsys.readouterr().out
    assert (
        run(capsys, "dispute", "settle", folder / "node.toml", name[:12], "--owed", "0", "--reason", "x")
        == []
    )
    (listed,) = run(capsys, "dispute", "list", folder / "node.toml")
    assert (listed["dispute"], listed["owed"]) == (name, "0")
    assert not run(capsys, "statement", folder / "node.toml")["lines"]
    assert plain("dispute", "settle", folder / "node.toml", name, "--owed", "1", "--reason", "x") == 6


def test_a_grant_with_a_plan_from_a_file(node: Any, capsys: Any) -> None:
    folder, _, _ = node
    plan = folder / "plan.toml"
    plan.write_text(
        'kind = "tiered"\ncurrency = "EUR"\nunit = "rows"\nwindow = "month"\n'
        'tiers = [{ upto = 10, rate = "2" }, { rate = "1/2" }]\n[[split]]\nparty = "pool:x"\nshare = "1"\n'
    )
    terms = ("--to", folder / "bank" / "certificate.pem", "--dataset", "d", "--purpose", "p", "--plan", plan)
    issue = ("grant", "issue", "--identity", folder / "identity", *terms, "--out", folder / "grant")
    assert plain(*issue, "--price", plan) == 0
    assert "keys of a month at 2 up to 10, 1/2 beyond" in " ".join(capsys.readouterr().out.split())
    price = run(capsys, "grant", "show", folder / "grant")["price"]
    assert PricePlan.model_validate(price).kind == "tiered"
    assert plain(*issue, "--price", plan, "--currency", "EUR") == 2
    plan.write_text('kind = "tiered"\ncurrency = "EUR"\n')
    assert plain(*issue, "--price", plan) == 2 and "needs unit" in capsys.readouterr().err
