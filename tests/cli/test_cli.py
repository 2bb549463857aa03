"""The command line: what a person sees when things go wrong, and exit codes that mean something."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trustcompute import errors
from trustcompute.broker.audit import read_log
from trustcompute.broker.broker import Broker
from trustcompute.cli import main
from trustcompute.cli.app import EXIT_CODES, exit_code
from trustcompute.primitives.identity import Identity

NODE = """
identity = "identity"
book = "book"
listen = "127.0.0.1:0"
results = "results"

[[dataset]]
id = "planes"
source = "planes.parquet"
version = "2013"
keys = ["tailnum"]
labels = {seats = 8}
"""


TO_AIRLINE = ["--identity", "registry/identity", "--to", "airline/identity/certificate.pem"]
TO_AIRLINE += ["--dataset", "planes", "--purpose", "check", "--plan", "plan.md"]


def run(capsys, *arguments):
    """(exit code, what was printed, what was complained about)."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """A registry's node in a process of its own, an airline's identity, and grants."""
    root = tmp_path_factory.mktemp("space")
    command = [sys.executable, "-m", "trustcompute"]

    def do(*arguments):
        subprocess.run([*command, *arguments], cwd=root, check=True, capture_output=True)

    do("identity", "authority", "authority")
    do("identity", "create", "registry/identity", "--name", "registry.example", "--authority", "authority")
    do("identity", "create", "airline/identity", "--name", "airline.example", "--authority", "authority")
    (root / "registry/node.toml").write_text(NODE)
    (root / "plan.md").write_text("revoke")
    planes = pa.table({"tailnum": [f"N{i}" for i in range(20)], "seats": range(20)})
    pq.write_table(planes, root / "registry/planes.parquet")
    pq.write_table(
        pa.table({"tail": ["N1", "N5", "X1", None], "n": [1, 2, 3, 4]}), root / "airline/flights.parquet"
    )
    do("identity", "create", "partner/identity", "--name", "partner.example", "--authority", "authority")
    issue = ["grant", "issue", *TO_AIRLINE, "--output", "matched_ids"]
    do(*issue, "--limit", "calls=50", "--out", "grant.jwt")
    do(*issue, "--limit", "calls=0", "--out", "spent.jwt")
    do(*issue, "--output", "matched_labels", "--operation", "psi.vole.v1", "--out", "labels.jwt")
    do(*issue, "--operation", "psi.vole.v1", "--out", "ids.jwt")
    do(*issue, "--limit", "calls=5", "--depth", "2", "--out", "parent.jwt")
    do(*issue, "--days", "1", "--node", "other.example", "--out", "other.jwt")
    with (root / "node.log").open("wb") as log:
        node = subprocess.Popen(
            [*command, "node", "registry/node.toml", "--ready-file", "url"], cwd=root, stderr=log
        )
    while not (root / "url").exists():
        assert node.poll() is None, (root / "node.log").read_text()
        time.sleep(0.05)
    yield root
    node.send_signal(signal.SIGTERM)
    assert node.wait(timeout=30) == 0


@pytest.fixture
def asking(space, monkeypatch):
    """In the space's directory, the options by which the airline asks."""
    monkeypatch.chdir(space)
    url = Path("url").read_text()
    return ["--with", url, "--identity", "airline/identity", "--grant", "grant.jwt"]


def intersect(asking, **changes):
    options = {"--dataset": "planes", "--on": "tail=tailnum", "--state": "jobs"} | changes
    return [
        "intersect",
        "airline/flights.parquet",
        *asking,
        *(str(part) for pair in options.items() for part in pair),
    ]


def test_ask_quote_intersect_verify(asking, capsys):
    code, printed, _ = run(capsys, "catalog", *asking)
    assert code == 0
    assert "registry.example" in printed and "tailnum" in printed and "N1" not in printed
    code, printed, _ = run(capsys, "quote", *asking, "--dataset", "planes", "--rows", "3", "--json")
    assert code == 0
    assert json.loads(printed)["usage"]["rows"] == 3
    code, printed, _ = run(capsys, *intersect(asking, **{"--out": "matched.csv"}), "--json")
    assert code == 0
    found = json.loads(printed)
    assert (found["count"], found["rows"]) == (2, 2)
    assert Path("matched.csv").read_text().splitlines()[1:] == ['"N1",1', '"N5",2']
    code, printed, _ = run(capsys, "receipt", "verify", found["receipt"], "--grant", "grant.jwt")
    assert code == 0
    assert "verified" in printed and "job.posted" in printed
    code, _, complaint = run(capsys, "receipt", "verify", found["receipt"], "--grant", "spent.jwt")
    assert (code, "not for this grant" in complaint) == (4, True)


def test_text_output_says_who_learnt_what_and_the_provider_gets_its_file(asking, capsys):
    code, printed, _ = run(capsys, *intersect(asking, **{"--reveal": "both"}))
    assert code == 0
    assert "they learnt" in printed and "2 of 4" in printed
    results = list(Path("registry/results").glob("*.parquet"))
    assert pq.read_table(results[0]).column("row").to_pylist() == [1, 5]
    code, printed, _ = run(capsys, *intersect(asking, **{"--reveal": "provider", "--out": "none.csv"}))
    assert (code, "not revealed to us" in printed) == (0, True)
    assert not Path("none.csv").exists()


def test_matched_keys_are_numbered(asking, capsys):
    options = {"--reveal": "both", "--out": "numbered.parquet", "--ids": "place"}
    assert run(capsys, *intersect(asking, **options))[0] == 0
    numbered = pq.read_table("numbered.parquet").to_pydict()
    assert numbered["tail"] == ["N1", "N5"]
    assert sorted(numbered["place"]) == [0, 1]


def test_labels_stand_beside_the_rows(asking, capsys):
    options = {"--label": "seats", "--out": "labelled.parquet", "--grant": "labels.jwt"}
    code, printed, _ = run(capsys, *intersect(asking, **options))
    assert (code, "of keys that match also seats" in printed) == (0, True)
    assert pq.read_table("labelled.parquet").to_pylist() == [
        {"tail": "N1", "n": 1, "seats": 1},
        {"tail": "N5", "n": 2, "seats": 5},
    ]


WRONG = [
    ({"--label": "seats", "--grant": "ids.jwt"}, 3, "output"),
    ({"--label": "wings", "--grant": "labels.jwt"}, 2, "offers no label"),
    ({"--ids": "place", "--out": "o.csv"}, 2, "--reveal both"),
    ({"--ids": "tail", "--out": "o.csv", "--reveal": "both"}, 2, "already"),
    ({"--on": "wing=tailnum"}, 2, "wing"),
    ({"--on": "n=tailnum"}, 2, "integer"),
    ({"--on": "tail=seats"}, 2, "matched on"),
    ({"--dataset": "plains"}, 2, "planes"),
    ({"--output": "pairs"}, 2, "rows"),
    ({"--reveal": "nobody"}, 2, "consumer"),
    ({"--out": "result.xlsx"}, 2, ".parquet"),
    ({"--out": "no/such/folder/x.csv"}, 2, "no/such/folder"),
    ({"--out": "plan.md/x.csv"}, 2, "plan.md"),
    ({"--purpose": "marketing"}, 3, "purpose"),
    ({"--output": "count"}, 3, "output"),
    ({"--grant": "spent.jwt"}, 3, "calls"),
    ({"--grant": "missing.jwt"}, 2, "missing.jwt"),
    ({"--grant": "plan.md"}, 4, "token"),
    ({"--grant": "other.jwt"}, 5, "cannot talk"),
    ({"--identity": "nowhere"}, 2, "nowhere"),
    ({"--identity": "registry/identity"}, 4, "grant"),
    ({"--with": "grpc+tls://127.0.0.1:1"}, 5, "not running"),
    ({"--with": "http://127.0.0.1"}, 5, "grpc+tls"),
    ({"--job": "0" * 32}, 2, "no job"),
    ({"--state": "plan.md"}, 7, "plan.md"),
]


@pytest.mark.parametrize(("changes", "code", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_what_goes_wrong_is_said_in_words_with_an_exit_code(asking, capsys, changes, code, says):
    found, printed, complaint = run(capsys, *intersect(asking, **changes))
    assert (found, printed) == (code, ""), complaint
    assert says in complaint.replace("\n", " ")
    assert "Traceback" not in complaint


def test_errors_as_json_have_their_fields(asking, capsys):
    code, printed, _ = run(capsys, *intersect(asking, **{"--purpose": "marketing"}), "--json")
    error = json.loads(printed)["error"]
    assert (code, error["code"], error["rule"]) == (3, "refused", "purpose")
    assert error["fix"] and error["owner"]


def test_missing_tables_and_files(asking, capsys):
    for arguments, says in [
        (["intersect", "none.parquet", *intersect(asking)[2:]], "none.parquet"),
        (["receipt", "verify", "none.json"], "none"),
        (["receipt", "verify", "grant.jwt", "--key", "airline/identity/certificate.pem"], "JSON"),
        (["log", "audit", "nowhere", "--key", "registry/identity/certificate.pem"], "nowhere"),
        (["node", "none.toml"], "none.toml"),
        (["node", "plan.md"], "TOML"),
        (["statement", "none.toml"], "none.toml"),
        (["grant", "show", "plan.md"], "token"),
        (["identity", "show", "nowhere"], "nowhere"),
        (
            ["identity", "create", "airline/identity", "--name", "x.example", "--authority", "authority"],
            "already",
        ),
        (["identity", "create", "new", "--name", "Not A Name", "--authority", "authority"], "DNS name"),
        (["intersect"], "Missing"),
        (["nonsense"], "nonsense"),
    ]:
        code, _, complaint = run(capsys, *arguments)
        assert code in (2, 4), (arguments, complaint)
        assert says in complaint, (arguments, complaint)
        assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--split", "a=1/2"], "sum to exactly 1"),
        (["--split", "a"], "share"),
        (["--limit", "calls"], "UNIT=TOTAL"),
        (["--limit", "miles=3"], "calls"),
        (["--output", "raw_rows"], "matched_ids"),
        (["--per-call", "1.5e3"], "decimal"),
        (["--currency", "dollars"], "currency"),
        (["--grade", "secret"], "grade"),
        (["--days", "0"], "end"),
        (["--limit", "calls=1", "--limit", "calls=5"], "twice"),
    ],
)
def test_grants_that_make_no_sense_are_not_signed(asking, capsys, options, says):
    issue = [
        "grant",
        "issue",
        *TO_AIRLINE,
        "--out",
        "bad.jwt",
        "--currency",
        "USD",
    ]
    code, _, complaint = run(capsys, *issue, *options)
    assert (code, says in complaint) == (2, True), complaint
    assert not Path("bad.jwt").exists()


def test_a_price_needs_a_currency(asking, capsys):
    issue = [
        "grant",
        "issue",
        *TO_AIRLINE,
        "--out",
        "bad.jwt",
        "--per-call",
        "5",
    ]
    code, _, complaint = run(capsys, *issue)
    assert (code, "currency" in complaint) == (2, True)


def test_a_table_that_a_csv_cannot_hold_is_refused_before_anything_is_spent(asking, capsys):
    pq.write_table(pa.table({"tail": ["N1"], "list": [[1, 2]]}), "nested.parquet")
    arguments = intersect(asking, **{"--out": "nested.csv"})
    before = run(capsys, "quote", *asking, "--dataset", "planes", "--rows", "1", "--json")[1]
    code, _, complaint = run(capsys, arguments[0], "nested.parquet", *arguments[2:])
    assert (code, "cannot hold" in complaint) == (2, True)
    assert run(capsys, "quote", *asking, "--dataset", "planes", "--rows", "1", "--json")[1] == before
    assert not list(Path().glob("nested.csv*"))


def test_a_running_nodes_book_cannot_be_written_by_another_process(asking, capsys):
    code, _, complaint = run(capsys, "statement", "registry/node.toml", "--close")
    assert code == 7
    assert "another process has the book" in complaint


def test_a_log_can_be_audited_while_the_node_runs(asking, capsys):
    code, printed, _ = run(
        capsys, "log", "audit", "registry/book", "--key", "registry/identity/certificate.pem", "--json"
    )
    assert code == 0
    assert json.loads(printed)["meter_compared"] is True
    code, _, _ = run(capsys, "log", "audit", "registry/book", "--key", "airline/identity/certificate.pem")
    assert code == 4


def test_grant_show_and_doctor(asking, capsys):
    code, printed, _ = run(capsys, "grant", "show", "grant.jwt", "--json")
    assert (code, json.loads(printed)["sub"]) == (0, "airline.example")
    code, printed, _ = run(capsys, "doctor", "--json")
    assert (code, json.loads(printed)["kernels"] in ("native", "portable", "reference")) == (0, True)
    code, printed, _ = run(capsys, "--version")
    assert (code, printed.strip()[:1].isdigit()) == (0, True)


DELEGATE = [
    "grant",
    "delegate",
    "parent.jwt",
    "--identity",
    "airline/identity",
    "--to",
    "partner/identity/certificate.pem",
    "--out",
    "child.jwt",
]


def test_a_grant_is_delegated_shown_and_used(asking, capsys):
    narrower = [
        "--limit",
        "calls=1",
        "--column",
        "tailnum",
        "--max-rows",
        "10",
        "--days",
        "2",
        "--depth",
        "1",
    ]
    code, printed, _ = run(capsys, *DELEGATE, *narrower)
    assert code == 0
    assert "partner.example" in printed and "1 calls" in printed and "10 keys a call" in printed
    code, printed, _ = run(capsys, "grant", "tree", "child.jwt")
    assert code == 0
    assert (
        printed.index("1 of 2")
        < printed.index("5 calls")
        < printed.index("2 of 2")
        < printed.index("1 calls")
    )
    assert "airline.example" in printed
    code, printed, _ = run(capsys, "grant", "tree", "child.jwt", "--json")
    root, child = json.loads(printed)
    assert (code, child["claims"]["parent"], child["claims"]["depth"]) == (0, root["hash"], 1)
    chained = [*asking[:2], "--identity", "partner/identity", "--grant", "child.jwt"]
    code, printed, _ = run(capsys, *intersect(chained), "--json")
    assert (code, json.loads(printed)["count"]) == (0, 2)
    receipt = json.loads(printed)["receipt"]
    assert run(capsys, "receipt", "verify", receipt, "--grant", "child.jwt")[0] == 0
    assert run(capsys, "receipt", "verify", receipt, "--grant", "parent.jwt")[0] == 4
    code, _, complaint = run(capsys, *intersect(chained))
    assert (code, "quota" in complaint) == (3, True)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--limit", "calls=6"], 4, "more than its parent"),
        (["--purpose", "marketing"], 4, "more than its parent"),
        (["--operation", "dp.count.v1"], 4, "more than its parent"),
        (["--depth", "2"], 4, "depth must be below 2"),
        (["--right", "hold"], 4, "more than its parent"),
        (["--days", "99"], 4, "more than its parent"),
        (["--right", "own"], 2, "hold, process, operate"),
        (["--max-rows", "-1"], 2, "max_rows"),
        (["--limit", f"calls={10**30}"], 2, "total"),
        (["--identity", "partner/identity"], 4, "the key that its parent names"),
    ],
)
def test_a_delegation_beyond_the_parent_is_refused(asking, capsys, options, code, says):
    found, _, complaint = run(capsys, *DELEGATE, *options)
    assert (found, says in complaint) == (code, True), complaint


def test_a_grant_is_revoked_by_the_operator_while_the_node_is_stopped(asking, capsys):
    Path("registry/stopped.toml").write_text(NODE.replace('book = "book"', 'book = "stopped"'))
    assert run(capsys, *DELEGATE[:-1], "lost.jwt")[0] == 0
    chain = run(capsys, "grant", "tree", "lost.jwt", "--json")[1]
    names = [link["hash"] for link in json.loads(chain)]
    revoke = ["grant", "revoke", "lost.jwt", "--node", "registry/stopped.toml", "--reason", "over"]
    code, printed, _ = run(capsys, *revoke)
    assert (code, "partner.example" in printed) == (0, True)
    code, printed, _ = run(capsys, *revoke, "--link", "1")
    assert (code, "airline.example" in printed) == (0, True)
    revoked = [e.fields["grant"] for e in read_log(Path("registry/stopped")) if e.type == "grant.revoked"]
    assert revoked == [names[1], names[0]]
    assert run(capsys, *revoke, "--link", "3")[0] == 2
    code, _, complaint = run(capsys, "grant", "revoke", "lost.jwt", "--node", "registry/node.toml")
    assert (code, "--with URL" in complaint) == (2, True)  # it runs, at a port that its file does not tell
    assert run(capsys, "grant", "revoke", "other.jwt", "--node", "registry/stopped.toml")[0] == 2
    assert run(capsys, "grant", "revoke", "lost.jwt")[0] == 2


def test_orders_reach_a_running_node(asking, capsys):
    url = asking[asking.index("--with") + 1]
    assert run(capsys, *DELEGATE[:-1], "branch.jwt")[0] == 0
    explain = ["explain", "--with", url, "--identity", "partner/identity", "--grant", "branch.jwt"]
    explain += ["--dataset", "planes", "--rows", "3"]
    code, printed, _ = run(capsys, *explain)
    assert (code, printed.startswith("allowed"), "the purpose is granted" in printed) == (0, True, True)
    operator = ["--node", "registry/node.toml", "--with", url]
    issuer = ["--identity", "airline/identity", "--with", url]
    assert run(capsys, "grant", "suspend", "branch.jwt", *issuer, "--reason", "a doubt")[0] == 0
    code, printed, _ = run(
        capsys, *explain, "--params", '{"columns": ["tailnum"], "keys": "' + "0" * 64 + '"}', "--json"
    )
    refused = [each["rule"] for each in json.loads(printed)["verdicts"] if not each["allowed"]]
    assert (code, refused) == (0, ["suspended"])
    assert run(capsys, "grant", "suspend", "branch.jwt", *issuer)[0] == 6
    assert (
        run(capsys, "grant", "resume", "branch.jwt", "--identity", "partner/identity", "--with", url)[0] == 4
    )
    assert run(capsys, "grant", "resume", "branch.jwt", *operator)[0] == 0
    giving_up = run(
        capsys, "grant", "exit", "branch.jwt", "--identity", "partner/identity", "--with", url, "--json"
    )
    assert json.loads(giving_up[1])["order"] == "exit"
    assert run(capsys, "grant", "revoke", "branch.jwt", *issuer)[0] == 0
    code, _, complaint = run(capsys, *explain)
    assert (code, "revoked" in complaint) == (3, True)
    assert run(capsys, "grant", "review", "branch.jwt", *operator, "--until", "soon")[0] == 2


def test_a_preset_is_signed_shown_in_words_and_used(asking, capsys):
    made = ["grant", "new", "match-rows", *TO_AIRLINE, "--out", "preset.jwt", "--review", "30"]
    code, printed, _ = run(capsys, *made)
    assert (code, "which of the keys it brings are in the dataset" in printed) == (0, True)
    assert run(capsys, "grant", "explain", "preset.jwt")[1] == printed
    assert run(capsys, *intersect(asking, **{"--grant": "preset.jwt", "--out": "preset.csv"}))[0] == 0
    made[2] = "everything"
    assert run(capsys, *made)[0] == 2


def test_a_stopped_nodes_book_gets_a_new_key(asking, capsys):
    Path("registry/old.toml").write_text(NODE.replace('book = "book"', 'book = "turned"'))
    made = ["identity", "create", "registry/next", "--name", "registry.example", "--authority", "authority"]
    assert run(capsys, *made)[0] == 0
    shown = "statement", "registry/old.toml", "--start", "2026-01-01"
    assert run(capsys, *shown)[0] == 7, "who only looks makes no book"
    Broker.open(Path("registry/turned"), Identity.load("registry/identity")).close()
    assert run(capsys, *shown)[0] == 0
    code, printed, _ = run(capsys, "identity", "rotate", "registry/old.toml", "registry/next")
    assert (code, "new key" in printed) == (0, True)
    assert run(capsys, "identity", "rotate", "registry/old.toml", "registry/next")[0] == 7
    audit = ["log", "audit", "registry/turned", "--key", "registry/next/certificate.pem"]
    assert run(capsys, *audit)[0] == 0


LIST = """
kind = "denylist"
version = 1
purposes = ["spam"]
"""
POLICY = """
kind = "policy"
version = 1
consent = true
[grades.important]
operations = ["dp.*"]
per_call = { rho = 1_000_000_000 }
"""


def test_rules_are_signed_and_published_at_a_running_and_at_a_stopped_node(asking, capsys):
    url = asking[asking.index("--with") + 1]
    Path("registry/idle.toml").write_text(NODE.replace('book = "book"', 'book = "idle"'))
    for name, text in (("list", LIST), ("policy", POLICY)):
        Path(f"{name}.toml").write_text(text)
        made = run(
            capsys, "rules", "sign", f"{name}.toml", "--identity", "registry/identity", "--out", f"{name}.jwt"
        )
        assert made[0] == 0, made
        assert run(capsys, "rules", "publish", "registry/node.toml", f"{name}.jwt", "--with", url)[0] == 0
        code, printed, _ = run(capsys, "rules", "publish", "registry/idle.toml", f"{name}.jwt", "--json")
        assert (code, json.loads(printed)["version"]) == (0, 1)
    code, printed, _ = run(capsys, "rules", "show", "registry/node.toml")
    assert (code, "spam" in printed, "dp.*" in printed) == (0, True, True)
    code, printed, _ = run(capsys, "rules", "show", "registry/idle.toml", "--json")
    assert (code, [each["kind"] for each in json.loads(printed)]) == (0, ["denylist", "policy"])
    Path("list.toml").write_text(LIST + "unknown = 1\n")
    wrong = run(capsys, "rules", "sign", "list.toml", "--identity", "registry/identity", "--out", "x.jwt")
    assert (wrong[0], "unknown" in wrong[2]) == (2, True)
    Path("list.toml").write_text(LIST)
    run(
        capsys,
        "rules",
        "sign",
        "list.toml",
        "--identity",
        "airline/identity",
        "--node",
        "registry.example",
        "--out",
        "a.jwt",
    )
    code, _, complaint = run(capsys, "rules", "publish", "registry/idle.toml", "a.jwt")
    assert (code, "does not trust" in complaint) == (4, True)


def test_credit_is_lowered_and_repaired_at_a_running_and_at_a_stopped_node(asking, capsys):
    url = asking[asking.index("--with") + 1]
    Path("registry/idle.toml").write_text(NODE.replace('book = "book"', 'book = "idle"'))
    party = "p" * 43
    for file, more in (("registry/node.toml", ["--with", url]), ("registry/idle.toml", [])):
        why = ["--reason", "unpaid", *more, "--json"]
        lower = ["credit", "lower", file, party, "--percent", "50", "--limit", "rows.per_day=9"]
        code, printed, complaint = run(capsys, *lower, *why)
        assert code == 0, complaint
        made = json.loads(printed)
        assert made["ceiling"] == {"percent": 50, "limits": {"rows": {"per_day": 9}}}
        code, printed, _ = run(capsys, "credit", "show", file, "--json")
        assert (code, json.loads(printed)) == (0, [made])
        repair = ["credit", "repair", file, party, made["event"], *why]
        code, printed, complaint = run(capsys, *repair)
        assert (code, json.loads(printed or "{}").get("repaired")) == (0, made["event"]), complaint
        assert run(capsys, *repair)[0] == 6  # it is not open any more
        code, printed, _ = run(capsys, "credit", "show", file, "--json")
        assert (code, json.loads(printed)) == (0, [])
    for wrong in ([], ["--limit", "rows=9"], ["--limit", "miles.total=9"], ["--percent", "100"]):
        assert run(capsys, "credit", "lower", "registry/idle.toml", party, "--reason", "x", *wrong)[0] == 2


def test_every_error_has_an_exit_code():
    assert exit_code(errors.TrustcomputeError("x")) == 1
    assert {
        exit_code(kind("x", rule="", field="", owner="", fix="") if kind is errors.Refused else kind("x"))
        for kind, _ in EXIT_CODES
    } == {2, 3, 4, 5, 6, 7}


@pytest.mark.slow
def test_the_demo_runs_and_a_second_run_goes_on_with_it(tmp_path):
    for expected in ("thumbprint", "kept from the last run"):
        done = subprocess.run(
            [sys.executable, "-m", "trustcompute", "demo", "--keep", tmp_path / "demo"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        for says in (
            expected,
            "equal to the plain join",
            "'purpose'",
            "'quota'",
            "sum to zero",
            "equal to the meter",
        ):
            assert says in done.stdout, says


def test_a_paused_intersection_goes_on_and_a_given_up_one_does_not(asking, capsys, monkeypatch):
    from trustcompute.cli import files

    arguments = intersect(asking, **{"--out": "paused.csv", "--runs": "4"})
    code, _, complaint = run(capsys, *arguments, "--resume")
    assert (code, "nothing to go on with" in complaint) == (2, True)
    pauses = files._pausing

    @contextlib.contextmanager
    def paused():
        with pauses() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.is_set()
            yield stop

    with monkeypatch.context() as patch:
        patch.setattr(files, "_pausing", paused)
        code, _, complaint = run(capsys, *arguments)
    assert (code, "--resume" in complaint) == (5, True)
    code, printed, _ = run(capsys, *arguments, "--resume")
    assert code == 0
    assert "in 4 runs" in printed
    assert Path("paused.csv").read_text().splitlines()[1:] == ['"N1",1', '"N5",2']
    with monkeypatch.context() as patch:
        patch.setattr(files, "_pausing", paused)
        assert run(capsys, *arguments)[0] == 5
    keep = ["cancel", *arguments[1 : arguments.index("--out")]]
    assert run(capsys, *keep)[0] == 0
    assert run(capsys, *arguments, "--resume")[0] == 2
    code, _, complaint = run(capsys, *intersect(asking, **{"--runs": "4"}))
    assert (code, "--out" in complaint) == (2, True)


def test_what_is_left_is_said_in_hours_minutes_and_seconds():
    from trustcompute.cli.bars import left
    from trustcompute.tables.progress import Progress

    assert left(Progress("match", 1, 4, 100.0, 3700.4)) == "1:01:40 left"
    assert left(Progress("match", 0, 4, 100.0, None)) == ""
    assert left(Progress("match", 4, 4, 61.0, 0.0)) == "took 0:01:01"
