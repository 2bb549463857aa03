"""``trustcompute log``: export, copy, back up, witness, from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from trustcompute.broker.broker import Broker
from trustcompute.broker.witness import HttpWitness, Quorum
from trustcompute.cli.app import main
from trustcompute.primitives.checkpoint import CosignerKey
from trustcompute.primitives.identity import CertificateAuthority, Identity

pytest.importorskip("typer")


@pytest.fixture
def node(tmp_path: Path) -> Any:
    authority = CertificateAuthority.create("Test")
    for name in ("node", "regulator"):
        authority.issue(f"{name}.example").save(tmp_path / name)
    identity = Identity.load(tmp_path / "node")
    with Broker.open(tmp_path / "book", identity) as broker:
        for n in range(3):
            broker.incident(f"x{n}", "peer")
        (tmp_path / "note").write_text(broker.checkpoint())
        yield broker


def run(capsys: Any, *arguments: object) -> dict[str, Any]:
    code = main([*map(str, arguments), "--json"])
    printed = json.loads(capsys.readouterr().out)
    return {"code": code, **printed}


def test_a_log_is_exported_copied_audited_and_backed_up_while_the_node_runs(
    node: Any, tmp_path: Path, capsys: Any
) -> None:
    key = ("--key", tmp_path / "node" / "certificate.pem")
    assert run(capsys, "log", "export", tmp_path / "book", tmp_path / "tiles")["entries"] == 4
    node.incident("x", "peer")
    assert run(capsys, "log", "export", tmp_path / "book", tmp_path / "tiles")["entries"] == 5
    assert run(capsys, "log", "mirror", tmp_path / "tiles", tmp_path / "copy", *key)["entries"] == 5
    known = ("--known", tmp_path / "note")
    for log in ("tiles", "copy", "book"):
        report = run(capsys, "log", "audit", tmp_path / log, *key, *known, "--processes", 1)
        assert (report["code"], report["entries"]) == (0, 5)
    tokens = run(capsys, "log", "audit", tmp_path / "book", *key, "--evidence")["tokens"]
    assert tokens == {"grants": 0, "requests": 0, "countersignatures": 0, "unknown": []}
    assert run(capsys, "log", "audit", tmp_path / "tiles", *key, "--evidence")["code"] == 7
    assert run(capsys, "log", "backup", tmp_path / "book", tmp_path / "saved")["code"] == 0
    assert run(capsys, "log", "audit", tmp_path / "saved", *key, *known)["entries"] == 5
    assert run(capsys, "log", "backup", tmp_path / "book", tmp_path / "saved")["code"] == 7

    bundle = tmp_path / "tiles" / "tile" / "entries" / "000.p" / "5"
    bundle.write_bytes(bundle.read_bytes().replace(b'"x1"', b'"y1"'))
    failed = run(capsys, "log", "audit", tmp_path / "tiles", *key)
    assert failed["code"] == 4 and "entry 2" in failed["error"]["message"]


def test_a_witness_runs_as_a_command(node: Any, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "trustcompute", "log", "witness", tmp_path / "seen"),
            *("--identity", tmp_path / "regulator", "--log", tmp_path / "node" / "certificate.pem"),
            *("--listen", "127.0.0.1:0", "--ready-file", ready),
        ],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))},
    )
    try:
        deadline = time.monotonic() + 60
        while not (ready.exists() and ready.read_text()) and time.monotonic() < deadline:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        key = CosignerKey("regulator.example/witness", Identity.load(tmp_path / "regulator").key.public)
        quorum = Quorum((key,), 1)
        cosigned = node.cosign([HttpWitness(ready.read_text(), key)], quorum)
        assert quorum.verify(cosigned, node.log_key).size == 4
        node.incident("x", "peer")
        assert (
            quorum.verify(node.cosign([HttpWitness(ready.read_text(), key)], quorum), node.log_key).size == 5
        )
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stderr.close()
