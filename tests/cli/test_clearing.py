"""``trustcompute statement``, ``dispute``, ``agreement``, ``certificate`` and ``odrl``, from the command line."""

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
    assert sorted(payment["amount"] for payment in paid["payments"]) == ["0.44", "0.89"] and paid["netting"]
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


def test_an_agreement_from_the_quote_to_its_entry(node: Any, capsys: Any) -> None:
    folder, _, _ = node
    (folder / "plan.toml").write_text(
        'kind = "per_use"\ncurrency = "CNY"\nper_row = "1/2"\n[[split]]\nparty = "x"\nshare = "1"\n'
    )
    deal, world = folder / "deal", World(folder / "book")
    quoted = ("--asset", "companies", "--subject", world.bank.thumbprint, "--price", folder / "plan.toml")
    bureau, bank = ("--identity", folder / "identity"), ("--identity", folder / "bank")
    assert plain("agreement", "quote", *quoted, *bureau, "--out", deal) == 0
    worth = ("--low", "0.1", "--high", "1", "--method", "market")
    assert plain("agreement", "appraise", deal, *worth, *bank, "--out", deal) == 0
    assert plain("agreement", "agree", deal, *bureau, "--out", deal) == 0
    assert plain("agreement", "accept", deal, *bureau, "--out", deal) == 4  # not the consumer
    assert plain("agreement", "accept", deal, *bank, "--out", deal) == 0
    capsys.readouterr()
    checked = run(capsys, "agreement", "check", deal, "--key", folder / "identity" / "certificate.pem")
    entered = run(capsys, "agreement", "enter", folder / "node.toml", deal)
    assert checked["agreement"] == entered["agreement"] and checked["claims"]["asset"] == "companies"
    assert run(capsys, "agreement", "index", folder / "node.toml", "--min-payers", "1", "--months", "600")


def test_a_certificate_is_registered_applied_and_verified(node: Any, capsys: Any) -> None:
    folder, _, _ = node
    world, key = World(folder / "book"), ("--key", folder / "identity" / "certificate.pem")
    holder = ("--holder", world.bank.thumbprint, "--source", "registry")
    assert plain("certificate", "issue", folder / "node.toml", "--asset", "companies", *holder) == 0
    capsys.readouterr()
    ((name, state),) = (
        each.values() for each in run(capsys, "certificate", "register", folder / "node.toml")
    )
    assert state == "valid"
    dossier, order = folder / "dossier.json", folder / "order.jws"
    assert plain("certificate", "dossier", folder / "node.toml", name, "--out", dossier) == 0
    signed = ("--use", "loan 17", "--identity", folder / "bank", "--out", order)
    assert plain("certificate", "order", dossier, *key, *signed) == 0
    assert plain("certificate", "carry-out", folder / "node.toml", order) == 0
    assert plain("certificate", "dossier", folder / "node.toml", name, "--out", dossier) == 0
    capsys.readouterr()
    assert run(capsys, "certificate", "verify", dossier, *key)["uses"] == ["loan 17"]
    assert plain("certificate", "cancel", folder / "node.toml", name) == 0
    assert plain("certificate", "cancel", folder / "node.toml", name) == 2
    assert plain("certificate", "register", folder / "node.toml", "--csv", folder / "filings") == 0
    assert (folder / "filings" / "filings.csv").read_text().count("\n") == 4


def test_a_grant_becomes_a_policy_and_a_contract_and_comes_back(tmp_path: Path, capsys: Any) -> None:
    world = World(tmp_path / "book")
    world.bureau.save(tmp_path / "identity")
    with world.broker() as broker:
        (tmp_path / "grant.jws").write_text(broker.issue(world.claims()))
    for form in ("agreement", "offer", "contract"):
        assert plain("odrl", "export", "--grant", tmp_path / "grant.jws", "--as", form) == 0
        (tmp_path / "policy.json").write_text(capsys.readouterr().out)
        out = ("--identity", tmp_path / "identity", "--out", tmp_path / "again.jws")
        assert plain("odrl", "import", tmp_path / "policy.json", *out) == 0
        assert (tmp_path / "again.jws").read_text().strip() == (tmp_path / "grant.jws").read_text()
        capsys.readouterr()
    (tmp_path / "policy.json").write_text('{"permission": []}')
    assert plain("odrl", "import", tmp_path / "policy.json", *out) == 2
