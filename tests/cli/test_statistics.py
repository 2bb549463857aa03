"""``trustcompute verify statistics``, as typed: from a node's file to a table with gaps."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq

from trustcompute.broker.broker import Broker
from trustcompute.cli import main
from trustcompute.cli.settings import load_settings
from trustcompute.node import Node
from trustcompute.primitives.identity import Identity

NODE = """
identity = "identity"
book = "book"

[[dataset]]
id = "planes"
source = "planes.parquet"
version = "2013"

[dataset.statistics]
by = {maker = ["A", "B"]}
columns = ["seats"]
"""


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().out


def test_a_table_is_asked_for_and_its_gaps_are_explained(tmp_path, capsys):
    registry, airline = tmp_path / "registry", tmp_path / "airline"
    assert run(capsys, "identity", "authority", tmp_path / "authority")[0] == 0
    for home in (registry, airline):
        create = ["identity", "create", home / "identity", "--name", f"{home.name}.example"]
        assert run(capsys, *create, "--authority", tmp_path / "authority")[0] == 0
    (registry / "node.toml").write_text(NODE)
    (tmp_path / "plan.md").write_text("revoke")
    table = {"maker": ["A"] * 5 + ["B"] * 5 + [None], "seats": [100, 110, 120, 90, 95] * 2 + [9]}
    pq.write_table(pa.table(table), registry / "planes.parquet")
    issue = [
        "grant",
        "issue",
        "--identity",
        registry / "identity",
        "--dataset",
        "planes",
        "--purpose",
        "check",
    ]
    issue += ["--to", airline / "identity/certificate.pem", "--plan", tmp_path / "plan.md"]
    issue += ["--output", "aggregate", "--operation", "verify.statistics.v1", "--out", tmp_path / "grant.jwt"]
    assert run(capsys, *issue)[0] == 0
    config, identity = load_settings(registry / "node.toml"), Identity.load(registry / "identity")
    with (
        Broker.open(registry / "book", identity) as broker,
        Node(identity, broker, config.datasets()) as node,
        node.serve() as server,
    ):
        ask = ["verify", "statistics", "--with", server.url, "--identity", airline / "identity"]
        ask += ["--grant", tmp_path / "grant.jwt", "--dataset", "planes", "--state", tmp_path / "jobs"]
        ask += ["--by", "maker", "--sum", "seats"]
        code, shown = run(capsys, *ask, "--out", tmp_path / "table.csv")
        assert code == 0 and "minimum frequency" in shown and "complementary" in shown
        assert (tmp_path / "table.csv").read_text().startswith('"maker","rows"')
        code, shown = run(capsys, *ask, "--json")
        found = json.loads(shown)
        assert [cell["suppressed"] for cell in found["answer"]].count(None) == 2
        assert found["answer"][-1]["seats.sum"] == 1039 and found["terms"]["min_frequency"] == 3
        assert run(capsys, *ask, "--sum", "price")[0] == 2
        assert run(capsys, *ask, "--out", tmp_path / "table.xlsx")[0] == 2
