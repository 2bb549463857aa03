"""``trustcompute release`` against a node that serves: answers, quotes, refusals."""

from __future__ import annotations

import csv
import json
from fractions import Fraction

import pytest

pytest.importorskip("typer")

from trustcompute import dp
from trustcompute.broker.broker import Broker
from trustcompute.cli import main
from trustcompute.cli.release import parse_aggregate, parse_budget, parse_by
from trustcompute.cli.settings import load_settings
from trustcompute.errors import ParameterError
from trustcompute.node import Node
from trustcompute.primitives.identity import CertificateAuthority, Identity

SETTINGS = """
identity = "registry"
book = "book"

[[dataset]]
id = "people"
source = "people.csv"
version = "1"
personal = true

[dataset.unit]
column = "person"
groups = 2
rows_per_group = 3
known = {town = ["A", "B"]}

[dataset.limits.rho]
total = 1_000_000_000_000
"""


@pytest.fixture
def town(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "people.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["person", "town"])
        writer.writerows([f"p{i % 100}", "AB"[i % 2]] for i in range(300))
    authority = CertificateAuthority.create("town")
    for name in ("registry", "asker"):
        authority.issue(f"{name}.example").save(tmp_path / name)
    (tmp_path / "plan.txt").write_text("stop")
    (tmp_path / "node.toml").write_text(SETTINGS)
    issue = [
        "grant",
        "issue",
        "--identity",
        "registry",
        "--to",
        "asker/certificate.pem",
        "--dataset",
        "people",
    ]
    issue += ["--purpose", "study", "--plan", "plan.txt", "--out", "grant.txt", "--personal"]
    issue += ["--operation", "dp.release.v1", "--output", "dp_release", "--limit", "rho=300000000000"]
    assert main(issue) == 0
    settings = load_settings(tmp_path / "node.toml")
    identity = Identity.load(tmp_path / "registry")
    with (
        Broker.open(tmp_path / "book", identity) as broker,
        Node(identity, broker, settings.datasets()) as node,
        node.serve() as server,
    ):
        yield ["--with", server.url, "--identity", "asker", "--grant", "grant.txt", "--dataset", "people"]


def test_quote_ask_and_be_refused(town, tmp_path, capsys):
    ask = ["release", *town, "--ask", "count", "--ask", "distinct", "--by", "town", "--rho", "0.2"]
    capsys.readouterr()
    assert main([*ask, "--quote", "--json"]) == 0
    quoted = json.loads(capsys.readouterr().out)
    assert quoted["equal_left"] == 1 and quoted["usage"]["rho"] == 200_000_000_000
    assert quoted["accuracy"]["count"]["half_width"] < 40
    assert main([*ask, "--quote"]) == 0
    assert "equal releases left" in capsys.readouterr().out
    assert main([*ask, "--out", "nowhere/answer.csv"]) == 2, "found out before anything is spent"
    assert "cannot write nowhere" in " ".join(capsys.readouterr().err.split())
    assert main([*ask, "--json", "--out", "answer.csv"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["town"] for row in answer["answer"]] == ["A", "B"]
    assert all(abs(row["count"] - 150) < 100 for row in answer["answer"])
    assert (tmp_path / "answer.csv").read_text().startswith('"town","count","distinct"')
    assert (tmp_path / answer["receipt"]).exists()
    assert main(ask) == 3, "the grant's budget is spent"
    assert "quota" in capsys.readouterr().err
    assert main([*ask[:-1], "0.05"]) == 0
    assert "presence of no privacy unit" in " ".join(capsys.readouterr().out.split())


def test_what_is_typed_wrong_is_an_input_error(town):
    for wrong in (
        ["--ask", "average"],
        ["--ask", "count", "--rho", "0"],
        ["--ask", "count", "--epsilon", "1"],
    ):
        arguments = ["release", *town, *wrong, *([] if len(wrong) > 2 else ["--rho", "1"])]
        assert main(arguments) in (2, 3)
    assert main(["release", *town, "--ask", "count"]) == 2


def test_asking_in_words():
    assert parse_aggregate("mean:delay:-30:180") == dp.mean("delay", -30, 180)
    assert parse_aggregate("quantile:x:0:1:0.5,0.9") == dp.quantile("x", ["0.5", "0.9"], 0, 1)
    assert parse_aggregate("histogram:x:0,1,2") == dp.histogram("x", [0, 1, 2])
    assert parse_aggregate("top_k:x:1:a,b") == dp.top_k("x", 1, ["a", "b"])
    assert parse_aggregate("sum:x:private") == dp.sum("x", dp.private())
    assert parse_aggregate("quantile:x:private:0.5") == dp.quantile("x", ["0.5"], dp.private())
    assert parse_aggregate("count:x") == dp.count("x") and parse_aggregate("distinct") == dp.distinct()
    for wrong in (
        "",
        "mean:x",
        "mean:x:1",
        "mean:x:private:1",
        "quantile:x:0.5",
        "top_k:x:one:a",
        "distinct:x",
        "count:x:y",
    ):
        with pytest.raises(ParameterError, match="is none of"):
            parse_aggregate(wrong)
    assert parse_by("town") == "town" and parse_by("town=A,B") == dp.public("town", ["A", "B"])
    assert parse_budget("0.1", None, None, as_rho=False) == dp.zcdp("0.1")
    assert parse_budget(None, "1", "1e-6", as_rho=False) == dp.approx(1, "1e-6")
    assert parse_budget(None, "1", None, as_rho=True).loss.rho == Fraction(1, 2)
    for both in ((None, None), ("1", "1")):
        with pytest.raises(ParameterError, match="give a budget"):
            parse_budget(*both, None, as_rho=False)


def test_settings_name_what_is_wrong(tmp_path):
    for old, new, says in (
        ("rho]", "row]", "limits"),
        ("groups = 2", "groups = 0", "groups"),
        ('column = "person"', "column = 3", "unit"),
        ("total = 1", "total = -1", "total"),
    ):
        (tmp_path / "node.toml").write_text(SETTINGS.replace(old, new))
        with pytest.raises(ParameterError, match=says):
            load_settings(tmp_path / "node.toml").datasets()
