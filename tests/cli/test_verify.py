"""``trustcompute verify``: tables are built, described, audited; records asked about; proofs opened; all as typed."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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

[dataset.verified]
subject = "tailnum"
predicates = ["seats >= 20", "match(seats)"]
directory = "verification"
"""


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    root = tmp_path_factory.mktemp("verify")
    assert main(["identity", "authority", str(root / "authority")]) == 0
    for name in ("registry", "airline", "auditor"):
        create = ["identity", "create", str(root / name / "identity"), "--name", f"{name}.example"]
        assert main([*create, "--authority", str(root / "authority")]) == 0
    (root / "registry/node.toml").write_text(NODE)
    (root / "plan.md").write_text("revoke")
    planes = pa.table({"tailnum": [f"N{i}" for i in range(40)], "seats": range(40)})
    pq.write_table(planes, root / "registry/planes.parquet")
    pq.write_table(pa.table({"tail": ["N1", "N5"], "seats": [1, 1]}), root / "claims.parquet")
    issue = [
        "grant",
        "issue",
        "--identity",
        root / "registry/identity",
        "--dataset",
        "planes",
        "--purpose",
        "check",
    ]
    issue += [
        "--to",
        root / "airline/identity/certificate.pem",
        "--plan",
        root / "plan.md",
        "--output",
        "yes_no",
    ]
    issue += [
        "--operation",
        "verify.bucket.v1",
        "--operation",
        "verify.private.v1",
        "--out",
        root / "grant.jwt",
    ]
    assert main([str(part) for part in issue]) == 0
    assert main(["verify", "build", str(root / "registry/node.toml")]) == 0
    config = load_settings(root / "registry/node.toml")
    identity = Identity.load(root / "registry/identity")
    with (
        Broker.open(root / "registry/book", identity) as broker,
        Node(identity, broker, config.datasets()) as node,
        node.serve() as server,
    ):
        yield root, server.url


def test_tables_are_audited_and_records_asked_about(space, capsys):
    root, url = space
    places = [place for place in (root / "registry/verification").iterdir() if place.is_dir()]
    assert len(places) == 2
    described = [json.loads(run(capsys, "verify", "describe", place, "--json")[1]) for place in places]
    [place] = [p for p, said in zip(places, described, strict=True) if said["predicate"] == "seats >= 20"]
    audit = ["verify", "audit", place, "--identity", root / "auditor/identity", "--out", root / "check"]
    audit += [
        "--holder",
        root / "registry/identity/certificate.pem",
        "--data",
        root / "registry/planes.parquet",
    ]
    audit += ["--seed", root / "registry/verification/seed", "--rows", "10", "--json"]
    code, shown, _ = run(capsys, *audit)
    assert code == 0 and json.loads(shown)["opened"] == 10

    ask = [
        "verify",
        "ask",
        "--with",
        url,
        "--identity",
        root / "airline/identity",
        "--grant",
        root / "grant.jwt",
    ]
    ask += ["--dataset", "planes", "--state", root / "jobs"]
    code, shown, _ = run(capsys, *ask, "seats >= 20", "--key", "N3", "--key", "N30", "--key", "X")
    assert code == 0
    assert [line.split()[-1] for line in shown.splitlines() if line.split()[:1] in (["N3"], ["N30"], ["X"])] == [
        "mismatch", "match", "record",
    ]  # fmt: skip
    private = ["--check", root / "check", "--auditor", root / "auditor/identity/certificate.pem"]
    private += ["--proofs", root / "proofs", "--key", "N30", "--json"]
    code, shown, _ = run(capsys, *ask, "seats >= 20", *private)
    assert code == 0 and json.loads(shown)["operation"] == "verify.private.v1"
    assert json.loads(shown)["answers"] == ["match"]
    [document] = (root / "proofs").iterdir()
    proof = ["verify", "proof", document, "--holder", root / "registry/identity/certificate.pem", "--json"]
    code, shown, _ = run(capsys, *proof)
    assert code == 0 and json.loads(shown)["answer"] == "match"
    code, _, _ = run(capsys, *proof[:-2], root / "auditor/identity/certificate.pem")
    assert code == 4

    claims = ["--match", "seats", "--rows", root / "claims.parquet", "--on", "tail=tailnum", "--json"]
    code, shown, _ = run(capsys, *ask, *claims)
    assert code == 0 and json.loads(shown)["answers"] == ["match", "mismatch"]


def test_what_does_not_fit_is_refused_with_the_reason(space, capsys):
    root, url = space
    ask = [
        "verify",
        "ask",
        "--with",
        url,
        "--identity",
        root / "airline/identity",
        "--grant",
        root / "grant.jwt",
    ]
    ask += ["--dataset", "planes", "--state", root / "jobs"]
    for arguments, code, reason in (
        (["seats >= 30", "--key", "N3"], 2, "it answers"),
        (["seats >= 20"], 2, "keys="),
        (["seats >= 20", "--key", "N3", "--mode", "private"], 2, "auditor"),
        (["seats >= 20", "--key", "N3", "--check", root / "check"], 2, "--auditor"),
    ):
        found, _, complaint = run(capsys, *ask, *arguments)
        assert (found, reason in complaint) == (code, True), complaint
    assert run(capsys, "verify", "describe", root)[0] == 7
    (root / "empty.toml").write_text('identity = "registry/identity"\nbook = "book"\n')
    assert run(capsys, "verify", "build", root / "empty.toml")[0] == 2
