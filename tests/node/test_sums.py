"""Intersection-sums over a node: equal to plain sums, charged, refused, gone on with, and on the command line."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
import world as worlds

from trustcompute import psi
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import Bounds, Limit
from trustcompute.cli import main
from trustcompute.cli.settings import load_settings
from trustcompute.errors import (
    JobForfeited,
    JobInterrupted,
    ParameterError,
    Refused,
    TableError,
    TrustcomputeError,
)
from trustcompute.node import Dataset, Node, Summable
from trustcompute.primitives.identity import CertificateAuthority, Identity
from trustcompute.psi.sums.operation import ID

PLANES = pa.table(
    {
        "tailnum": [f"N{i}" for i in range(40)] + ["N1", None],
        "seats": [*range(40), 100, 100],
        "maker": ["A", "B"] * 21,
    }
)
OURS = pa.table({"tail": ["N1", "N39", "N1", None, "X1", "N7", *[f"N{i}" for i in range(20, 30)]]})
MATCHED = [1, 39, 7, *range(20, 30)]
WANTED = sum(MATCHED) + 100
SUMS = Summable({"seats": psi.Bounds(0, 500)}, {"maker": ["A", "B", "C"]}, min_group=4)
ON = {"on": {"tail": "tailnum"}, "values": ["seats"]}
OPERATIONS = {ID: Bounds(min_group=5)}


class World(worlds.World):
    """Planes may be added up."""

    def start(self):
        self.broker = Broker.open(self.directory / "book", worlds.REGISTRY, clock=self.clock)
        dataset = Dataset(
            "planes",
            PLANES,
            version="2013",
            keys=["tailnum"],
            sums=SUMS,
            limits={"rho": Limit(total=10**12)},
        )
        self.node = Node(worlds.REGISTRY, self.broker, [dataset], on_result=self.results.append)


@pytest.fixture
def summable(tmp_path):
    made = World(tmp_path, operations=OPERATIONS)
    yield made
    made.stop()


def ask(session, **options):
    found = session.intersect_sum("planes", OURS, **(ON | options))
    assert found.receipt
    return found


def test_equal_to_plain_sums_and_charged_once(summable):
    session = summable.session()
    quoted = session.quote_sum("planes", rows=14, **ON)
    found = ask(session)
    assert (found.count, found.sum("seats")) == (13, WANTED)
    assert found.terms.min_group == 5, "the least that is granted"
    receipt = found.receipt.verify(session.log_key)
    assert dict(receipt.fields["usage"]) == dict(quoted.usage)
    assert summable.results[-1].output.count == 13
    assert summable.types()[-2:] == ["job.posted", "job.countersigned"]
    summable.check()


def test_groups_that_are_too_small_are_left_out(summable):
    found = ask(summable.session(), by="maker", min_group=7)
    by_maker = {"A": [i for i in MATCHED if i % 2 == 0], "B": [i for i in MATCHED if i % 2]}
    assert len(by_maker["A"]) == 5 and found.left_out == ("A", "C")
    assert found.to_arrow().to_pydict() == {
        "maker": ["A", "B", "C"],
        "count": [None, 8, None],
        "sum_seats": [None, sum(by_maker["B"]), None],
    }
    assert summable.results[-1].output.groups == (6, 8, 0), "N1 has a row in either group"


def test_too_few_keys_are_refused_charged_and_told_nothing(summable):
    with pytest.raises(Refused, match="not even how many") as refused, summable.session() as session:
        ask(session, min_group=14)
    assert refused.value.rule == "min_group" and "13" not in str(refused.value)
    assert summable.types()[-2:] == ["job.posted", "job.countersigned"]
    assert not summable.node._jobs or all(job.ended for job in summable.node._jobs.values())


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"min_group": 4}, Refused, "min_group"),
        ({"values": ["tailnum"]}, ParameterError, "not offered"),
        ({"by": "seats"}, ParameterError, "not offered"),
        ({"values": []}, ParameterError, "names values"),
        ({"noise": psi.Noise(epsilon="1")}, Refused, "epsilon"),
        ({"by": "maker", "noise": psi.Noise(rho="0.1")}, ParameterError, "several groups"),
    ],
)
def test_what_is_not_offered_is_refused_and_costs_nothing(summable, options, error, says):
    with pytest.raises(error, match=says):
        ask(summable.session(), **options)
    assert "job.posted" not in summable.types()
    assert int(summable.session().quote_sum("planes", rows=1, **ON).left["calls"]["total"]) == 10


def test_bounds_of_ones_own_are_refused(summable):
    session = summable.session()
    terms = psi.sums.terms.Terms({"seats": psi.Bounds(0, 20)}, None, 5)
    with pytest.raises(ParameterError, match="from the catalogue"):
        session.quote(ID, "planes", rows=5, columns=["tailnum"], **terms.to_document())


def test_columns_are_bounded_by_the_grant(summable):
    grant = summable.issue(operations={ID: Bounds(columns=["tailnum"], min_group=5)})
    with pytest.raises(Refused, match="columns"):
        ask(summable.session(grant=grant))
    grant = summable.issue(operations={ID: Bounds(columns=["tailnum", "seats"], min_group=5)})
    assert ask(summable.session(grant=grant)).count == 13
    with pytest.raises(Refused, match="output"):
        ask(summable.session(grant=summable.issue(operations=OPERATIONS, outputs=["count"])))


def test_noise_is_charged_to_grant_and_dataset(summable):
    noise = psi.Noise(rho="0.6")
    found = ask(summable.session(), noise=noise)
    assert abs(found.sum("seats") - WANTED) < 12 * 500
    fields = found.receipt.verify(summable.session().log_key).fields
    assert int(fields["usage"]["rho"]) == 600_000_000_000
    with pytest.raises(Refused, match="quota"):
        ask(summable.session(), noise=noise)


@pytest.mark.fault
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "cut answer", "repeat"])
def test_any_exchange_that_gets_lost_is_made_up_for(summable, number, fault):
    found = ask(summable.session(plan={number: fault}))
    assert found.sum("seats") == WANTED
    assert summable.types().count("job.posted") == 1
    summable.check()


@pytest.mark.fault
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("fault", ["flip request", "flip answer"])
def test_an_altered_message_gives_no_wrong_sum(summable, number, fault):
    """Two points or ciphertexts of a byte's difference: refused, or nothing matches, or the sum is none that can be."""
    with pytest.raises(TrustcomputeError):
        ask(summable.session(plan={number: fault}), min_group=13)
    summable.check()


@pytest.mark.fault
def test_a_node_that_dies_between_its_answers_says_that_the_job_is_spent(summable):
    def kill(number):
        if not done and "job.posted" in summable.types():
            done.append(True)
            summable.restart()
            session.channel.channel = summable.channel()

    done = []
    session = summable.session(before=kill, state=summable.directory / "jobs")
    with pytest.raises((JobForfeited, JobInterrupted)) as failed:
        ask(session)
    assert done
    again = summable.session(state=summable.directory / "jobs")
    with pytest.raises(JobForfeited, match="start a new one"):
        ask(again, job=failed.value.job)
    assert "incident" not in " ".join(summable.types())
    assert ask(summable.session()).sum("seats") == WANTED


def test_a_dataset_whose_values_are_out_of_bounds_is_not_offered(tmp_path):
    broker = Broker.open(tmp_path / "book", worlds.REGISTRY)
    offered = {"version": "1", "keys": ["tailnum"]}
    for sums, error in (
        (Summable({"seats": psi.Bounds(0, 99)}), TableError),
        (Summable({"maker": psi.Bounds(0, 99)}), TableError),
        (Summable({"none": psi.Bounds(0, 99)}), TableError),
        (Summable({}, {"seats": ["A"]}), TableError),
    ):
        with pytest.raises(error):
            Node(worlds.REGISTRY, broker, [Dataset("planes", PLANES, sums=sums, **offered)])
    with pytest.raises(ParameterError, match="stored"):
        Node(
            worlds.REGISTRY,
            broker,
            [Dataset("planes", PLANES, sums=SUMS, stored=tmp_path / "digests", **offered)],
        )
    with pytest.raises(ParameterError):
        Summable({})
    broker.close()


SETTINGS = """
identity = "registry"
book = "book"

[[dataset]]
id = "planes"
source = "planes.parquet"
version = "1"
keys = ["tailnum"]

[dataset.sums]
min_group = 3
values = {seats = {low = 0, high = "500"}}
by = {maker = ["A", "B"]}

[dataset.limits.rho]
total = 1_000_000_000_000
"""


@pytest.fixture
def served(tmp_path, monkeypatch):
    pytest.importorskip("typer")
    monkeypatch.chdir(tmp_path)
    pa.parquet.write_table(PLANES, "planes.parquet")
    with (tmp_path / "ours.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["tail"], *[[f"N{i}"] for i in MATCHED]])
    authority = CertificateAuthority.create("sky")
    for name in ("registry", "airline"):
        authority.issue(f"{name}.example").save(tmp_path / name)
    (tmp_path / "plan.txt").write_text("stop")
    (tmp_path / "node.toml").write_text(SETTINGS)
    issue = ["grant", "issue", "--identity", "registry", "--to", "airline/certificate.pem"]
    issue += ["--dataset", "planes", "--purpose", "study", "--plan", "plan.txt", "--out", "grant.txt"]
    assert main([*issue, "--operation", ID, "--output", "aggregate"]) == 0
    identity = Identity.load(tmp_path / "registry")
    with (
        Broker.open(tmp_path / "book", identity) as broker,
        Node(identity, broker, load_settings(tmp_path / "node.toml").datasets()) as node,
        node.serve() as server,
    ):
        yield ["--with", server.url, "--identity", "airline", "--grant", "grant.txt", "--dataset", "planes"]


def test_on_the_command_line(served, tmp_path, capsys):
    asked = ["sum", "ours.csv", *served, "--on", "tail=tailnum", "--value", "seats"]
    capsys.readouterr()
    assert main([*asked, "--quote", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["usage"]["rows"] == 13
    assert main([*asked, "--by", "maker", "--json", "--out", "answer.csv"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["count"] == 13 and [row["count"] for row in answer["answer"]] == [6, 8]
    assert (tmp_path / "answer.csv").read_text().startswith('"maker","count","sum_seats"')
    assert (tmp_path / answer["receipt"]).exists()
    assert main(asked) == 0
    assert f"{WANTED:,}" in capsys.readouterr().out
    assert main([*asked, "--min-group", "14"]) == 3
    assert "min_group" in capsys.readouterr().err
    assert main([*asked, "--rho", "2"]) == 3
    assert main([*asked, "--rho", "1", "--epsilon", "1"]) == 2
    assert main([*asked, "--out", "answer.txt"]) == 2
