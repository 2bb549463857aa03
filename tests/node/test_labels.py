"""Labels over a node: offered by the holder, allowed by the grant, charged once, told of matched keys alone."""

from __future__ import annotations

import numpy as np
import pytest
from world import PLANES, REGISTRY

from trustcompute.broker.grant import Bounds
from trustcompute.errors import JobInterrupted, ParameterError, Refused, RemoteProtocolError, TableError
from trustcompute.node import Dataset, Node
from trustcompute.node import labels as node_labels
from trustcompute.node.documents import CatalogEntry
from trustcompute.protocol.operation import OutputForm

OPERATIONS = {"psi.vole.v1": Bounds(), "psi.ecdh.v1": Bounds()}


@pytest.fixture
def labelled(world):
    """The world, its dataset offering labels."""
    renew(world, {"seats": 8, "tailnum": 8})
    world.grant = world.issue(operations=OPERATIONS)
    return world


def renew(world, labels):
    world.node.close()
    dataset = Dataset("planes", PLANES, version="2013", keys=["tailnum", ["tailnum", "seats"]], labels=labels)
    world.node = Node(REGISTRY, world.broker, [dataset], on_result=world.results.append)


@pytest.mark.parametrize("reveal", ["consumer", "both"])
def test_matched_rows_come_with_their_labels(labelled, reveal):
    found = labelled.intersect(labels=["seats"], reveal=reveal)
    assert found.table().to_pylist() == [
        {"tail": "N1", "flight": 0, "seats": 1},
        {"tail": "N39", "flight": 1, "seats": 39},
        {"tail": "N1", "flight": 2, "seats": 1},
        {"tail": "N7", "flight": 5, "seats": 7},
    ]
    assert found.protocol == "psi.vole.v1"
    assert "of keys that match also seats" in found.leakage.consumer
    assert found.receipt.verify(labelled.broker.log_key).fields["job"] == found.job
    assert labelled.used() == 1
    labelled.check()
    assert labelled.intersect(labels="tailnum").table()["tailnum"].to_pylist() == ["N1", "N39", "N1", "N7"]


def test_the_catalogue_says_what_is_offered(labelled):
    entry = labelled.session().entry("planes")
    assert [(one.name, one.kind, one.width) for one in entry.labels] == [
        ("seats", "integer", 8),
        ("tailnum", "text", 8),
    ]
    with pytest.raises(ParameterError, match=r"offers no label 'rows'; it offers: 'seats'"):
        labelled.intersect(labels=["rows"])
    assert labelled.used() == 0


def test_none_are_offered_unless_the_holder_says_so(world):
    world.grant = world.issue(operations=OPERATIONS)
    with pytest.raises(ParameterError, match="it offers: none"):
        world.intersect(labels=["seats"])


@pytest.mark.parametrize(
    ("claims", "rule"),
    [
        ({"outputs": [OutputForm.MATCHED_IDS]}, "output"),
        ({"operations": {"psi.vole.v1": Bounds(columns=["tailnum"])}}, "columns"),
    ],
)
def test_the_grant_has_to_allow_them(labelled, claims, rule):
    labelled.grant = labelled.issue(**({"operations": OPERATIONS} | claims))
    with pytest.raises(Refused) as refused:
        labelled.intersect(labels=["seats"])
    assert rule in refused.value.rule
    assert labelled.intersect(protocol="psi.vole.v1").count == 3


def test_columns_that_the_grant_names_are_enough(labelled):
    labelled.grant = labelled.issue(operations={"psi.vole.v1": Bounds(columns=["tailnum", "seats"])})
    assert labelled.intersect(labels=["seats"]).count == 3


def test_values_that_do_not_fit_end_the_start(world):
    with pytest.raises(TableError, match="values of 3 bytes"):
        renew(world, {"tailnum": 2})
    with pytest.raises(TableError, match="no column"):
        renew(world, {"wings": 8})


def test_a_request_for_another_width_is_refused_before_anything_is_spent(labelled, monkeypatch):
    monkeypatch.setattr(node_labels, "row_bytes", lambda form: 9)
    params = {"labels": ["seats"], "label_bytes": 10}
    with pytest.raises(ParameterError, match="label_bytes"):
        labelled.session().quote("psi.vole.v1", "planes", rows=3, **params)
    assert labelled.used() == 0


@pytest.mark.fault
@pytest.mark.parametrize("turn", range(3))
@pytest.mark.parametrize("fault", ["lose answer", "repeat", "lose request", "cut answer"])
def test_a_line_that_breaks_changes_nothing(labelled, turn, fault):
    found = labelled.intersect(labelled.session(plan={turn: fault}), labels=["seats"])
    assert found.table()["seats"].to_pylist() == [1, 39, 1, 7]
    assert labelled.used() == 1


def test_a_job_goes_on_with_its_labels_in_another_session(labelled):

    state = labelled.directory / "jobs"
    with pytest.raises(JobInterrupted) as stopped:
        labelled.intersect(
            labelled.session(plan=dict.fromkeys(range(2, 9), "lose answer"), state=state), labels=["seats"]
        )
    found = labelled.intersect(labelled.session(state=state), labels=["seats"], job=stopped.value.job)
    assert found.table()["seats"].to_pylist() == [1, 39, 1, 7]
    assert labelled.used() == 1


def test_labels_that_cannot_be_read_are_the_peers_fault():
    form = node_labels.form_in(_entry("integer"), ["seats"])
    with pytest.raises(RemoteProtocolError, match="cannot read"):
        node_labels.received(np.full((1, 10), 7, np.uint8), form)
    with pytest.raises(RemoteProtocolError, match="cannot read"):
        node_labels.form_in(_entry("picture"), ["seats"])


def _entry(kind):

    return CatalogEntry(
        id="planes",
        version="1",
        classification="general",
        grade="general",
        personal=False,
        columns=[],
        keys=[],
        labels=[{"name": "seats", "kind": kind, "width": 8}],
    )
