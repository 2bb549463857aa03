"""``trustcompute aggregate`` against three nodes that serve."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("typer")

from trustcompute.broker.broker import Broker
from trustcompute.cli import main
from trustcompute.cli.aggregate import load_spec, parse_party
from trustcompute.cli.settings import load_settings
from trustcompute.errors import ParameterError
from trustcompute.node import Node
from trustcompute.primitives.identity import CertificateAuthority, Identity

NAMES = ("aa", "dl", "ua")
NODE = """
identity = "{name}"
book = "{name}-book"

[[dataset]]
id = "flights"
source = "{name}.parquet"
version = "1"
aggregates = ["late", "origin"]
key_holders = ["keys.example"]
"""
KEYS = """
identity = "keys"
book = "keys-book"

[[dataset]]
id = "flights"
version = "1"
opens = true
"""
SPEC = """
statistics = ["count", "mean"]
max_rows = 100
[columns.late]
low = 0
high = 1
[by]
origin = ["EWR", "JFK"]
"""


@pytest.fixture
def airlines(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    authority = CertificateAuthority.create("airlines")
    authority.issue("regulator.example").save(tmp_path / "regulator")
    (tmp_path / "plan.txt").write_text("stop")
    (tmp_path / "delays.toml").write_text(SPEC)
    options = []
    with ExitStack() as stack:
        for name in (*NAMES, "keys"):
            authority.issue(f"{name}.example").save(tmp_path / name)
            pq.write_table(pa.table({"origin": ["EWR", "JFK", "JFK"], "late": [1, 0, 1]}), f"{name}.parquet")
            (tmp_path / f"{name}.toml").write_text(KEYS if name == "keys" else NODE.format(name=name))
            issue = f"grant issue --identity {name} --to regulator/certificate.pem --dataset flights"
            more = ["holder.v1"] if name == "keys" else ["masked.v1", "rlwe.v1"]
            issue += "".join(f" --operation aggregation.{one}" for one in more)
            issue += " --output aggregate --purpose punctuality"
            issue += f" --plan plan.txt --out {name}.grant"
            assert main(issue.split()) == 0
            settings = load_settings(tmp_path / f"{name}.toml")
            identity = Identity.load(tmp_path / name)
            broker = stack.enter_context(Broker.open(tmp_path / f"{name}-book", identity))
            node = stack.enter_context(Node(identity, broker, settings.datasets()))
            server = stack.enter_context(node.serve())
            options += ["--key-holder" if name == "keys" else "--party", f"{server.url}={name}.grant"]
        yield ["aggregate", "delays.toml", "--identity", "regulator"], options


def test_three_nodes_are_added_up(airlines, tmp_path, capsys):
    asked, options = airlines
    masked = [*asked, *options[:-2]]
    capsys.readouterr()
    assert main([*masked, "--json", "--out", "sum.csv"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["parties"] == ["aa.example", "dl.example", "ua.example"]
    assert found["answer"][1] == {"origin": "JFK", "count": 6, "mean_late": 0.5}
    assert (tmp_path / "sum.csv").read_text().splitlines()[1] == '"EWR",3,1'
    assert all((tmp_path / path).exists() for path in found["receipts"].values())
    assert main(masked[:-2]) == 2, "two parties are too few"
    capsys.readouterr()
    assert main([*asked, *options, "--scheme", "rlwe"]) == 0
    told = capsys.readouterr().out
    assert "JFK" in told
    assert "opened by" in told
    assert "keys.example" in told
    assert main([*asked, *options]) == 2, "nobody holds a key under masks"


def test_what_is_typed_wrong_is_an_input_error(tmp_path):
    for text in ("grpc+tls://host:1", "host=grant", "=x"):
        with pytest.raises(ParameterError, match="a party is"):
            parse_party(text)
    for text, words in (("max_rows = 'x'", "max_rows"), ("[", "TOML"), ("[columns.a]\nlow=0", "high")):
        (tmp_path / "spec.toml").write_text(text)
        with pytest.raises(ParameterError, match=words):
            load_spec(tmp_path / "spec.toml")
    (tmp_path / "spec.toml").write_text(SPEC + '[noise]\nrho = "0.5"\n')
    assert load_spec(tmp_path / "spec.toml").noise.rho == "0.5"
